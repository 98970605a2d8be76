"""Correspondences: within 1 px by OpenCV on real frames, exact on a made room; distractors that obey their rules."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare, kstest

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import MultispaConfig, PairConfig, PointConfig, VisibilityConfig
from spatial_mllm_training.multispa.correspondence import SUBTASKS, drafts, missing
from spatial_mllm_training.multispa.pair_sampling import Pair, candidate_pairs
from spatial_mllm_training.multispa.prepare import PreparedScene, prepare
from spatial_mllm_training.sources.base import SceneFrame, SceneProblem
from spatial_mllm_training.sources.posed_rgbd import find_scenes

HOLOLENS = Path(__file__).parents[2] / "fixtures" / "hololens"
CHOICE, COORDINATE = SUBTASKS
CONFIG = MultispaConfig()
SHARP = CameraModel.from_fov(200, 150, 1.2)
LENS = CameraModel.from_k(
    [[144, 0, 97.0], [0, 143, 76.0], [0, 0, 1]], 200, 150, d=[-0.1, 0.02, 0.001, -0.001, 0.0]
)


def random(seed=0):
    return np.random.default_rng(seed)


def with_config(prepared, **parts):
    """The same scene and visible points under other numbers."""
    return PreparedScene(prepared.scene, replace(prepared.config, **parts), prepared.states, prepared.skipped)


def right(draft):
    """The point of the second image that is the truth."""
    if draft.subtask == COORDINATE:
        return draft.points[1]
    (point,) = (p for p in draft.points if p.label == draft.truth.label)
    return point


@pytest.fixture(scope="module")
def hololens():
    (ref,) = find_scenes(HOLOLENS, world_up=(0, 1, 0))
    return prepare(ref.open(*ref.arguments), CONFIG, random())


@pytest.fixture(scope="module")
def measured():
    """Depth images (12, 360, 540) in metres, read by OpenCV."""
    files = sorted((HOLOLENS / "depth").iterdir())
    return np.stack([cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in files]) / 1000.0


def assert_off_edges(depth_m, u, v):
    around = depth_m[v - 1 : v + 2, u - 1 : u + 2]
    assert around.min() > 0
    assert around.max() - around.min() <= max(0.05, 0.04 * around.min()) + 1e-6


def by_opencv(pixel, depth_m, source, target):
    """Pixel and z of a point of one frame in another, by OpenCV alone; for images without distortion."""
    x, y = cv2.undistortPoints(np.array([[pixel]], np.float64), source.camera.k, None)[0, 0]
    target_from_source = np.linalg.inv(target.world_from_camera) @ source.world_from_camera
    point = np.array([x * depth_m, y * depth_m, depth_m])
    projected, _ = cv2.projectPoints(
        point[None],
        cv2.Rodrigues(target_from_source[:3, :3])[0],
        target_from_source[:3, 3],
        target.camera.k,
        None,
    )
    return projected[0, 0], float((target_from_source @ (*point, 1))[2])


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_real_points_reproject_within_a_pixel_and_come_back_by_opencv(hololens, measured, subtask):
    """As recorded depth and poses say. The pictures differ from them by more: optical flow on the whole

    sequence leaves 0.6 px (median) above 50 % overlap, 2.0 px at 20-35 % and 2.7 px at 6-20 %.
    """
    frames, pairs = hololens.scene.frames, candidate_pairs(hololens)
    found = [draft for seed in range(5) for draft in drafts(hololens, subtask, pairs, random(seed))]
    assert len(pairs) > 20 and len(found) > 100
    for draft in found:
        one, two = (frames[i] for i in draft.frames)
        asked, answer = draft.points[0], right(draft)
        assert (asked.image, asked.role, answer.image) == (0, "asked", 1)
        u, v = round(asked.u_px), round(asked.v_px)
        assert (u, v) == (asked.u_px, asked.v_px) and 8 <= u < 532 and 8 <= v < 352
        assert asked.depth_m == pytest.approx(measured[draft.frames[0], v, u], abs=1e-6)
        there, z = by_opencv((u, v), measured[draft.frames[0], v, u], one, two)
        assert np.linalg.norm(there - (answer.u_px, answer.v_px)) < 0.01
        assert answer.depth_m == pytest.approx(z, abs=1e-5)
        u, v = np.floor(there + 0.5).astype(int)
        in_second = measured[draft.frames[1], v, u]
        assert 8 <= u < 532 and 8 <= v < 352
        assert abs(z - in_second) <= max(0.05, 0.03 * in_second) + 1e-6
        back, _ = by_opencv(there, in_second, two, one)
        assert np.linalg.norm(back - (asked.u_px, asked.v_px)) <= 1.001
        assert_off_edges(measured[draft.frames[0]], round(asked.u_px), round(asked.v_px))
        assert_off_edges(measured[draft.frames[1]], u, v)
        in_first = cv2.undistortPoints(np.array([[[asked.u_px, asked.v_px]]]), one.camera.k, None)[0, 0]
        world = one.world_from_camera @ (*(asked.depth_m * in_first), asked.depth_m, 1)
        assert asked.point_in_world_m == answer.point_in_world_m == pytest.approx(tuple(world[:3]), abs=1e-4)


def test_truth_is_the_answer_on_the_published_scale(hololens):
    task = tasks.get(COORDINATE)
    for draft in drafts(hololens, COORDINATE, candidate_pairs(hololens), random()):
        asked, answer = draft.points
        assert (asked.role, answer.role, answer.label) == ("asked", "answer", "")
        assert draft.truth.values == pytest.approx((answer.u_px / 0.540, answer.v_px / 0.360))
        assert task.gt_value(draft.truth) == [round(answer.u_px / 0.540), round(answer.v_px / 0.360)]


@pytest.mark.parametrize(
    "how",
    [
        {"camera": SHARP},
        {"camera": LENS},
        {"camera": SHARP, "depth_camera": CameraModel.from_fov(130, 100, 1.3)},
    ],
    ids=["plain", "lens", "depth of another size"],
)
def test_in_a_made_room_the_answer_shows_the_same_surface(box_room, how):
    """Seen through one pixel that looks exactly at the answer, the room has the answer's depth: nothing is in front."""
    room = prepare(box_room(10, **how), CONFIG, random())
    pairs = candidate_pairs(room)
    found = [draft for seed in range(5) for draft in drafts(room, COORDINATE, pairs, random(seed))]
    assert len(pairs) >= 8 and len(found) >= 30
    coarse_m = 0.05 if "depth_camera" in how else 2e-3
    for draft in found:
        answer, frame = draft.points[1], room.scene.frames[draft.frames[1]]
        ray = frame.camera.rays(np.array([[answer.u_px, answer.v_px]]))[0]
        through = CameraModel.from_k([[1000, 0, -1000 * ray[0]], [0, 1000, -1000 * ray[1]], [0, 0, 1]], 1, 1)
        eye = type(room.scene)([SceneFrame("eye", through, frame.world_from_camera)])
        assert float(eye.depth_m(0)[0, 0]) == pytest.approx(answer.depth_m, abs=coarse_m)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_images_that_do_not_agree_in_depth_give_nothing(box_room, factor):
    good = prepare(box_room(12), CONFIG, random())
    pairs, points = candidate_pairs(good), good.states[0].points_m
    at = pairs[0].second
    depth = good.scene.depth_m(at) * np.float32(factor)
    room = prepare(box_room(12, depths={at: depth}, points=points), CONFIG, random())
    found = {draft.frames for draft in drafts(room, COORDINATE, pairs, random())}
    touched = [{p.first, p.second} for p in pairs if at in (p.first, p.second)]
    assert touched and not [frames for frames in found if set(frames) in touched]
    assert len(found) == len(pairs) - len(touched)


