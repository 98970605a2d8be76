"""How the quality of lifting goes with the right answers: quarters, rank correlation, logistic slope.

SpatialSV section 3.3. Knows numbers only: an error per question (smaller is better), a verdict, a type
and a scene.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from spatial_mllm_core.evaluation.metrics import spearman
from spatial_mllm_training.benchmark.means import Figure, Rows

QUARTERS = 4
_ALL_ORDERS = 8  # so many checkpoints have few enough orders to look at each
_SHUFFLES = 20_000
_STEPS, _TOLERANCE = 60, 1e-10


@dataclass(frozen=True)
class Quarter:
    """A quarter of the questions.

    Attributes:
        number: 1 for the worst lifted, as in the paper, to 4.
        accuracy: per cent, with the binomial error and the error by scene.
        error_low, error_high: range of the lifting error in it.
    """

    number: int
    accuracy: Figure
    error_low: float
    error_high: float


@dataclass(frozen=True)
class RankTrend:
    """Spearman's correlation of two series over checkpoints.

    Attributes:
        rho: NaN with fewer than two checkpoints or a constant series.
        p_value: share of the orders of one series (all of them for up to 8 checkpoints, else 20,000
            by chance) with a correlation at least as strong in either direction.
    """

    rho: float
    p_value: float
    n: int


@dataclass(frozen=True)
class Slope:
    """The change of log odds of a right answer per unit of lifting error, types held apart.

    Attributes:
        per_unit: NaN where the data do not bound it.
        standard_error: from the curvature of the likelihood.
        scene_error: by scene (sandwich); NaN with fewer than two scenes.
        per_deviation: slope times the standard deviation of the error within types.
        n: questions used.
        left_out: types whose answers are all right or all wrong; they say nothing about a slope.
    """

    per_unit: float
    standard_error: float
    scene_error: float
    per_deviation: float
    n: int
    left_out: tuple[str, ...]


def quarters(
    error: ArrayLike,
    right: ArrayLike,
    scenes: Sequence[str],
    *,
    within: Sequence[str] | None = None,
) -> list[Quarter]:
    """Accuracy by quarter of the lifting error, from the largest errors to the smallest.

    Questions with equal errors (they share their images) stay together, so quarters may differ in
    size, and one may be missing.

    Args:
        error: (N,) finite.
        right: (N,) bool.
        within: types of question; the quarters are then cut within each type, so that all hold the
            same mixture of types and none is ahead by easier questions.

    Raises:
        ValueError: lengths that differ, or an error that is not finite.
    """
    e, y = _checked(error, right)
    groups = np.asarray(["all"] * len(e) if within is None else list(within), str)
    if len(groups) != len(e) or len(scenes) != len(e):
        raise ValueError("errors, verdicts, types and scenes must be equally many")
    number = np.zeros(len(e), np.int64)
    for group in np.unique(groups):
        mask = groups == group
        number[mask] = _quarter_numbers(-e[mask])
    found = []
    for quarter in range(QUARTERS):
        mask = number == quarter
        if mask.any():
            rows = Rows(["all"] * int(mask.sum()), [s for s, m in zip(scenes, mask, strict=True) if m])
            figure = rows.figure(y[mask], {"all": 1.0})
            found.append(Quarter(quarter + 1, figure, float(e[mask].min()), float(e[mask].max())))
    return found


def rank_trend(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> RankTrend:
    """Spearman's rank correlation over checkpoints with a permutation test."""
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    rho, n = spearman(x, y), len(x)
    if not math.isfinite(rho) or not np.isfinite([x, y]).all():
        return RankTrend(rho, math.nan, n)
    if n <= _ALL_ORDERS:
        orders = np.array(list(itertools.permutations(range(n))))
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(np.arange(n), (_SHUFFLES, 1)), axis=1)
    ranks_x, ranks_y = (rankdata(series) - (n + 1) / 2 for series in (x, y))
    strength = np.abs(ranks_y[orders] @ ranks_x)
    least = abs(float(ranks_x @ ranks_y)) - 1e-9
    return RankTrend(rho, float(np.mean(strength >= least)), n)


