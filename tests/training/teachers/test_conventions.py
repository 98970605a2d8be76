"""A known scene, written as Depth-Anything-3 and VGGT write it, is the same scene in ours."""

from __future__ import annotations

import importlib.util
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.supervision import LossConfig, dense_losses, stack_rows
from spatial_mllm_training.supervision.heads import DenseMap
from spatial_mllm_training.teachers import View, build_teacher, targets_of
from spatial_mllm_training.teachers.conventions import (
    camera_from_corner_k,
    corner_k,
    extrinsics_from_poses,
    rays_from_da3,
)
from spatial_mllm_training.teachers.depth_anything_3 import can_align, from_da3
from spatial_mllm_training.teachers.ground_truth import GroundTruth
from spatial_mllm_training.teachers.vggt import from_vggt, input_size

FACTOR = 0.37  # a scale-free teacher's unit, in metres


def as_they_write_it(views, first_pixel):
    """(depth (V, H, W), extrinsics (V, 3, 4) w2c, intrinsics (V, 3, 3)) in units of FACTOR metres.

    `first_pixel` is what they call the centre of the first pixel: 0 for VGGT, 1/2 for DA3.
    """
    depth = np.stack([v.depth_m for v in views]) / FACTOR
    extrinsics = []
    for view in views:
        rotation, centre = view.world_from_camera[:3, :3], view.world_from_camera[:3, 3] / FACTOR
        extrinsics.append(np.column_stack([rotation.T, -rotation.T @ centre]))
    camera = views[0].camera
    cx, cy = camera.cx + first_pixel, camera.cy + first_pixel
    k = [[camera.fx, 0, cx], [0, camera.fy, cy], [0, 0, 1]]
    return depth, np.stack(extrinsics), np.tile(k, (len(views), 1, 1))


def their_world_points(depth, extrinsics, intrinsics):
    """VGGT's published unprojection with w2c extrinsics."""
    out = []
    for d, e, k in zip(depth, extrinsics, intrinsics, strict=True):
        v, u = np.mgrid[: d.shape[0], : d.shape[1]]
        camera = np.stack([(u - k[0, 2]) * d / k[0, 0], (v - k[1, 2]) * d / k[1, 1], d], -1)
        out.append((camera - e[:, 3]) @ e[:, :3])
    return np.stack(out)


def in_first_camera(points, extrinsics):
    return points @ extrinsics[0, :, :3].T + extrinsics[0, :, 3]


def test_vggts_answer_is_the_same_scene(floor_views):
    views = floor_views(3)
    depth, extrinsics, intrinsics = as_they_write_it(views, 0.0)
    features = np.zeros((3, 3, 4, 8), np.float32)
    output = from_vggt(depth[..., None], np.ones_like(depth), extrinsics, intrinsics, features)
    assert not output.is_metric
    expected = in_first_camera(their_world_points(depth, extrinsics, intrinsics), extrinsics)
    np.testing.assert_allclose(np.stack(output.points), expected, atol=2e-5, equal_nan=True)
    truth = GroundTruth().predict(views)
    np.testing.assert_allclose(np.stack(output.points) * FACTOR, np.stack(truth.points), atol=2e-5)
    np.testing.assert_allclose(output.rays[2][..., 3:], truth.rays[2][..., 3:], atol=1e-6)
    np.testing.assert_allclose(output.rays[2][..., :3] * FACTOR, truth.rays[2][..., :3], atol=1e-6)


@pytest.mark.parametrize("metric", [0, 1])
def test_da3s_answer_is_the_same_scene(floor_views, metric):
    views = floor_views(3)
    depth, extrinsics, intrinsics = as_they_write_it(views, 0.5)
    sky = np.isnan(depth)
    prediction = SimpleNamespace(
        depth=np.where(sky, 99.0, depth), conf=np.full(depth.shape, 2.0), is_metric=metric, sky=sky,
        extrinsics=extrinsics, intrinsics=intrinsics, aux={"feat_layer_11": np.zeros((3, 3, 4, 8))},
    )  # fmt: skip
    output = from_da3(prediction, views, feature_layer=11, is_metric_series=False)
    assert output.is_metric == bool(metric)
    assert output.features[0].shape == (3, 4, 8)
    np.testing.assert_allclose(
        np.stack(output.points) * FACTOR, np.stack(GroundTruth().predict(views).points), atol=2e-5
    )


def test_da3s_metric_checkpoints_need_the_cameras_focal_length(floor_views):
    views = floor_views(2)
    focal = views[0].camera.fx
    prediction = SimpleNamespace(
        depth=np.stack([v.depth_m for v in views]) * 300.0 / focal, conf=None, is_metric=0, sky=None,
        extrinsics=None, intrinsics=None, aux={"feat_layer_23": np.zeros((2, 3, 4, 8))},
    )  # fmt: skip
    output = from_da3(prediction, views, feature_layer=23, is_metric_series=True)
    assert output.is_metric
    np.testing.assert_allclose(
        np.stack(output.points), np.stack(GroundTruth().predict(views).points), rtol=1e-5, atol=1e-5
    )
    blind = [View(v.image) for v in views]
    output = from_da3(prediction, blind, feature_layer=23, is_metric_series=True)
    assert not output.is_metric and output.first_from_camera is None
    assert np.isnan(output.points[0]).all()