@pytest.mark.parametrize("factor", [1.0, 0.9, 1.1])
def test_depth_must_agree_even_where_it_moves_no_pixel(box_room, factor):
    """A camera that only turns comes back to every pixel whatever the depth: here the tolerance alone decides."""
    first = box_room(1).frames[0]
    turned = first.world_from_camera.copy()
    turned[:3, :3] = turned[:3, :3] @ Rotation.from_euler("y", 0.5).as_matrix()
    frames = [first, replace(first, name="turned", world_from_camera=turned)]
    room = type(box_room(1))(frames)
    points, depth = prepare(room, CONFIG, random()).states[0].points_m, room.depth_m(1)
    changed = type(room)(frames, depths={1: depth * np.float32(factor)}, points=points)
    # a wide tolerance of visibility, so that there are common points to be judged
    visible = prepare(changed, MultispaConfig(visibility=VisibilityConfig(tolerance_m=1.0)), random()).states
    prepared = PreparedScene(changed, CONFIG, visible, [])
    assert len(visible[0].common(0, 1)) > 500
    found = drafts(prepared, COORDINATE, [Pair(0, 1, 20.0)] * 20, random())
    assert len(found) == (20 if factor == 1.0 else 0)


def test_cycle_limit_decides_what_passes(hololens):
    pairs = candidate_pairs(hololens)
    strict = with_config(hololens, pairs=PairConfig(cycle_px=0.02))
    few, many = (drafts(p, COORDINATE, pairs, random()) for p in (strict, hololens))
    assert len(few) < len(many) == len(pairs)


