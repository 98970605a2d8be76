"""Rays, points and depth of a row agree with each other and with OpenCV, in the first camera's frame."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.supervision import row_targets, stack_rows
from spatial_mllm_training.supervision.targets import nearest_depth, ray_map

H, W = 24, 32


def camera(width=W, height=H, *, d=()):
    k = [[0.9 * width, 0, 0.4 * width], [0, 1.1 * height, 0.6 * height], [0, 0, 1]]
    return CameraModel.from_k(k, width, height, d=d)


def poses(count, seed=0):
    rng = np.random.default_rng(seed)
    out = np.tile(np.eye(4), (count, 1, 1))
    out[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    out[:, :3, 3] = rng.normal(size=(count, 3))
    return out


def depth_image(seed=0, width=W, height=H):
    return np.random.default_rng(seed).uniform(0.5, 4.0, (height, width)).astype(np.float32)


@pytest.mark.parametrize("d", [(), (-0.2, 0.05, 0.001, -0.002, 0.01)])
def test_points_project_back_to_their_pixels_by_opencv(d):
    cameras, world_from_camera = [camera(d=d), camera(d=d)], poses(2)
    depths = [depth_image(0), depth_image(1)]
    row = row_targets(depths, cameras, world_from_camera, grid_h=H, grid_w=W)
    world_from_first = world_from_camera[0]
    for i in range(2):
        points = row.points[i].reshape(-1, 3).astype(np.float64)
        camera_from_first = np.linalg.inv(world_from_camera[i]) @ world_from_first
        rotation, _ = cv2.Rodrigues(camera_from_first[:3, :3])
        pixels, _ = cv2.projectPoints(
            points, rotation, camera_from_first[:3, 3], cameras[i].k, np.array(d) if d else None
        )
        v, u = np.mgrid[:H, :W]
        np.testing.assert_allclose(pixels.reshape(H, W, 2), np.stack([u, v], -1), atol=2e-3)
        z = (points @ camera_from_first[:3, :3].T + camera_from_first[:3, 3])[:, 2]
        np.testing.assert_allclose(z.reshape(H, W), depths[i], rtol=1e-5)


def test_a_row_is_consistent_and_stands_in_the_first_cameras_frame():
    row = row_targets([depth_image(0), depth_image(1)], [camera(), camera()], poses(2), grid_h=6, grid_w=8)
    np.testing.assert_array_equal(row.points, row.rays[..., :3] + row.depth[..., None] * row.rays[..., 3:])
    assert (row.rays[0, ..., :3] == 0).all()
    np.testing.assert_allclose(row.rays[0, ..., 5], 1.0)  # unnormalised: z of the first camera's rays is 1
    np.testing.assert_allclose(row.points[0, ..., 2], row.depth[0])
    first_from_second = np.linalg.inv(poses(2)[0]) @ poses(2)[1]
    np.testing.assert_allclose(row.rays[1, 3, 2, :3], first_from_second[:3, 3], rtol=1e-6)
    moved = [
        np.block([[Rotation.random(random_state=9).as_matrix(), np.ones((3, 1))], [0, 0, 0, 1]]) @ p
        for p in poses(2)
    ]
    again = row_targets([depth_image(0), depth_image(1)], [camera(), camera()], moved, grid_h=6, grid_w=8)
    np.testing.assert_allclose(again.points, row.points, atol=1e-5)  # the world does not matter


def test_rays_of_a_grid_follow_the_resize_rule():
    rays = ray_map(camera(), np.eye(4), grid_h=6, grid_w=8)
    small = camera().resized(8, 6)
    v, u = np.mgrid[:6, :8]
    expected = np.stack([(u - small.cx) / small.fx, (v - small.cy) / small.fy, np.ones((6, 8))], -1)
    np.testing.assert_allclose(rays[..., 3:], expected, atol=1e-6)


def test_downsampling_takes_samples_never_means():
    depth = depth_image(3)
    depth[5:9] = np.nan
    depth[0, :] = 0
    depth[1, :] = np.inf
    small = nearest_depth(depth, grid_h=8, grid_w=8)
    for r in range(8):
        for q in range(8):
            sample = depth[int((r + 0.5) * H / 8), int((q + 0.5) * W / 8)]
            if np.isfinite(sample) and sample > 0:
                assert small[r, q] == sample
            else:
                assert np.isnan(small[r, q])
    np.testing.assert_array_equal(nearest_depth(depth_image(3), grid_h=H, grid_w=W), depth_image(3))


def test_what_is_missing_is_nan_and_no_more():
    depth = depth_image()
    no_camera = row_targets([depth], [None], None, grid_h=4, grid_w=4)
    assert np.isfinite(no_camera.depth).all()
    assert np.isnan(no_camera.rays).all() and np.isnan(no_camera.points).all()
    no_depth = row_targets([None], [camera()], None, grid_h=4, grid_w=4)
    assert np.isnan(no_depth.depth).all() and np.isnan(no_depth.points).all()
    assert np.isfinite(no_depth.rays).all()
    no_poses = row_targets([depth, depth], [camera(), camera()], None, grid_h=4, grid_w=4)
    assert np.isfinite(no_poses.points[0]).all()
    assert np.isnan(no_poses.rays[1]).all() and np.isfinite(no_poses.depth[1]).all()


def test_a_depth_of_another_shape_than_its_camera_is_refused_with_both_sizes():
    with pytest.raises(SpatialError, match=r"32x20.*32x24"):
        row_targets([depth_image(height=20)], [camera()], None, grid_h=4, grid_w=4)
    row_targets([depth_image(width=16, height=12)], [camera()], None, grid_h=4, grid_w=4)  # half its size


def test_rows_stack_into_one_batch():
    two = row_targets([depth_image(0), depth_image(1)], [camera(), camera()], poses(2), grid_h=4, grid_w=5)
    one = row_targets([depth_image(2)], [camera()], None, grid_h=4, grid_w=5, is_metric=False)
    batch = stack_rows([two, one]).to("cpu")
    assert batch.depth.shape == (3, 4, 5) and batch.rays.shape == (3, 4, 5, 6)
    assert batch.row.tolist() == [0, 0, 1]
    assert batch.is_metric.tolist() == [True, False]
    torch.testing.assert_close(batch.points[2], torch.from_numpy(one.points[0]))
