"""What a question about two images is told, against cameras and rooms that are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.model.told import COUNT, code, of_camera, of_place, of_question
from spatial_mllm_core.tasks.camera_motion import camera_displacement_m, camera_turn_deg
from spatial_mllm_core.two_view.matching import centres
from spatial_mllm_core.two_view.view_pair import View, ViewPair
from tests.core.two_view.conftest import CELLS_H, CELLS_W, GRID_H, GRID_W, HEIGHT, WIDTH, looking, seen_by

UP = np.array([0.0, 0.0, 1.0])
WIDE = 256
EACH = WIDE // COUNT
WAVES = EACH - 4
quick = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(
    at=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(1.0, 1.6)),
    step=st.tuples(st.floats(-0.4, 0.4), st.floats(-0.3, 0.3), st.floats(-0.2, 0.2)),
    turn=st.tuples(st.floats(-15, 15), st.floats(-10, 10), st.floats(-5, 5)),
)
def test_the_pose_of_the_later_camera_is_found(view_of, camera, at, step, turn):
    """In metres and degrees, by cells of 4 pixels, which are 7 cm wide at a distance of 1.5 m."""
    first = looking(at, 5.0, -35.0)
    later = looking(np.add(at, step), 5.0 + turn[0], -35.0 + turn[1], turn[2])
    pair = ViewPair(view_of(camera, first), view_of(camera, later))
    pose = pair.pose
    assert pose is not None
    offset = camera_displacement_m(first, later)
    assert np.linalg.norm(pose.first_from_later[:3, 3] - offset) < 0.12
    np.testing.assert_allclose(pair.turn_deg(pose), camera_turn_deg(first, later, UP), atol=4.0)


def test_a_camera_that_stands_still_has_not_moved_at_all(view_of, camera):
    here = looking((0.0, 0.0, 1.4), 0.0, -30.0)
    pair = ViewPair(view_of(camera, here), view_of(camera, here))
    assert np.array_equal(pair.pose.first_from_later, np.eye(4))
    assert pair.turn_deg(pair.pose) == pytest.approx((0.0, 0.0), abs=1e-9)


def test_cameras_may_differ(view_of, camera):
    """Another lens and another crop in the later image."""
    zoomed = CameraModel.from_fov(WIDTH, HEIGHT, hfov_rad=0.9)
    first, later = looking((0.0, 0.0, 1.4), 0.0, -35.0), looking((0.25, 0.1, 1.3), 8.0, -38.0)
    pose = ViewPair(view_of(camera, first), view_of(zoomed, later)).pose
    assert np.linalg.norm(pose.first_from_later[:3, 3] - camera_displacement_m(first, later)) < 0.06


def test_a_pose_guides_matches_where_much_looks_alike(view_of, camera, monkeypatch):
    """Most of what a cell looks like repeats every 0.7 m, and depths are off by a tenth."""
    offs = {guided: [] for guided in (True, False)}
    as_it_is = ViewPair._guided
    for number in range(12):
        rng = np.random.default_rng(number)
        first = looking((0.0, 0.0, 1.4), 0.0, -35.0)
        later = looking(rng.uniform((-0.4, -0.3, 1.2), (0.4, 0.3, 1.6)), rng.uniform(-15, 15), -35.0)
        views = [repeating(view_of(camera, pose), camera, pose) for pose in (first, later)]
        for guided, found in offs.items():
            monkeypatch.setattr(ViewPair, "_guided", as_it_is if guided else lambda pair, *_: pair.matches)
            pose = ViewPair(*views).pose
            found.append(np.linalg.norm(pose.first_from_later[:3, 3] - camera_displacement_m(first, later)))
            # of all matches, however many of those that the pose guides agree with it
            assert 0.0 < pose.inliers < 0.3
    assert np.median(offs[True]) < 0.1 < 0.2 < np.median(offs[False])


def test_what_looks_alike_is_where_the_pose_puts_it_and_what_moved_is_where_it_went(view_of, camera):
    first = looking((0.0, 0.0, 1.4), 0.0, -35.0)
    later = looking((0.25, -0.1, 1.3), 8.0, -35.0)
    one, two = (
        repeating(view_of(camera, pose), camera, pose, noise=0.6, own=0.02, sharpness=8.0)
        for pose in (first, later)
    )
    thing = np.random.default_rng(3).normal(size=(2, 2, 256)) * np.sqrt(40.0 / 256)
    one.features[6:8, 10:12] = thing
    two.features[15:17, 20:22] = thing
    pair = ViewPair(one, two)
    places = centres(CELLS_H, CELLS_W).astype(np.float64)
    in_world, _ = seen_by(camera, first, places)
    there = (camera.project((in_world - later[:3, 3]) @ later[:3, :3]) + 0.5) / (WIDTH, HEIGHT)
    inside = ((there > 0.02) & (there < 0.98)).all(axis=1)
    inside.reshape(CELLS_H, CELLS_W)[5:9, 9:13] = False
    plain, found = (
        (np.linalg.norm(m.places - there, axis=1)[inside] < 0.05).mean() for m in (pair.matches, pair.found)
    )
    assert plain < 0.35 and found > 1.6 * plain
    assert pair.place(10.5 / CELLS_W, 6.5 / CELLS_H).there == pytest.approx(
        (20.5 / CELLS_W, 15.5 / CELLS_H), abs=0.03
    )


def repeating(view, camera, pose, *, noise=1.5, own=0.05, sharpness=30.0):
    """A view whose cells look like others 0.7 m away."""
    points, _ = seen_by(camera, pose, centres(CELLS_H, CELLS_W).astype(np.float64))
    waves = np.random.default_rng(1).integers(-3, 4, (3, 256)) * 2.0 * np.pi / 0.7
    rng = np.random.default_rng(int(1e6 * abs(pose[0, 3])))
    alike = (np.cos(points @ waves) + rng.normal(0, noise, (len(points), 256))) * np.sqrt(
        2.0 / 256 * sharpness
    )
    depth_m = view.depth_m * np.exp(rng.normal(0, 0.1, view.depth_m.shape))
    features = (alike + view.features.reshape(len(points), -1) * np.sqrt(own)).reshape(CELLS_H, CELLS_W, -1)
    return replace(view, features=features.astype(np.float32), depth_m=depth_m.astype(np.float32))


def test_without_cameras_only_places_are_told(view_of, camera):
    first, later = looking((0.0, 0.0, 1.4), 0.0, -35.0), looking((0.2, 0.0, 1.4), 4.0, -35.0)
    pair = ViewPair(view_of(camera, first), view_of(camera, later, known=False))
    assert pair.pose is None
    assert np.isnan(of_camera(pair.movement)).all()
    told = of_place(pair.place(0.5, 0.5))
    assert np.isfinite(told.shares[:4]).all() and np.isnan(told.shares[4:]).all()
    assert np.isfinite(told.spelled[:2]).all() and np.isnan(told.spelled[2:]).all()
    assert not code(told.shares, WIDE)[4 * EACH :].any()


def test_images_of_different_rooms_have_no_pose(camera):
    rng = np.random.default_rng(0)
    rays = np.asarray(camera.token_rays(GRID_W, GRID_H), np.float32)[..., :2]

    def other():
        features = rng.normal(size=(CELLS_H, CELLS_W, 64)).astype(np.float32)
        return View(features, rng.uniform(0.5, 3.0, (48, 64)).astype(np.float32), rays)

    pair = ViewPair(other(), other())
    assert pair.pose is None or pair.pose.inliers < 0.5  # whatever is said, few matches agree


def read(told):
    """The numbers (0 to 1000) that a code holds, by the sinusoids that are nearest; NaN where it holds none."""
    values = np.arange(0.0, 1000.5, 0.5)
    known = sinusoids(values, WAVES, 2.0)
    parts = told.reshape(COUNT, EACH)
    nearest = np.linalg.norm(known[None] - parts[:, None, :WAVES], axis=-1).argmin(axis=1)
    found = np.where(np.abs(parts).max(axis=1) > 0, values[nearest], np.nan)
    sides = 2.0 * np.clip((found - 500) / 150, -1, 1)
    np.testing.assert_allclose(parts[:, WAVES:], np.nan_to_num(sides)[:, None].repeat(4, 1), atol=1e-2)
    return found


def signed(values, finest, farthest):
    """The published scale of signed numbers, written anew: 500 is 0, and its ends are the farthest ones."""
    return [
        500 + 500 * np.copysign(np.log(abs(v) / finest + 1) / np.log(farthest / finest + 1), v)
        for v in values
    ]


def test_codes_hold_what_happened(view_of, camera):
    """Each number in a part of its own; what stands still has moved by no more than half a cell."""
    first, later = looking((0.0, 0.0, 1.4), 0.0, -35.0), looking((0.2, 0.1, 1.35), 6.0, -37.0)
    pair = ViewPair(view_of(camera, first), view_of(camera, later))
    *at, yaw, pitch, inliers, _ = read(code(of_camera(pair.movement).shares, WIDE))
    offset = pair.pose.first_from_later[:3, 3]
    np.testing.assert_allclose(at[:3], signed(offset, 0.02, 8.0), atol=1.0)
    np.testing.assert_allclose(offset, camera_displacement_m(first, later), atol=0.05)
    length = np.log(np.linalg.norm(offset) / 0.005) / np.log(8.0 / 0.005) * 1000
    assert at[3] == pytest.approx(length, abs=1.0)
    turn = pair.turn_deg(pair.pose)
    np.testing.assert_allclose((yaw, pitch), signed(turn, 1.0, 180.0), atol=1.0)
    np.testing.assert_allclose(turn, camera_turn_deg(first, later, UP), atol=2.0)
    assert inliers > 700
    cell = 12 * CELLS_W + 14
    place = centres(CELLS_H, CELLS_W)[[cell]].astype(np.float64)
    in_world, _ = seen_by(camera, first, place)
    there = camera.project((in_world - later[:3, 3]) @ later[:3, :3])[0] + 0.5
    x, y, share, mutual, *moved, distance = read(code(of_place(pair.place(*place[0])).shares, WIDE))
    np.testing.assert_allclose((x, y), there / (WIDTH, HEIGHT) * 1000, atol=12)
    assert share > 500
    assert mutual == 1000
    np.testing.assert_allclose(moved, 500, atol=500 * np.log(0.1 / 0.02 + 1) / np.log(401))
    assert distance < np.log(0.1 / 0.005) / np.log(8.0 / 0.005) * 1000


@pytest.mark.parametrize(
    "later", [looking((0.0, 0.0, 1.4), 0.0, -35.0), looking((0.2, 0.0, 1.35), 5.0, -36.0)]
)
@pytest.mark.parametrize("error", [0.8, 1.0, 1.25])
def test_what_slides_keeps_its_height_whatever_the_later_depth_says(view_of, camera, later, error):
    first = looking((0.0, 0.0, 1.4), 0.0, -35.0)
    one, two = view_of(camera, first), view_of(camera, later)
    thing = np.random.default_rng(3).normal(size=(3, 3, 256)) * np.sqrt(60.0 / 256)
    one.features[14:17, 8:11], two.features[17:20, 16:19] = thing, thing
    two.depth_m[34:40, 32:38] *= error
    ends = []
    for pose, cell in ((first, (9.5, 15.5)), (later, (17.5, 18.5))):
        (in_world,), _ = seen_by(camera, pose, np.array([cell]) / (CELLS_W, CELLS_H))
        assert in_world[2] == pytest.approx(0.0, abs=1e-9)  # on the floor
        ends.append(in_world)
    moved_m = (ends[1] - ends[0]) @ first[:3, :3]
    place = ViewPair(one, two).place(9.5 / CELLS_W, 15.5 / CELLS_H)
    np.testing.assert_allclose(place.there, (17.5 / CELLS_W, 18.5 / CELLS_H), atol=0.01)
    np.testing.assert_allclose(place.moved_m, moved_m, atol=0.05)
    assert np.linalg.norm(moved_m) > 0.3


def test_what_is_lifted_far_is_where_the_depth_map_says(view_of, camera):
    """Taken from the floor to half the way to the camera: at its old height it would be twice as far."""
    here = looking((0.0, 0.0, 1.4), 0.0, -35.0)
    one, two = view_of(camera, here), view_of(camera, here)
    thing = np.random.default_rng(3).normal(size=(3, 3, 256)) * np.sqrt(60.0 / 256)
    one.features[14:17, 8:11], two.features[11:14, 8:11] = thing, thing
    two.depth_m[22:28, 16:22] *= 0.5
    (floor,), _ = seen_by(camera, here, np.array([[9.5 / CELLS_W, 15.5 / CELLS_H]]))
    (behind,), _ = seen_by(camera, here, np.array([[9.5 / CELLS_W, 12.5 / CELLS_H]]))
    lifted = (behind + here[:3, 3]) / 2
    moved_m = ViewPair(one, two).place(9.5 / CELLS_W, 15.5 / CELLS_H).moved_m
    np.testing.assert_allclose(moved_m, (lifted - floor) @ here[:3, :3], atol=0.05)
    assert (lifted - floor)[2] > 0.5


def test_a_ray_along_the_level_tells_no_height(view_of, camera):
    """A thing at the height of the camera: its distance is the depth map's."""
    here = looking((0.0, 0.0, 1.4), 0.0, -20.0)
    one, two = view_of(camera, here), view_of(camera, here)
    wall = np.array([0.0, 3.0, 1.4])
    at = (camera.project(((wall - here[:3, 3]) @ here[:3, :3])[None])[0] + 0.5) / (WIDTH, HEIGHT)
    two.depth_m[:] *= 1.1
    moved_m = ViewPair(one, two).place(*at).moved_m
    np.testing.assert_allclose(here[:3, :3] @ moved_m, (0.0, 0.3, 0.0), atol=0.03)


