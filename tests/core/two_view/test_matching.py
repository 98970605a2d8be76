"""Matches of cells against SciPy's softmax and against images whose shift is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from spatial_mllm_core.two_view.matching import NEVER, centres, match

ROWS, COLUMNS = 5, 7


def features(seed, rows=ROWS, columns=COLUMNS):
    unit = np.random.default_rng(seed).normal(size=(rows, columns, 16))
    return (4.0 * unit / np.linalg.norm(unit, axis=-1, keepdims=True)).astype(np.float32)


def test_centres_cover_the_image_evenly():
    found = centres(2, 4)
    assert found.tolist() == [[0.125, 0.25], [0.375, 0.25], [0.625, 0.25], [0.875, 0.25]] + [
        [0.125, 0.75], [0.375, 0.75], [0.625, 0.75], [0.875, 0.75]
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_place_is_the_mean_of_the_likeliest_cell_and_those_beside_it(seed):
    first, later = features(seed), features(seed + 100, 6, 4)
    found = match(first, later)
    share = softmax(first.reshape(-1, 16).astype(np.float64) @ later.reshape(-1, 16).T, axis=1)
    for cell, parts in enumerate(share):
        row, column = divmod(int(parts.argmax()), 4)
        near = [(r, c) for r in range(6) for c in range(4) if max(abs(r - row), abs(c - column)) <= 1]
        weights = np.array([parts[r * 4 + c] for r, c in near])
        places = np.array([((c + 0.5) / 4, (r + 0.5) / 6) for r, c in near])
        np.testing.assert_allclose(found.shares[cell], weights.sum(), rtol=1e-4)
        np.testing.assert_allclose(found.places[cell], weights @ places / weights.sum(), rtol=1e-4)


def test_a_shifted_image_is_matched_with_its_shift_and_back():
    wide = 3.0 * features(0, ROWS, COLUMNS + 2)
    found = match(wide[:, :COLUMNS], wide[:, 2:])
    inside = centres(ROWS, COLUMNS)[:, 0] > 2.0 / COLUMNS
    np.testing.assert_allclose(
        found.places[inside], (centres(ROWS, COLUMNS) - (2.0 / COLUMNS, 0.0))[inside], atol=0.02
    )
    assert found.is_mutual[inside].all()
    assert (found.shares[inside] > 0.9).all()


def test_cells_that_many_look_alike_find_no_way_back():
    """All cells of the first image look like one cell of the later one, which is one of them again."""
    later = features(1)
    first = np.broadcast_to(later[2, 3], (ROWS, COLUMNS, 16)).copy()
    first[0, 0] *= 1.5
    found = match(first, later)
    assert found.is_mutual.sum() == 4  # the best one, and those beside it


@pytest.mark.parametrize("seed", range(5))
def test_cells_are_looked_for_where_they_may_be(seed):
    """Shares are of all where it may be."""
    rng = np.random.default_rng(seed)
    first, later = features(seed), features(seed + 100, 6, 4)
    may_be = rng.random((ROWS * COLUMNS, 24)) < 0.4
    may_be[3] = False
    found = match(first, later, np.where(may_be, np.float32(0.0), NEVER))
    logits = first.reshape(-1, 16).astype(np.float64) @ later.reshape(-1, 16).T
    share = softmax(logits, axis=1)
    for cell, parts in enumerate(share):
        allowed = np.flatnonzero(may_be[cell])
        if not len(allowed):
            continue
        row, column = divmod(int(allowed[parts[allowed].argmax()]), 4)
        near = [j for j in allowed if max(abs(j // 4 - row), abs(j % 4 - column)) <= 1]
        np.testing.assert_allclose(found.shares[cell], parts[near].sum() / parts[allowed].sum(), rtol=1e-4)
        np.testing.assert_allclose(
            found.places[cell], parts[near] @ centres(6, 4)[near] / parts[near].sum(), rtol=1e-4
        )
    assert found.shares[3] == 0.0 and not found.is_mutual[3] and np.isfinite(found.places).all()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_known_beforehand_weighs_as_bayes_says(seed):
    rng = np.random.default_rng(seed)
    first, later = features(seed), features(seed + 100, 6, 4)
    known = rng.dirichlet(np.ones(24), ROWS * COLUMNS)
    found = match(first, later, np.log(known).astype(np.float32))
    alike = softmax(first.reshape(-1, 16).astype(np.float64) @ later.reshape(-1, 16).T, axis=1)
    both = alike * known / (alike * known).sum(axis=1, keepdims=True)
    for cell, parts in enumerate(both):
        row, column = divmod(int(parts.argmax()), 4)
        near = [j for j in range(24) if max(abs(j // 4 - row), abs(j % 4 - column)) <= 1]
        np.testing.assert_allclose(found.shares[cell], parts[near].sum(), rtol=1e-3)


def test_looked_for_everywhere_is_as_usual():
    first, later = features(0), features(7)
    usual, found = match(first, later), match(first, later, np.full((ROWS * COLUMNS,) * 2, np.float32(-0.7)))
    for name in ("places", "shares", "is_mutual"):
        np.testing.assert_allclose(getattr(found, name), getattr(usual, name), rtol=1e-5)
