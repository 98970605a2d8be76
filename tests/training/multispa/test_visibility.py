"""Visible points agree with a point-by-point loop over OpenCV's projection; overlaps with Python's sets."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import VisibilityConfig
from spatial_mllm_training.multispa.visibility import BLOCK, VisiblePoints
from spatial_mllm_training.sources.base import SceneFrame

K = [[80.0, 0.0, 45.2], [0.0, 84.0, 37.1], [0.0, 0.0, 1.0]]
LENSES = {"pinhole": (), "plumb_bob": (-0.22, 0.06, 0.002, -0.001, 0.01)}
CONFIG = VisibilityConfig()


def made(scene, points, config=CONFIG, **more):
    views = [(i, frame, scene.depth_m(i)) for i, frame in enumerate(scene.frames)]
    return VisiblePoints(np.asarray(points, np.float32), views, config, **more)


def in_the_room(count, seed=0):
    """Points within the room, half of them on its floor, where cameras see some of them."""
    points = np.random.default_rng(seed).uniform([-2.6, -2.1, -0.1], [2.6, 2.1, 2.5], (count, 3))
    points[::2, 2] = 0.0
    return points.astype(np.float32)


def seen_by_loop(frame, depth_m, points):
    """Ids of the points that the frame shows, one by one, projected by OpenCV."""
    camera_from_world = np.linalg.inv(frame.world_from_camera)
    rotation, _ = cv2.Rodrigues(camera_from_world[:3, :3])

    def pixels(camera):
        d = np.zeros(5) if camera.d.size == 0 else camera.d
        uv, _ = cv2.projectPoints(points.astype(np.float64), rotation, camera_from_world[:3, 3], camera.k, d)
        return uv.reshape(-1, 2)

    colour = pixels(frame.camera)
    sampled = colour if frame.depth_camera is None else pixels(frame.depth_camera)
    ids = []
    for number, point in enumerate(points.astype(np.float64)):
        z = camera_from_world[2, :3] @ point + camera_from_world[2, 3]
        column, row = np.floor(sampled[number] + 0.5)
        if (
            z > 0
            and -0.5 <= colour[number, 0] < frame.camera.width - 0.5
            and -0.5 <= colour[number, 1] < frame.camera.height - 0.5
            and 0 <= column < depth_m.shape[1]
            and 0 <= row < depth_m.shape[0]
        ):
            measured = float(depth_m[int(row), int(column)])
            if measured > 0 and abs(z - measured) <= max(0.05, 0.03 * measured):
                ids.append(number)
    return ids


@pytest.mark.parametrize("lens", LENSES)
@pytest.mark.parametrize("own_depth_size", [False, True])
def test_visible_points_agree_with_a_loop(box_room, lens, own_depth_size):
    camera = CameraModel.from_k(K, 96, 72, d=LENSES[lens])
    depth_camera = (
        CameraModel.from_k([[40, 0, 25], [0, 44, 20], [0, 0, 1]], 54, 40) if own_depth_size else None
    )
    scene = box_room(5, camera=camera, depth_camera=depth_camera)
    points = in_the_room(3 * BLOCK + 77)
    visible = made(scene, points)
    total = 0
    for index, frame in enumerate(scene.frames):
        expected = seen_by_loop(frame, scene.depth_m(index), points)
        assert visible.ids(index).tolist() == expected
        assert visible.count(index) == len(expected)
        total += len(expected)
    assert total > 100


WALL = CameraModel.from_k([[100, 0, 50], [0, 100, 50], [0, 0, 1]], 101, 101)


@pytest.mark.parametrize(
    ("wall_m", "point_m", "is_visible"),
    [
        (2.0, 2.0, True),
        (2.0, 2.059, True),  # a strict z < D loses this half of the true surface
        (2.0, 2.061, False),
        (2.0, 1.941, True),
        (2.0, 1.939, False),  # and keeps this, which floats in front
        (1.0, 1.049, True),  # near: metres decide
        (1.0, 1.051, False),
        (1.0, 0.5, False),
        (2.0, 3.0, False),
        (2.0, -2.0, False),
        (0.0, 0.01, False),  # no depth
        (20.1, 20.1, False),  # farther than is used
    ],
)
def test_a_wall_from_both_sides(wall_m, point_m, is_visible):
    frame = SceneFrame("wall", WALL, np.eye(4))
    wall = np.full((101, 101), wall_m, np.float32)
    visible = VisiblePoints(np.array([[0.0, 0.0, point_m]], np.float32), [(0, frame, wall)], CONFIG)
    assert visible.ids(0).tolist() == ([0] if is_visible else [])


def test_points_a_lens_folds_back_into_the_image_are_not_visible():
    """x (1 - 0.4 x^2) grows up to x = 0.913; this image's corners lie beyond what it reaches there."""
    camera = CameraModel.from_k([[60, 0, 31.5], [0, 60, 23.5], [0, 0, 1]], 64, 48, d=(-0.4, 0, 0, 0, 0))
    xy = np.random.default_rng(0).uniform(-1.6, 1.6, (20_000, 2))
    radius = np.hypot(*xy.T)
    xy, radius = xy[abs(radius - 0.913) > 0.02], radius[abs(radius - 0.913) > 0.02]
    points = np.column_stack([xy, np.ones(len(xy))]).astype(np.float32)
    u, v = camera.project(points).T
    drawn = (u >= -0.5) & (u < 63.5) & (v >= -0.5) & (v < 47.5)
    assert (drawn & (radius > 0.913)).sum() > 500  # some of them well within the slopes of the image
    view = (0, SceneFrame("lens", camera, np.eye(4)), np.ones((48, 64), np.float32))
    visible = VisiblePoints(points, [view], CONFIG)
    assert visible.ids(0).tolist() == np.flatnonzero(drawn & (radius < 0.913)).tolist()


