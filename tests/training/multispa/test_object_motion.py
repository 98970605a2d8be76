"""Object movement: truths by OpenCV and scipy, all candidates by brute force, balance, camera variants."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa import object_motion
from spatial_mllm_training.multispa.config import MultispaConfig, ObjectMotionConfig
from spatial_mllm_training.multispa.object_motion import SUBTASKS, drafts, missing
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources.base import PointTracks, Scene, SceneFrame
from spatial_mllm_training.sources.object_motion import find_scenes

DVRK = Path(__file__).parents[2] / "fixtures" / "dvrk"

CAMERA = CameraModel.from_k(
    [[300, 0, 163], [0, 290, 118], [0, 0, 1]], 320, 240, d=[0.05, -0.02, 1e-3, -5e-4, 0]
)
ALL = ObjectMotionConfig(points_per_group=10_000, pairs_per_bin=10_000, max_points=10_000)


class Tracked(Scene):
    """Frames without pictures and points that are followed."""

    name, source, world_up, skipped = "tracked", "test", None, []
    has_depth = False

    def __init__(self, frames, tracks, *, noisy=False):
        self.frames, self.depth_is_noisy = frames, noisy
        self.__dict__["tracks"] = tracks

    def image(self, index):
        raise AssertionError("a generator of drafts does not read pictures")

    def depth_m(self, index):
        raise AssertionError("tracks need no depth")


def frame(number, state, pose):
    return SceneFrame(f"f{number}", CAMERA, pose, state=state)


def pose_of(rng, turn=0.05, shift=0.1):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_rotvec(rng.normal(0, turn, 3)).as_matrix()
    pose[:3, 3] = rng.normal(0, shift, 3)
    return pose


def make_scene(*, steps=8, bodies=3, points=12, seed=0, noisy=False, true_bodies=True, hidden=0.2):
    """Two frames a step: one camera that stands still and one that moves; body 0 stays where it is."""
    rng = np.random.default_rng(seed)
    count = bodies * points
    body = np.repeat(np.arange(bodies), points)
    position = np.empty((steps, count, 3))
    for number in range(bodies):
        mine = body == number
        shape = rng.uniform(-0.15, 0.15, (points, 3)) + (rng.uniform(-0.4, 0.4), rng.uniform(-0.3, 0.3), 2)
        turn, go = (rng.normal(0, 0.05, 3), rng.normal(0, 0.03, 3)) if number else (np.zeros(3), np.zeros(3))
        for step in range(steps):
            position[step, mine] = shape @ Rotation.from_rotvec(turn * step).as_matrix().T + go * step
    still = pose_of(rng)
    frames = []
    for step in range(steps):
        frames += [frame(2 * step, step, still), frame(2 * step + 1, step, pose_of(rng))]
    visible = rng.random((2 * steps, count)) >= hidden
    scene = Tracked(frames, PointTracks(position, visible, body if true_bodies else None), noisy=noisy)
    scene.true_body = body
    return scene


def ask(scene, subtask, wanted=10_000, config=ALL, seed=0):
    prepared = PreparedScene(scene, MultispaConfig(object_motion=config), {}, [])
    return drafts(prepared, subtask, wanted, np.random.default_rng(seed))


def pixel_by_opencv(pose, point):
    rotation = Rotation.from_matrix(pose[:3, :3]).inv()
    shift = -rotation.apply(pose[:3, 3])
    pixel, _ = cv2.projectPoints(np.array([point]), rotation.as_rotvec(), shift, CAMERA.k, CAMERA.d)
    return pixel[0, 0]


def test_eight_published_names():
    assert len(SUBTASKS) == len(set(SUBTASKS)) == 8
    assert {"tapvid3d_total_distance_coord_adt", "tapvid3d_displacement_vector_dot_pstudio"} < set(SUBTASKS)


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_truths_and_pixels_by_scipy_and_opencv(subtask):
    scene = make_scene()
    found = ask(scene, subtask, 100)
    assert len(found) == 100
    for draft in found:
        first, second = (scene.frames[f] for f in draft.frames)
        asked, answer = draft.points
        assert (asked.role, asked.image, answer.role, answer.image) == ("asked", 0, "answer", 1)
        before, after = np.array(asked.point_in_world_m), np.array(answer.point_in_world_m)
        in_first = Rotation.from_matrix(first.world_from_camera[:3, :3]).inv()
        expected = in_first.apply(after - before)
        if "total_distance" in subtask:
            assert draft.truth.values == pytest.approx([np.linalg.norm(expected)], abs=1e-12)
        else:
            np.testing.assert_allclose(draft.truth.values, expected, atol=1e-12)
        for shown, its in ((asked, first), (answer, second)):
            uv = pixel_by_opencv(its.world_from_camera, shown.point_in_world_m)
            np.testing.assert_allclose((shown.u_px, shown.v_px), uv, atol=1e-6)
            inverse = np.linalg.inv(its.world_from_camera)
            assert shown.depth_m == pytest.approx((inverse @ [*shown.point_in_world_m, 1])[2])
            row = scene.tracks.points_in_world_m[its.state]
            assert (row == shown.point_in_world_m).all(axis=1).any()


@pytest.mark.parametrize("camera", ["adt", "pstudio"])
def test_all_candidates_are_those_of_brute_force(camera):
    scene = make_scene(steps=5, seed=3)
    tracks, moved, still = scene.tracks, set(), set()
    for a, b in combinations(range(len(scene.frames)), 2):
        first, second = scene.frames[a], scene.frames[b]
        shift = np.linalg.norm(first.world_from_camera[:3, 3] - second.world_from_camera[:3, 3])
        if first.state == second.state or (shift > 1e-4) != (camera == "adt"):
            continue
        for point in range(tracks.points_in_world_m.shape[1]):
            if not (tracks.visible[a, point] and tracks.visible[b, point]):
                continue
            pixels = [
                pixel_by_opencv(f.world_from_camera, tracks.points_in_world_m[f.state, point])
                for f in (first, second)
            ]
            if all(8 <= u <= 319 - 8 and 8 <= v <= 239 - 8 for u, v in pixels):
                before = tracks.points_in_world_m[first.state, point]
                (moved if tracks.body[point] else still).add((a, b, *before.tolist()))
    found = ask(scene, f"tapvid3d_total_distance_dot_{camera}", config=replace(ALL, swap_probability=0))
    got = {(*d.frames, *d.points[0].point_in_world_m): d.truth.values[0] for d in found}
    assert len(got) == len(found)
    assert {key for key, distance in got.items() if distance >= 0.01} == moved
    assert {key for key, distance in got.items() if distance < 0.01} < still


def test_camera_decides_the_variant():
    scene = make_scene()
    for draft in ask(scene, "tapvid3d_total_distance_coord_pstudio"):
        assert {f % 2 for f in draft.frames} == {0}  # the camera that stands
    moved = ask(scene, "tapvid3d_total_distance_coord_adt")
    assert any({f % 2 for f in d.frames} == {0, 1} for d in moved)
    assert not any({f % 2 for f in d.frames} == {0} for d in moved)


def test_a_turn_alone_is_a_movement_of_the_camera():
    scene = make_scene(steps=2)
    turned = scene.frames[0].world_from_camera.copy()
    turned[:3, :3] = turned[:3, :3] @ Rotation.from_rotvec([0, np.deg2rad(0.05), 0]).as_matrix()
    tracks = PointTracks(scene.tracks.points_in_world_m, scene.tracks.visible[::2], scene.tracks.body)
    pair = Tracked([scene.frames[0], frame(1, 1, turned)], tracks)
    assert not ask(pair, "tapvid3d_total_distance_dot_pstudio")
    assert ask(pair, "tapvid3d_total_distance_dot_adt")
    nudge = scene.frames[0].world_from_camera.astype(np.float32).astype(float)  # only rounded
    pair = Tracked([scene.frames[0], frame(1, 1, nudge)], tracks)
    assert ask(pair, "tapvid3d_total_distance_dot_pstudio")
    assert not ask(pair, "tapvid3d_total_distance_dot_adt")


def test_swapping_the_pair_negates_the_vector_and_turns_it_into_the_other_camera():
    scene, subtask = make_scene(), "tapvid3d_displacement_vector_dot_adt"
    straight = ask(scene, subtask, 200, replace(ALL, swap_probability=0.0))
    swapped = ask(scene, subtask, 200, replace(ALL, swap_probability=1.0))
    assert len(straight) == len(swapped) == 200
    for a, b in zip(straight, swapped, strict=True):
        assert a.frames == b.frames[::-1]
        assert a.points[0].point_in_world_m == b.points[1].point_in_world_m
        first, second = (scene.frames[f].world_from_camera[:3, :3] for f in a.frames)
        np.testing.assert_allclose(b.truth.values, -second.T @ first @ a.truth.values, atol=1e-12)
    some = ask(scene, subtask, 2000, replace(ALL, swap_probability=0.05))
    assert 0.02 < np.mean([d.frames[0] > d.frames[1] for d in some]) < 0.09


def test_bins_are_filled_evenly_and_hold_what_they_say():
    scene = make_scene(steps=20, bodies=5, points=20)
    found = ask(scene, "tapvid3d_total_distance_coord_adt", 220)
    counts = Counter(d.group for d in found)
    assert len(counts) == 11
    assert set(counts.values()) == {20}
    for draft in found:
        (distance,) = draft.truth.values
        if draft.group.startswith("displacement none"):
            assert distance < 0.01
        else:
            low, high = (float(x) for x in draft.group.split()[1].split("-"))
            assert low - 5e-4 <= distance <= high + 5e-4
    shortest = min(g for g in counts if "-" in g)
    bodies = Counter(_body(scene, d) for d in found if d.group == shortest)
    assert sorted(bodies) == [1, 2, 3, 4]  # all that move
    assert max(bodies.values()) - min(bodies.values()) <= 1
    assert set(Counter(d.group for d in found[:55]).values()) == {5}  # a first part is as even


def test_what_stays_gets_its_share_and_no_more():
    share = [
        np.mean([d.truth.values[0] < 0.01 for d in ask(make_scene(steps=4, bodies=2, points=p), SUBTASKS[0])])
        for p in (3, 12)
    ]
    assert all(0.05 < s < 0.2 for s in share)  # half of the points, a tenth of the questions
    scene = make_scene(steps=20, bodies=5, points=20)
    for wanted in (1, 3):  # scenes of few questions fill every bin, taken together
        of_few = Counter(d.group for seed in range(150) for d in ask(scene, SUBTASKS[0], wanted, seed=seed))
        assert sum(of_few.values()) == 150 * wanted
        assert len(of_few) == 11
        assert max(of_few.values()) < 2.5 * 150 * wanted / 11


def test_published_limits_bound_what_one_point_gives():
    scene = make_scene(steps=12)
    config = ObjectMotionConfig(points_per_group=2, pairs_per_bin=3)
    found = ask(scene, "tapvid3d_total_distance_dot_adt", config=config)
    per_point = Counter((_point(scene, d), d.group) for d in found)
    assert max(per_point.values()) == 3
    per_body = Counter(_body(scene, d) for d in {_point(scene, d): d for d in found}.values())
    assert per_body == {0: 2, 1: 2, 2: 2}


@pytest.mark.parametrize("true_bodies", [True, False])
def test_measured_points_that_stay_did_not_move_at_all(true_bodies):
    scene = make_scene(noisy=True, true_bodies=true_bodies, steps=12)
    noise = np.random.default_rng(0).uniform(-0.002, 0.002, scene.tracks.points_in_world_m.shape)
    tracks = replace(scene.tracks, points_in_world_m=scene.tracks.points_in_world_m + noise)
    noisy = Tracked(scene.frames, tracks, noisy=True)
    found = ask(noisy, "tapvid3d_displacement_vector_coord_adt")
    lengths = np.array([np.linalg.norm(d.truth.values) for d in found])
    assert (lengths == 0).any() and (lengths >= 0.01).any()
    assert not ((lengths > 0) & (lengths < 0.01)).any()
    truly_still = np.array([_body(scene, d, tracks) == 0 for d in found])
    np.testing.assert_array_equal(lengths == 0, truly_still)


def test_rendered_points_keep_their_exact_truth_however_small():
    scene = make_scene()
    scene.tracks.points_in_world_m[:, scene.tracks.body == 0, 0] += 0.0005 * np.arange(8)[:, None]
    found = ask(scene, "tapvid3d_total_distance_dot_pstudio")
    small = [d.truth.values[0] for d in found if _body(scene, d) == 0]
    assert len(small) > 10
    np.testing.assert_allclose(np.array(small) / 0.0005, np.round(np.array(small) / 0.0005), atol=1e-6)


def test_shortest_movement_asked_about():
    scene = make_scene()
    found = ask(scene, "tapvid3d_total_distance_dot_adt", config=replace(ALL, min_displacement_m=0.05))
    assert found and min(d.truth.values[0] for d in found) >= 0.05


def test_without_true_bodies_the_segmentation_spreads_the_points():
    scene = make_scene(true_bodies=False, steps=20, bodies=4, points=20, hidden=0)
    truth = np.repeat(np.arange(4), 20)
    found = ask(scene, "tapvid3d_total_distance_dot_adt", 2000, replace(ALL, points_per_group=5))
    seen = {_point(scene, d) for d in found}
    assert Counter(truth[list(seen)]) == {0: 5, 1: 5, 2: 5, 3: 5}


def test_a_slow_part_of_a_body_is_asked_about_as_well():
    """Steps under 1 cm are noise to the segmentation, which joins the slow points with the still ones."""
    rng, steps = np.random.default_rng(0), 20
    position = np.tile(rng.uniform((-0.5, -0.4, 2), (0.5, 0.4, 2.5), (206, 3)), (steps, 1, 1))
    position[:, 200:, 0] += 0.005 * np.arange(steps)[:, None]
    frames = [frame(t, t, np.eye(4)) for t in range(steps)]
    scene = Tracked(frames, PointTracks(position, np.ones((steps, 206), bool)))
    found = ask(scene, "tapvid3d_total_distance_dot_pstudio", 110, ObjectMotionConfig())
    assert Counter(_point(scene, d) >= 200 for d in found) == {True: 105, False: 5}


def test_pixels_keep_away_from_the_border():
    plain = CameraModel.from_k([[320, 0, 160], [0, 320, 120], [0, 0, 1]], 320, 240)
    lines = [(u + 0.5, 100) for u in range(319)] + [(150, v + 0.5) for v in range(239)]
    start = plain.unproject(lines, np.full(len(lines), 2.0))
    position = np.stack([start, start * 1.2])  # the pixel stays
    frames = [replace(frame(t, t, np.eye(4)), camera=plain) for t in range(2)]
    tracks = PointTracks(position, np.ones((2, len(lines)), bool), np.zeros(len(lines), np.int64))
    found = ask(Tracked(frames, tracks), SUBTASKS[1])
    shown = {(round(d.points[0].u_px, 6), round(d.points[0].v_px, 6)) for d in found}
    assert shown == {(u, v) for u, v in lines if 8 <= u <= 311 and 8 <= v <= 231}


def test_unknown_positions_are_never_asked_about():
    scene = make_scene(hidden=0)
    gone = np.random.default_rng(1).random(scene.tracks.points_in_world_m.shape[:2]) < 0.4
    scene.tracks.points_in_world_m[gone] = np.nan
    found = ask(scene, "tapvid3d_displacement_vector_coord_adt")
    assert len(found) > 100
    for draft in found:
        assert np.isfinite(draft.truth.values).all()
        assert np.isfinite([p.point_in_world_m for p in draft.points]).all()
    scene.tracks.points_in_world_m[:] = np.nan
    assert ask(scene, "tapvid3d_displacement_vector_coord_adt") == []


def test_deterministic():
    scene, subtask = make_scene(true_bodies=False, steps=15), "tapvid3d_displacement_vector_dot_adt"
    assert ask(scene, subtask, 50) == ask(make_scene(true_bodies=False, steps=15), subtask, 50)
    assert ask(scene, subtask, 50) != ask(scene, subtask, 50, seed=1)
    assert len({(d.frames, d.points[0].point_in_world_m) for d in ask(scene, subtask, 50)}) == 50


def test_recorded_balls_move_as_their_measured_centres_say():
    """Real frames of a robot's arm; the centres were fitted to the point cloud by others."""
    (ref,) = find_scenes(DVRK, images="ir")
    scene = ref.open(*ref.arguments)
    assert set(missing(scene, MultispaConfig())) == {name for name in SUBTASKS if name.endswith("adt")}
    centres_m = np.loadtxt(DVRK / "ball_centres_ircam_mm.txt").reshape(25, 2, 3) / 1000
    found = ask(scene, "tapvid3d_displacement_vector_dot_pstudio", 300, ObjectMotionConfig())
    assert len(found) == 300
    for draft in found:
        first, second = (int(scene.frames[f].name.rpartition("frame")[2]) for f in draft.frames)
        at = np.array(draft.points[0].point_in_world_m)
        ball = int(np.linalg.norm(centres_m[first] - at, axis=1).argmin())
        told = centres_m[second, ball] - centres_m[first, ball]
        assert np.linalg.norm(told - draft.truth.values) <= 0.0015
        assert np.linalg.norm(draft.truth.values) >= 0.01  # less could be noise


