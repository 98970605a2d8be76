"""Targets of the dense heads from depth, intrinsics and poses; knows neither models nor files.

SpatialSV eq. 8 and 9: d = R K^-1 [u, v, 1], not normalised, ray = [t, d], P = t + D d with z-depth D.
R and t are those of first_from_camera: everything stands in the optical frame of the row's first
camera, in metres where the depth is metric. NaN marks "no value" in all maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError


@dataclass(frozen=True)
class RowTargets:
    """Truth for the V images of one row on the heads' grid; NaN = none.

    Attributes:
        depth: (V, H, W) float32 z-depth.
        rays: (V, H, W, 6) float32 [origin, direction] in the first camera's frame.
        points: (V, H, W, 3) float32 in the first camera's frame.
        is_metric: lengths are metres; False: they are known up to one factor for the row.
        motion: (V, H, W, 3) float32 how far what the cells of the row's first image see has moved when this
            image is taken, along the axes of the first camera; None where nobody knows.
        matches: (V, h, w, 3) float32 where the cells of the row's first image, on a grid of its own, are in this
            image, in shares of its width and height, NaN = not seen, and whether they moved; None where nobody knows.
    """

    depth: NDArray[np.float32]
    rays: NDArray[np.float32]
    points: NDArray[np.float32]
    is_metric: bool = True
    motion: NDArray[np.float32] | None = None
    matches: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class DenseTargets:
    """Truth for N images of R rows.

    Attributes:
        depth: (N, H, W); rays: (N, H, W, 6); points: (N, H, W, 3), NaN = none.
        motion: (N, H, W, 3), or None where no head asks for it.
        row: (N,) int64, the row of each image; images of a row share their scale.
        is_metric: (R,) bool.
    """

    depth: Tensor
    rays: Tensor
    points: Tensor
    row: Tensor
    is_metric: Tensor
    motion: Tensor | None = None

    def to(self, device: torch.device | str) -> DenseTargets:
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(
            self, **{k: v.to(device, non_blocking=True) for k, v in known.items() if v is not None}
        )


def row_targets(
    depths: Sequence[NDArray[np.floating] | None],
    cameras: Sequence[CameraModel | None],
    world_from_camera: ArrayLike | None,
    *,
    grid_h: int,
    grid_w: int,
    is_metric: bool = True,
) -> RowTargets:
    """Targets of a row's images on a grid of grid_h x grid_w cells that covers each image evenly.

    An image without a camera gets depth only, an image without depth rays only. Without poses the
    first image alone has rays and points, as it is its own frame.

    Args:
        depths: (h, w) z-depth per image, NaN, infinity or <= 0 = none; any size of the camera's shape.
        cameras: of the images.
        world_from_camera: (4, 4) per image, any common world.

    Raises:
        SpatialError: SIZE_MISMATCH when depth and camera differ in shape.
    """
    count = len(depths)
    depth = np.full((count, grid_h, grid_w), np.nan, np.float32)
    rays = np.full((count, grid_h, grid_w, 6), np.nan, np.float32)
    poses = np.eye(4)[None] if world_from_camera is None else first_from_cameras(world_from_camera)
    for i, (image_depth, camera) in enumerate(zip(depths, cameras, strict=True)):
        if image_depth is not None:
            if camera is not None:
                _check_shape(image_depth, camera)
            depth[i] = nearest_depth(image_depth, grid_h=grid_h, grid_w=grid_w)
        if camera is None or (world_from_camera is None and i > 0):
            continue
        rays[i] = ray_map(camera, poses[i], grid_h=grid_h, grid_w=grid_w)
    return RowTargets(depth, rays, points_on_rays(depth, rays), is_metric)


def first_from_cameras(world_from_camera: ArrayLike) -> NDArray[np.float64]:
    """(V, 4, 4) poses in the first camera's frame; the first is exactly the identity."""
    poses = np.asarray(world_from_camera, np.float64)
    out = np.linalg.inv(poses[0]) @ poses
    out[0] = np.eye(4)
    return out


