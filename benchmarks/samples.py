"""Numbers of several repeats: median and range; knows nothing of what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def summary(values: Iterable[float]) -> dict[str, Any]:
    """Median, smallest and largest of the repeats, and each, as it goes into the JSON."""
    values = list(values)
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": values,
    }


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of all values do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-int(len(ranked) * percent) // 100) - 1))]
