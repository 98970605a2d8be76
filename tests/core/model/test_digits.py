"""What is told while a number is written: a linear map reads off it every digit that comes next."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.model import told
from spatial_mllm_core.model.digits import (
    COUNT,
    DIGITS,
    SCALE,
    NextDigit,
    Spelling,
    digit_codes,
    digits_at,
    with_copies,
)
from spatial_mllm_core.tasks import depth
from spatial_mllm_core.tasks.text import widened
from spatial_mllm_core.two_view.view_pair import Place

WIDTH = 256
DIGIT_IDS = tuple(range(20, 30))
NAN = float("nan")


def codes_of_places(numbers, width):
    """What an answer of nothing but zeros is told at each of its digits."""
    spelling = Spelling(numbers, DIGIT_IDS, width, copies=False)
    codes = []
    for _ in range(DIGITS):
        codes.append(spelling.code)
        spelling.follow(DIGIT_IDS[0])
    assert not spelling.code.any()  # behind the last one
    return np.stack(codes)


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


@given(st.lists(st.floats(-0.02, 0.02), min_size=3, max_size=3))
def test_what_moved_by_less_than_matches_can_tell_is_spelled_as_still(moved_m):
    place = Place((0.5, 0.5), 1.0, True, np.array(moved_m))
    length_m = float(np.linalg.norm(moved_m))
    expected = [0.0] * 4 if length_m < told.STILL_M else [round(1000 * abs(m)) for m in (*moved_m, length_m)]
    np.testing.assert_allclose(told.of_place(place).spelled[4:], expected, atol=0.51)


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


@given(
    st.lists(st.one_of(st.just(NAN), st.integers(0, 99_999)), min_size=COUNT, max_size=COUNT),
    st.integers(0, DIGITS - 1),
)
def test_digits_are_those_of_the_text_of_a_number(numbers, place):
    (found,) = digits_at(np.array([numbers], float), np.array([place]))
    assert found.tolist() == [-1 if n != n else int(f"{n:05d}"[place]) for n in numbers]


@given(
    st.lists(st.integers(-1, 9), min_size=3, max_size=3),
    st.lists(st.floats(-20, 0), min_size=43, max_size=43),
)
def test_copies_add_chances_to_the_digits_that_they_would_say(digits, scores):
    words, copies = np.exp(np.array(scores[:40])), np.exp(np.array(scores[40:]))
    for digit, chance in zip(digits, copies, strict=True):
        if digit >= 0:
            words[DIGIT_IDS[digit]] += chance
    logits = with_copies(np.array(scores, np.float32), np.array(digits), DIGIT_IDS)
    np.testing.assert_allclose(np.exp(logits.astype(float)), words, rtol=1e-5)


def test_what_is_copied_goes_on_with_the_number_that_is_meant():
    """A decoder that says nothing but "the second number" spells it; where no digit comes next its words are left."""
    scores = np.log(np.full(40 + COUNT, 1e-6, np.float32))
    scores[5], scores[40 + 1] = np.log(0.4), np.log(0.6)
    spelling = Spelling([11_111, 90_210] + [NAN] * 6, DIGIT_IDS, WIDTH, copies=True)
    said = ""
    for _ in range(DIGITS):
        token = int(spelling.logits(scores).argmax())
        said += str(DIGIT_IDS.index(token))
        spelling.follow(token)
    assert said == "90210"
    np.testing.assert_array_equal(spelling.logits(scores), scores[:40])
    spelling.follow(5)
    assert spelling.logits(scores).argmax() == DIGIT_IDS[9]


def test_an_unknown_number_is_not_copied():
    scores = np.log(np.full(40 + COUNT, 1e-6, np.float32))
    scores[5], scores[40] = np.log(0.1), np.log(0.9)
    np.testing.assert_array_equal(
        Spelling([NAN] * COUNT, DIGIT_IDS, WIDTH, copies=True).logits(scores), scores[:40]
    )
    without = Spelling([1.0] * COUNT, DIGIT_IDS, WIDTH, copies=False)
    assert without.logits(scores[:40]) is not None and len(without.logits(scores[:40])) == 40