def test_a_fisheye_sees_what_it_projects():
    camera = CameraModel.from_k(
        [[30, 0, 31.5], [0, 30, 23.5], [0, 0, 1]], 64, 48, d=(0.01, 0, 0, 0), distortion_model="equidistant"
    )
    frame = SceneFrame("eye", camera, np.eye(4))
    points = np.random.default_rng(0).uniform([-6, -6, 1.0], [6, 6, 1.0], (500, 3)).astype(np.float32)
    visible = VisiblePoints(points, [(0, frame, np.ones((48, 64), np.float32))], CONFIG)
    u, v = camera.project(points).T
    inside = (u >= -0.5) & (u < 63.5) & (v >= -0.5) & (v < 47.5)
    assert visible.ids(0).tolist() == np.flatnonzero(inside).tolist()


def test_overlaps_are_those_of_sets(box_room):
    scene = box_room(9)
    visible = made(scene, in_the_room(2000))
    sets = {f: set(visible.ids(f).tolist()) for f in visible.frames}
    overlaps = visible.overlap_percent()
    assert overlaps.dtype == np.float32
    np.testing.assert_array_equal(overlaps, overlaps.T)
    some = 0
    for a in visible.frames:
        for b in visible.frames:
            common = sets[a] & sets[b]
            assert visible.common(a, b).tolist() == sorted(common)
            assert overlaps[a, b] == pytest.approx(100 * len(common) / len(sets[a] | sets[b]), rel=1e-6)
            some += 0 < len(common) < len(sets[a])
    assert some > 10


def test_frames_keep_the_numbers_they_were_given(box_room):
    scene = box_room(6)
    views = [(i, scene.frames[i], scene.depth_m(i)) for i in (4, 1)]
    visible = VisiblePoints(in_the_room(500), views, CONFIG)
    assert visible.frames == (4, 1)
    everything = made(scene, in_the_room(500))
    np.testing.assert_array_equal(visible.ids(1), everything.ids(1))
    assert visible.overlap_percent()[0, 1] == everything.overlap_percent()[4, 1]


def test_pixels_and_depths_are_the_cameras(box_room):
    scene = box_room(3, camera=CameraModel.from_k(K, 96, 72, d=LENSES["plumb_bob"]))
    visible = made(scene, in_the_room(2000))
    ids = visible.ids(2)
    frame = scene.frames[2]
    in_camera = np.linalg.inv(frame.world_from_camera) @ np.column_stack(
        [visible.points_m[ids], np.ones(len(ids))]
    ).T.astype(np.float64)
    np.testing.assert_allclose(visible.depths_m(2, ids), in_camera[2], atol=1e-9)
    expected, _ = cv2.projectPoints(
        in_camera[:3].T.copy(), np.zeros(3), np.zeros(3), frame.camera.k, frame.camera.d
    )
    np.testing.assert_allclose(visible.pixels(2, ids), expected.reshape(-1, 2), atol=1e-6)


def test_only_tested_points_are_visible_under_their_own_ids(box_room):
    scene = box_room(2)
    points = in_the_room(1500)
    tested = np.arange(0, 1500, 3)
    every, some = made(scene, points), made(scene, points, tested=tested)
    assert some.ids(0).tolist() == [i for i in every.ids(0).tolist() if i % 3 == 0] != []


@pytest.mark.parametrize("count", [0, 1, BLOCK, BLOCK + 1])
def test_any_number_of_points(box_room, count):
    visible = made(box_room(2), np.tile([[2.4, 0.0, 1.0]], (count, 1)))
    assert visible.overlap_percent().shape == (2, 2)
    assert visible.count(0) in (0, count)


def test_points_that_are_no_numbers_are_never_visible(box_room):
    points = in_the_room(600)
    points[5] = np.nan
    points[7, 1] = np.inf
    visible = made(box_room(4), points)
    assert visible.count(0) > 0
    assert not {5, 7} & {i for frame in range(4) for i in visible.ids(frame).tolist()}


def test_frames_that_see_nothing_overlap_with_nothing():
    frame = SceneFrame("dark", WALL, np.eye(4))
    dark = np.zeros((101, 101), np.float32)
    visible = VisiblePoints(in_the_room(100), [(0, frame, dark), (1, frame, dark)], CONFIG)
    np.testing.assert_array_equal(visible.overlap_percent(), np.zeros((2, 2)))


def test_memory_is_a_bit_per_frame_and_point():
    frame = SceneFrame("wall", CameraModel.from_fov(32, 24, 1.2), np.eye(4))
    turned = replace(frame, world_from_camera=np.diag([-1.0, 1.0, -1.0, 1.0]))
    points = in_the_room(100_000)
    wall = np.full((24, 32), 2.0, np.float32)

    def peak(count):
        tracemalloc.start()
        views = ((i, frame if i % 2 else turned, wall) for i in range(count))
        VisiblePoints(points, views, CONFIG).overlap_percent()
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak_bytes

    few, many = peak(10), peak(210)
    a_bit_each = 200 * len(points) / 8
    assert many - few < 2.5 * a_bit_each + 210 * 210 * 16
