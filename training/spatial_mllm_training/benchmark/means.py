"""Averages over subtasks and groups with their standard errors; knows only which rows were right.

The headline of the paper's table 2 is the mean of the 12 groups, a group being the mean of its
subtasks. Every such average is a weighted sum over subtasks, sum_i w_i p_i, and has two errors:

- binomial: sqrt(sum_i w_i^2 p_i (1 - p_i) / n_i), as if all rows were independent (for paired
  differences, which are -1, 0 or 1, their variance stands for p (1 - p));
- by scene: rows of one scene share its images, so they are not. With u_s the sum over the rows of
  scene s of w_i (y - p_i) / n_i, the variance is S / (S - 1) sum_s u_s^2 (linearisation over
  clusters, the "sandwich"; it agrees with drawing whole scenes anew, see the tests).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks import GROUPS


@dataclass(frozen=True)
class Figure:
    """An accuracy in per cent.

    Attributes:
        standard_error: binomial, per cent; 0 when all or no rows are right.
        scene_error: standard error by scene, per cent; NaN with fewer than two scenes.
        n: rows behind it.
    """

    percent: float
    standard_error: float
    scene_error: float
    n: int


def group_weights(group: str, counted: Collection[str]) -> dict[str, float]:
    """Equal weights of a group's subtasks, as far as they are counted; {} when none is."""
    return task_weights([name for name in GROUPS[group] if name in counted])


def headline_weights(counted: Collection[str]) -> dict[str, float]:
    """Weights of the mean of groups; groups without a counted subtask are left out."""
    groups = [weights for weights in (group_weights(g, counted) for g in GROUPS) if weights]
    return {name: weight / len(groups) for weights in groups for name, weight in weights.items()}


def task_weights(counted: Collection[str]) -> dict[str, float]:
    """Weights of the plain mean of subtasks."""
    return {name: 1.0 / len(counted) for name in counted}


def weighted(accuracies: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """The average that `weights` stand for."""
    return math.fsum(weight * accuracies[name] for name, weight in weights.items())


class Rows:
    """Which subtask and scene each row of a benchmark belongs to."""

    def __init__(self, subtasks: Sequence[str], scenes: Sequence[str]) -> None:
        self.counted, self._subtask = np.unique(np.asarray(subtasks, object).astype(str), return_inverse=True)
        names, self._scene = np.unique(np.asarray(scenes, object).astype(str), return_inverse=True)
        self._scenes = len(names)
        self._n = np.bincount(self._subtask, minlength=len(self.counted))

    def figure(self, right: NDArray[np.bool_] | NDArray[np.int64], weights: Mapping[str, float]) -> Figure:
        """The average of (N,) verdicts, or of differences of verdicts, with both standard errors."""
        w = np.array([weights.get(str(name), 0.0) for name in self.counted])
        p = np.bincount(self._subtask, right, len(self.counted)) / self._n
        deviation = right - p[self._subtask]
        spread = np.bincount(self._subtask, deviation**2, len(self.counted)) / self._n
        influence = (w / self._n)[self._subtask] * deviation
        used = w[self._subtask] > 0
        scenes = len(np.unique(self._scene[used]))
        by_scene = np.bincount(self._scene, influence, self._scenes)
        variance = scenes / (scenes - 1) * float(by_scene @ by_scene) if scenes > 1 else math.nan
        return Figure(
            percent=100 * weighted(dict(zip(self.counted.tolist(), p.tolist(), strict=True)), weights),
            standard_error=100 * math.sqrt(float(w**2 @ (spread / self._n))),
            scene_error=100 * math.sqrt(variance),
            n=int(used.sum()),
        )
