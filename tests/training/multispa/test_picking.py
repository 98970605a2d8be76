"""Picked pixels against a brute-force reading of the rules: border, depth, edges; in plain, lensed and coarse depth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import MultispaConfig, PointConfig
from spatial_mllm_training.multispa.picking import (
    band_name,
    draft_points,
    frame_pixels,
    in_turn,
    is_askable,
    no_pairs,
    usable_frames,
)
from spatial_mllm_training.multispa.prepare import prepare

PLAIN = CameraModel.from_fov(96, 72, 1.2)
LENS = CameraModel.from_k(
    [[70, 0, 46.0], [0, 71, 37.5], [0, 0, 1]], 96, 72, d=[-0.12, 0.03, 0.001, -0.001, 0.0]
)
ALL = 10_000
ROOMS = {"plain": {}, "lens": {"camera": LENS}, "holes": {}}


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=ROOMS)
def room(request, box_room):
    scene = box_room(3, **ROOMS[request.param])
    if request.param == "holes":
        depth = scene.depth_m(1).copy()
        depth[random().random(depth.shape) < 0.02] = 0
        depth[20, 20], depth[40, 50] = np.nan, np.inf
        scene = box_room(3, depths={1: depth})
    return prepare(scene, MultispaConfig(), random())


def allowed(depth_m, config):
    """{(u, v)} of the pixels that may be asked about, one by one."""
    depth_m = np.where(np.isfinite(depth_m), depth_m, 0)
    height, width = depth_m.shape
    found = set()
    for v in range(config.border_px, height - config.border_px):
        for u in range(config.border_px, width - config.border_px):
            around = depth_m[max(v - 1, 0) : v + 2, max(u - 1, 0) : u + 2].astype(float)
            step = max(config.edge_m, config.edge_relative * around.min())
            if around.min() > 0 and around.max() - around.min() <= step + 1e-7:
                found.add((u, v))
    return found


def test_all_pixels_that_the_rules_allow_and_no_other(room):
    expected = allowed(room.scene.depth_m(1), room.config.points)
    pixels = frame_pixels(room, 1, ALL, random())
    got = [tuple(uv) for uv in pixels.uv_px.tolist()]
    assert len(expected) > 1000 and len(set(got)) == len(got)
    assert set(got) == expected
    u, v = pixels.uv_px.T
    np.testing.assert_array_equal(pixels.depth_m, room.scene.depth_m(1)[v, u])


def test_one_by_one_the_rules_are_the_same(room):
    expected = allowed(room.scene.depth_m(1), room.config.points)
    points = random().uniform(-20, 116, (4000, 2))
    got = is_askable(room, 1, points)
    assert 500 < got.sum() < 3000
    assert got.tolist() == [(int(np.floor(u + 0.5)), int(np.floor(v + 0.5))) in expected for u, v in points]
    assert not is_askable(room, 1, [[np.nan, np.nan], [np.inf, 30.0], [-np.inf, 30.0], [1e30, 1e30]]).any()
    assert is_askable(room, 1, np.zeros((0, 2))).shape == (0,)


def test_coarse_depth_pixels_keep_their_distance_from_edges(box_room):
    """Depth of a third of the size and another lens: the colour pixel's depth pixel must be off the edges."""
    coarse = CameraModel.from_fov(40, 30, 1.1)
    room = prepare(box_room(3, depth_camera=coarse), MultispaConfig(), random())
    depth_m = room.scene.depth_m(0)
    good = allowed(depth_m, PointConfig(border_px=0))
    pixels = frame_pixels(room, 0, ALL, random())
    assert len(pixels.uv_px) > 1000
    for uv, z in zip(pixels.uv_px, pixels.depth_m, strict=True):
        ray = np.linalg.inv(PLAIN.k) @ (*uv, 1.0)
        u, v, _ = np.floor(coarse.k @ ray + 0.5).astype(int)
        assert (u, v) in good and z == depth_m[v, u]
        assert (uv >= 8).all() and (uv < (88, 64)).all()