@pytest.mark.parametrize("hard_share", [0.0, 1.0])
def test_distractors_obey_their_rules(hololens, measured, hard_share):
    prepared = with_config(hololens, points=PointConfig(hard_share=hard_share))
    pairs = candidate_pairs(prepared)
    found = [draft for seed in range(6) for draft in drafts(prepared, CHOICE, pairs, random(seed))]
    assert len(found) > 100
    overlap = {frozenset((p.first, p.second)): p.overlap_percent for p in pairs}
    distances = []
    for draft in found:
        asked, *choices = draft.points
        assert [(p.label, p.role, p.image) for p in choices] == [(x, "choice", 1) for x in "ABCD"]
        assert (asked.label, asked.role) == ("", "asked")
        kind = "hard" if hard_share else "easy"
        assert draft.group == f"{kind}, overlap {int(overlap[frozenset(draft.frames)])} %"
        answer, pixels = right(draft), np.array([(p.u_px, p.v_px) for p in choices])
        apart = np.linalg.norm(pixels[:, None] - pixels[None], axis=2)[np.triu_indices(4, 1)]
        assert apart.min() >= 20
        for p in choices:
            if p is answer:
                continue
            u, v = int(np.floor(p.u_px + 0.5)), int(np.floor(p.v_px + 0.5))
            assert 8 <= u < 532 and 8 <= v < 352
            assert_off_edges(measured[draft.frames[1]], u, v)
            assert p.depth_m == pytest.approx(measured[draft.frames[1], v, u], abs=1e-6)
            distances.append(np.hypot(p.u_px - answer.u_px, p.v_px - answer.v_px))
    if hard_share:
        assert max(distances) <= 0.12 * 540
    else:
        assert np.median(distances) > 0.2 * 540


def test_hard_share_is_the_share_of_hard_questions(hololens):
    prepared = with_config(hololens, points=PointConfig(hard_share=0.3))
    pairs = candidate_pairs(prepared) * 20
    kinds = Counter(draft.group.split(",")[0] for draft in drafts(prepared, CHOICE, pairs, random()))
    assert kinds["hard"] / kinds.total() == pytest.approx(0.3, abs=0.08)


def test_right_letters_are_exactly_even_and_come_in_no_order(hololens):
    pairs = candidate_pairs(hololens) * 10
    letters = [draft.truth.label for draft in drafts(hololens, CHOICE, pairs, random())]
    counts = Counter(letters)
    assert set(counts) == set("ABCD") and max(counts.values()) - min(counts.values()) <= 1
    following = Counter(pairwise(letters))
    assert len(following) == 16


def test_the_right_dot_cannot_be_told_by_its_place_between_pixels(hololens):
    """Were distractors on whole pixels, their dots would be drawn more sharply than the right one."""
    pairs = candidate_pairs(hololens) * 20
    parts = {True: [], False: []}
    for draft in drafts(hololens, CHOICE, pairs, random()):
        for p in draft.points[1:]:
            parts[p.label == draft.truth.label] += [p.u_px % 1, p.v_px % 1]
    assert kstest(parts[False], "uniform").pvalue > 1e-3
    assert kstest(parts[True], "uniform").pvalue > 1e-3


