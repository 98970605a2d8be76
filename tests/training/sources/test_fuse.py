"""Fused points are measurements, one per voxel, thinned evenly, and never invented at edges."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.fuse import depth_edges, fuse_depth

NO_LIMITS = {"max_points": 10**6, "max_depth_m": 20.0}


def pose(rotvec=(0.0, 0.0, 0.0), position=(0.0, 0.0, 0.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rotvec).as_matrix()
    matrix[:3, 3] = position
    return matrix


def bumpy(width, height, far_m=2.0, seed=0):
    """A smooth relief without edges."""
    rng = np.random.default_rng(seed)
    v, u = np.mgrid[:height, :width]
    a, b = rng.uniform(2, 4, 2)
    return (far_m + 0.1 * np.sin(a * u / width) + 0.1 * np.cos(b * v / height)).astype(np.float32)


def views(count, width=64, height=48):
    camera = CameraModel.from_fov(width, height, 1.1)
    poses = [pose((0.03 * i, 0.1 * i, 0.02 * i), (0.2 * i, 0.1, -0.05 * i)) for i in range(count)]
    return [camera] * count, poses, [bumpy(width, height, seed=i) for i in range(count)]


def measured(fused, cameras, poses, depths):
    """Each point again, from the pixel that it says it comes from; float64."""
    points = np.empty((len(fused.frame), 3))
    for frame in np.unique(fused.frame):
        at = fused.frame == frame
        row, column = fused.row[at], fused.column[at]
        in_camera = cameras[frame].unproject(np.column_stack([column, row]), depths[frame][row, column])
        points[at] = in_camera @ poses[frame][:3, :3].T + poses[frame][:3, 3]
    return points


def test_every_point_is_a_measurement_and_alone_in_its_voxel():
    scene = views(5)
    fused = fuse_depth(*scene, voxel_m=0.05, **NO_LIMITS)
    points = measured(fused, *scene)
    np.testing.assert_allclose(fused.points_m, points, atol=1e-6)
    assert fused.points_m.dtype == np.float32
    assert len(fused.frame) > 1000 and set(fused.frame) == set(range(5))
    cells = np.floor(points / 0.05).astype(int)
    assert len(np.unique(cells, axis=0)) == len(cells)


def test_a_voxel_keeps_its_first_pixel():
    cameras, poses, depths = views(3, 24, 18)
    fused = fuse_depth(cameras, poses, depths, voxel_m=0.15, **NO_LIMITS)  # pixels lie 0.1 m apart: no stride
    first: dict[tuple[int, ...], tuple[int, int, int]] = {}
    for frame, (camera, matrix, depth_m) in enumerate(zip(cameras, poses, depths, strict=True)):
        for row, column in np.ndindex(depth_m.shape):
            point = camera.unproject([[column, row]], [depth_m[row, column]])[0]
            cell = tuple(np.floor((matrix[:3, :3] @ point + matrix[:3, 3]) / 0.15).astype(int))
            first.setdefault(cell, (frame, row, column))
    places = list(zip(fused.frame.tolist(), fused.row.tolist(), fused.column.tolist(), strict=True))
    assert places == sorted(first.values())


def test_pixels_are_sampled_as_densely_as_the_voxels():
    camera = CameraModel.from_fov(320, 240, 1.1)
    wall = np.full((240, 320), 2.0, np.float32)
    fused = fuse_depth([camera], [pose()], [wall], voxel_m=0.05, **NO_LIMITS)
    inside = 2 * camera.unproject([[0, 0], [319, 239]], [1.0, 1.0])[:, :2] / 0.05
    cells = np.prod(np.floor(inside[1]) - np.ceil(inside[0]))
    assert len(np.unique(fused.row)) < 240  # not every pixel was worth a look
    assert len(fused.points_m) >= 0.9 * cells


def test_thinning_takes_from_all_images_alike_and_always_the_same():
    scene = views(6)
    full = fuse_depth(*scene, voxel_m=0.05, **NO_LIMITS)
    limit = len(full.frame) // 4
    thin = fuse_depth(*scene, voxel_m=0.05, max_points=limit, max_depth_m=20.0)
    again = fuse_depth(*scene, voxel_m=0.05, max_points=limit, max_depth_m=20.0)
    assert len(thin.points_m) == limit
    np.testing.assert_array_equal(thin.points_m, again.points_m)
    assert {tuple(p) for p in thin.points_m} <= {tuple(p) for p in full.points_m}
    shares = np.bincount(thin.frame, minlength=6) / np.bincount(full.frame, minlength=6)
    np.testing.assert_allclose(shares, 0.25, atol=0.08)


def test_which_voxels_stay_does_not_depend_on_the_order_of_images():
    scene = views(6)
    backward = [part[::-1] for part in scene]
    limits = {"voxel_m": 0.05, "max_points": 700, "max_depth_m": 20.0}
    kept = [
        {
            tuple(cell)
            for cell in np.floor(measured(fuse_depth(*images, **limits), *images) / 0.05).astype(int)
        }
        for images in (scene, backward)
    ]
    assert kept[0] == kept[1] and len(kept[0]) == 700


def test_nothing_is_taken_at_edges_where_sensors_invent_points():
    camera = CameraModel.from_fov(160, 120, 1.1)
    depth_m = np.full((120, 160), 3.0, np.float32)
    depth_m[40:80, 50:110] = 1.5
    depth_m[40:80, 50] = depth_m[40:80, 109] = 2.2  # what a sensor sees half of each
    fused = fuse_depth([camera], [pose()], [depth_m], voxel_m=0.01, **NO_LIMITS)
    z = fused.points_m[:, 2]
    assert np.all(np.isclose(z, 1.5) | np.isclose(z, 3.0))
    assert np.isclose(z, 1.5).sum() > 1000


def test_no_depth_gives_no_point():
    camera = CameraModel.from_fov(16, 12, 1.1)
    for nothing in (0.0, np.nan, np.inf, -1.0, 25.0):
        depth_m = np.full((12, 16), nothing, np.float32)
        fused = fuse_depth([camera], [pose()], [depth_m], voxel_m=0.05, **NO_LIMITS)
        assert fused.points_m.shape == (0, 3) and fused.frame.shape == (0,)


def test_holes_leave_the_rest():
    camera = CameraModel.from_fov(64, 48, 1.1)
    depth_m = bumpy(64, 48)
    depth_m[10:20, 10:20] = np.nan
    fused = fuse_depth([camera], [pose()], [depth_m], voxel_m=0.02, **NO_LIMITS)
    in_hole = (abs(fused.row - 14.5) < 6) & (abs(fused.column - 14.5) < 6)
    assert len(fused.row) > 1000 and not in_hole.any()


def test_a_lens_is_undone():
    d = [-0.25, 0.08, 0.001, -0.002, 0.0]
    camera = CameraModel.from_k([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], 64, 48, d=d)
    fused = fuse_depth([camera], [pose()], [np.full((48, 64), 2.0)], voxel_m=0.02, **NO_LIMITS)
    pixels = camera.project(fused.points_m)
    np.testing.assert_allclose(pixels, np.column_stack([fused.column, fused.row]), atol=1e-4)


def test_sequences_must_have_one_length():
    cameras, poses, depths = views(2)
    with pytest.raises(ValueError, match="zip"):
        fuse_depth(cameras, poses, depths[:1], voxel_m=0.05, **NO_LIMITS)


def test_memory_does_not_grow_with_the_number_of_images():
    def peak(count):
        camera = CameraModel.from_fov(160, 120, 1.1)
        poses = [pose((0, 0.05 * i, 0), (0.1 * i, 0, 0)) for i in range(count)]
        depths = (bumpy(160, 120, seed=i) for i in range(count))
        tracemalloc.start()
        fused = fuse_depth([camera] * count, poses, depths, voxel_m=0.01, max_points=5000, max_depth_m=20.0)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(fused.points_m) == 5000
        return peak_bytes

    assert peak(60) < 1.2 * peak(6)


@pytest.mark.parametrize("size", [3, 5])
def test_edges_agree_with_a_loop(size):
    rng = np.random.default_rng(1)
    depth_m = (2 + 0.02 * rng.normal(size=(20, 24)) + (rng.random((20, 24)) < 0.02)).astype(np.float32)
    depth_m[5, 7] = 0
    expected = np.zeros(depth_m.shape, bool)
    reach = size // 2
    for row, column in np.ndindex(depth_m.shape):
        around = depth_m[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
        low, high = around.min(), around.max()
        expected[row, column] = low <= 0 or high - low > max(0.05, 0.04 * low)
    assert 0.1 < expected.mean() < 0.9
    np.testing.assert_array_equal(depth_edges(depth_m, 0.05, 0.04, size=size), expected)
