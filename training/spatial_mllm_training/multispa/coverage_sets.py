"""Which smallest sets of images show a length from end to end; knows neither images nor objects.

The published search (Multi-SpatialMLLM, appendix F, Listing 2) takes the spread max - min of all
visible points as what a set covers. One image gives that maximum and one the minimum, so under it
no set of three or more is ever minimal, and two images that show only the two ends of a table
"cover" it though nothing tells how far apart they are. Here a set covers what its images' spans
cover together, gaps left out: the same number wherever the spans overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def minimum_coverage_sets(
    spans_m: ArrayLike,
    size_m: float,
    *,
    tolerance: float,
    max_images: int,
    combinations_per_level: int,
    rng: np.random.Generator,
) -> list[tuple[int, ...]]:
    """Sets of images that cover a length and of which no proper subset does.

    A set covers when the length of the union of its spans differs from `size_m` by at most
    `tolerance * size_m`. Level by level, as published: sets that cover are kept and not expanded,
    supersets of covering sets are dropped, and so are sets that would not cover with all images
    that may still follow.

    Args:
        spans_m: (n, 2) lowest and highest visible coordinate along the axis for each image, metres;
            NaN where an image shows nothing.
        combinations_per_level: more sets of one size are thinned at random, so that the result is
            then a part of all minimal sets (it never holds one that is not).

    Returns:
        Ascending tuples of image numbers, smaller sets first, in lexicographic order within a size.
    """
    spans = np.asarray(spans_m, np.float64).reshape(-1, 2)
    with np.errstate(invalid="ignore"):
        images = np.flatnonzero(spans[:, 1] > spans[:, 0])  # a span of one point adds no length
    if not (size_m > 0 and len(images)):
        return []
    least_m, most_m = (1 - tolerance) * size_m, (1 + tolerance) * size_m
    shown, length_m = _cells(spans[images])
    tail = np.logical_or.accumulate(shown[::-1])[::-1]  # tail[i]: what images i, i + 1, ... show

    found: list[tuple[int, ...]] = []
    sets = np.arange(len(images))[:, None]
    for count in range(1, max_images + 1):
        if len(sets) > combinations_per_level:
            sets = sets[np.sort(rng.choice(len(sets), combinations_per_level, replace=False))]
        union = shown[sets].any(axis=1)
        covered_m = union @ length_m
        complete = (covered_m >= least_m) & (covered_m <= most_m)
        found.extend(tuple(int(i) for i in images[row]) for row in sets[complete])
        if count == max_images:
            break
        wanting = covered_m < least_m
        sets = _expand(sets[wanting], union[wanting], shown, tail, length_m, least_m)
        if not len(sets):
            break
    return found


def _cells(spans: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Cut the axis at every span's end: (n, cells) which cells a span holds, (cells,) their lengths."""
    edges = np.unique(spans)
    shown = (spans[:, :1] <= edges[:-1]) & (edges[1:] <= spans[:, 1:])
    return shown, np.diff(edges)


def _expand(
    sets: NDArray[np.int64],
    union: NDArray[np.bool_],
    shown: NDArray[np.bool_],
    tail: NDArray[np.bool_],
    length_m: NDArray[np.float64],
    least_m: float,
) -> NDArray[np.int64]:
    """The sets of one image more that can be, or become, minimal."""
    last = sets[:, -1]
    follows = np.minimum(last + 1, len(shown) - 1)
    hopeful = (last < len(shown) - 1) & ((union | tail[follows]) @ length_m >= least_m)
    sets, union, last = sets[hopeful], union[hopeful], last[hopeful]

    more = len(shown) - 1 - last
    parent = np.repeat(np.arange(len(sets)), more)
    step = np.arange(len(parent)) - np.repeat(np.cumsum(more) - more, more)
    added = last[parent] + 1 + step
    # An image that adds nothing now can be left out of every larger set as well.
    useful = (shown[added] & ~union[parent]).any(axis=1)
    grown = np.column_stack([sets[parent[useful]], added[useful]])

    minimal = np.ones(len(grown), bool)
    for left_out in range(grown.shape[1] - 1):  # without the last image it is the parent, which lacks
        rest = np.delete(grown, left_out, axis=1)
        minimal &= shown[rest].any(axis=1) @ length_m < least_m
    return grown[minimal]