def test_questions_keep_the_order_of_their_pairs_one_each(hololens):
    pairs = candidate_pairs(hololens)
    mixed = [pairs[i] for i in random(3).permutation(len(pairs))]
    for subtask in SUBTASKS:
        asked = [frozenset(draft.frames) for draft in drafts(hololens, subtask, mixed, random())]
        assert asked == [frozenset((p.first, p.second)) for p in mixed]
        assert drafts(hololens, subtask, [], random()) == []


@pytest.mark.parametrize(("probability", "low", "high"), [(0.0, 0, 0), (0.5, 0.4, 0.6), (1.0, 1, 1)])
def test_pairs_are_swapped_as_often_as_configured(hololens, probability, low, high):
    prepared = with_config(hololens, pairs=PairConfig(swap_probability=probability))
    found = drafts(prepared, COORDINATE, candidate_pairs(prepared) * 20, random())
    assert low <= np.mean([draft.frames[0] > draft.frames[1] for draft in found]) <= high


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_chance_decides_and_repeats(hololens, subtask):
    pairs = candidate_pairs(hololens)
    one, same, other = (drafts(hololens, subtask, pairs, random(seed)) for seed in (1, 1, 2))
    assert one == same != other


def test_points_are_drawn_from_all_that_both_images_show(hololens):
    """Quarters of the shared points, by their id, are asked about alike."""
    visible = hololens.states[0]
    pair = max(candidate_pairs(hololens), key=lambda p: p.overlap_percent)
    common = visible.pixels(pair.first, visible.common(pair.first, pair.second))
    prepared = with_config(hololens, pairs=PairConfig(swap_probability=0.0))
    found = drafts(prepared, COORDINATE, [pair] * 400, random())
    asked = np.array([draft.points[0].u_px for draft in found])
    assert len({draft.points[0] for draft in found}) > 350
    edges = np.quantile(common[:, 0], [0.25, 0.5, 0.75])
    counts = np.bincount(np.digitize(asked, edges), minlength=4)
    assert counts.min() > 0.5 * len(asked) / 4, chisquare(counts)


def test_pairs_without_common_points_or_room_for_distractors_give_none(box_room):
    room = prepare(box_room(8), CONFIG, random())
    assert len(room.states[0].common(0, 4)) == 0
    for subtask in SUBTASKS:
        assert drafts(room, subtask, [Pair(0, 4, 10.0)], random()) == []
    crowded = with_config(room, points=PointConfig(min_separation_px=70))
    assert len(drafts(room, CHOICE, [Pair(0, 1, 30.0)], random())) == 1
    assert drafts(crowded, CHOICE, [Pair(0, 1, 30.0)], random()) == []


def test_depth_that_no_longer_opens_is_named(box_room):
    scene = box_room(4)
    room = prepare(scene, CONFIG, random())
    scene._depths[0] = SceneProblem("box_room", "000.png", "it is gone")
    with pytest.raises(SceneProblem, match=r"000\.png: it is gone"):
        drafts(room, COORDINATE, [Pair(0, 1, 20.0)], random())


def test_what_a_scene_cannot_give_has_a_reason(box_room):
    assert missing(box_room(3), CONFIG) == {}
    for scene, words in (
        (box_room(has_depth=False), "no depth"),
        (box_room(1), "no two images"),
        (box_room(4, states=range(4)), "no two images"),
    ):
        reasons = missing(scene, CONFIG)
        assert set(reasons) == set(SUBTASKS) and all(words in reason for reason in reasons.values())
    all_hard = MultispaConfig(points=PointConfig(hard_share=1.0))
    assert list(missing(box_room(3), all_hard)) == [CHOICE]
    assert "within 12 px" in missing(box_room(3), all_hard)[CHOICE]
    assert missing(box_room(3, camera=SHARP), all_hard) == {}
