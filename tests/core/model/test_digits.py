"""Codes of digits: what a linear map reads off them, whatever stands beside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.model.digits import SCALE, depth_digits, digit_code
from spatial_mllm_core.tasks import depth
from spatial_mllm_core.tasks.text import widened

WIDTH = 256


def read_digit(part):
    """The digit whose harmonics of ten fit best: what one linear map and an argmax say."""
    harmonics = len(part) // 2
    angles = 2 * np.pi / 10 * np.arange(10)[:, None] * np.arange(1, harmonics + 1)
    return int(np.argmax(np.concatenate([np.sin(angles), np.cos(angles)], axis=1) @ part))


@pytest.mark.parametrize("width", [WIDTH, 128, 64])
@given(numbers=st.lists(st.integers(0, 9999), min_size=8, max_size=8))
def test_a_linear_map_reads_every_digit(width, numbers):
    code = digit_code(numbers, width, 4).reshape(8, 4, -1)
    found = ["".join(str(read_digit(part)) for part in of_number) for of_number in code]
    assert found == [f"{number:04d}" for number in numbers]


def test_ten_digits_are_told_apart_by_much():
    """By any two of them alike, so that noise of half an amplitude changes none."""
    codes = np.stack([digit_code([d], 8, 1) for d in range(10)])
    alike = codes @ codes.T
    own = np.diag(alike)
    np.testing.assert_allclose(own, 4 * SCALE**2, rtol=1e-6)
    assert (alike - np.diag(own)).max() < 0.3 * own[0]


def test_what_is_not_known_says_nothing_and_moves_nothing():
    nan = float("nan")
    np.testing.assert_array_equal(digit_code([nan] * 8, WIDTH, 4), np.zeros(WIDTH))
    both = digit_code([1234, nan], WIDTH, 4).reshape(2, -1)
    assert both[0].any() and not both[1, : 4 * 8].any()


def test_more_digits_than_there_are_is_the_largest_number():
    np.testing.assert_array_equal(digit_code([123456], WIDTH, 4), digit_code([9999], WIDTH, 4))


def test_an_embedding_without_room_is_told_nothing():
    assert digit_code([1] * 8, 32, 4).shape == (32,) and not digit_code([1] * 8, 32, 4).any()


@given(depth_m=st.floats(0.05, 90.0))
def test_depths_are_told_in_the_digits_of_their_answers(depth_m):
    (code,) = depth_digits(np.array([depth_m]), WIDTH)
    told = "".join(str(read_digit(part)) for part in code[:40].reshape(5, 8))
    assert f"`{told}`" in widened(depth.DEPTH_VALUE.answer_text(depth.depth_truth(depth_m)), 5)


def test_no_depth_is_no_code():
    assert depth_digits(np.zeros(0), 64).shape == (0, 64)
    np.testing.assert_array_equal(depth_digits(np.array([np.nan]), 64), np.zeros((1, 64)))