def ray_map(
    camera: CameraModel, first_from_camera: NDArray[np.floating], *, grid_h: int, grid_w: int
) -> NDArray[np.float32]:
    """(grid_h, grid_w, 6) float32 [origin, direction] at the cell centres (eq. 8); NaN where the lens ends."""
    u = camera.width / grid_w * (np.arange(grid_w) + 0.5) - 0.5
    v = camera.height / grid_h * (np.arange(grid_h) + 0.5) - 0.5
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    out = np.empty((grid_h * grid_w, 6), np.float32)
    out[:, :3] = first_from_camera[:3, 3]
    out[:, 3:] = camera.rays(pixels) @ first_from_camera[:3, :3].T
    return out.reshape(grid_h, grid_w, 6)


def points_on_rays(depth: NDArray[np.float32], rays: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) float32 P = t + D d (eq. 9) of z-depths (...) on rays (..., 6)."""
    return (rays[..., :3] + depth[..., None] * rays[..., 3:]).astype(np.float32)


def motion_map(
    depth: NDArray[np.floating],
    body: NDArray[np.integer],
    world_rays: NDArray[np.floating],
    *,
    world_from_body: tuple[NDArray[np.floating], NDArray[np.floating]],
    world_from_camera: NDArray[np.floating],
) -> NDArray[np.float32]:
    """(H, W, 3) metres: how far what a cell sees moves until a later moment, in the camera's axes.

    Args:
        depth: (H, W) z-depth, NaN = none, which stays.
        body: (H, W) index into the bodies.
        world_rays: (H, W, 6) `ray_map` of the camera's pose in the world.
        world_from_body: (B, 4, 4) at the image, and later.
        world_from_camera: (4, 4) pose of the camera at the image.
    """
    now, later = world_from_body
    points = (world_rays[..., :3] + depth[..., None] * world_rays[..., 3:]).astype(np.float64)
    onward = later @ np.linalg.inv(now)  # (B, 4, 4)
    moved = np.einsum("hwij,hwj->hwi", onward[body, :3, :3], points) + onward[body, :3, 3]
    return np.asarray((moved - points) @ world_from_camera[:3, :3], np.float32)


def nearest_depth(depth: NDArray[np.floating], *, grid_h: int, grid_w: int) -> NDArray[np.float32]:
    """(grid_h, grid_w) float32 sample nearest to each cell centre; never a mean over a depth edge."""
    height, width = depth.shape
    rows = ((np.arange(grid_h) + 0.5) * height / grid_h).astype(int)
    columns = ((np.arange(grid_w) + 0.5) * width / grid_w).astype(int)
    out = depth[rows[:, None], columns[None, :]].astype(np.float32)
    out[~(np.isfinite(out) & (out > 0))] = np.nan
    return out


def stack_rows(rows: Sequence[RowTargets]) -> DenseTargets:
    """Tensors of several rows, image after image."""
    index = [i for i, row in enumerate(rows) for _ in range(len(row.depth))]
    return DenseTargets(
        depth=torch.from_numpy(np.concatenate([r.depth for r in rows])),
        rays=torch.from_numpy(np.concatenate([r.rays for r in rows])),
        points=torch.from_numpy(np.concatenate([r.points for r in rows])),
        row=torch.tensor(index, dtype=torch.int64),
        is_metric=torch.tensor([r.is_metric for r in rows]),
    )


def _check_shape(depth: NDArray[np.floating], camera: CameraModel) -> None:
    height, width = depth.shape
    # one pixel of rounding per side is a resize, more is another image
    if abs(width * camera.height - height * camera.width) > max(camera.width, camera.height, width, height):
        raise SpatialError(
            ErrorCode.SIZE_MISMATCH,
            f"depth of {width}x{height} px does not have the shape of its camera's image of "
            f"{camera.width}x{camera.height} px",
        )
