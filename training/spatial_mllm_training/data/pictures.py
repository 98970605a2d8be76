"""Image files to what a model sees, with their cameras; knows no rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images.resize import resized
from spatial_mllm_training.data.packing import ShownImage
from spatial_mllm_training.model.preprocess import Framing, Processing, reframed, token_rays


@dataclass(frozen=True)
class Viewer:
    """What a model's processor does to images.

    Attributes:
        framing: (width, height) -> what happens to an image of this size.
        size: (width, height) every image is resampled to first; None: native.
        cells: of the dense heads per token and axis.
    """

    framing: Callable[[int, int], Framing]
    processing: Processing
    size: tuple[int, int] | None = None
    cells: int = 8

    def show(self, image: NDArray[np.uint8], camera: CameraModel | None) -> ShownImage:
        """An RGB image as the model takes it; K follows every step.

        Raises:
            SpatialError: SIZE_MISMATCH when K belongs to another size; BAD_DISTORTION.
        """
        if camera is not None and (camera.width, camera.height) != image.shape[1::-1]:
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH,
                f"the image has {image.shape[1]}x{image.shape[0]} px but its K is for "
                f"{camera.width}x{camera.height} px",
            )
        if self.size is not None and image.shape[1::-1] != self.size:
            image = resized(image, *self.size)
            camera = None if camera is None else camera.resized(*self.size)
        framing = self.framing(image.shape[1], image.shape[0])
        if framing.trailing_tokens:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                "packed prompts do not serve families with a newline token per image",
            )
        pixels = reframed(framing, self.processing, torch.from_numpy(np.ascontiguousarray(image)))
        rays = token_rays(framing, camera)
        return ShownImage(
            pixels.permute(1, 2, 0).numpy(),
            (framing.grid_height, framing.grid_width),
            rays.rays_N4,
            rays.has_camera,
        )


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) RGB.

    Raises:
        SpatialError: UNDECODABLE_IMAGE, naming the file.
    """
    found = cv2.imread(str(path), cv2.IMREAD_COLOR) if path.is_file() else None
    if found is None:
        why = "is not an image that opens" if path.exists() else "is not there"
        raise SpatialError(ErrorCode.UNDECODABLE_IMAGE, f"image '{path}' {why}")
    return cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