def test_of_a_few_places_the_one_is_chosen_that_the_pose_puts_it_near(view_of, camera):
    """Though others look more like it; and what is chosen is told as it stands."""
    first, later = looking((0.0, 0.0, 1.4), 0.0, -35.0), looking((0.25, -0.1, 1.3), 8.0, -35.0)
    one, two = view_of(camera, first), view_of(camera, later)
    place = (10.5 / CELLS_W, 15.5 / CELLS_H)
    (in_world,), _ = seen_by(camera, first, np.array([place]))
    truth = (camera.project(((in_world - later[:3, 3]) @ later[:3, :3])[None])[0] + 0.5) / (WIDTH, HEIGHT)
    others = [(0.15, 0.9), (0.9, 0.85), (0.8, 0.3)]
    for x, y in others:  # each looks just like it, which itself looks like nothing
        two.features[int(y * CELLS_H), int(x * CELLS_W)] = one.features[15, 10]
    row, column = int(truth[1] * CELLS_H), int(truth[0] * CELLS_W)
    two.features[row - 1 : row + 2, column - 1 : column + 2] *= 0.5
    among = [*others[:2], tuple(truth + (0.01, -0.01)), others[2]]
    pair = ViewPair(one, two)
    assert pair.place(*place, among).there == pytest.approx(among[2])
    told = of_question(pair, [(1000 * place[0], 1000 * place[1])], [(1000 * x, 1000 * y) for x, y in among])
    np.testing.assert_allclose(told.spelled[:2], 1000 * np.array(among[2]), atol=1.0)


