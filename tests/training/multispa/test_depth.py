"""Depth questions: truth is what the depth image holds, the right point by brute force, answers evenly spread."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import MultispaConfig, PointConfig
from spatial_mllm_training.multispa.depth import SUBTASKS, drafts, missing
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.sources.base import SceneProblem
from spatial_mllm_training.sources.posed_rgbd import find_scenes

HOLOLENS = Path(__file__).parents[2] / "fixtures" / "hololens"
VALUE_DOT, VALUE, COMPARISON_DOT, COMPARISON = SUBTASKS
VALUES, COMPARISONS = (VALUE_DOT, VALUE), (COMPARISON_DOT, COMPARISON)
CONFIG = MultispaConfig()


def random(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def hololens():
    (ref,) = find_scenes(HOLOLENS, world_up=(0, 1, 0))
    return prepare(ref.open(*ref.arguments), CONFIG, random())


@pytest.fixture(scope="module")
def measured():
    """Depth images (12, 360, 540) in metres, read by OpenCV."""
    files = sorted((HOLOLENS / "depth").iterdir())
    return np.stack([cv2.imread(str(f), cv2.IMREAD_UNCHANGED) for f in files]) / 1000.0


def test_subtasks_are_the_published_ones():
    assert SUBTASKS == (
        "depth_estimation_dot",
        "depth_estimation_coor",
        "depth_comparison_annotated",
        "depth_comparison_coordinate",
    )
    assert set(SUBTASKS) == set(tasks.GROUPS["depth_value"] + tasks.GROUPS["depth_comparison"])


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_every_asked_pixel_of_real_frames_has_the_depth_of_the_file_and_is_off_edges(
    hololens, measured, subtask
):
    found = drafts(hololens, subtask, 400, random())
    assert len(found) == 400
    for draft in found:
        (frame,) = draft.frames
        assert len(draft.points) == (1 if subtask in VALUES else 2)
        for point in draft.points:
            u, v = round(point.u_px), round(point.v_px)
            assert (u, v) == (point.u_px, point.v_px), "whole pixels"
            assert 8 <= u < 540 - 8 and 8 <= v < 360 - 8
            assert point.role == "asked" and point.image == 0
            assert point.depth_m == pytest.approx(measured[frame, v, u], abs=1e-6)
            around = measured[frame, v - 1 : v + 2, u - 1 : u + 2]
            assert around.min() > 0
            assert around.max() - around.min() <= max(0.05, 0.04 * around.min()) + 1e-6


@pytest.mark.parametrize("subtask", VALUES)
def test_truth_is_the_depth_of_the_asked_pixel(hololens, measured, subtask):
    task = tasks.get(subtask)
    for draft in drafts(hololens, subtask, 200, random(1)):
        (point,) = draft.points
        in_file = measured[draft.frames[0], round(point.v_px), round(point.u_px)]
        assert task.gt_value(draft.truth) == round(1000 * in_file)
        assert draft.truth.values == (point.depth_m,) and draft.variant == ""


@pytest.mark.parametrize("subtask", COMPARISONS)
def test_the_right_point_by_brute_force(hololens, measured, subtask):
    found = drafts(hololens, subtask, 400, random(2))
    for draft in found:
        a, b = draft.points
        depths = [measured[draft.frames[0], round(p.v_px), round(p.u_px)] for p in (a, b)]
        right = int(np.argmin(depths) if draft.variant == "closer" else np.argmax(depths))
        assert max(depths) >= 1.05 * min(depths) * (1 - 1e-6)
        assert np.hypot(a.u_px - b.u_px, a.v_px - b.v_px) >= 20
        if subtask == COMPARISON_DOT:
            assert (a.label, b.label) == ("A", "B") and draft.truth.label == "AB"[right]
        else:
            assert (a.label, b.label) == ("", "")
            point = draft.points[right]
            assert draft.truth.values == pytest.approx((point.u_px / 540 * 1000, point.v_px / 360 * 1000))
            assert not np.allclose(draft.truth.values, np.round(draft.truth.values)) or point.u_px % 27 == 0


@pytest.mark.parametrize("subtask", COMPARISONS)
@pytest.mark.parametrize("wanted", [1, 7, 100, 401])
def test_words_and_right_places_are_exactly_even(hololens, subtask, wanted):
    kinds = Counter()
    for draft in drafts(hololens, subtask, wanted, random(wanted)):
        first, second = (p.depth_m for p in draft.points)
        kinds[draft.variant, (first < second) == (draft.variant == "closer")] += 1
    assert kinds.total() == wanted
    assert max(kinds.values()) - min((*kinds.values(), *[0] * (4 - len(kinds)))) <= 1
    assert {variant for variant, _ in kinds} <= set(tasks.get(subtask).variants) == {"closer", "farther"}


@pytest.mark.parametrize("subtask", SUBTASKS)
@pytest.mark.parametrize("wanted", [5, 12, 50])
def test_frames_are_asked_about_equally_often(hololens, subtask, wanted):
    counts = Counter(draft.frames for draft in drafts(hololens, subtask, wanted, random()))
    assert counts.total() == wanted and max(counts.values()) == -(-wanted // 12)
    assert len(counts) == min(wanted, 12)


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_no_pixel_is_asked_about_twice_and_chance_decides_which(hololens, subtask):
    found = drafts(hololens, subtask, 600, random())
    asked = [(draft.frames, p.u_px, p.v_px) for draft in found for p in draft.points]
    assert len(set(asked)) == len(asked)
    assert found == drafts(hololens, subtask, 600, random())
    others = drafts(hololens, subtask, 600, random(1))
    again = {(draft.frames, p.u_px, p.v_px) for draft in others for p in draft.points} & set(asked)
    assert len(again) < 0.05 * len(asked)


@pytest.mark.parametrize("subtask", VALUES)
def test_answers_do_not_pile_up_at_one_distance(hololens, measured, subtask):
    """In every frame each half octave of depth that it shows is asked about alike; pixels at large are not so."""
    found = drafts(hololens, subtask, 1200, random())
    largest_drawn, largest_shown = [], []
    for frame in range(12):
        drawn = Counter()
        for draft in found:
            if draft.frames == (frame,):
                low, high = (float(m) for m in draft.group[len("depth ") : -len(" m")].split("-"))
                assert low * 0.99 <= draft.truth.values[0] <= high * 1.01
                drawn[int(np.floor(2 * np.log2(draft.truth.values[0])))] += 1
        values = measured[frame][measured[frame] > 0]
        bands, sizes = np.unique(np.floor(2 * np.log2(values)).astype(int), return_counts=True)
        plenty = [drawn[band] for band in bands[sizes > 0.05 * values.size].tolist()]
        assert min(plenty) >= drawn.total() // len(drawn), "what scarce bands lack goes to others"
        largest_drawn.append(max(drawn.values()) / drawn.total())
        largest_shown.append(sizes.max() / values.size)
    assert np.mean(largest_drawn) < np.mean(largest_shown) - 0.1


def test_a_frame_that_cannot_compare_leaves_its_share_to_others(box_room):
    """A flat wall seen squarely has one depth; a frame of noise has only edges."""
    wall = np.full((72, 96), 2.0, np.float32)
    noise = random().uniform(1, 5, (72, 96)).astype(np.float32)
    room = prepare(box_room(6, depths={1: wall, 4: noise}), CONFIG, random())
    for seed in range(5):
        for subtask, silent in ((COMPARISON, {1, 4}), (VALUE, {4})):
            frames = Counter(draft.frames[0] for draft in drafts(room, subtask, 8, random(seed)))
            assert frames.total() == 8 and not silent & set(frames)
    assert all(len(drafts(room, VALUE, n, random(n))) == n for n in (1, 2, 3))
    blind = prepare(box_room(2, depths={0: wall, 1: wall}), CONFIG, random())
    assert drafts(blind, COMPARISON, 5, random()) == []
    assert len(drafts(blind, VALUE, 5, random())) == 5


@pytest.mark.parametrize("ratio", [1.0, 1.3, 2.0])
@pytest.mark.parametrize("separation", [0.0, 30.0])
def test_configured_ratio_and_separation_hold(box_room, ratio, separation):
    config = MultispaConfig(points=PointConfig(min_depth_ratio=ratio, min_separation_px=separation))
    room = prepare(box_room(4), config, random())
    found = drafts(room, COMPARISON_DOT, 100, random())
    assert len(found) == 100, "though at a ratio of 2 only one of the four frames can give any"
    asked = [(d.frames, p.u_px, p.v_px) for d in found for p in d.points]
    assert len(set(asked)) == len(asked)
    for draft in found:
        a, b = draft.points
        near, far = sorted((a.depth_m, b.depth_m))
        assert far > near and far >= ratio * near
        assert np.hypot(a.u_px - b.u_px, a.v_px - b.v_px) >= separation


def test_a_small_image_gives_what_it_has_and_no_more(box_room):
    config = MultispaConfig(points=PointConfig(border_px=2))
    room = prepare(box_room(1, camera=CameraModel.from_fov(12, 10, 0.4)), config, random())
    found = drafts(room, VALUE, 1000, random())
    assert 0 < len(found) <= 8 * 6
    assert drafts(room, VALUE, 0, random()) == drafts(room, COMPARISON, 0, random()) == []


def test_depth_that_no_longer_opens_is_named(box_room):
    scene = box_room(1)
    room = prepare(scene, CONFIG, random())
    scene._depths[0] = SceneProblem("box_room", "000.png", "it is gone")
    with pytest.raises(SceneProblem, match=r"000\.png: it is gone"):
        drafts(room, VALUE, 1, random())


def test_a_scene_without_depth_says_so(box_room):
    scene = box_room(has_depth=False)
    assert missing(scene, CONFIG) == dict.fromkeys(SUBTASKS, "the scene has no depth")
    assert drafts(prepare(scene, CONFIG, random()), VALUE, 5, random()) == []
    assert missing(box_room(), CONFIG) == {}
