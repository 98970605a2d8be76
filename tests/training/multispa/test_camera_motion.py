"""Camera motion: truths by SciPy and OpenCV, equivariant under swapping the pair, words equally often."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.camera_motion import SUBTASKS, drafts, missing
from spatial_mllm_training.multispa.config import MultispaConfig, PairConfig
from spatial_mllm_training.multispa.pair_sampling import Pair, candidate_pairs
from spatial_mllm_training.multispa.prepare import PreparedScene, prepare
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneProblem
from spatial_mllm_training.sources.posed_rgbd import find_scenes

HOLOLENS = Path(__file__).parents[2] / "fixtures" / "hololens"
CONFIG = MultispaConfig()
X, Y, Z, YAW, PITCH, YAW_ANGLE, PITCH_ANGLE, DISTANCE, VECTOR = SUBTASKS
TURNS = {YAW, PITCH, YAW_ANGLE, PITCH_ANGLE}
CAMERA = CameraModel.from_fov(64, 48, 1.2)
#: Optical axes of a camera that looks along the world's x, with z up.
LEVEL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])


class Poses(Scene):
    """Nothing but poses: all that these questions are about once the pairs are chosen."""

    name, source, skipped = "poses", "test", []

    def __init__(self, poses, world_up=(0.0, 0.0, 1.0)):
        self.frames = [SceneFrame(f"{i}", CAMERA, pose) for i, pose in enumerate(poses)]
        self.world_up = None if world_up is None else np.array(world_up)

    def image(self, index):
        raise SceneProblem(self.name, str(index), "there are no pictures")

    depth_m = image


def random(seed=0):
    return np.random.default_rng(seed)


def pose(yaw_deg=0.0, pitch_deg=0.0, roll_deg=0.0, at=(0.0, 0.0, 0.0)):
    """World from a camera that looks along x, turned left, up and about its axis."""
    turn = Rotation.from_euler("ZYX", [yaw_deg, -pitch_deg, roll_deg], degrees=True).as_matrix()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = turn @ LEVEL, at
    return matrix


def any_poses(count, seed=0):
    rng = random(seed)
    return [
        pose(rng.uniform(-180, 180), rng.uniform(-80, 80), rng.uniform(-40, 40), rng.normal(size=3))
        for _ in range(count)
    ]


def moved(scene, **pairs):
    return PreparedScene(scene, MultispaConfig(pairs=PairConfig(**pairs)), {}, [])


def all_pairs(scene):
    return [Pair(a, b, 20.0) for a, b in combinations(range(len(scene.frames)), 2)]


def displacement_by_opencv(one, two):
    """(3,) the second camera's centre, moved through the world into the first camera by OpenCV."""
    centre_in_world = cv2.transform(np.zeros((1, 1, 3)), two[:3])
    return cv2.transform(centre_in_world, np.linalg.inv(one)[:3])[0, 0]


def published_angles(matrix, world_up):
    """(yaw, pitch) of MultiSPA in degrees: atan2 and asin of the optical axis in a world whose z is up."""
    z_up_from_world, _ = Rotation.align_vectors([[0, 0, 1]], [world_up])
    x, y, z = z_up_from_world.apply(matrix[:3, 2])
    return np.degrees(np.arctan2(y, x)), np.degrees(np.arcsin(z))


def expected(subtask, one, two, world_up):
    """Word or numbers by the published formulas, on SciPy and OpenCV."""
    shift = displacement_by_opencv(one, two)
    if subtask in (X, Y, Z):
        axis = (X, Y, Z).index(subtask)
        return (("right", "left"), ("down", "up"), ("forward", "backward"))[axis][int(shift[axis] <= 0)]
    if subtask == DISTANCE:
        return [np.linalg.norm(shift)]
    if subtask == VECTOR:
        return shift
    angles = np.subtract(published_angles(two, world_up), published_angles(one, world_up))
    yaw, pitch = (angles[0] + 180) % 360 - 180, angles[1]
    return {
        YAW: "left" if yaw > 0 else "right",
        PITCH: "up" if pitch > 0 else "down",
        YAW_ANGLE: [abs(yaw)],
        PITCH_ANGLE: [abs(pitch)],
    }[subtask]


@pytest.fixture(scope="module")
def hololens():
    (ref,) = find_scenes(HOLOLENS, world_up=(0, 1, 0))
    return prepare(ref.open(*ref.arguments), CONFIG, random())


def test_subtasks_are_the_published_ones():
    assert SUBTASKS == (
        "x_movement",
        "y_movement",
        "z_movement",
        "yaw_movement",
        "pitch_movement",
        "yaw_angle",
        "pitch_angle",
        "total_distance",
        "displacement_vector",
    )