def test_without_a_pose_the_place_that_looks_alike_is_chosen(view_of, camera):
    here = looking((0.0, 0.0, 1.4), 0.0, -35.0)
    pair = ViewPair(view_of(camera, here), view_of(camera, here, known=False))
    place = (10.5 / CELLS_W, 15.5 / CELLS_H)
    assert pair.pose is None
    assert pair.place(*place, [(0.9, 0.2), place, (0.1, 0.1)]).there == pytest.approx(place)


def test_rays_are_those_of_the_camera_between_tokens_and_beyond_them(camera):
    places = np.random.default_rng(1).uniform(0, 1, (50, 2))
    pinhole = CameraModel.from_k(np.array([[90.0, 0, 50.0], [0, 110.0, 60.0], [0, 0, 1]]), WIDTH, HEIGHT)
    rays = np.asarray(pinhole.token_rays(GRID_W, GRID_H), np.float32)[..., :2]
    view = View(np.zeros((2, 2, 1), np.float32), np.ones((4, 4), np.float32), rays)
    truth = pinhole.rays(places * (WIDTH, HEIGHT) - 0.5)
    np.testing.assert_allclose(view.rays_at(places), truth[:, :2], atol=1e-5)
    np.testing.assert_allclose(view.points_at(places), truth, atol=1e-5)


def test_a_grid_of_one_token_has_its_ray_everywhere():
    view = View(
        np.zeros((2, 2, 1), np.float32), np.ones((4, 4), np.float32), np.full((1, 1, 2), 0.25, np.float32)
    )
    np.testing.assert_allclose(view.rays_at(np.array([[0.1, 0.9], [0.5, 0.5]])), 0.25)
