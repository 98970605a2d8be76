"""Figures against hand-made numbers and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spatial_mllm_core.evaluation.metrics import (
    DepthError,
    depth_error,
    displacement_error,
    mean_depth_error,
    spearman,
)


def test_perfect_depth() -> None:
    truth = np.linspace(0.5, 5, 12).reshape(3, 4)
    assert depth_error(truth, truth) == DepthError(0, 1, 0, 1, 12, 1)


def test_depth_by_hand() -> None:
    truth = np.array([[1.0, 2.0, 4.0, np.nan, 0.0]])
    predicted = np.array([[1.1, 1.0, 4.0, 3.0, 1.0]])
    error = depth_error(predicted, truth)
    assert error is not None
    assert error.abs_rel == pytest.approx((0.1 + 0.5 + 0) / 3)
    assert error.delta1 == pytest.approx(2 / 3)
    assert error.rmse_m == pytest.approx(math.sqrt((0.01 + 1 + 0) / 3))
    assert (error.pixels, error.coverage) == (3, 1)


def test_delta_counts_a_ratio_of_exactly_the_bound_as_wrong() -> None:
    assert depth_error(np.array([[1.25]]), np.array([[1.0]])).delta1 == 0  # type: ignore[union-attr]


def test_missing_prediction_lowers_coverage_only() -> None:
    error = depth_error(np.array([[1.0, np.nan, np.inf, -1.0]]), np.ones((1, 4)))
    assert error is not None
    assert (error.coverage, error.abs_rel, error.pixels) == (0.25, 0, 1)


def test_alignment_removes_a_wrong_scale_and_says_it() -> None:
    truth = np.random.default_rng(0).uniform(0.5, 5, (20, 30))
    error = depth_error(truth / 3, truth, align_scale=True)
    assert error is not None
    assert error.scale == pytest.approx(3)
    assert error.abs_rel == pytest.approx(0, abs=1e-12)


def test_no_common_pixel_is_none() -> None:
    assert depth_error(np.full((2, 2), np.nan), np.ones((2, 2))) is None
    assert depth_error(np.ones((2, 2)), np.zeros((2, 2))) is None
    assert mean_depth_error([]) is None


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="different shapes"):
        depth_error(np.ones((2, 2)), np.ones((2, 3)))


def test_mean_weighs_images_equally() -> None:
    small = DepthError(0.2, 0.5, 1.0, 1.0, 10, 1.0)
    large = DepthError(0.4, 0.7, 3.0, 2.0, 1000, 0.5)
    mean = mean_depth_error([small, large])
    assert mean == DepthError(pytest.approx(0.3), pytest.approx(0.6), 2.0, 1.5, 1010, 0.75, 2)


def test_displacement_by_hand() -> None:
    error = displacement_error(
        [[0.1, 0, 0], [0, 0.2, 0], [np.nan] * 3], [[0.2, 0, 0], [0.2, 0, 0], [1, 1, 1]]
    )
    assert error is not None
    assert error.mean_m == pytest.approx((0.1 + 0.2 * math.sqrt(2)) / 2)
    assert error.length_mean_m == pytest.approx(0.05)
    assert error.direction_deg == pytest.approx(45)
    assert error.count == 2


def test_displacement_without_numbers_is_none() -> None:
    assert displacement_error(np.full((2, 3), np.nan), np.zeros((2, 3))) is None


def test_spearman_against_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    for size in (2, 3, 10, 200):
        for digits in (1, 6):
            a, b = rng.normal(size=(2, size)).round(digits)
            expected = stats.spearmanr(a, b).statistic
            assert spearman(a, b) == pytest.approx(expected, nan_ok=True)


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3], [10, 100, 1000]) == 1
    assert spearman([1, 2, 3], [3, 2, 1]) == -1
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486832980505138)
    assert spearman([1, 2, np.nan, 3], [1, 2, -9, 3]) == 1


@pytest.mark.parametrize(("a", "b"), [([], []), ([1], [1]), ([1, 1], [1, 2]), ([np.nan, 1], [1, 1])])
def test_spearman_of_nothing_is_nan(a: list[float], b: list[float]) -> None:
    assert math.isnan(spearman(a, b))


def test_spearman_needs_equal_lengths() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        spearman([1, 2], [1])