@pytest.mark.parametrize("subtask", SUBTASKS)
@pytest.mark.parametrize("which", ["hololens", "z up", "tilted up"])
def test_truths_by_scipy_and_opencv(request, subtask, which):
    if which == "hololens":
        prepared = request.getfixturevalue("hololens")
        pairs = candidate_pairs(prepared)
    else:
        up = (0.0, 0.0, 1.0) if which == "z up" else (0.3, -0.8, 0.52)
        prepared = moved(Poses(any_poses(14), up))
        pairs = all_pairs(prepared.scene)
    task, scene = tasks.get(subtask), prepared.scene
    found = drafts(prepared, subtask, pairs, random())
    assert len(found) == len(pairs) > 20
    for draft in found:
        one, two = (scene.frames[f].world_from_camera for f in draft.frames)
        truth = expected(subtask, one, two, scene.world_up)
        assert draft.points == () and draft.variant == "" and draft.group.startswith("overlap ")
        if isinstance(truth, str):
            assert draft.truth.label == truth and task.gt_value(draft.truth) == truth
        else:
            np.testing.assert_allclose(draft.truth.values, truth, atol=1e-5)
            published = np.atleast_1d(task.gt_value(draft.truth))
            scale = 1 if subtask in TURNS else 1000
            np.testing.assert_allclose(published, scale * np.array(truth), atol=1.0)


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_labels_are_equivariant_under_swapping_the_pair(hololens, subtask):
    opposite = {"left": "right", "up": "down"}
    opposite |= {b: a for a, b in opposite.items()}
    for scene, pairs in (
        (hololens.scene, candidate_pairs(hololens)),
        (Poses(any_poses(12, 1)), all_pairs(Poses(any_poses(12, 1)))),
    ):
        there = drafts(moved(scene, swap_probability=0.0), subtask, pairs, random())
        back = drafts(moved(scene, swap_probability=1.0), subtask, pairs, random())
        assert len(there) == len(back) == len(pairs)
        for a, b in zip(there, back, strict=True):
            assert a.frames == b.frames[::-1]
            one, two = (scene.frames[f].world_from_camera[:3, :3] for f in a.frames)
            second_from_first = two.T @ one
            if subtask in (YAW, PITCH):
                assert b.truth.label == opposite[a.truth.label]
            elif subtask in (YAW_ANGLE, PITCH_ANGLE, DISTANCE):
                assert b.truth.values == pytest.approx(a.truth.values, abs=1e-9)
            elif subtask == VECTOR:
                np.testing.assert_allclose(b.truth.values, -second_from_first @ a.truth.values, atol=1e-9)
            else:  # a word says where along the axis of its own first image
                (vector,) = drafts(
                    moved(scene, swap_probability=0.0), VECTOR, [Pair(*a.frames, 20.0)], random()
                )
                way = -second_from_first @ vector.truth.values
                words = tasks.get(subtask).labels
                axis = (X, Y, Z).index(subtask)
                assert a.truth.label == words[int(vector.truth.values[axis] <= 0)]
                assert b.truth.label == words[int(way[axis] <= 0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at": (0, -1, 0)}, {X: "right"}),
        ({"at": (0, 0, 1)}, {Y: "up"}),
        ({"at": (1, 0, 0)}, {Z: "forward"}),
        ({"yaw_deg": 30}, {YAW: "left", YAW_ANGLE: 30.0}),
        ({"pitch_deg": -20}, {PITCH: "down", PITCH_ANGLE: 20.0}),
        ({"yaw_deg": -170}, {YAW: "right", YAW_ANGLE: 170.0}),
        ({"roll_deg": 45}, {}),
        ({}, {}),
    ],
)
def test_by_hand_and_nothing_is_asked_about_what_does_not_move(change, words):
    prepared = moved(Poses([pose(), pose(**change)]), swap_probability=0.0)
    got = {}
    for subtask in SUBTASKS:
        for draft in drafts(prepared, subtask, [Pair(0, 1, 20.0)], random()):
            got[subtask] = draft.truth.label or draft.truth.values
    shift = got.pop(VECTOR, None), got.pop(DISTANCE, None)
    if "at" in change:
        x, y, z = change["at"]
        assert shift == (pytest.approx((-y, -z, x)), pytest.approx((1.0,)))
    else:
        assert shift == (None, None)
    assert set(got) == set(words)
    for subtask, word in words.items():
        assert got[subtask] == (word if isinstance(word, str) else pytest.approx((word,)))


def test_margins_hold_and_leave_out_nothing_else():
    scene = Poses([pose(), *(pose(d, d / 2, 0, (d / 100, -d / 50, 0)) for d in range(1, 21))])
    pairs = [Pair(0, i, 20.0) for i in range(1, 21)]
    wide = {"swap_probability": 0.0, "min_shift_m": 0.0951, "min_turn_deg": 4.9}
    smallest = {Z: 10, X: 5, YAW: 5, YAW_ANGLE: 5, PITCH: 10, PITCH_ANGLE: 10, DISTANCE: 5, VECTOR: 5}
    for subtask in SUBTASKS:
        asked = [draft.frames[1] for draft in drafts(moved(scene, **wide), subtask, pairs, random())]
        assert asked == ([] if subtask == Y else list(range(smallest[subtask], 21)))
        free = drafts(moved(scene, swap_probability=0.0), subtask, pairs, random())
        assert len(free) == (0 if subtask == Y else 20), "as published there is no margin"


