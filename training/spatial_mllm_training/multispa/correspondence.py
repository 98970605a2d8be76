"""Questions about the same surface point in two images; knows neither words nor pictures.

A point counts only where both depth images agree on it: a pixel of the first image, lifted by its
depth and projected into the second, must find its depth there within the two-sided tolerance of
visibility, and come back to the pixel within `cycle_px` by the second image's depth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.correspondence import (
    CORRESPONDENCE,
    CORRESPONDENCE_CHOICE,
    LETTERS,
    coordinate_truth,
    corresponding_pixels,
    letter_truth,
)
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.pair_sampling import Pair
from spatial_mllm_training.multispa.picking import draft_points, in_turn, is_askable, no_pairs
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

SUBTASKS = (CORRESPONDENCE_CHOICE.name, CORRESPONDENCE.name)
_POINTS_TRIED = 48
_DISTRACTORS_TRIED = 300
_DISTRACTORS = len(LETTERS) - 1


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    if reason := no_pairs(scene):
        return dict.fromkeys(SUBTASKS, reason)
    points = config.points
    reach_px = points.hard_radius * max(frame.camera.width for frame in scene.frames)
    if points.hard_share >= 1 and reach_px < points.min_separation_px:
        return {
            CORRESPONDENCE_CHOICE.name: f"hard distractors would lie within {reach_px:.0f} px of the answer, "
            f"nearer than min_separation_px = {points.min_separation_px:g}"
        }
    return {}


def drafts(
    prepared: PreparedScene, subtask: str, pairs: Sequence[Pair], rng: np.random.Generator
) -> list[Draft]:
    """At most one question of each pair, in the order of the pairs; the right letters come equally often.

    A pair without a point that passes gives none, nor does one without room for the distractors.

    Raises:
        SceneProblem: a depth image no longer opens.
    """
    letters = in_turn(range(len(LETTERS)), len(pairs), rng)
    made: dict[int, Draft] = {}
    # by frames, so that a depth image is read once for all its pairs
    for number in sorted(range(len(pairs)), key=lambda i: (pairs[i].first, pairs[i].second)):
        pair = pairs[number]
        frames = (pair.first, pair.second)
        if rng.random() < prepared.config.pairs.swap_probability:
            frames = frames[::-1]
        points = _matched_point(prepared, frames, rng)
        if points is None:
            continue
        group = f"overlap {int(pair.overlap_percent)} %"
        if subtask == CORRESPONDENCE.name:
            camera = prepared.scene.frames[frames[1]].camera
            truth = coordinate_truth((points[1].u_px, points[1].v_px), camera.width, camera.height)
            made[number] = Draft(subtask, frames, points, truth, group=group)
            continue
        is_hard = rng.random() < prepared.config.points.hard_share
        others = _distractors(prepared, frames[1], points[1], is_hard, rng)
        if others is not None:
            place = letters[len(made)]
            choices = [*others[:place], replace(points[1], role="choice"), *others[place:]]
            lettered = [replace(p, label=letter) for p, letter in zip(choices, LETTERS, strict=True)]
            group = f"{'hard' if is_hard else 'easy'}, {group}"
            made[number] = Draft(subtask, frames, (points[0], *lettered), letter_truth(place), group=group)
    return [made[number] for number in sorted(made)]


def _matched_point(
    prepared: PreparedScene, frames: tuple[int, int], rng: np.random.Generator
) -> tuple[DraftPoint, DraftPoint] | None:
    """A random surface point that both frames show, as (asked, answer).

    The asked pixel is whole; the answer is where exactly its surface point projects to.
    """
    first, second = frames
    visible = prepared.states[prepared.state_of(first)]
    common = visible.common(first, second)
    if len(common) > _POINTS_TRIED:
        common = rng.choice(common, _POINTS_TRIED, replace=False)
    asked_px = np.floor(visible.pixels(first, common) + 0.5)
    asked_px = asked_px[is_askable(prepared, first, asked_px)]
    one, two = (prepared.scene.frames[f] for f in frames)
    depth_m = prepared.sample_depth_m(first, asked_px).astype(np.float64)
    answer_px, answer_m = corresponding_pixels(
        asked_px, depth_m, one.camera, one.world_from_camera, two.camera, two.world_from_camera
    )
    measured_m = prepared.sample_depth_m(second, answer_px).astype(np.float64)
    limits = prepared.config.visibility
    tolerance_m = np.maximum(limits.tolerance_m, limits.relative_tolerance * measured_m)
    good = (depth_m > 0) & (measured_m > 0) & is_askable(prepared, second, answer_px)
    good &= np.abs(answer_m - measured_m) <= tolerance_m
    asked_px, depth_m, answer_px = asked_px[good], depth_m[good], answer_px[good]
    back_px, _ = corresponding_pixels(
        answer_px, measured_m[good], two.camera, two.world_from_camera, one.camera, one.world_from_camera
    )
    passed = np.flatnonzero(np.linalg.norm(back_px - asked_px, axis=1) <= prepared.config.pairs.cycle_px)
    if not len(passed):
        return None
    i = int(rng.choice(passed))
    (asked,) = draft_points(prepared, first, asked_px[i : i + 1], depth_m[i : i + 1])
    u, v = answer_px[i].tolist()
    return asked, DraftPoint(1, u, v, float(answer_m[good][i]), asked.point_in_world_m, "answer")


def _distractors(
    prepared: PreparedScene, frame: int, answer: DraftPoint, is_hard: bool, rng: np.random.Generator
) -> list[DraftPoint] | None:
    """Points of the second image apart from the answer and each other, all over it or near the answer."""
    config, camera = prepared.config.points, prepared.scene.frames[frame].camera
    right = np.array([answer.u_px, answer.v_px])
    # Not on whole pixels, as the answer is not: the drawn dots must not tell it from the others.
    tried = rng.uniform(-0.5, (camera.width - 0.5, camera.height - 0.5), (_DISTRACTORS_TRIED, 2))
    if is_hard:
        reach_px = config.hard_radius * camera.width
        tried = right + rng.uniform(-reach_px, reach_px, tried.shape)
        tried = tried[np.linalg.norm(tried - right, axis=1) <= reach_px]
    tried = tried[np.linalg.norm(tried - right, axis=1) >= config.min_separation_px]
    tried = tried[is_askable(prepared, frame, tried)]
    kept: NDArray[np.float64] = tried[:0]
    while len(kept) < _DISTRACTORS:
        if not len(tried):
            return None
        kept = np.vstack([kept, tried[:1]])
        tried = tried[np.linalg.norm(tried - kept[-1], axis=1) >= config.min_separation_px]
    depths_m = prepared.sample_depth_m(frame, kept)
    return draft_points(prepared, frame, kept, depths_m, image=1, role="choice")
