"""Where the cells of one image lie in another one, by features that are alike; knows no depth and no camera.

Places are (x, y) in shares of an image's width and height, 0 at its upper left corner; cells cover it evenly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

NEVER = np.float32(-1e9)
"""Logarithm of the chance of a place where nothing is looked for."""
_NEAR = 1
"""Cells around the likeliest one, of which the place is the mean."""


@dataclass(frozen=True)
class Matches:
    """For each cell of the first image, raster order, where it is in the later one.

    Attributes:
        places: (N, 2) the mean place of the likeliest cells there.
        shares: (N,) probability of those cells among all of the later image.
        is_mutual: (N,) the likeliest cell there finds its way back to this one or one beside it.
    """

    places: Float32
    shares: Float32
    is_mutual: NDArray[np.bool_]


def centres(rows: int, columns: int) -> Float32:
    """(rows * columns, 2) places of the cells' centres, raster order."""
    x = (np.arange(columns, dtype=np.float32) + 0.5) / columns
    y = (np.arange(rows, dtype=np.float32) + 0.5) / rows
    return np.asarray(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), np.float32)


def match(first_hwC: Float32, later_hwC: Float32, prior: Float32 | None = None) -> Matches:
    """Match the cells of two images by the softmax over their features' inner products.

    Args:
        prior: (N, M) logarithms of how likely each cell of the first image is in each of the later one beforehand,
            up to a constant; None: alike. What is looked for in none (`NEVER`) has a place that means nothing, a share
            of 0, and is not mutual.
    """
    rows, columns = later_hwC.shape[:2]
    logits = first_hwC.reshape(-1, first_hwC.shape[2]) @ later_hwC.reshape(-1, later_hwC.shape[2]).T
    if prior is not None:
        logits += prior
    best = logits.max(axis=1, keepdims=True)
    of_all = np.exp(logits - best).sum(axis=1)
    likeliest = logits.argmax(axis=1)
    near = _neighbours(likeliest, rows, columns)
    beside = np.where(near >= 0, np.take_along_axis(logits, np.maximum(near, 0), axis=1), NEVER)
    top = beside.max(axis=1, keepdims=True)
    weights = np.exp(beside - top)
    within = weights.sum(axis=1)
    places = np.einsum("nk,nkd->nd", weights / within[:, None], centres(rows, columns)[near])
    shares = within * np.exp(top - best)[:, 0] / of_all
    back = logits.argmax(axis=0)[likeliest]
    across = first_hwC.shape[1]
    here = np.arange(len(logits))
    off = np.maximum(np.abs(back % across - here % across), np.abs(back // across - here // across))
    is_mutual = off <= 1
    is_somewhere = best[:, 0] > NEVER / 2
    return Matches(places.astype(np.float32), np.where(is_somewhere, shares, 0.0), is_mutual & is_somewhere)


def _neighbours(cells: NDArray[np.integer], rows: int, columns: int) -> NDArray[np.int64]:
    """(N, 9) cells around each, -1 outside."""
    steps = np.arange(-_NEAR, _NEAR + 1)
    row = (cells // columns)[:, None, None] + steps[:, None]
    column = (cells % columns)[:, None, None] + steps[None, :]
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    return np.where(inside, row * columns + column, -1).reshape(len(cells), -1)
