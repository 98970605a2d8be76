"""The seam of teachers: what they see, what they say, and how that becomes targets; knows no network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.supervision.targets import (
    RowTargets,
    first_from_cameras,
    points_on_rays,
    ray_map,
    row_targets,
)

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class View:
    """One image of a row, with what the data know about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        camera: intrinsics of the image, or None.
        world_from_camera: (4, 4), or None.
        depth_m: (h, w) measured or rendered z-depth, NaN or 0 = none; read by `ground_truth` only.
    """

    image: NDArray[np.uint8]
    camera: CameraModel | None = None
    world_from_camera: NDArray[np.float64] | None = None
    depth_m: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class TeacherOutput:
    """What a teacher says about the V images of a row, on grids that cover each image evenly.

    Attributes:
        depth: per image (h, w) float32 z-depth, NaN = none.
        cameras: per image the camera of its depth map, None where unknown.
        first_from_camera: (V, 4, 4) float64, in the unit of the depth; None where unknown.
        confidence: per image (h, w) float32, larger is surer, or None.
        features: per image (gh, gw, D) float32 last-layer features, or None.
        is_metric: lengths are metres; False: known up to one factor.
    """

    depth: tuple[NDArray[np.float32], ...]
    cameras: tuple[CameraModel | None, ...]
    first_from_camera: NDArray[np.float64] | None
    confidence: tuple[NDArray[np.float32], ...] | None = None
    features: tuple[NDArray[np.float32], ...] | None = None
    is_metric: bool = True

    @property
    def rays(self) -> tuple[NDArray[np.float32], ...]:
        """Per image (h, w, 6) [origin, direction] in the first camera's frame; NaN where unknown.

        Computed from the camera, as SpatialSV does (supplement A.1), whatever ray head a teacher has.
        """
        return tuple(self._rays(i) for i in range(len(self.depth)))

    @property
    def points(self) -> tuple[NDArray[np.float32], ...]:
        """Per image (h, w, 3) points in the first camera's frame; NaN where unknown."""
        return tuple(points_on_rays(d, r) for d, r in zip(self.depth, self.rays, strict=True))

    def _rays(self, i: int) -> NDArray[np.float32]:
        height, width = self.depth[i].shape
        camera = self.cameras[i]
        if camera is None or (self.first_from_camera is None and i > 0):
            return np.full((height, width, 6), np.nan, np.float32)
        pose = np.eye(4) if self.first_from_camera is None else self.first_from_camera[i]
        return ray_map(camera, pose, grid_h=height, grid_w=width)


class Teacher(Protocol):
    """Something that knows depth and cameras of images.

    Attributes:
        name: as in the registry.
        version: changes whenever the same weights would say something else (code, input size).
    """

    name: str
    version: str

    def weights_hash(self) -> str:
        """Hex digest of the weights; "" where there are none."""
        ...

    def predict(self, views: Sequence[View]) -> TeacherOutput:
        """Look at the images of one row together; the first camera gives the frame."""
        ...


def targets_of(output: TeacherOutput, *, grid_h: int, grid_w: int, drop_share: float = 0.0) -> RowTargets:
    """Targets of the heads from a teacher; `drop_share` leaves out the least sure cells of the row."""
    depth = output.depth
    if drop_share > 0.0 and output.confidence is not None:
        threshold = np.quantile(np.concatenate([c.ravel() for c in output.confidence]), drop_share)
        depth = tuple(
            np.where(c >= threshold, d, np.nan) for d, c in zip(depth, output.confidence, strict=True)
        )
    return row_targets(
        depth,
        output.cameras,
        output.first_from_camera,
        grid_h=grid_h,
        grid_w=grid_w,
        is_metric=output.is_metric,
    )


def known_poses(views: Sequence[View]) -> NDArray[np.float64] | None:
    """(V, 4, 4) first_from_camera of views that all have a pose, else None."""
    poses = [v.world_from_camera for v in views]
    if any(p is None for p in poses):
        return None
    return first_from_cameras(np.stack([p for p in poses if p is not None]))


def hash_of_weights(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all tensors of a module."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def published(name: str, weights: str, load: Callable[[str], Loaded]) -> Loaded:
    """What a package's own loader makes of weights.

    Raises:
        SpatialError: MODEL_MISSING when they are not there or are something else.
    """
    try:
        return load(weights)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise SpatialError(
            ErrorCode.MODEL_MISSING,
            f"the weights '{weights}' of teacher '{name}' cannot be loaded: "
            f"{one_line(str(error)) or type(error).__name__}",
        ) from None


def check_one_size(teacher: str, views: Sequence[View]) -> tuple[int, int]:
    """(width, height) of the images; multi-view networks take one size at a time.

    Raises:
        SpatialError: SIZE_MISMATCH.
    """
    sizes = {(v.image.shape[1], v.image.shape[0]) for v in views}
    if len(sizes) != 1:
        found = ", ".join(f"{w}x{h}" for w, h in sorted(sizes))
        raise SpatialError(
            ErrorCode.SIZE_MISMATCH,
            f"teacher '{teacher}' looks at the images of a row together and needs them in one size, "
            f"found {found or 'no image'} px",
        )
    return sizes.pop()
