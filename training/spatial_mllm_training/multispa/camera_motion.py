"""Questions about how the camera moved between two images; knows neither words nor pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks import camera_motion as task
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.pair_sampling import Pair
from spatial_mllm_training.multispa.picking import no_pairs
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
_ROUNDING_M, _ROUNDING_DEG = 1e-6, 1e-4
"""What is not above these is no movement but rounding of poses, even where no margin is set."""


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    if reason := no_pairs(scene):
        return dict.fromkeys(SUBTASKS, reason)
    if scene.world_up is None:
        return dict.fromkeys(_TURNS, "the direction of gravity is unknown; give the source's world_up")
    return {}


def drafts(
    prepared: PreparedScene, subtask: str, pairs: Sequence[Pair], rng: np.random.Generator
) -> list[Draft]:
    """At most one question of each pair, in their order; pairs that move less than the margins give none.

    Pairs are swapped by chance, as published. But where the two orders of a pair give different
    words, the word that comes less often is asked for, so that both come as equally often as the
    pairs allow.
    """
    swap = prepared.config.pairs.swap_probability
    choices: list[list[tuple[tuple[int, int], TaskValue]]] = []
    for pair in pairs:
        orders = [(pair.first, pair.second), (pair.second, pair.first)]
        if rng.random() < swap:
            orders.reverse()
        if swap in (0, 1):
            del orders[1]
        truths = [(order, _truth(prepared, subtask, order)) for order in orders]
        choices.append([(order, truth) for order, truth in truths if truth is not None])
    counts: Counter[str] = Counter()
    made: dict[int, Draft] = {}
    # pairs that leave no choice come first, so that the others can make up for them
    for number in sorted(range(len(pairs)), key=lambda i: len({truth.label for _, truth in choices[i]})):
        if choices[number]:
            frames, truth = min(choices[number], key=lambda one: counts[one[1].label])
            counts[truth.label] += 1
            group = f"overlap {int(pairs[number].overlap_percent)} %"
            made[number] = Draft(subtask, frames, (), truth, group=group)
    return [made[number] for number in sorted(made)]


def _truth(prepared: PreparedScene, subtask: str, frames: tuple[int, int]) -> TaskValue | None:
    """The truth of a pair in this order, None where it moves too little or has no heading."""
    limits, up = prepared.config.pairs, prepared.scene.world_up
    one, two = (prepared.scene.frames[f].world_from_camera for f in frames)
    if subtask in _TURNS:
        if up is None:
            return None
        turn_deg = task.camera_turn_deg(one, two, up)
        if not abs(turn_deg[_TURNS[subtask]]) >= max(limits.min_turn_deg, _ROUNDING_DEG):  # NaN, too
            return None
        return task.turn_truths(turn_deg)[subtask]
    shift_m = task.camera_displacement_m(one, two)
    asked_m = abs(shift_m[_AXES.index(subtask)]) if subtask in _AXES else np.linalg.norm(shift_m)
    if asked_m < max(limits.min_shift_m, _ROUNDING_M):
        return None
    if subtask in _AXES:
        return task.direction_truths(shift_m)[subtask]
    return (
        task.distance_truth(shift_m) if subtask == task.CAMERA_DISTANCE.name else task.vector_truth(shift_m)
    )
