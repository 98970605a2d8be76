"""How Depth-Anything-3 and VGGT write cameras, and how we do; pure functions on arrays (papers.md 7).

Theirs: extrinsics are camera_from_world ("w2c"), 3x4 or 4x4. Ours: first_from_camera. Pixels: ours
and VGGT's unprojection call the first pixel's centre 0; DA3 calls it 1/2, from the image's corner.
(VGGT puts every principal point at W / 2 all the same, half a pixel right of the middle.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.supervision.targets import first_from_cameras

_DA3_METRIC_FOCAL_PX = 300.0


def poses_from_extrinsics(camera_from_world: ArrayLike) -> NDArray[np.float64]:
    """(V, 4, 4) first_from_camera of (V, 3, 4) or (V, 4, 4) extrinsics."""
    world_from_camera = np.linalg.inv(_homogeneous(camera_from_world))
    return first_from_cameras(world_from_camera)


def extrinsics_from_poses(world_from_camera: ArrayLike) -> NDArray[np.float32]:
    """(V, 4, 4) camera_from_world, as they take it."""
    return np.linalg.inv(_homogeneous(world_from_camera)).astype(np.float32)


def camera_from_corner_k(k: ArrayLike, width: int, height: int) -> CameraModel:
    """Our camera of DA3's K for an image of width x height px."""
    ours = np.array(k, np.float64)
    ours[:2, 2] -= 0.5
    return CameraModel.from_k(ours, width, height)


def corner_k(camera: CameraModel) -> NDArray[np.float32]:
    """DA3's (3, 3) K of our camera; it knows no lens distortion."""
    theirs = camera.k.copy()
    theirs[:2, 2] += 0.5
    return theirs.astype(np.float32)


def rays_from_da3(rays: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 6) [direction, origin] of DA3's ray head as our [origin, direction]; both not normalised."""
    return np.concatenate([rays[..., 3:], rays[..., :3]], axis=-1).astype(np.float32)


def metres_from_da3_metric(depth: NDArray[np.floating], camera: CameraModel) -> NDArray[np.float32]:
    """Depth of the DA3METRIC checkpoints in metres: they answer as if f were 300 px (their README)."""
    return np.float32(0.5 * (camera.fx + camera.fy) / _DA3_METRIC_FOCAL_PX) * depth.astype(np.float32)


def _homogeneous(matrices: ArrayLike) -> NDArray[np.float64]:
    given = np.asarray(matrices, np.float64)
    out = np.tile(np.eye(4), (len(given), 1, 1))
    out[:, :3] = given[:, :3]
    return out