def test_da3_is_given_cameras_in_its_own_convention(floor_views):
    view = floor_views(1)[0]
    extrinsic = extrinsics_from_poses([view.world_from_camera])[0]
    point = np.array([0.3, -0.2, 0.1, 1.0])
    assert extrinsic @ point == pytest.approx(np.linalg.inv(view.world_from_camera) @ point, abs=1e-6)
    k = corner_k(view.camera)
    assert k[0, 2] == view.camera.width / 2 and k[1, 2] == view.camera.height / 2
    assert camera_from_corner_k(k, view.camera.width, view.camera.height).cx == view.camera.cx
    # they scale K by multiplication when they resize; from the corner that is exactly our resize
    theirs = np.diag([2.0, 3.0, 1.0]) @ k
    ours = corner_k(view.camera.resized(2 * view.camera.width, 3 * view.camera.height))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_da3s_ray_channels_are_swapped(floor_views):
    truth = GroundTruth().predict(floor_views(2)).rays[1]
    theirs = np.concatenate([truth[..., 3:], truth[..., :3]], -1)
    np.testing.assert_array_equal(rays_from_da3(theirs), truth)


def test_poses_are_given_to_da3_only_where_it_can_align_to_them(floor_views):
    views = floor_views(3)
    assert can_align(views)
    assert not can_align(views[:2])
    line = []
    for i, view in enumerate(views):
        pose = view.world_from_camera.copy()
        pose[:3, 3] = (0.1 * i, 0.2 * i, 1.0)
        line.append(View(view.image, view.camera, pose))
    assert not can_align(line)
    assert not can_align([*views[:2], View(views[2].image, views[2].camera)])
    assert not can_align([*views[:2], View(views[2].image, None, views[2].world_from_camera)])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (518, 392)), ((480, 640), (392, 518)), ((1920, 1080), (518, 294)), ((9, 900), (14, 518))],
)
def test_vggts_input_is_a_multiple_of_its_patch(size, expected):
    assert input_size(*size) == expected


def test_a_teacher_in_other_units_costs_a_perfect_student_nothing(floor_views):
    """End to end: VGGT's units, our metric prediction, scale taken out of both."""
    views = floor_views(3)
    depth, extrinsics, intrinsics = as_they_write_it(views, 0.0)
    output = from_vggt(depth[..., None], depth * 0 + 1, extrinsics, intrinsics, np.zeros((3, 3, 4, 8)))
    scale_free = stack_rows([targets_of(output, grid_h=24, grid_w=32)])
    metric = stack_rows([targets_of(GroundTruth().predict(views), grid_h=24, grid_w=32)])
    ones = torch.ones(3, 24, 32)
    student = {
        "depth": DenseMap(metric.depth.nan_to_num(1.0)[..., None], ones),
        "rays": DenseMap(metric.rays, ones),
        "points": DenseMap(metric.points.nan_to_num(1.0), ones),
    }
    for targets in (scale_free, metric):
        losses = dense_losses(student, targets, LossConfig(valid_range=None))
        assert float(losses["total"]) == pytest.approx(0.0, abs=2e-4)


@pytest.mark.parametrize(
    ("name", "package", "pip"),
    [
        ("vggt", "vggt", "'pip install .' in a clone of facebookresearch/vggt"),
        ("depth_anything_3", "depth_anything_3", "'pip install depth-anything-3'"),
    ],
)
def test_a_package_that_is_not_installed_is_named_with_its_licence(name, package, pip):
    if importlib.util.find_spec(package) is not None:
        pytest.skip(f"{package} is installed")
    with pytest.raises(SpatialError, match=re.escape(pip) + r".*CC BY-NC") as caught:
        build_teacher(name)
    assert caught.value.code == ErrorCode.BACKEND_UNAVAILABLE


def test_an_unknown_teacher_is_answered_with_the_known_ones():
    with pytest.raises(SpatialError, match="ground_truth, depth_anything_3, vggt, specialist"):
        build_teacher("dust3r")


def test_the_ground_truth_is_what_the_data_say(floor_views):
    views = floor_views(2)
    output = build_teacher("ground_truth").predict(views)
    np.testing.assert_array_equal(output.depth[1], views[1].depth_m)
    assert output.is_metric and output.features is None
    up = np.linalg.inv(views[0].world_from_camera)[:3, :3] @ [0, 0, 1]
    centre = np.linalg.inv(views[0].world_from_camera)[:3, 3]
    for points in output.points:  # every point of both views lies on the floor, seen from the first camera
        seen = points[np.isfinite(points).all(-1)]
        np.testing.assert_allclose((seen - centre) @ up, 0.0, atol=1e-5)
    blind = GroundTruth().predict([View(views[0].image, views[0].camera)])
    assert np.isnan(blind.depth[0]).all() and np.isfinite(blind.rays[0]).all()


def test_the_least_sure_cells_can_be_left_out(floor_views):
    views = floor_views(1)
    depth, extrinsics, intrinsics = as_they_write_it(views, 0.0)
    confidence = np.arange(depth.size, dtype=np.float32).reshape(depth.shape)
    output = from_vggt(depth[..., None], confidence, extrinsics, intrinsics, np.zeros((1, 3, 4, 8)))
    kept = targets_of(output, grid_h=48, grid_w=64, drop_share=0.25).depth[0]
    assert np.isnan(kept[:12]).all()
    np.testing.assert_array_equal(kept[13:], targets_of(output, grid_h=48, grid_w=64).depth[0][13:])


def test_a_camera_is_kept_through_the_corner():
    camera = CameraModel.from_k([[50, 0, 20], [0, 60, 30], [0, 0, 1]], 64, 48)
    assert camera_from_corner_k(corner_k(camera), 64, 48) == camera
