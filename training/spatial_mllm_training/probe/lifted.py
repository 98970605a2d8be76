"""Images lifted to 3D by a model's own head, beside the truth; the model is anything that perceives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model.spatial_model import Perception
from spatial_mllm_training.probe.errors import ImageError, image_error
from spatial_mllm_training.sources.posed_images import Place, PosedImage


class Lifter(Protocol):
    """A shipped bundle (`SpatialModel`) or a run's checkpoint (`VlmTaps`).

    Attributes:
        name: for reports.
    """

    @property
    def name(self) -> str: ...

    def perceive(self, frame: Frame) -> Perception:
        """Depth and confidence at the frame's size."""


@dataclass(frozen=True)
class Lifted:
    """One image with what was predicted and what is true; all of the image's size.

    Attributes:
        depth_m: (H, W) predicted z-depth.
        confidence: (H, W) in [0, 1].
        image.true_m: 0 = none.
        error, matched: None without a truth.
    """

    image: PosedImage
    depth_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    error: ImageError | None
    matched: ImageError | None

    @property
    def place(self) -> Place:
        return self.image.place


def lift(model: Lifter, images: Iterable[PosedImage]) -> Iterator[Lifted]:
    """Perceive one image after the other.

    Raises:
        SpatialError: a camera that cannot be used, or an output that is not finite.
    """
    for number, image in enumerate(images):
        frame = Frame(number + 1, "optical", np.ascontiguousarray(image.image_rgb), image.camera)
        seen = model.perceive(frame)
        yield Lifted(
            image,
            seen.depth_m,
            seen.confidence,
            image_error(seen.depth_m, image.true_m),
            image_error(seen.depth_m, image.true_m, matched=True),
        )
