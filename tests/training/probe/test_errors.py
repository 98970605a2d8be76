"""Errors of depth images against plain loops and least squares that we did not write."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spatial_mllm_training.probe.errors import ImageError, image_error, mean_error, scale_and_shift


def images(seed=0, shape=(13, 17)):
    rng = np.random.default_rng(seed)
    true = rng.uniform(0.5, 6, shape)
    predicted = true * rng.uniform(0.4, 2.2, shape) + 0.1
    true[rng.random(shape) < 0.3] = 0
    return predicted, true


def test_every_figure_equals_a_plain_loop():
    predicted, true = images()
    squares, relative, within = [], [], [0, 0, 0]
    for p, t in zip(predicted.ravel(), true.ravel(), strict=True):
        if t > 0:
            squares.append((p - t) ** 2)
            relative.append(abs(p - t) / t)
            for k in range(3):
                within[k] += max(p / t, t / p) < 1.25 ** (k + 1)
    found = image_error(predicted, true)
    n = len(squares)
    assert found.pixels == n
    assert found.rmse_m == pytest.approx(math.sqrt(sum(squares) / n), rel=1e-12)
    assert found.abs_rel == pytest.approx(sum(relative) / n, rel=1e-12)
    assert (found.delta1, found.delta2, found.delta3) == pytest.approx([w / n for w in within], rel=1e-12)
    assert 0 < found.delta1 < found.delta2 < found.delta3 < 1  # or the loop would compare little


def test_rmse_is_averaged_over_images_not_over_pixels():
    small, large = image_error(np.full((2, 2), 3.0), np.full((2, 2), 1.0)), None
    true = np.full((2, 2), 1.0)
    true[0] = 0
    large = image_error(np.full((2, 2), 5.0), true)
    assert mean_error([small, large]).rmse_m == pytest.approx((2 + 4) / 2)
    assert mean_error([small, large]).pixels == 6
    assert mean_error([]) is None


def test_scale_and_shift_are_the_least_squares_of_numpy_and_of_the_public_closed_form():
    predicted, true = images(3)
    valid = true > 0
    p, t = predicted[valid], true[valid]
    solved = np.linalg.lstsq(np.stack([p, np.ones_like(p)], axis=1), t, rcond=None)[0]
    assert scale_and_shift(p, t) == pytest.approx(tuple(solved), rel=1e-9)
    a00, a01, a11, b0, b1 = (p * p).sum(), p.sum(), len(p), (p * t).sum(), t.sum()
    determinant = a00 * a11 - a01 * a01
    public = ((a11 * b0 - a01 * b1) / determinant, (a00 * b1 - a01 * b0) / determinant)
    assert scale_and_shift(p, t) == pytest.approx(public, rel=1e-9)
    matched = image_error(predicted, true, matched=True)
    assert matched.rmse_m == pytest.approx(np.sqrt(np.mean((solved[0] * p + solved[1] - t) ** 2)), rel=1e-9)
    assert matched.rmse_m < image_error(predicted, true).rmse_m


def test_a_scaled_and_shifted_truth_matches_exactly():
    _, true = images(4)
    error = image_error(true * 0.3 + 0.7, true, matched=True)
    assert error.rmse_m < 1e-9
    assert error.delta1 == 1


def test_a_constant_prediction_has_no_scale_and_stays_as_it_is():
    _, true = images(5)
    assert image_error(np.full(true.shape, 2.0), true, matched=True) == image_error(
        np.full(true.shape, 2.0), true
    )


def test_nan_and_zero_truth_is_none_and_a_nan_prediction_is_refused():
    predicted, true = images(6)
    with_nan = np.where(true > 0, true, np.nan)
    assert image_error(predicted, with_nan) == image_error(predicted, true)
    assert image_error(predicted, np.zeros_like(true)) is None
    predicted[np.unravel_index(np.argmax(true), true.shape)] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        image_error(predicted, true)
    with pytest.raises(ValueError, match="different shapes"):
        image_error(predicted[:3], true)


def test_negative_matched_depth_counts_as_far_off():
    true = np.array([[1.0, 2.0]])
    error = image_error(np.array([[-1.0, 2.0]]), true)
    assert isinstance(error, ImageError)
    assert error.delta3 == 0.5
