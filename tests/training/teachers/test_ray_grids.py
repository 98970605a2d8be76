"""Rays on another grid are those of the camera, and nothing is made up where a lens bends them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.supervision.targets import ray_map
from spatial_mllm_training.teachers.ray_grids import directions_on_grid, pinhole_of, rays_on_grid

K = np.array([[310.0, 0, 290], [0, 275, 260], [0, 0, 1]])
GRIDS = [((6, 8), (9, 12)), ((9, 12), (6, 8)), ((2, 3), (5, 4)), ((1, 3), (4, 4))]


def camera(d=()):
    return CameraModel.from_k(K, 640, 480, d=list(d))


def token_rays(of, grid):
    return torch.from_numpy(np.array(of.token_rays(grid[1], grid[0]).reshape(1, -1, 4)))


def by_opencv(grid, d=()):
    """x/z and y/z at the token centres."""
    v, u = (np.arange(n) + 0.5 for n in grid)
    pixels = np.stack(np.meshgrid(u * 640 / grid[1] - 0.5, v * 480 / grid[0] - 0.5), -1)
    coefficients = np.array(d, np.float64) if d else None
    return cv2.undistortPoints(pixels.reshape(-1, 1, 2), K, coefficients).reshape(-1, 2)


@pytest.mark.parametrize(("grid", "wanted"), GRIDS)
def test_a_pinholes_rays_on_another_grid_are_opencvs(grid, wanted):
    rays, is_right = rays_on_grid(token_rays(camera(), grid), grid, wanted)
    assert is_right.all() and rays.dtype == torch.float32
    np.testing.assert_allclose(rays[0, :, :2], by_opencv(wanted), atol=1e-6)
    focal = np.log([K[0, 0] * wanted[1] / 640, K[1, 1] * wanted[0] / 480])
    np.testing.assert_allclose(rays[0, :, 2:], np.tile(focal, (len(rays[0]), 1)), atol=1e-6)


def test_a_lens_is_right_on_its_own_grid_alone():
    bent = token_rays(camera([-0.2, 0.05, 0.001, 0.0, 0.0]), (6, 8))
    both = torch.cat([bent, token_rays(camera(), (6, 8))])
    rays, is_right = rays_on_grid(both, (6, 8), (6, 8))
    assert is_right.all() and torch.equal(rays, both)
    _, is_right = rays_on_grid(both, (6, 8), (9, 12))
    assert is_right.tolist() == [False, True]
    directions = directions_on_grid(both, (6, 8), (9, 12))
    assert directions[0].isnan().all() and directions[1].isfinite().all()


def test_directions_are_those_of_the_ray_targets():
    expected = ray_map(camera(), np.eye(4), grid_h=48, grid_w=64)[..., 3:]
    found = directions_on_grid(token_rays(camera(), (6, 8)), (6, 8), (48, 64))
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_the_camera_comes_back_from_its_rays():
    found = pinhole_of(token_rays(camera(), (6, 8))[0], (6, 8), 640, 480)
    np.testing.assert_allclose(found.k, K, atol=1e-3)
    assert (found.width, found.height) == (640, 480)
    assert pinhole_of(token_rays(camera([-0.2, 0.05, 0, 0, 0]), (6, 8))[0], (6, 8), 640, 480) is None
    assert pinhole_of(torch.zeros(48, 4), (6, 8), 640, 480) is None
