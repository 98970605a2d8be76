"""Minimal image sets: hand-made cases, and all of them against exhaustive search."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_training.multispa.coverage_sets import minimum_coverage_sets


def search(spans, size, *, tolerance=0.125, max_images=5, combinations_per_level=5000, seed=0):
    return minimum_coverage_sets(
        spans,
        size,
        tolerance=tolerance,
        max_images=max_images,
        combinations_per_level=combinations_per_level,
        rng=np.random.default_rng(seed),
    )


def union_length(spans) -> float:
    """Length of the union, by sweeping over sorted spans."""
    total, end = 0.0, -np.inf
    for low, high in sorted(tuple(s) for s in spans if s[1] > s[0]):
        total += max(0.0, high - max(low, end))
        end = max(end, high)
    return total


def exhaustive(spans, size, tolerance, max_images):
    def covers(images):
        return abs(union_length([spans[i] for i in images]) - size) <= tolerance * size

    covering: list[set[int]] = []
    found = []
    for count in range(1, max_images + 1):
        for images in combinations(range(len(spans)), count):
            if covers(images) and not any(c < set(images) for c in covering):
                found.append(images)
            if covers(images):
                covering.append(set(images))
    return found


def test_one_image_shows_everything():
    assert search([(0, 10), (0, 3), (5, 10)], 10) == [(0,)]


def test_two_halves_and_a_whole():
    assert search([(0, 5), (5, 10), (0, 10)], 10) == [(2,), (0, 1)]


def test_two_ends_without_the_middle_do_not_tell_the_length():
    assert search([(0, 3), (7, 10)], 10) == []
    assert search([(0, 3), (7, 10), (2, 8)], 10) == [(0, 1, 2)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_length_cut_in_parts_needs_all_of_them(count):
    cuts = np.linspace(0, 1, count + 1)
    spans = np.column_stack([cuts[:-1], cuts[1:]])
    assert search(spans, 1.0) == [tuple(range(count))]
    if count > 1:
        assert search(spans, 1.0, max_images=count - 1) == []


def test_every_choice_of_overlapping_parts_is_found():
    # two ways to see the left half, two to see the right one, and a middle that helps nobody
    spans = [(0, 5), (0, 6), (4, 10), (5, 10), (3, 7)]
    assert search(spans, 10) == [(0, 2), (0, 3), (1, 2), (1, 3)]


def test_tolerance_has_two_sides_and_includes_its_ends():
    assert search([(0, 7)], 8) == [(0,)]
    assert search([(0, 9)], 8) == [(0,)]
    assert search([(0, 6.99)], 8) == []
    assert search([(0, 9.01)], 8) == []  # the points reach beyond the box: not that size


def test_images_that_show_nothing_are_left_out():
    nothing = (np.nan, np.nan)
    assert search([nothing, (0, 10), nothing, (3, 3)], 10) == [(1,)]
    assert search([nothing], 10) == search([], 10) == search([(0, 1)], 0.0) == []


span = st.tuples(st.integers(0, 24), st.integers(0, 24)).map(lambda s: (min(s), max(s)))
scenes = st.lists(span, min_size=1, max_size=9)


@settings(max_examples=150, deadline=None)
@given(scenes, st.integers(4, 24), st.integers(1, 5))
def test_equals_exhaustive_search(spans, size, max_images):
    assert search(spans, size, max_images=max_images) == exhaustive(spans, size, 0.125, max_images)


@settings(max_examples=50, deadline=None)
@given(scenes, st.integers(4, 24))
def test_the_published_spread_never_needs_a_third_image(spans, size):
    """Why the gaps are left out: with max - min, no minimal set has more than two images."""

    def covers(images):
        low, high = min(spans[i][0] for i in images), max(spans[i][1] for i in images)
        return abs(high - low - size) <= 0.125 * size

    for images in combinations(range(len(spans)), 3):
        if covers(images):
            assert any(covers(part) for count in (1, 2) for part in combinations(images, count))


def test_many_images_are_thinned_by_level_but_every_set_stays_minimal():
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.8, 25)
    spans = np.column_stack([low, np.minimum(1, low + rng.uniform(0.2, 0.35, 25))])
    whole = search(spans, 1.0, combinations_per_level=100_000)
    thinned = search(spans, 1.0, combinations_per_level=300, seed=1)
    assert {len(s) for s in whole} >= {3, 4, 5}
    assert 0 < len(thinned) < len(whole)
    assert set(thinned) < set(whole)
    assert thinned == search(spans, 1.0, combinations_per_level=300, seed=1)
    assert thinned != search(spans, 1.0, combinations_per_level=300, seed=2)
