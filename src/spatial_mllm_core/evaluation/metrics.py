"""Figures of depth, displacement and trend; knows arrays only.

AbsRel, delta1 and RMSE as in Eigen et al. 2014, on the pixels where both depths are numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DELTA = 1.25


@dataclass(frozen=True)
class DepthError:
    """Error of one depth image, or the mean over images.

    Attributes:
        abs_rel: mean of |predicted - true| / true; 0 is perfect.
        delta1: share of pixels with max(predicted / true, true / predicted) < 1.25; 1 is perfect.
        rmse_m: root of the mean squared error, metres.
        scale: factor the prediction was multiplied with; 1 unless aligned.
        pixels: pixels compared (the sum, for a mean over images).
        coverage: share of the pixels with a true depth that have a predicted one.
        images: number of images behind the figures.
    """

    abs_rel: float
    delta1: float
    rmse_m: float
    scale: float
    pixels: int
    coverage: float
    images: int = 1


@dataclass(frozen=True)
class DisplacementError:
    """Error of predicted displacement vectors.

    Attributes:
        mean_m: mean length of (predicted - true), metres.
        median_m: its median, metres.
        length_mean_m: mean of | |predicted| - |true| |, metres.
        direction_deg: mean angle between both where the truth is longer than a centimetre; NaN without such.
        count: vectors compared.
    """

    mean_m: float
    median_m: float
    length_mean_m: float
    direction_deg: float
    count: int


def depth_error(
    predicted_m: NDArray[np.floating], true_m: NDArray[np.floating], *, align_scale: bool = False
) -> DepthError | None:
    """Compare two (H, W) z-depth images in metres; NaN, infinity, zero and below mean "no value".

    Args:
        align_scale: multiply the prediction with the median of true / predicted first, which shows
            what is left when only the overall scale is wrong.

    Returns:
        None when no pixel has both values.
    """
    if predicted_m.shape != true_m.shape:
        raise ValueError(f"depth images of different shapes: {predicted_m.shape} and {true_m.shape}")
    has_truth = np.isfinite(true_m) & (true_m > 0)
    both = has_truth & np.isfinite(predicted_m) & (predicted_m > 0)
    pixels = int(both.sum())
    if pixels == 0:
        return None
    predicted = predicted_m[both].astype(np.float64)
    true = true_m[both].astype(np.float64)
    scale = float(np.median(true / predicted)) if align_scale else 1.0
    predicted = predicted * scale
    ratio = predicted / true
    return DepthError(
        abs_rel=float(np.mean(np.abs(ratio - 1.0))),
        delta1=float(np.mean(np.maximum(ratio, 1.0 / ratio) < DELTA)),
        rmse_m=float(np.sqrt(np.mean((predicted - true) ** 2))),
        scale=scale,
        pixels=pixels,
        coverage=pixels / int(has_truth.sum()),
    )


def mean_depth_error(errors: Sequence[DepthError]) -> DepthError | None:
    """Mean over images, every image weighing the same; None when there is none."""
    if not errors:
        return None
    return DepthError(
        abs_rel=float(np.mean([e.abs_rel for e in errors])),
        delta1=float(np.mean([e.delta1 for e in errors])),
        rmse_m=float(np.mean([e.rmse_m for e in errors])),
        scale=float(np.mean([e.scale for e in errors])),
        pixels=sum(e.pixels for e in errors),
        coverage=float(np.mean([e.coverage for e in errors])),
        images=len(errors),
    )


def displacement_error(predicted_m: ArrayLike, true_m: ArrayLike) -> DisplacementError | None:
    """Compare (N, 3) displacement vectors in the same frame; rows with NaN are left out; None when none is left."""
    predicted = np.asarray(predicted_m, np.float64).reshape(-1, 3)
    true = np.asarray(true_m, np.float64).reshape(-1, 3)
    good = np.isfinite(predicted).all(axis=1) & np.isfinite(true).all(axis=1)
    predicted, true = predicted[good], true[good]
    if not len(true):
        return None
    error = np.linalg.norm(predicted - true, axis=1)
    lengths, true_lengths = np.linalg.norm(predicted, axis=1), np.linalg.norm(true, axis=1)
    moved = (true_lengths > 0.01) & (lengths > 0)
    direction = float("nan")
    if moved.any():
        cosines = np.sum(predicted[moved] * true[moved], axis=1) / (lengths[moved] * true_lengths[moved])
        direction = float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).mean())
    return DisplacementError(
        mean_m=float(error.mean()),
        median_m=float(np.median(error)),
        length_mean_m=float(np.abs(lengths - true_lengths).mean()),
        direction_deg=direction,
        count=len(true),
    )


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation of two equally long series, ties sharing their mean rank.

    Pairs with NaN are left out. NaN when fewer than two pairs are left or one series is constant.
    """
    x, y = np.asarray(a, np.float64).ravel(), np.asarray(b, np.float64).ravel()
    if x.shape != y.shape:
        raise ValueError(f"series of different lengths: {x.size} and {y.size}")
    good = np.isfinite(x) & np.isfinite(y)
    if good.sum() < 2:
        return float("nan")
    ranks_x, ranks_y = _mean_ranks(x[good]), _mean_ranks(y[good])
    ranks_x -= ranks_x.mean()
    ranks_y -= ranks_y.mean()
    norm = float(np.sqrt((ranks_x**2).sum() * (ranks_y**2).sum()))
    return float((ranks_x * ranks_y).sum() / norm) if norm > 0 else float("nan")


def _mean_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2.0)[inverse.reshape(-1)]