def logistic_slope(error: ArrayLike, right: ArrayLike, types: Sequence[str], scenes: Sequence[str]) -> Slope:
    """Maximum likelihood of logit P(right) = intercept of the type + slope * error, by Newton's method.

    Raises:
        ValueError: lengths that differ, or an error that is not finite.
    """
    e, y = _checked(error, right)
    names, number = np.unique(np.asarray(types, str), return_inverse=True)
    if len(number) != len(e) or len(scenes) != len(e):
        raise ValueError("errors, verdicts, types and scenes must be equally many")
    share = np.bincount(number, y, len(names)) / np.bincount(number, minlength=len(names))
    tells = (share > 0) & (share < 1)
    left_out = tuple(str(n) for n in names[~tells])
    used = tells[number]
    e, y = e[used], y[used].astype(np.float64)
    of_scene = np.asarray(scenes, str)[used]
    _, number = np.unique(number[used], return_inverse=True)
    nothing = Slope(math.nan, math.nan, math.nan, math.nan, len(e), left_out)
    if not len(e):
        return nothing
    counts = np.bincount(number)
    centred = e - (np.bincount(number, e) / counts)[number]
    deviation = float(np.sqrt(np.mean(centred**2)))
    if deviation <= 1e-12 * max(1.0, float(np.abs(e).max())):
        return nothing
    design = np.zeros((len(e), len(counts) + 1))
    design[np.arange(len(e)), number] = 1.0
    design[:, -1] = centred / deviation
    fitted = _newton(design, y)
    if fitted is None:
        return nothing
    weights, information = fitted
    inverse = np.linalg.inv(information)
    residual = y - _sigmoid(design @ weights)
    return Slope(
        per_unit=float(weights[-1] / deviation),
        standard_error=float(np.sqrt(inverse[-1, -1]) / deviation),
        scene_error=_by_scene(design, residual, inverse, of_scene) / deviation,
        per_deviation=float(weights[-1]),
        n=len(e),
        left_out=left_out,
    )


def _checked(error: ArrayLike, right: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    e, y = np.asarray(error, np.float64).ravel(), np.asarray(right, bool).ravel()
    if len(e) != len(y) or not len(e):
        raise ValueError(f"{len(e)} errors for {len(y)} verdicts")
    if not np.isfinite(e).all():
        raise ValueError("a lifting error is not finite")
    return e, y


def _quarter_numbers(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) 0 for the smallest quarter to 3; equal values share the quarter of their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2.0  # mean rank minus one half
    return np.minimum(middle * QUARTERS / len(values), QUARTERS - 1).astype(np.int64)[inverse.reshape(-1)]


def _newton(design: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray, NDArray] | None:
    """(weights, information) at the maximum; None where there is none (separated answers)."""
    weights = np.zeros(design.shape[1])
    value = _log_likelihood(design, y, weights)
    for _ in range(_STEPS):
        p = _sigmoid(design @ weights)
        information = (design * (p * (1 - p))[:, None]).T @ design
        gradient = design.T @ (y - p)
        try:
            step = np.linalg.solve(information, gradient)
        except np.linalg.LinAlgError:
            return None
        if float(gradient @ step) < _TOLERANCE:
            return weights, information
        length = 1.0
        while (new := _log_likelihood(design, y, weights + length * step)) < value and length > 1e-6:
            length /= 2
        weights, value = weights + length * step, new
        if np.abs(weights).max() > 30:  # odds of 10^13 to 1: the answers are separated
            return None
    return None


def _log_likelihood(
    design: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> float:
    z = design @ weights
    return float(y @ z - np.logaddexp(0.0, z).sum())


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -z))


def _by_scene(
    design: NDArray[np.float64], residual: NDArray[np.float64], inverse: NDArray[np.float64], scenes: NDArray
) -> float:
    """The last weight's standard error when questions of one scene may err together."""
    names, number = np.unique(scenes, return_inverse=True)
    if len(names) < 2:
        return math.nan
    scores = np.zeros((len(names), design.shape[1]))
    np.add.at(scores, number, design * residual[:, None])
    spread = inverse @ (scores.T @ scores) @ inverse * len(names) / (len(names) - 1)
    return float(np.sqrt(spread[-1, -1]))
