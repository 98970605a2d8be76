"""Dots read off scores: between cells, at borders, and none where none is likelier than nowhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.model.dots import ASKED_ABOUT, read_dots

ROWS, COLUMNS = 48, 64


def scores_of(places: dict[int, tuple[float, float]]) -> np.ndarray:
    """Log-odds that fall off with the distance, in cells, from places (x, y) in shares."""
    scores = np.full((5, ROWS, COLUMNS), -12.0, np.float32)
    for label, (x, y) in places.items():
        row, column = np.mgrid[:ROWS, :COLUMNS] + 0.5
        scores[label] = 6.0 - 2.0 * ((column - x * COLUMNS) ** 2 + (row - y * ROWS) ** 2)
    return scores


@given(st.floats(0.03, 0.97), st.floats(0.03, 0.97), st.integers(0, 4))
def test_a_dot_is_found_within_a_third_of_a_cell(x, y, label):
    found = read_dots(scores_of({label: (x, y)}))
    assert list(found) == [("", "A", "B", "C", "D")[label]]
    at = found[("", "A", "B", "C", "D")[label]]
    assert abs(at[0] / 1000 - x) * COLUMNS < 1 / 3 and abs(at[1] / 1000 - y) * ROWS < 1 / 3


@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)])
def test_a_dot_at_the_border_stays_inside(corner):
    (at,) = read_dots(scores_of({2: corner})).values()
    assert all(0 <= value <= 999 for value in at)
    assert np.hypot(at[0] / 1000 - corner[0], at[1] / 1000 - corner[1]) < 0.03


def test_what_is_likelier_nowhere_is_not_found():
    assert read_dots(scores_of({})) == {}
    scores = scores_of({0: (0.5, 0.5)})
    assert read_dots(scores - scores.max()) == {}
    assert read_dots(np.full_like(scores, np.nan)) == {}


def test_what_is_asked_about_may_be_less_likely():
    faint = scores_of({0: (0.5, 0.5)}) - 8.0  # log-odds of -2
    assert read_dots(faint) == {} and list(read_dots(faint, ASKED_ABOUT)) == [""]
    assert read_dots(faint - 3.0, ASKED_ABOUT) == {}
    assert read_dots(np.full_like(faint, np.nan), ASKED_ABOUT) == {}


def test_all_five_are_told_apart():
    places = {0: (0.1, 0.1), 1: (0.9, 0.1), 2: (0.1, 0.9), 3: (0.9, 0.9), 4: (0.5, 0.5)}
    found = read_dots(scores_of(places))
    assert found == {
        name: pytest.approx((1000 * x, 1000 * y), abs=8)
        for name, (x, y) in zip(("", "A", "B", "C", "D"), places.values(), strict=True)
    }
