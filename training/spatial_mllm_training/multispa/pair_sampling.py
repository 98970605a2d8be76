"""Which image pairs static questions are asked about; knows overlaps, not pictures or questions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_training.multispa.prepare import PreparedScene

Bin = TypeVar("Bin", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two frames of one state, as indices into the scene's frames, first < second.

    Attributes:
        overlap_percent: IoU of their visible points, per cent.
    """

    first: int
    second: int
    overlap_percent: float


def candidate_pairs(prepared: PreparedScene) -> list[Pair]:
    """All pairs within the configured overlap, both ends included, by state and then by frames."""
    low, high = prepared.config.pairs.overlap_percent
    pairs = []
    for _, visible in sorted(prepared.states.items()):
        overlaps = visible.overlap_percent()
        in_range = np.triu((overlaps >= low) & (overlaps <= high), k=1)
        for a, b in np.argwhere(in_range).tolist():
            pairs.append(Pair(visible.frames[a], visible.frames[b], float(overlaps[a, b])))
    return pairs


def allocate(bin_sizes: Mapping[Bin, int], wanted: int) -> dict[Bin, int]:
    """How many to take from each bin: equal quotas, small bins first, what they lack goes on to the next.

    As the published procedure (MultiSPA Listing 1, steps 3 and 4): the first `wanted % bins` bins
    in the given order get one more; bins of equal size keep the given order.

    Returns:
        The count per bin, in the given order; never more than a bin holds, in total
        min(wanted, sum of the sizes).
    """
    if not bin_sizes:
        return {}
    base, rest = divmod(wanted, len(bin_sizes))
    quotas = {name: base + (place < rest) for place, name in enumerate(bin_sizes)}
    taken = dict.fromkeys(bin_sizes, 0)
    left_over = 0
    for name, size in sorted(bin_sizes.items(), key=lambda item: item[1]):
        quota = quotas[name] + left_over
        taken[name] = min(size, quota)
        left_over = quota - taken[name]
    return taken


def sample_balanced(
    overlaps: ArrayLike, wanted: int, low: float, high: float, width: float, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Choose overlaps so that their bins are as equally filled as they allow (MultiSPA Listing 1).

    Bins are (low, low + width], ... up to `high`; `low` itself belongs to the first. Empty bins
    get no quota. Two things differ from the listing: it also appends every pair without overlap,
    and it gives the remainder always to the lowest bins, which few pairs a scene would never leave.

    Args:
        overlaps: (n,) per cent.
        wanted: at most this many are chosen; fewer when fewer lie in range.

    Returns:
        Indices into `overlaps`, each once, in random order.
    """
    values = np.asarray(overlaps, dtype=np.float64).reshape(-1)
    edges = np.append(np.arange(low, high - 1e-9 * width, width), high)
    in_range = np.flatnonzero((values >= low) & (values <= high))
    bins = np.maximum(np.searchsorted(edges, values[in_range], side="left") - 1, 0)
    return in_range[choose_evenly(bins, wanted, rng)]


def choose_evenly(bins: ArrayLike, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Choose elements so that their bins are as equally filled as they allow.

    Args:
        bins: (n,) number of each element's bin; which bins get one more than others is left to chance.
        wanted: at most this many are chosen.

    Returns:
        Indices into `bins`, each once, in random order.
    """
    numbers = np.asarray(bins, dtype=np.int64).reshape(-1)
    order = rng.permutation(len(numbers))
    names, place = np.unique(numbers[order], return_inverse=True)
    members = {int(b): order[place == b] for b in rng.permutation(len(names))}
    counts = allocate({b: len(indices) for b, indices in members.items()}, wanted)
    chosen = [members[b][:count] for b, count in counts.items()]
    return rng.permutation(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
