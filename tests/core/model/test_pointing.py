"""Coordinates of words as tokens, and bilinear neighbours against SciPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.model.pointing import neighbours, pointers

TOKENIZER = Tokenizer.from_file(str(Path(__file__).parents[2] / "fixtures" / "tokenizer_0.1.0.json"))


def encode(words):
    return TOKENIZER.encode(words, add_special_tokens=False).ids


@pytest.mark.parametrize("name", [n for n in tasks.names() if tasks.get(n).point_count])
def test_every_asked_point_of_a_task_is_found_where_its_bracket_closes(name):
    task = tasks.get(name)
    points = tuple((17 + 400 * i, 999 - 30 * i) for i in range(task.point_count))
    words = task.question(points, category="chair")
    found = pointers(words, encode)
    assert [(p.x, p.y) for p in found] == [p for p in points if f"[ {p[0]} , {p[1]} ]" in words]
    for pointer in found:
        so_far = TOKENIZER.decode(encode(words)[: pointer.at + 1], skip_special_tokens=False)
        assert so_far.endswith(f"[ {pointer.x} , {pointer.y} ]")


def test_only_coordinates_of_the_scale_point():
    assert pointers("nothing, [1, 2], [ 5 ] and [ 1001 , 5 ]", encode) == []
    assert [(p.x, p.y) for p in pointers("[ 0 , 1000 ] [ 3 , 4 ]?", encode)] == [(0, 1000), (3, 4)]


def test_a_bracket_inside_of_a_token_points_nowhere():
    def lumps(words):
        return [hash(words[i : i + 4]) for i in range(0, len(words), 4)]

    assert pointers("[ 1 , 2 ] and more", lumps) == []


@given(
    st.floats(0, 1000), st.floats(0, 1000), st.integers(1, 9), st.integers(1, 12), st.integers(0, 2**32 - 1)
)
def test_neighbours_are_bilinear_as_in_scipy(x, y, grid_h, grid_w, seed):
    shown = np.random.default_rng(seed).normal(size=(grid_h, grid_w))
    tokens, weights = neighbours(x, y, grid_h, grid_w)
    place = [[y / 1000 * grid_h - 0.5], [x / 1000 * grid_w - 0.5]]
    expected = map_coordinates(shown, place, order=1, mode="nearest")[0]
    assert weights @ shown.ravel()[tokens] == pytest.approx(expected, abs=1e-5)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6) and (weights >= 0).all()