def test_what_a_scene_lacks_is_said():
    scene = make_scene()
    assert missing(scene, MultispaConfig()) == {}
    none = Tracked(scene.frames, None)
    assert set(missing(none, MultispaConfig())) == set(SUBTASKS)
    assert ask(none, SUBTASKS[0]) == []
    rigid = replace(scene.tracks, points_in_world_m=scene.tracks.points_in_world_m[:1].repeat(8, axis=0))
    assert "10 mm" in missing(Tracked(scene.frames, rigid), MultispaConfig())[SUBTASKS[0]]
    assert ask(Tracked(scene.frames, rigid), SUBTASKS[0]) == []
    once = Tracked(scene.frames[:2], scene.tracks)
    assert "time steps" in missing(once, MultispaConfig())[SUBTASKS[0]]
    for part, absent in ((slice(0, None, 2), "adt"), (slice(1, None, 2), "pstudio")):
        tracks = replace(scene.tracks, visible=scene.tracks.visible[part])
        one = Tracked(scene.frames[part], tracks)
        reasons = missing(one, MultispaConfig())
        assert set(reasons) == {name for name in SUBTASKS if name.endswith(absent)}
        for name in SUBTASKS:
            assert bool(ask(one, name, 5)) == (name not in reasons)


def test_a_long_video_stays_within_bounds(monkeypatch):
    rng = np.random.default_rng(0)
    position = np.cumsum(rng.normal(0, 0.005, (300, 1000, 3)), axis=0) + (0, 0, 3)
    body = np.arange(1000) // 10
    frames = [frame(t, t, pose_of(rng, 0.02, 0.02)) for t in range(300)]
    scene = Tracked(frames, PointTracks(position, np.ones((300, 1000), bool), body), noisy=True)
    tracemalloc.start()
    found = ask(scene, "tapvid3d_displacement_vector_coord_adt", 300, ObjectMotionConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 300
    assert peak < 300 << 20
    monkeypatch.setattr(object_motion, "_MAX_FRAMES", 20)
    assert len({f for d in ask(scene, SUBTASKS[0], 300) for f in d.frames}) <= 20


def _point(scene, draft, tracks=None):
    tracks = tracks or scene.tracks
    row = tracks.points_in_world_m[scene.frames[draft.frames[0]].state]
    return int(np.flatnonzero((row == draft.points[0].point_in_world_m).all(axis=1))[0])


def _body(scene, draft, tracks=None):
    return int(scene.true_body[_point(scene, draft, tracks)])
