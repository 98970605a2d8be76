"""Two cameras in a room of a floor and two walls, whose cells are told apart by where they lie."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.two_view.matching import centres
from spatial_mllm_core.two_view.view_pair import View

WIDTH, HEIGHT = 128, 96
GRID_H, GRID_W = 6, 8
CELLS_H, CELLS_W = 24, 32
# n . p = d in the world, z up: a floor, a wall ahead and one to the left
PLANES = (
    (np.array([0.0, 0.0, 1.0]), 0.0),
    (np.array([0.0, 1.0, 0.0]), 3.0),
    (np.array([1.0, 0.0, 0.0]), -1.5),
)
_RNG = np.random.default_rng(0)
_WAVES = _RNG.normal(0.0, 6.0, (3, 256))
_PHASES = _RNG.uniform(0.0, 2.0 * np.pi, 256)


def looking(position, yaw_deg, pitch_deg, roll_deg=0.0):
    """world_from_camera: at yaw 0 and pitch 0 it looks along world y, level."""
    level = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]])  # right, down, forward in columns
    turned = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix() @ level
    tilted = turned @ Rotation.from_euler("xz", [pitch_deg, roll_deg], degrees=True).as_matrix()
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = tilted, position
    return pose


def seen_by(camera, pose, places):
    """(N, 3) points of the room, in the world, and their z-depths."""
    rays = camera.rays(places * (camera.width, camera.height) - 0.5)
    directions = rays @ pose[:3, :3].T
    depths = []
    for normal, offset in PLANES:
        with np.errstate(divide="ignore"):
            depth = (offset - pose[:3, 3] @ normal) / (directions @ normal)
        depths.append(np.where(depth > 0.05, depth, np.inf))
    depth = np.min(depths, axis=0)
    return pose[:3, 3] + depth[:, None] * directions, depth


@pytest.fixture
def view_of():
    """A function (camera, pose, known=True) -> the view that a perfect model has of the room."""

    def make(camera, pose, *, known=True):
        points, _ = seen_by(camera, pose, centres(CELLS_H, CELLS_W).astype(np.float64))
        features = np.cos(points @ _WAVES + _PHASES) * np.sqrt(2.0 / 256 * 60.0)
        _, depth = seen_by(camera, pose, centres(48, 64).astype(np.float64))
        rays = np.asarray(camera.token_rays(GRID_W, GRID_H), np.float32)[..., :2] if known else None
        return View(
            features.reshape(CELLS_H, CELLS_W, -1).astype(np.float32),
            depth.reshape(48, 64).astype(np.float32),
            rays,
        )

    return make


@pytest.fixture
def camera():
    return CameraModel.from_fov(WIDTH, HEIGHT, hfov_rad=1.2)
