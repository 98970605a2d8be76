"""The error family: stable numbers, one clean line, whatever text came from outside."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line

# A number that has travelled in a message never changes its meaning; add here, never edit.
PUBLISHED = {
    "EMPTY_IMAGE": 101,
    "TRUNCATED_IMAGE": 102,
    "BAD_STEP": 103,
    "IMAGE_TOO_LARGE": 104,
    "UNSUPPORTED_ENCODING": 105,
    "UNDECODABLE_IMAGE": 106,
    "BAD_DEPTH": 107,
    "NO_CALIBRATION": 201,
    "UNCALIBRATED": 202,
    "BAD_INTRINSICS": 203,
    "SIZE_MISMATCH": 204,
    "UNKNOWN_DISTORTION_MODEL": 205,
    "BAD_DISTORTION": 206,
    "FRAME_MISMATCH": 207,
    "BAD_ROI": 208,
    "FRAME_EXPIRED": 301,
    "FRAME_NOT_YET": 302,
    "STAMP_REGRESSION": 303,
    "DUPLICATE_STAMP": 304,
    "DEADLINE_EXCEEDED": 305,
    "NO_FRAME": 306,
    "EMPTY_QUESTION": 401,
    "PIXEL_OUTSIDE": 403,
    "UNKNOWN_TASK": 404,
    "BUSY": 407,
    "CANCELED": 409,
    "MODEL_MISSING": 501,
    "HASH_MISMATCH": 502,
    "BAG_MISSING": 601,
    "BAG_UNREADABLE": 602,
    "BAG_WITHOUT_IMAGES": 603,
}


def test_published_numbers_keep_their_meaning():
    assert {name: int(ErrorCode[name]) for name in PUBLISHED} == PUBLISHED


def test_every_number_lies_in_a_known_hundred():
    assert {int(code) // 100 for code in ErrorCode} == {0, 1, 2, 3, 4, 5, 6}


def test_the_message_shows_number_name_and_sentence():
    error = SpatialError(ErrorCode.UNCALIBRATED, "K[0] is 0")
    assert str(error) == "E202 UNCALIBRATED: K[0] is 0"
    assert (error.code, error.sentence) == (202, "K[0] is 0")


@pytest.mark.parametrize("through", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])  # noqa: S301
def test_it_survives_copies_and_process_borders(through):
    again = through(SpatialError(ErrorCode.BAD_STEP, "step is 3"))
    assert isinstance(again, SpatialError)
    assert (again.code, again.sentence) == (ErrorCode.BAD_STEP, "step is 3")


@given(st.text(max_size=2000))
def test_no_text_from_outside_can_forge_a_log_line(text):
    line = one_line(text)
    assert line.isprintable()
    assert len(line) <= 400


def test_ansi_newline_nul_and_bidi_are_escaped():
    assert one_line("a\nb\x1b[31mc\x00\u202ed") == "a\\nb\\x1b[31mc\\x00\\u202ed"


def test_a_long_sentence_is_cut_visibly():
    assert one_line("x" * 500).endswith("…")


def test_an_unknown_code_is_a_programming_error():
    with pytest.raises(ValueError, match="999"):
        SpatialError(999, "?")  # type: ignore[arg-type]
