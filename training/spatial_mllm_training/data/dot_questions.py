"""Questions about dots that are drawn into the images of a sample, with their truths; draws nothing itself.

A sample can show one set of dots, as a row of MultiSPA does, beside questions that point by coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks import correspondence, depth, object_motion
from spatial_mllm_training.data.pair_questions import are_comparable
from spatial_mllm_training.data.question import Question
from spatial_mllm_training.data.scene_view import SceneView, carried, moved_bodies
from spatial_mllm_training.multispa.dots import Dot

TASKS = tuple(
    task.name
    for task in (
        depth.DEPTH_VALUE_DOT,
        depth.DEPTH_COMPARISON_DOT,
        correspondence.CORRESPONDENCE_CHOICE,
        *object_motion.OBJECT_DISTANCE_DOT.values(),
        *object_motion.OBJECT_VECTOR_DOT.values(),
    )
)
"""Subtasks whose dots a sample can show."""

_APART_PX = 8.0
"""Between dots of one image, so that none covers another."""
_TRIES = 24


@dataclass(frozen=True)
class Marks:
    """Dots of the two images, and questions about them: about the first image alone, about both."""

    dots: tuple[tuple[Dot, ...], tuple[Dot, ...]] = ((), ())
    single: list[Question] = field(default_factory=list)
    pair: list[Question] = field(default_factory=list)


def dot_questions(rng: np.random.Generator, first: SceneView, second: SceneView) -> Marks:
    """One dot, two to compare or, where the camera moved, one to be found among four; none where none fits."""
    kinds = [_one_dot, _two_depths]
    if first.camera != second.camera:
        kinds.append(_same_point)
    return kinds[int(rng.integers(len(kinds)))](rng, first, second)


def _one_dot(rng: np.random.Generator, first: SceneView, second: SceneView) -> Marks:
    """How deep a point is, and how it moved; every second one lies on what moved, where something did."""
    known = first.depth_mm > 0
    on_moved = known & np.isin(first.body_id, moved_bodies(first, second))
    pixels = first.pick(rng, on_moved if on_moved.any() and rng.random() < 0.5 else known, 1)
    if len(pixels) == 0:
        return Marks()
    in_world, body = first.in_world(pixels)
    after = carried(first, second, in_world, body)
    movement = object_motion.displacement_m(in_world[0], after[0], first.world_from_camera)
    moving = first.camera != second.camera
    if rng.random() < 0.5:
        task, truth = object_motion.OBJECT_DISTANCE_DOT[moving], object_motion.distance_truth(movement)
    else:
        task, truth = object_motion.OBJECT_VECTOR_DOT[moving], object_motion.vector_truth(movement)
    depth_m = float(first.depth_mm[pixels[0, 1], pixels[0, 0]]) / 1e3
    return Marks(
        (_dots(first.shown_at(pixels)), ()),
        [Question(depth.DEPTH_VALUE_DOT, (), depth.depth_truth(depth_m))],
        [Question(task, (), truth)],
    )


def _two_depths(rng: np.random.Generator, first: SceneView, second: SceneView) -> Marks:
    """Which of two points is nearer or farther."""
    pixels = first.pick(rng, first.depth_mm > 0, _TRIES)
    shown_at = first.shown_at(pixels)
    depths_m = first.depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
    for i in range(1, len(pixels)):
        both_m = (float(depths_m[0]), float(depths_m[i]))
        if are_comparable(both_m) and np.linalg.norm(shown_at[0] - shown_at[i]) >= _APART_PX:
            variant = str(rng.choice(depth.DEPTH_COMPARISON_DOT.variants))
            truth = depth.letter_truth(both_m, variant)
            question = Question(depth.DEPTH_COMPARISON_DOT, (), truth, variant)
            return Marks((_dots(shown_at[[0, i]], depth.LETTERS), ()), [question])
    return Marks()


def _same_point(rng: np.random.Generator, first: SceneView, second: SceneView) -> Marks:
    """Which of four dots of the second image lies on the point that carries one in the first."""
    pixels = first.pick(rng, first.depth_mm > 0, _TRIES)
    if len(pixels) == 0:
        return Marks()
    is_seen, found_at = second.sees(carried(first, second, *first.in_world(pixels)))
    if not is_seen.any():
        return Marks()
    right = int(np.flatnonzero(is_seen)[0])
    kept = found_at[right][None]
    for other in rng.uniform((0, 0), (second.width - 1, second.height - 1), (_TRIES, 2)):
        if np.linalg.norm(kept - other, axis=1).min() >= _APART_PX:
            kept = np.vstack([kept, other])
        if len(kept) == len(correspondence.LETTERS):
            break
    else:
        return Marks()
    order = rng.permutation(len(kept))
    truth = correspondence.letter_truth(int(np.flatnonzero(order == 0)[0]))
    return Marks(
        (_dots(first.shown_at(pixels[[right]])), _dots(kept[order], correspondence.LETTERS)),
        pair=[Question(correspondence.CORRESPONDENCE_CHOICE, (), truth)],
    )


def _dots(at: NDArray[np.float64], letters: tuple[str, ...] = ("",)) -> tuple[Dot, ...]:
    return tuple(Dot(u, v, letter) for (u, v), letter in zip(at.tolist(), letters, strict=True))
