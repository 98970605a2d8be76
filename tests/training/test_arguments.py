"""Numbers of a command line: what is none gets argparse's sentence."""

from __future__ import annotations

import argparse

import pytest

from spatial_mllm_training.arguments import positive_amount, positive_number, whole_number


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (whole_number, "0", 0),
        (positive_number, "12", 12),
        (positive_amount, "0.5", 0.5),
        (positive_amount, "3", 3),
    ],
)
def test_numbers_are_read(kind, text, value):
    assert kind(text) == value


@pytest.mark.parametrize("kind", [whole_number, positive_number, positive_amount])
@pytest.mark.parametrize("text", ["-1", "", "x", "nan", "inf"])
def test_what_is_none_is_named(kind, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected .*, found '{text}'"):
        kind(text)


@pytest.mark.parametrize("kind", [positive_number, positive_amount])
def test_nothing_is_not_above_nothing(kind):
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        kind("0")
