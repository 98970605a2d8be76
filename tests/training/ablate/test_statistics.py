"""Means over seeds and paired differences against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spatial_mllm_training.ablate.statistics import difference, over_seeds, with_images


def test_a_mean_over_seeds_has_scipys_standard_error():
    values = [52.1, 49.8, 55.0, 51.2]
    found = over_seeds(values)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.standard_error == pytest.approx(stats.sem(values))
    assert found.values == tuple(values)


def test_one_seed_has_no_error_and_a_missing_figure_no_mean():
    assert math.isnan(over_seeds([3.0]).standard_error)
    assert over_seeds([1.0, None]) is None and over_seeds([1.0, math.nan]) is None and over_seeds([]) is None


def test_a_difference_is_paired_by_seed():
    arm, first = {0: 3.0, 1: 5.0, 2: 4.5}, {2: 4.0, 1: 4.0, 0: 1.0, 7: 9.0}
    found = difference(arm, first)
    a, b = [3.0, 5.0, 4.5], [1.0, 4.0, 4.0]
    assert found.mean == pytest.approx(np.mean(np.subtract(a, b)))
    t = stats.ttest_rel(a, b).statistic
    assert found.mean / found.standard_error == pytest.approx(t)


def test_errors_of_two_sources_add_in_squares():
    assert with_images(3.0, 4.0) == pytest.approx(5.0)
    assert with_images(math.nan, 4.0) == 4.0 and math.isnan(with_images(math.nan, math.nan))
