"""Means over seeds, their standard errors, and differences between arms; knows numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        standard_error: standard deviation (n - 1) over the root of n; NaN for one seed.
        values: of the seeds.
    """

    mean: float
    standard_error: float
    values: tuple[float, ...]


def over_seeds(values: Sequence[float | None]) -> Mean | None:
    """Mean of what the seeds give; None where one of them has no such figure."""
    if not values or any(v is None or math.isnan(v) for v in values):
        return None
    found = np.array(values, np.float64)
    error = float(found.std(ddof=1) / math.sqrt(len(found))) if len(found) > 1 else math.nan
    return Mean(float(found.mean()), error, tuple(found.tolist()))


def difference(arm: Mapping[int, float | None], first: Mapping[int, float | None]) -> Mean | None:
    """The arm minus the first arm, seed by seed: both saw the same order of samples."""
    common = sorted(set(arm) & set(first))
    pairs = [(arm[s], first[s]) for s in common]
    return over_seeds([None if a is None or b is None else a - b for a, b in pairs])


def with_images(over_seeds_error: float, over_images_error: float) -> float:
    """Standard error from two independent sources of chance; a NaN one is not counted."""
    parts = [e for e in (over_seeds_error, over_images_error) if not math.isnan(e)]
    return math.sqrt(sum(e * e for e in parts)) if parts else math.nan
