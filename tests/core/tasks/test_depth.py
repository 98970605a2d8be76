"""Truths of depth questions."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.tasks import depth

POINTS = ((512, 340), (7, 99))
depths = st.floats(0.2, 10.0)


def test_comparison_names_the_nearer_or_the_farther_point():
    assert depth.comparison_truth(POINTS, (2.0, 1.0)).values == (7.0, 99.0)
    assert depth.comparison_truth(POINTS, (2.0, 1.0), "farther").values == (512.0, 340.0)
    assert depth.letter_truth(np.array([2.0, 1.0])).label == "B"
    assert depth.letter_truth(np.array([2.0, 1.0]), "farther").label == "A"


@given(depths, depths, st.sampled_from(["closer", "farther"]))
def test_swapping_the_points_swaps_letters_and_keeps_the_point(one, other, variant):
    if one == other:
        return
    letters = {depth.letter_truth(d, variant).label for d in ((one, other), (other, one))}
    assert letters == {"A", "B"}
    swapped = depth.comparison_truth(POINTS[::-1], (other, one), variant)
    assert depth.comparison_truth(POINTS, (one, other), variant) == swapped


@given(depths, depths)
def test_the_variants_name_different_points(one, other):
    truths = {depth.letter_truth((one, other), v).label for v in depth.DEPTH_COMPARISON_DOT.variants}
    assert truths == {"A", "B"}


def test_depth_is_z_depth_in_metres():
    assert depth.DEPTH_VALUE_DOT.gt_value(depth.depth_truth(2.2494)) == 2249
