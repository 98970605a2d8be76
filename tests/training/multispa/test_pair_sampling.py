"""Pairs are balanced over overlap as published, never twice, and the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_training.multispa.config import MultispaConfig, PairConfig
from spatial_mllm_training.multispa.pair_sampling import (
    allocate,
    candidate_pairs,
    choose_evenly,
    sample_balanced,
)
from spatial_mllm_training.multispa.prepare import prepare

SIZES = st.dictionaries(st.integers(0, 40), st.integers(0, 60), max_size=30)


def published_counts(sizes, wanted):
    """Steps 3 and 4 of MultiSPA's Listing 1, one bin after the other."""
    quotas = [wanted // len(sizes)] * len(sizes)
    for i in range(wanted % len(sizes)):
        quotas[i] += 1
    bins = sorted(({"name": n, "size": s, "quota": q} for (n, s), q in zip(sizes.items(), quotas, strict=True)),
                  key=lambda b: b["size"])  # fmt: skip
    counts, leftover = {}, 0
    for b in bins:
        current = b["quota"] + leftover
        if b["size"] <= current:
            counts[b["name"]], leftover = b["size"], current - b["size"]
        else:
            counts[b["name"]], leftover = current, 0
    return counts


@given(SIZES, st.integers(0, 900))
def test_allocation_takes_what_is_wanted_and_there(sizes, wanted):
    counts = allocate(sizes, wanted)
    assert list(counts) == list(sizes)
    assert all(0 <= counts[name] <= size for name, size in sizes.items())
    assert sum(counts.values()) == min(wanted, sum(sizes.values()))
    if sizes:
        assert counts == published_counts(sizes, wanted)


@given(st.integers(1, 30), st.integers(0, 300))
def test_rich_bins_get_equal_quotas(bins, wanted):
    counts = allocate(dict.fromkeys(range(bins), 1000), wanted)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_what_a_small_bin_lacks_goes_to_the_next_larger():
    assert allocate({"a": 50, "b": 3, "c": 40}, 60) == {"a": 20, "b": 3, "c": 37}


def test_bins_and_counts_agree_with_pandas():
    pd = pytest.importorskip("pandas", reason="pandas bins the published way; it comes with ray[data]")
    rng = np.random.default_rng(0)
    overlaps = np.concatenate([rng.exponential(9, 4000), np.arange(0, 41.0), np.zeros(500)]).astype(
        np.float32
    )
    cut = pd.cut(pd.Series(overlaps).astype(float), bins=np.arange(6, 36, 1), include_lowest=True)
    sizes = {b: int(n) for b, n in cut.value_counts(sort=False).items()}
    assert len(sizes) == 29 and min(sizes.values()) > 0
    chosen = sample_balanced(overlaps, 29 * 30, 6, 35, 1, rng)
    counts = cut[chosen].value_counts(sort=False)
    assert {b: int(n) for b, n in counts.items()} == published_counts(sizes, 29 * 30)


@given(
    st.lists(st.floats(0, 100, width=32), max_size=80),
    st.integers(0, 100),
    st.sampled_from([0.5, 1.0, 3.0, 7.0]),
    st.integers(0, 2**32 - 1),
)
def test_sampling_stays_in_range_and_repeats_by_seed(overlaps, wanted, width, seed):
    chosen = sample_balanced(overlaps, wanted, 6.0, 35.0, width, np.random.default_rng(seed))
    again = sample_balanced(overlaps, wanted, 6.0, 35.0, width, np.random.default_rng(seed))
    np.testing.assert_array_equal(chosen, again)
    in_range = [i for i, overlap in enumerate(overlaps) if 6 <= overlap <= 35]
    assert len(set(chosen.tolist())) == len(chosen) == min(wanted, len(in_range))
    assert set(chosen.tolist()) <= set(in_range)


def test_few_wanted_pairs_come_from_all_bins():
    overlaps = np.repeat(np.arange(6.5, 35), 50)
    counts = np.zeros(29, int)
    for seed in range(300):
        chosen = sample_balanced(overlaps, 3, 6, 35, 1, np.random.default_rng(seed))
        np.add.at(counts, chosen // 50, 1)
    assert counts.min() > 10 and counts.max() < 60  # 900 over 29 bins: 31 each


@given(st.lists(st.integers(-3, 8), max_size=60), st.integers(0, 70), st.integers(0, 2**32 - 1))
def test_choosing_evenly_leaves_no_bin_without_its_share(bins, wanted, seed):
    chosen = choose_evenly(bins, wanted, np.random.default_rng(seed))
    assert len(set(chosen.tolist())) == len(chosen) == min(wanted, len(bins))
    taken = [bins[i] for i in chosen]
    for b in set(bins):
        assert taken.count(b) >= min(bins.count(b), wanted // len(set(bins)))


def test_candidates_are_the_pairs_of_one_state_within_range(box_room):
    low, high = 10.0, 100.0  # a frame's overlap with itself is in range, and yet no pair
    config = MultispaConfig(pairs=PairConfig(overlap_percent=(low, high)))
    scene = box_room(16, states=[0, 1] * 8)
    prepared = prepare(scene, config, np.random.default_rng(0))
    pairs = candidate_pairs(prepared)
    expected = []
    for visible in prepared.states.values():
        for a in visible.frames:
            for b in visible.frames:
                both, either = (
                    np.intersect1d(visible.ids(a), visible.ids(b)),
                    np.union1d(visible.ids(a), visible.ids(b)),
                )
                if a < b and low <= 100 * len(both) / len(either) <= high:
                    expected.append((a, b))
    assert [(p.first, p.second) for p in pairs] == expected != []
    assert all(prepared.state_of(p.first) == prepared.state_of(p.second) for p in pairs)
    assert all(low <= p.overlap_percent <= high for p in pairs)
    assert {prepared.state_of(p.first) for p in pairs} == {0, 1}
