"""Progress potentials and potential-based shaping; pure arithmetic on displacements.

reward = gamma * Phi(t) - Phi(t-1) (Ng, Harada and Russell 1999). Causal: only the reference
frame, the current and the previous potential enter; nothing is normalised over an episode.
"""

from __future__ import annotations

import math

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.reward.task import RewardGoal, RewardTask

Vector = tuple[float, float, float]


def check_task(task: RewardTask) -> None:
    """Refuse a reward task whose numbers make no sense.

    Raises:
        SpatialError: BAD_NUMBER.
    """
    numbers = (task.distance_m, task.tolerance_m, task.gamma, *task.target_m, *task.direction, *task.point_px)
    if not all(math.isfinite(n) for n in numbers):
        raise SpatialError(ErrorCode.BAD_NUMBER, "the reward task has a number that is not finite")
    if not 0.0 < task.gamma <= 1.0:
        raise SpatialError(ErrorCode.BAD_NUMBER, f"gamma must be in (0, 1], got {task.gamma:g}")
    if task.tolerance_m < 0.0:
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"tolerance_m must not be negative, got {task.tolerance_m:g}"
        )
    if task.goal is RewardGoal.MOVE_TO:
        if np.linalg.norm(task.target_m) == 0.0:
            raise SpatialError(ErrorCode.BAD_NUMBER, "move_to needs a target_m other than zero")
    elif task.distance_m <= 0.0:
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"{task.goal.value} needs a positive distance_m, got {task.distance_m:g}"
        )
    if task.goal is RewardGoal.MOVE_ALONG and np.linalg.norm(task.direction) == 0.0:
        raise SpatialError(ErrorCode.BAD_NUMBER, "move_along needs a direction other than zero")


def potential(task: RewardTask, displacement_m: Vector, distance_m: float) -> float:
    """Phi in [0, 1] of a displacement (reference camera's optical axes) and its length."""
    if task.goal is RewardGoal.MOVE_DISTANCE:
        phi = distance_m / task.distance_m
    elif task.goal is RewardGoal.MOVE_ALONG:
        phi = _along(task, displacement_m) / task.distance_m
    elif task.goal is RewardGoal.MOVE_TO:
        phi = 1.0 - _miss(task, displacement_m) / float(np.linalg.norm(task.target_m))
    else:
        phi = 1.0 - distance_m / task.distance_m
    return min(max(phi, 0.0), 1.0)


def is_success(task: RewardTask, displacement_m: Vector, distance_m: float) -> bool:
    """Whether the goal is met within `tolerance_m`."""
    if task.goal is RewardGoal.MOVE_DISTANCE:
        return distance_m >= task.distance_m - task.tolerance_m
    if task.goal is RewardGoal.MOVE_ALONG:
        return _along(task, displacement_m) >= task.distance_m - task.tolerance_m
    if task.goal is RewardGoal.MOVE_TO:
        return _miss(task, displacement_m) <= task.tolerance_m
    return distance_m <= task.tolerance_m


def _along(task: RewardTask, displacement_m: Vector) -> float:
    direction = np.asarray(task.direction, np.float64)
    return float(np.dot(displacement_m, direction) / np.linalg.norm(direction))


def _miss(task: RewardTask, displacement_m: Vector) -> float:
    return float(np.linalg.norm(np.subtract(task.target_m, displacement_m)))
