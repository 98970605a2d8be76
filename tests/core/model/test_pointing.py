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
from spatial_mllm_core.model.pointing import FARTHEST_M, NEAREST_M, cell, depth_code, neighbours, pointers

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


@given(st.integers(1, 96), st.integers(1, 128), st.data())
def test_a_cell_is_the_one_whose_middle_is_nearest(rows, columns, data):
    """Half-pixel convention: cell (r, c) covers the r-th of `rows` and the c-th of `columns` parts of the image."""
    x, y = (data.draw(st.integers(0, 1000)) for _ in range(2))
    centres = [(np.arange(n) + 0.5) / n * 1000 for n in (rows, columns)]
    row, column = (np.abs(c - value) for c, value in zip(centres, (y, x), strict=True))
    found = divmod(cell(x, y, rows, columns), columns)
    assert row[found[0]] == pytest.approx(row.min()) and column[found[1]] == pytest.approx(column.min())


def test_a_depth_code_tells_depths_apart_by_their_ratio():
    depths = np.geomspace(NEAREST_M, FARTHEST_M, 200)
    code = depth_code(depths, 256)
    assert code.shape == (200, 256) and code.dtype == np.float32
    distance = np.linalg.norm(code[:, None] - code[None], axis=-1)
    # the nearer two depths are by ratio, the nearer their codes; equal ratios are equally far
    assert (np.diff(distance[0, :8]) > 0).all()
    assert np.allclose(np.diagonal(distance, 1), distance[0, 1], rtol=1e-4)
    assert (distance + 9 * np.eye(200)).argmin(1)[1:-1] == pytest.approx(np.arange(1, 199), abs=1)
    np.testing.assert_array_equal(
        depth_code(np.array([0.0, 99.0]), 256), depth_code(np.array([NEAREST_M, FARTHEST_M]), 256)
    )
