"""Which followed points move together as one rigid body; knows neither cameras nor images.

Multi-SpatialMLLM, appendix G, Listing 3: how much the distance of two points changes from step to
step, changes within the noise left out, summed over time, clustered by average linkage.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from spatial_mllm_training.multispa.config import ObjectMotionConfig

_UNKNOWN = 1.001
"""Distance of points never seen together, in thresholds: too far to join by themselves, near enough
to be joined by others that were seen with both."""


def rigid_bodies(
    points_m: NDArray[np.float64], config: ObjectMotionConfig, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Body of each point: 0, 1, ... in the order of their first points, -1 for none.

    A point has no body when it is known at fewer than two steps, when its group does not exceed
    `config.min_group_points`, or when it was not among the `config.max_points` drawn at random
    (the cost grows with their square; the memory does not grow with the number of steps).

    Args:
        points_m: (T, N, 3) metres in any frame that is rigid at each step; NaN where unknown. The
            distance of two points is compared between the steps at which both are known.
    """
    bodies = np.full(points_m.shape[1], -1, np.int64)
    known = np.isfinite(points_m).all(axis=2)
    usable = np.flatnonzero(known.sum(axis=0) >= 2)
    if len(usable) > config.max_points:
        usable = np.sort(rng.choice(usable, config.max_points, replace=False))
    if len(usable) <= config.min_group_points or len(usable) < 2:
        return bodies
    change_m = _distance_changes_m(points_m[:, usable], config.smooth_m)
    change_m[np.isnan(change_m)] = _UNKNOWN * config.linkage_threshold_m
    labels = fcluster(linkage(change_m, "average"), config.linkage_threshold_m, criterion="distance")
    number = 0
    for label in dict.fromkeys(labels.tolist()):
        members = usable[labels == label]
        if len(members) > config.min_group_points:
            bodies[members] = number
            number += 1
    return bodies


def _distance_changes_m(points_m: NDArray[np.float64], smooth_m: float) -> NDArray[np.float64]:
    """Summed change of the distance of each pair, condensed as by pdist; NaN where never compared."""
    pairs = points_m.shape[1] * (points_m.shape[1] - 1) // 2
    total_m, compared = np.zeros(pairs), np.zeros(pairs, bool)
    last_m = np.full(pairs, np.nan)
    for step in points_m:
        distance_m = pdist(step)  # NaN where either point is unknown
        change_m = np.abs(distance_m - last_m)
        compared |= ~np.isnan(change_m)
        with np.errstate(invalid="ignore"):
            total_m += np.where(change_m > smooth_m, change_m, 0.0)
        last_m = np.where(np.isnan(distance_m), last_m, distance_m)
    total_m[~compared] = np.nan
    return total_m
