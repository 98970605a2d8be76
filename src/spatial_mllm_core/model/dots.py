"""Where the dots of an image are, from what the graph that finds them says of each cell; knows no weights."""

from __future__ import annotations

import numpy as np

from spatial_mllm_core.model.engine import Float32
from spatial_mllm_core.tasks.dots import LABELS, Dots
from spatial_mllm_core.tasks.text import COORDINATE_SCALE, whole_coordinate

_AROUND = 1
"""Cells to each side of the best one that say where between them a dot is."""

ASKED_ABOUT = -4.0
"""Log-odds from which on a dot is there that a question names: who asks has seen it. Of 255 plain dots of training
rows 88 % are likelier there than not, and 94 % are found with this bound; so is one in 15 % of images without any."""


def read_dots(scores: Float32, least: float = 0.0) -> Dots:
    """The dots that are likelier there than not.

    Args:
        scores: (5, h, w) log-odds of a dot of each of `LABELS` to lie in each cell, against its lying nowhere.
        least: what they are to be more than.
    """
    _, rows, columns = scores.shape
    found = {}
    for label, score in zip(LABELS, scores, strict=True):
        row, column = divmod(int(score.argmax()), columns)
        if not score[row, column] > least:
            continue
        top, left = max(row - _AROUND, 0), max(column - _AROUND, 0)
        near = score[top : row + _AROUND + 1, left : column + _AROUND + 1].astype(np.float64)
        weight = np.exp(near - near.max())
        weight /= weight.sum()
        y = top + 0.5 + weight.sum(axis=1) @ np.arange(weight.shape[0])
        x = left + 0.5 + weight.sum(axis=0) @ np.arange(weight.shape[1])
        found[label] = whole_coordinate((COORDINATE_SCALE * x / columns, COORDINATE_SCALE * y / rows))
    return found
