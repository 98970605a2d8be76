"""A small simulated place: views of a textured slanted floor with depth, cameras and poses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.teachers import View


def _floor_view(camera: CameraModel, world_from_camera: np.ndarray) -> View:
    """What a camera sees of the plane z = 0 (world z up), a checkerboard of 0.4 m, and its z-depth."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = camera.rays(np.stack([u, v], -1).reshape(-1, 2)).reshape(camera.height, camera.width, 3)
    directions = rays @ world_from_camera[:3, :3].T
    with np.errstate(divide="ignore", invalid="ignore"):
        z = -world_from_camera[2, 3] / directions[..., 2]
    z = np.where((z > 0) & (z < 8), z, np.nan)
    at = world_from_camera[:3, 3] + np.nan_to_num(z)[..., None] * directions
    board = (np.floor(at[..., 0] / 0.4) + np.floor(at[..., 1] / 0.4)) % 2
    image = np.where(np.isnan(z), 120, 40 + 160 * board).astype(np.uint8)
    image = np.stack([image, image, np.clip(at[..., 2] * 9 + 90, 0, 255).astype(np.uint8)], -1)
    return View(image, camera, world_from_camera, z.astype(np.float32))


def _look(position, yaw_rad: float, pitch_rad: float) -> np.ndarray:
    """world_from_camera of an optical frame that looks along `yaw` and down by `pitch`."""
    optical = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # z forward = world x, y down = -world z
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zy", [yaw_rad, pitch_rad]).as_matrix() @ optical
    pose[:3, 3] = position
    return pose


@pytest.fixture
def floor_views():
    """floor_views(count, width, height): views from different places, all with the floor in sight."""

    def build(count: int = 3, width: int = 64, height: int = 48, hfov_rad: float = 1.1) -> list[View]:
        camera = CameraModel.from_fov(width, height, hfov_rad=hfov_rad)
        rng = np.random.default_rng(count)
        return [
            _floor_view(
                camera,
                _look(
                    (rng.uniform(-1, 1), rng.uniform(-1, 1), rng.uniform(0.8, 1.6)), rng.uniform(-1, 1), 0.7
                ),
            )
            for _ in range(count)
        ]

    return build
