"""Which way is up, in rooms whose floor is known."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.two_view.matching import centres
from spatial_mllm_core.two_view.upright import up_direction
from tests.core.two_view.conftest import looking, seen_by


def angle_deg(a, b):
    return np.degrees(np.arccos(np.clip(a @ b, -1, 1)))


@pytest.mark.parametrize(("yaw", "pitch", "roll"), [(0, -35, 0), (20, -25, 5), (-10, -60, -8)])
def test_the_floor_says_what_is_up(camera, yaw, pitch, roll):
    pose = looking((0.2, 0.1, 1.4), yaw, pitch, roll)
    in_world, _ = seen_by(camera, pose, centres(48, 64).astype(np.float64))
    points = (in_world - pose[:3, 3]) @ pose[:3, :3]
    rng = np.random.default_rng(0)
    noisy = points * rng.normal(1.0, 0.002, (len(points), 1))
    up = pose[:3, :3].T @ (0.0, 0.0, 1.0)
    assert angle_deg(up_direction(points.reshape(48, 64, 3)), up) < 1.0  # seams
    assert angle_deg(up_direction(noisy.reshape(48, 64, 3)), up) < 3.0


def test_a_view_of_a_wall_alone_is_taken_for_level():
    x, y = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-0.8, 0.8, 48))
    wall = np.stack([x, y, np.full_like(x, 2.0)], axis=-1)
    assert up_direction(wall).tolist() == [0.0, -1.0, 0.0]


@pytest.mark.parametrize("shape", [(1, 1), (6, 40), (7, 7)])
def test_a_map_that_is_too_small_is_taken_for_level(shape):
    assert up_direction(np.ones((*shape, 3))).tolist() == [0.0, -1.0, 0.0]


def test_holes_do_not_matter(camera):
    pose = looking((0.2, 0.1, 1.4), 0, -40)
    in_world, _ = seen_by(camera, pose, centres(48, 64).astype(np.float64))
    points = ((in_world - pose[:3, 3]) @ pose[:3, :3]).reshape(48, 64, 3)
    points[10:20, 30:50] = np.nan
    assert angle_deg(up_direction(points), pose[:3, :3].T @ (0.0, 0.0, 1.0)) < 1.0
