"""Where a question points: its coordinates as tokens, and what lies there; knows no weights.

A bundle with pointers adds what the first and the last image of a question show at `[ x , y ]` to the
embedding of the token that closes the bracket: the decoder need not find out which of its visual tokens is meant.
One with deep pointers adds how far that is, too, as its own depth map of the first image says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.text import COORDINATE_SCALE

NEAREST_M, FARTHEST_M = 0.1, 20.0
"""Depths that a code tells apart; nearer and farther ones are told as these."""
DEPTH_CODE_SCALE = 2.0
"""Its amplitude; visual tokens of a trained model have a standard deviation of about 4."""
_COORDINATE = re.compile(r"\[ (\d{1,4}) , (\d{1,4}) \]")


class Pointer(NamedTuple):
    """A coordinate (x, y) of 0 to 1000 in some words.

    Attributes:
        at: index of the token that ends it.
    """

    at: int
    x: int
    y: int


def pointers(words: str, encode: Callable[[str], list[int]]) -> list[Pointer]:
    """The coordinates of some words; one whose end is no end of a token is left out."""
    found = []
    ids: list[int] | None = None
    for match in _COORDINATE.finditer(words):
        x, y = int(match[1]), int(match[2])
        if max(x, y) > COORDINATE_SCALE:
            continue
        ids = encode(words) if ids is None else ids
        start = encode(words[: match.end()])
        if ids[: len(start)] == start:
            found.append(Pointer(len(start) - 1, x, y))
    return found


def neighbours(x: float, y: float, grid_h: int, grid_w: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(4,) visual tokens around a coordinate, raster order, and (4,) weights: bilinear, held at the border."""
    column, row = (
        float(np.clip(value / COORDINATE_SCALE * count - 0.5, 0.0, count - 1.0))
        for value, count in ((x, grid_w), (y, grid_h))
    )
    left, top = int(column), int(row)
    right, bottom = min(left + 1, grid_w - 1), min(top + 1, grid_h - 1)
    across, down = column - left, row - top
    tokens = [top * grid_w + left, top * grid_w + right, bottom * grid_w + left, bottom * grid_w + right]
    weights = [(1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across]
    return np.asarray(tokens, np.int64), np.asarray(weights, np.float32)


def cell(x: float, y: float, rows: int, columns: int) -> int:
    """Raster index of the cell that a coordinate lies in, of a map that covers the image."""
    row, column = (
        min(int(value / COORDINATE_SCALE * count), count - 1) for value, count in ((y, rows), (x, columns))
    )
    return row * columns + column


def depth_code(depth_m: NDArray[np.floating], width: int) -> NDArray[np.float32]:
    """(N, width) code of (N,) z-depths in metres: sinusoids of their logarithm, as answers are right by ratio."""
    share = np.log(np.clip(depth_m, NEAREST_M, FARTHEST_M) / NEAREST_M) / np.log(FARTHEST_M / NEAREST_M)
    return sinusoids(share * COORDINATE_SCALE, width, DEPTH_CODE_SCALE)


def sinusoids(values: NDArray[np.floating], width: int, scale: float) -> NDArray[np.float32]:
    """(N, width) smooth features of (N,) numbers from 0 to 1000: neighbours are alike."""
    half = width // 2
    frequencies = np.exp(np.linspace(np.log(0.5), np.log(60.0), half)) * np.pi / 1000.0
    angles = np.asarray(values, np.float64)[:, None] * frequencies
    return np.asarray(scale * np.concatenate([np.sin(angles), np.cos(angles)], axis=1), np.float32)
