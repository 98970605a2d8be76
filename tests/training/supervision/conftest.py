"""A row of two images of a slanted floor, shared by tests of this folder."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel


@pytest.fixture
def camera_row():
    """(depths, cameras, world_from_camera, (grid_h, grid_w)) of two views of the plane y = 1 + 0.2 z."""
    camera = CameraModel.from_fov(40, 32, hfov_rad=1.2)
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, :3, 3] = (0.3, -0.2, 0.1)
    v, u = np.mgrid[:32, :40]
    rays = camera.rays(np.stack([u, v], -1).reshape(-1, 2)).reshape(32, 40, 3)
    depths = []
    for pose in poses:
        with np.errstate(divide="ignore"):
            # origin.y + z ray.y = 1 + 0.2 (origin.z + z)
            z = (1 + 0.2 * pose[2, 3] - pose[1, 3]) / (rays[..., 1] - 0.2)
        depths.append(np.where((z > 0) & (z < 6), z, np.nan).astype(np.float32))
    return depths, [camera, camera], poses, (4, 5)
