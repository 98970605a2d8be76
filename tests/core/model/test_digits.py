"""What is told while a number is written: a linear map reads off it every digit that comes next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.model import told
from spatial_mllm_core.model.digits import COUNT, DIGITS, SCALE, NextDigit, codes_of_places, digit_codes
from spatial_mllm_core.tasks import depth
from spatial_mllm_core.tasks.text import widened

WIDTH = 256


def read_digit(part):
    """The digit whose harmonics of ten fit best: what one linear map and an argmax say."""
    harmonics = len(part) // 2
    angles = 2 * np.pi / 10 * np.arange(10)[:, None] * np.arange(1, harmonics + 1)
    return int(np.argmax(np.concatenate([np.sin(angles), np.cos(angles)], axis=1) @ part))


def read_numbers(codes, each=8):
    parts = codes[:, : COUNT * each].reshape(DIGITS, COUNT, each)
    return ["".join(str(read_digit(parts[place, n])) for place in range(DIGITS)) for n in range(COUNT)]


@pytest.mark.parametrize(("width", "each"), [(WIDTH, 8), (64, 8), (48, 6)])
@given(numbers=st.lists(st.integers(0, 99_999), min_size=COUNT, max_size=COUNT))
def test_a_linear_map_reads_every_digit_of_every_number(width, each, numbers):
    codes = codes_of_places(numbers, width)
    assert codes.shape == (DIGITS, width)
    assert read_numbers(codes, each) == [f"{number:05d}" for number in numbers]


@given(st.lists(st.integers(0, 99_999), min_size=3, max_size=3), st.integers(0, DIGITS - 1))
def test_questions_do_not_mix(numbers, place):
    rows = np.array([[number] * COUNT for number in numbers], float)
    together = digit_codes(rows, np.full(3, place), WIDTH)
    for code, number in zip(together, numbers, strict=True):
        np.testing.assert_array_equal(code, codes_of_places([number] * COUNT, WIDTH)[place])


def test_ten_digits_are_told_apart_by_much():
    """No two of them are alike by more than a third of what each is like itself."""
    codes = digit_codes(np.arange(10.0)[:, None], np.full(10, DIGITS - 1), 8)
    alike = codes @ codes.T
    own = np.diag(alike)
    np.testing.assert_allclose(own, 4 * SCALE**2, rtol=1e-6)
    assert (alike - np.diag(own)).max() < own[0] / 3


def test_what_is_not_known_says_nothing_and_moves_nothing():
    nan = float("nan")
    assert not codes_of_places([nan] * COUNT, WIDTH).any()
    both = codes_of_places([12_345, nan], WIDTH)
    assert both[:, :8].any(axis=1).all() and not both[:, 8:].any()
    assert digit_codes(np.zeros((0, COUNT)), np.zeros(0, np.int64), WIDTH).shape == (0, WIDTH)


def test_more_digits_than_there_are_is_the_largest_number():
    np.testing.assert_array_equal(codes_of_places([123_456], WIDTH), codes_of_places([99_999], WIDTH))


def test_an_embedding_without_room_is_told_nothing():
    assert not codes_of_places([1] * COUNT, 12).any()


@given(st.lists(st.floats(0.05, 90.0), min_size=1, max_size=12))
def test_depths_are_told_in_the_digits_of_their_answers(depths_m):
    said = read_numbers(codes_of_places(told.of_depths(depths_m).spelled, WIDTH))
    for depth_m, number in zip(depths_m[:COUNT], said, strict=False):
        assert f"`{number}`" in widened(depth.DEPTH_VALUE.answer_text(depth.depth_truth(depth_m)), DIGITS)


def test_no_depth_is_nothing():
    assert np.isnan(told.of_depths([]).spelled).all() and np.isnan(told.of_depths([np.nan]).spelled).all()


@given(st.text("0123456789`+-, []x", max_size=60))
def test_the_next_digit_is_behind_those_that_stand_at_the_end(text):
    ids = {digit: 100 + int(digit) for digit in "0123456789"}
    following = NextDigit(ids.values())
    assert following.place == 0
    for end in range(1, len(text) + 1):
        so_far = text[:end]
        at_end = len(so_far) - len(so_far.rstrip("0123456789"))
        place = following.follow(ids.get(text[end - 1], ord(text[end - 1])))
        assert place == following.place == (at_end if at_end < DIGITS else None)