@pytest.mark.parametrize("subtask", [X, Y, Z, YAW, PITCH])
def test_words_come_equally_often_even_where_the_camera_always_moves_one_way(subtask):
    """A camera that goes on and on to the right, down, forward, and turns left and up."""
    poses = [pose(1.0 * i, 0.5 * i, 0, (0.2 * i, -0.2 * i, -0.2 * i)) for i in range(12)]
    scene = Poses(poses)
    pairs = [pair for pair in all_pairs(scene) if pair.second - pair.first <= 3]
    counts = Counter(d.truth.label for d in drafts(moved(scene), subtask, pairs, random()))
    assert counts.total() == len(pairs) and abs(np.subtract(*counts.values())) <= 1
    as_they_are = drafts(moved(scene, swap_probability=0.0), subtask, pairs, random())
    assert len({d.truth.label for d in as_they_are}) == 1
    assert all(d.frames[0] < d.frames[1] for d in as_they_are)


@pytest.mark.parametrize("subtask", [X, Y, Z, YAW, PITCH])
def test_words_on_real_frames_are_as_even_as_the_pairs_allow(hololens, subtask):
    pairs = candidate_pairs(hololens)
    both = [
        {
            draft.truth.label
            for swap in (0.0, 1.0)
            for draft in drafts(moved(hololens.scene, swap_probability=swap), subtask, [pair], random())
        }
        for pair in pairs
    ]
    fixed = Counter(next(iter(words)) for words in both if len(words) == 1)
    free = len(pairs) - fixed.total()
    plus, minus = tasks.get(subtask).labels
    least = max(len(pairs) % 2, abs(fixed[plus] - fixed[minus]) - free)
    for seed in range(5):
        counts = Counter(d.truth.label for d in drafts(hololens, subtask, pairs, random(seed)))
        assert counts.total() == len(pairs) and abs(counts[plus] - counts[minus]) == least


@pytest.mark.parametrize("subtask", [X, Y, Z])
def test_pairs_with_a_choice_make_up_for_those_without_wherever_they_come(subtask):
    """Pairs that give one word in both orders, and only that word, after as many that could give either."""
    scene = Poses(any_poses(20))
    plus = tasks.get(subtask).labels[0]
    forced, free = [], []
    for pair in all_pairs(scene):
        words = {
            draft.truth.label
            for swap in (0.0, 1.0)
            for draft in drafts(moved(scene, swap_probability=swap), subtask, [pair], random())
        }
        if len(words) == 2:
            free.append(pair)
        elif words == {plus}:
            forced.append(pair)
    count = min(len(forced), len(free))
    assert count >= 10
    pairs = free[:count] + forced[:count]
    for seed in range(3):
        found = drafts(moved(scene), subtask, pairs, random(seed))
        assert Counter(d.truth.label == plus for d in found) == {True: count, False: count}
        assert [frozenset(d.frames) for d in found] == [frozenset((p.first, p.second)) for p in pairs]


@pytest.mark.parametrize("subtask", [DISTANCE, VECTOR, YAW_ANGLE])
def test_numbers_are_asked_in_both_orders(subtask):
    prepared = moved(Poses(any_poses(30)))
    found = drafts(prepared, subtask, all_pairs(prepared.scene), random())
    assert np.mean([d.frames[0] > d.frames[1] for d in found]) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("subtask", SUBTASKS)
def test_chance_decides_and_repeats_one_question_a_pair(subtask):
    prepared = moved(Poses(any_poses(10)))
    pairs = all_pairs(prepared.scene)
    one, same, other = (drafts(prepared, subtask, pairs, random(seed)) for seed in (1, 1, 2))
    assert one == same != other
    assert [frozenset(d.frames) for d in one] == [frozenset((p.first, p.second)) for p in pairs]


def test_a_camera_that_looks_straight_down_has_no_heading():
    prepared = moved(Poses([pose(0, -90, 0), pose(30, 10, 0, (1, 1, 1))]))
    for subtask in SUBTASKS:
        found = drafts(prepared, subtask, [Pair(0, 1, 20.0)], random())
        assert len(found) == (subtask not in (YAW, YAW_ANGLE))


def test_what_a_scene_cannot_give_has_a_reason(box_room):
    assert missing(box_room(3), CONFIG) == {}
    for scene, words in (
        (box_room(has_depth=False), "overlap of images is unknown"),
        (box_room(1), "no two images"),
        (box_room(3, states=range(3)), "no two images"),
    ):
        reasons = missing(scene, CONFIG)
        assert set(reasons) == set(SUBTASKS) and all(words in reason for reason in reasons.values())
    scene = Poses(any_poses(4), world_up=None)
    reasons = missing(scene, CONFIG)
    assert set(reasons) == TURNS and all("world_up" in reason for reason in reasons.values())
    for subtask in SUBTASKS:
        found = drafts(moved(scene), subtask, all_pairs(scene), random())
        assert len(found) == (0 if subtask in TURNS else 6)