def test_a_part_of_the_pixels_stands_for_all(box_room):
    room = prepare(box_room(1), MultispaConfig(), random())
    every = frame_pixels(room, 0, ALL, random())
    draws = [frame_pixels(room, 0, 200, random(seed)) for seed in range(30)]
    assert {len(d.uv_px) for d in draws} == {200} == {len(np.unique(d.uv_px, axis=0)) for d in draws}
    some = np.concatenate([d.uv_px for d in draws])
    spread = every.uv_px.std(axis=0)
    np.testing.assert_allclose(some.mean(axis=0), every.uv_px.mean(axis=0), atol=5 * spread.max() / 6000**0.5)
    np.testing.assert_allclose(some.std(axis=0), spread, rtol=0.05)


@pytest.mark.parametrize("border", [36, 40, 72, 200])
def test_nothing_is_left_inside_a_wide_border(box_room, border):
    room = prepare(box_room(1), MultispaConfig(points=PointConfig(border_px=border)), random())
    assert frame_pixels(room, 0, ALL, random()).uv_px.shape == (0, 2)
    assert not is_askable(room, 0, [[48, 36], [0, 0]]).any()


def test_points_project_back_by_opencv(room):
    pixels = frame_pixels(room, 1, 50, random())
    points = draft_points(room, 1, pixels.uv_px, pixels.depth_m, image=1, role="choice")
    about = room.scene.frames[1]
    camera_from_world = np.linalg.inv(about.world_from_camera)
    projected, _ = cv2.projectPoints(
        np.array([p.point_in_world_m for p in points]),
        cv2.Rodrigues(camera_from_world[:3, :3])[0],
        camera_from_world[:3, 3],
        about.camera.k,
        about.camera.d if about.camera.d.size else None,
    )
    np.testing.assert_allclose(projected[:, 0], pixels.uv_px, atol=1e-3)
    for point, uv, z in zip(points, pixels.uv_px.tolist(), pixels.depth_m.tolist(), strict=True):
        assert (point.u_px, point.v_px, point.depth_m) == (*uv, z)
        assert (point.image, point.role, point.label) == (1, "choice", "")
        in_camera = camera_from_world @ (*point.point_in_world_m, 1)
        assert in_camera[2] == pytest.approx(z, abs=1e-6)


def test_bands_hold_their_depths(room):
    pixels = frame_pixels(room, 0, ALL, random())
    assert len(np.unique(pixels.band)) >= 3
    for band in np.unique(pixels.band).tolist():
        low, high = (float(edge) for edge in band_name(band)[len("depth ") : -len(" m")].split("-"))
        here = pixels.depth_m[pixels.band == band]
        assert low * 0.99 <= here.min() <= here.max() <= high * 1.01
    assert band_name(0) == "depth 1-1.41 m" and band_name(-2) == "depth 0.5-0.707 m"


def test_frames_come_in_random_order_from_all_states(box_room):
    room = prepare(box_room(8, states=[0, 1] * 4), MultispaConfig(), random())
    orders = {tuple(usable_frames(room, random(seed))) for seed in range(5)}
    assert len(orders) == 5 and all(sorted(order) == list(range(8)) for order in orders)


def test_why_there_are_no_pairs(box_room):
    assert no_pairs(box_room(2)) == ""
    assert "no depth" in no_pairs(box_room(2, has_depth=False))
    for scene in (box_room(1), box_room(0), box_room(4, states=range(4))):
        assert "no two images" in no_pairs(scene)
    assert no_pairs(box_room(4, states=[0, 1, 2, 0])) == ""


@given(st.integers(1, 6), st.integers(0, 50), st.integers(0, 9))
def test_in_turn_is_as_even_as_can_be(choices, count, seed):
    drawn = in_turn(range(choices), count, random(seed))
    times = [drawn.count(choice) for choice in range(choices)]
    assert len(drawn) == count == sum(times) and max(times) - min(times) <= 1
