"""Numbers and coordinates: what the grammar writes it reads back; what models write is read or refused."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import reading, text

lengths = st.floats(-50.0, 50.0, allow_nan=False)


@given(lengths)
def test_a_length_comes_back_to_the_millimetre(value):
    assert reading.length_m(f"`{text.format_mm(value)}` mm.") == pytest.approx(value, abs=0.000501)


@given(st.tuples(lengths, lengths, lengths))
def test_a_vector_comes_back_to_the_millimetre(vector):
    np.testing.assert_allclose(reading.vector_m(f"`{text.format_vector_mm(vector)}`"), vector, atol=0.000501)


@given(st.floats(-0.5, 639.5), st.floats(-0.5, 479.5))
def test_a_coordinate_comes_back_within_its_rounding(u, v):
    coordinate = reading.coordinate(text.format_coordinate(text.pixel_to_coordinate((u, v), 640, 480)))
    back = text.coordinate_to_pixel(coordinate, 640, 480)
    # half a step of the scale, or half a pixel at the border that the scale begins with
    assert abs(back[0] - u) <= max(640 / 2000, 0.5) + 1e-9
    assert abs(back[1] - v) <= max(480 / 2000, 0.5) + 1e-9


@pytest.mark.parametrize(
    ("answer", "metres"),
    [
        ("`1150`", 1.15),
        ("1150 mm", 1.15),
        ("The depth is `1150` mm.", 1.15),
        ("It is about 1,150 millimetres away.", 1.15),
        ("1.15 m", 1.15),
        ("115cm", 1.15),
        ("1.15e3", 1.15),
        ("In Image-1 the answer is `20`.", 0.02),
    ],
)
def test_lengths_as_models_write_them(answer, metres):
    assert reading.length_m(answer) == pytest.approx(metres)


@pytest.mark.parametrize(
    "answer", ["", "far away", "between 10 and 20", "`nan`", "`1e999`", "`12` or `13 14`"]
)
def test_d63_text_without_one_number_is_refused(answer):
    with pytest.raises(SpatialError) as fault:
        reading.length_m(answer)
    assert fault.value.code is ErrorCode.UNPARSABLE_ANSWER


@pytest.mark.parametrize("answer", ["[1, 2]", "[1, 2, 3, 4]", "[a, b, c]", "1, 2, 3", "[1e999, 0, 0]"])
def test_vectors_of_the_wrong_shape_are_refused(answer):
    with pytest.raises(SpatialError) as fault:
        reading.vector_m(answer)
    assert fault.value.code is ErrorCode.UNPARSABLE_ANSWER


def test_coordinates_outside_the_scale_are_refused():
    with pytest.raises(SpatialError):
        reading.coordinate("[ 1200 , 3 ]")


@given(st.text(max_size=200))
def test_any_text_is_parsed_or_refused_with_a_code(answer):
    for parse in (reading.length_m, reading.vector_m, reading.coordinate):
        with contextlib.suppress(SpatialError):  # any other exception fails the test
            assert np.isfinite(parse(answer)).all()


def test_words_must_be_unambiguous():
    assert reading.word("It moved `left`.", ("left", "right")) == "left"
    assert reading.word("Right!", ("left", "right")) == "right"
    for answer in ("left or right", "", "leftover"):
        with pytest.raises(SpatialError):
            reading.word(answer, ("left", "right"))
