"""Questions about how the camera moved between two images; knows neither words nor pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks import camera_motion as task
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.pair_sampling import Pair
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

SUBTASKS = tuple(t.name for t in task.TASKS)
_AXES = (task.X_MOVEMENT.name, task.Y_MOVEMENT.name, task.Z_MOVEMENT.name)
_TURNS = {
    task.YAW_MOVEMENT.name: 0,
    task.YAW_ANGLE.name: 0,
    task.PITCH_MOVEMENT.name: 1,
    task.PITCH_ANGLE.name: 1,
}


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    if not scene.has_depth:
        return dict.fromkeys(SUBTASKS, "the scene has no depth, so the overlap of images is unknown")
    if scene.world_up is None:
        return dict.fromkeys(_TURNS, "the direction of gravity is unknown; give the source's world_up")
    return {}


def drafts(
    prepared: PreparedScene, subtask: str, pairs: Sequence[Pair], rng: np.random.Generator
) -> list[Draft]:
    """At most one question of each pair; pairs that move less than the margins give none.

    Words of direction come about equally often: where both orders of a pair give different words,
    the one that is behind is asked for.
    """
    counts: dict[str, int] = {}
    found = []
    for pair in pairs:
        orders = [(pair.first, pair.second), (pair.second, pair.first)]
        if rng.random() < prepared.config.pairs.swap_probability:
            orders.reverse()
        truths = [_truth(prepared, subtask, order) for order in orders]
        usable = [(o, t) for o, t in zip(orders, truths, strict=True) if t is not None]
        if not usable:
            continue
        order, truth = min(usable, key=lambda of_order: counts.get(of_order[1].label, 0))
        counts[truth.label] = counts.get(truth.label, 0) + 1
        found.append(Draft(subtask, order, (), truth, group=f"overlap {int(pair.overlap_percent)} %"))
    return found


def _truth(prepared: PreparedScene, subtask: str, frames: tuple[int, int]) -> TaskValue | None:
    """The truth of a pair in this order, None where it moves too little."""
    limits = prepared.config.pairs
    one, two = (prepared.scene.frames[f].world_from_camera for f in frames)
    if subtask in _TURNS:
        up = prepared.scene.world_up
        assert up is not None
        turn = task.camera_turn_deg(one, two, up)
        angle = turn[_TURNS[subtask]]
        if not abs(angle) >= limits.min_turn_deg:  # NaN, too
            return None
        return task.turn_truths(turn).get(subtask)
    shift = task.camera_displacement_m(one, two)
    if subtask in _AXES:
        if abs(shift[_AXES.index(subtask)]) < limits.min_shift_m:
            return None
        return task.direction_truths(shift)[subtask]
    if float(np.linalg.norm(shift)) < limits.min_shift_m:
        return None
    return task.distance_truth(shift) if subtask == task.CAMERA_DISTANCE.name else task.vector_truth(shift)
