"""Questions about the same surface point in two images; knows neither words nor pictures.

A point counts only where both depth images agree on it: the pixel of the first image, lifted by
its depth and projected into the second, must find its depth there, and come back to the pixel
within `cycle_px` by the second image's depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.correspondence import (
    CORRESPONDENCE,
    CORRESPONDENCE_CHOICE,
    LETTERS,
    letter_truth,
)
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.pair_sampling import Pair
from spatial_mllm_training.multispa.picking import surface_point
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene, SceneProblem

SUBTASKS = (CORRESPONDENCE_CHOICE.name, CORRESPONDENCE.name)
_TRIED = 48
_DISTRACTORS_TRIED = 300


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    return {} if scene.has_depth else dict.fromkeys(SUBTASKS, "the scene has no depth")


def drafts(
    prepared: PreparedScene, subtask: str, pairs: Sequence[Pair], rng: np.random.Generator
) -> list[Draft]:
    """At most one question of each pair; a pair without a point that passes gives none."""
    found = []
    for pair in pairs:
        frames = (pair.first, pair.second)
        if rng.random() < prepared.config.pairs.swap_probability:
            frames = frames[::-1]
        try:
            points = matched_point(prepared, *frames, rng)
        except SceneProblem:
            continue
        if points is None:
            continue
        group = f"overlap {int(pair.overlap_percent)} %"
        if subtask == CORRESPONDENCE.name:
            answer, size = points[1], prepared.scene.frames[frames[1]].camera
            truth = TaskValue((1000 * answer.u_px / size.width, 1000 * answer.v_px / size.height))
            found.append(Draft(subtask, frames, points, truth, group=group))
        else:
            draft = _choice(prepared, frames, points, group, rng)
            found += [draft] if draft else []
    return found


def matched_point(
    prepared: PreparedScene, first: int, second: int, rng: np.random.Generator
) -> tuple[DraftPoint, DraftPoint] | None:
    """A random surface point that both frames show, as (asked, answer), or None."""
    visible = prepared.states[prepared.state_of(first)]
    common = visible.common(first, second)
    if not len(common):
        return None
    some = rng.permutation(common)[:_TRIED]
    config = prepared.config
    pixels = np.unique(np.floor(visible.pixels(first, some) + 0.5).astype(np.int64), axis=0)
    pixels = pixels[_askable(prepared, first, pixels)]
    if not len(pixels):
        return None
    depth_m = prepared.sample_depth_m(first, pixels).astype(np.float64)
    one, two = (prepared.scene.frames[f] for f in (first, second))
    second_from_first = np.linalg.inv(two.world_from_camera) @ one.world_from_camera
    there = _moved(one.camera.unproject(pixels.astype(float), depth_m), second_from_first)
    landed = two.camera.project(there)
    good = (depth_m > 0) & (there[:, 2] > 0) & _askable(prepared, second, np.floor(landed + 0.5))
    measured = np.zeros(len(pixels))
    measured[good] = prepared.sample_depth_m(second, landed[good])
    tolerance = np.maximum(config.visibility.tolerance_m, config.visibility.relative_tolerance * measured)
    good &= (measured > 0) & (np.abs(there[:, 2] - measured) <= tolerance)
    back = np.full(pixels.shape, np.inf)
    lifted = two.camera.unproject(landed[good], measured[good])
    back[good] = one.camera.project(_moved(lifted, np.linalg.inv(second_from_first)))
    good &= np.linalg.norm(back - pixels, axis=1) <= config.pairs.cycle_px
    passed = np.flatnonzero(good)
    if not len(passed):
        return None
    i = int(rng.choice(passed))
    asked = surface_point(prepared, first, tuple(pixels[i].tolist()), depth_m[i], 0, "asked")
    u, v = landed[i].tolist()
    answer = DraftPoint(1, u, v, float(there[i, 2]), asked.point_in_world_m, "answer")
    return asked, answer


def _choice(
    prepared: PreparedScene,
    frames: tuple[int, int],
    points: tuple[DraftPoint, DraftPoint],
    group: str,
    rng: np.random.Generator,
) -> Draft | None:
    """Four lettered points of the second image, one of them right."""
    config, camera = prepared.config.points, prepared.scene.frames[frames[1]].camera
    is_hard = rng.random() < config.hard_share
    asked, answer = points
    border = config.border_px
    high = (camera.width - border, camera.height - border)
    tried = rng.integers(border, high, (_DISTRACTORS_TRIED, 2))
    if is_hard:
        reach = config.hard_radius * camera.width
        around = np.round(np.array([answer.u_px, answer.v_px]) + rng.uniform(-reach, reach, tried.shape))
        inside = ((around >= border) & (around < high)).all(axis=1)
        tried = around[inside & (np.hypot(*(around - (answer.u_px, answer.v_px)).T) <= reach)].astype(int)
    tried = tried[_askable(prepared, frames[1], tried)]
    kept = np.array([[answer.u_px, answer.v_px]])
    for candidate in tried:
        if (np.linalg.norm(kept - candidate, axis=1) >= config.min_separation_px).all():
            kept = np.vstack([kept, candidate])
        if len(kept) == len(LETTERS):
            break
    if len(kept) < len(LETTERS):
        return None
    depths = prepared.sample_depth_m(frames[1], kept[1:])
    others = [
        surface_point(prepared, frames[1], (float(u), float(v)), float(z), 1, "choice")
        for (u, v), z in zip(kept[1:], depths, strict=True)
    ]
    place = int(rng.integers(len(LETTERS)))
    others.insert(place, answer)
    choices = tuple(
        DraftPoint(1, p.u_px, p.v_px, p.depth_m, p.point_in_world_m, "choice", letter)
        for p, letter in zip(others, LETTERS, strict=True)
    )
    group = f"{'hard' if is_hard else 'easy'}, {group}"
    return Draft(CORRESPONDENCE_CHOICE.name, frames, (asked, *choices), letter_truth(place), group=group)


def _askable(prepared: PreparedScene, frame: int, pixels: NDArray) -> NDArray[np.bool_]:
    """(n,) whether whole pixels lie inside the border and off the edges."""
    edges, border = prepared.edge_mask(frame), prepared.config.points.border_px
    height, width = edges.shape
    with np.errstate(invalid="ignore"):
        inside = (pixels >= border).all(axis=1) & (pixels[:, 0] < width - border)
        inside &= pixels[:, 1] < height - border
    result = np.zeros(len(pixels), bool)
    u, v = pixels[inside].astype(np.int64).T
    result[inside] = ~edges[v, u]
    return result


def _moved(points_m: NDArray[np.float64], target_from_source: NDArray[np.float64]) -> NDArray[np.float64]:
    return points_m @ target_from_source[:3, :3].T + target_from_source[:3, 3]
