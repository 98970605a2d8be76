"""Scene points out of depth images: one measured point per voxel; knows neither scenes nor files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel

#: A depth step beyond the larger of these between 3x3 neighbours is an edge, where sensors invent points.
EDGE_M, EDGE_RELATIVE = 0.05, 0.04

_AXIS_BITS = 21  # three axes in one 64 bit key
_HALF_AXIS = 1 << (_AXIS_BITS - 1)


@dataclass(frozen=True)
class FusedPoints:
    """Measured points, at most one per voxel, in order of (frame, row, column).

    Attributes:
        points_m: (P, 3) float32 in the world.
        frame: (P,) int64 position of the measuring image in the sequence that was fused.
        row, column: (P,) int64 pixel of its depth image.
    """

    points_m: NDArray[np.float32]
    frame: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def fuse_depth(
    cameras: Iterable[CameraModel],
    world_from_camera: Iterable[NDArray[np.float64]],
    depths_m: Iterable[NDArray[np.float32]],
    *,
    voxel_m: float,
    max_points: int,
    max_depth_m: float,
) -> FusedPoints:
    """Fuse posed depth images into points that cover their surfaces evenly.

    A voxel keeps the first pixel that falls into it, so every point is a real measurement. When
    more than `max_points` voxels are hit, those with the smallest hashes stay: a fixed, even
    choice that does not favour early images. Images are read one at a time; memory grows with
    `max_points` and the size of one image, not with their number. Pixels at depth edges are not
    used, nor what lies 2^20 voxels or farther from the world's origin along an axis.

    Args:
        cameras: of the depth images (not of the colour images), one per image.
        world_from_camera: (4, 4) each.
        depths_m: (H, W) z-depth each; 0, NaN and infinity mean none.
        voxel_m: edge of a voxel of the world grid.
        max_depth_m: farther pixels are not used.

    Raises:
        ValueError: the three sequences differ in length.
    """
    voxels = _Voxels(max_points)
    for number, (camera, pose, depth) in enumerate(zip(cameras, world_from_camera, depths_m, strict=True)):
        depth_m = np.asarray(depth, dtype=np.float32)
        usable = (depth_m > 0) & (depth_m <= max_depth_m)
        if not usable.any():
            continue
        depth_m = np.where(usable, depth_m, np.float32(0))
        stride = _stride(camera, depth_m, voxel_m)
        start = stride // 2
        keep = ~depth_edges(depth_m, EDGE_M, EDGE_RELATIVE)[start::stride, start::stride]
        slopes = _slopes(camera, stride)[keep]
        keep_rows, keep_columns = np.nonzero(keep)
        rows, columns = keep_rows * stride + start, keep_columns * stride + start
        z = depth_m[rows, columns].astype(np.float64)
        in_camera = np.column_stack([slopes * z[:, None], z])
        points = in_camera @ pose[:3, :3].T + pose[:3, 3]
        found = np.isfinite(points).all(axis=1)  # a lens model may not reach every pixel
        points, pixels = points[found], (rows * depth_m.shape[1] + columns)[found]
        cells = np.floor(points / voxel_m).astype(np.int64)
        cells += _HALF_AXIS
        near = ((cells >= 0) & (cells < 2 * _HALF_AXIS)).all(axis=1)
        voxels.add(
            _hashed(cells[near]), points[near].astype(np.float32), number, depth_m.shape[1], pixels[near]
        )
    return voxels.fused()


def depth_edges(
    depth_m: NDArray[np.float32], edge_m: float, edge_relative: float, *, size: int = 3
) -> NDArray[np.bool_]:
    """(H, W) True where depth is missing or steps within the size x size neighbourhood.

    A step is a range of depths beyond max(edge_m, edge_relative * smallest depth around).

    Args:
        depth_m: (H, W) float32, 0 = none; nothing else that is not a depth.
    """
    kernel = np.ones((size, size), np.uint8)
    nearest = cv2.erode(depth_m, kernel)
    farthest = cv2.dilate(depth_m, kernel)
    return (nearest <= 0) | (farthest - nearest > np.maximum(edge_m, edge_relative * nearest))


class _Voxels:
    """The first measurement of each of the `limit` voxels with the smallest hashes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._hashes = np.zeros(0, np.uint64)  # sorted
        self._points = np.zeros((0, 3), np.float32)
        self._places = np.zeros((0, 3), np.int64)  # frame, row, column
        self._waiting: list[tuple[NDArray[np.uint64], NDArray[np.float32], NDArray[np.int64]]] = []
        self._waiting_count = 0

    def add(
        self,
        hashes: NDArray[np.uint64],
        points: NDArray[np.float32],
        frame: int,
        width: int,
        pixels: NDArray[np.int64],
    ) -> None:
        hashes, first = np.unique(hashes, return_index=True)
        if len(self._hashes):
            at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
            new = self._hashes[at] != hashes
            if len(self._hashes) == self._limit:
                new &= hashes < self._hashes[-1]
            hashes, first = hashes[new], first[new]
        rows, columns = np.divmod(pixels[first], width)
        places = np.column_stack([np.full(len(first), frame), rows, columns])
        self._waiting.append((hashes, points[first], places))
        self._waiting_count += len(first)
        if self._waiting_count > len(self._hashes) // 2:  # merged seldom enough to cost little a frame
            self._merge()

    def _merge(self) -> None:
        hashes, points, places = (
            np.concatenate(parts)
            for parts in zip((self._hashes, self._points, self._places), *self._waiting, strict=True)
        )
        self._hashes, first = np.unique(hashes, return_index=True)
        first = first[: self._limit]
        self._hashes, self._points, self._places = self._hashes[: self._limit], points[first], places[first]
        self._waiting, self._waiting_count = [], 0

    def fused(self) -> FusedPoints:
        self._merge()
        frame, row, column = self._places.T
        order = np.lexsort((column, row, frame))
        return FusedPoints(self._points[order], frame[order], row[order], column[order])


def _stride(camera: CameraModel, depth_m: NDArray[np.float32], voxel_m: float) -> int:
    """Step at which sampled pixels lie a voxel apart on the far surfaces of the image."""
    some = depth_m[::4, ::4] if min(depth_m.shape) >= 16 else depth_m
    some = some[some > 0]
    far_m = float(np.percentile(some, 90)) if some.size else float(depth_m.max())
    most = max(1, min(depth_m.shape) // 8)
    return int(np.clip(voxel_m * min(camera.fx, camera.fy) / far_m, 1, most))


@lru_cache(maxsize=8)
def _slopes(camera: CameraModel, stride: int) -> NDArray[np.float64]:
    """(h, w, 2) x/z and y/z of every stride-th pixel; kept because undoing a lens per image is slow."""
    v, u = np.mgrid[stride // 2 : camera.height : stride, stride // 2 : camera.width : stride]
    slopes = camera.rays(np.stack([u, v], axis=-1).reshape(-1, 2))[:, :2].reshape(*u.shape, 2)
    slopes.setflags(write=False)
    return slopes


def _hashed(cells: NDArray[np.int64]) -> NDArray[np.uint64]:
    """One number per voxel; voxel to number is one to one, and the order is as good as random.

    The finaliser of SplitMix64 (Steele, Lea, Flood 2014) on the packed indices.
    """
    x, y, z = cells.astype(np.uint64).T
    key = (x << np.uint64(2 * _AXIS_BITS)) | (y << np.uint64(_AXIS_BITS)) | z
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))
