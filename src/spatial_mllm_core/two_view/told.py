"""Numbers about two images as codes that a prompt carries; knows no image.

A bundle of matching adds such codes to words of a question about several images: that of the camera to the first
one, that of a place to the bracket that opens its coordinates. They stand to a small language model as the
rays of a camera do: geometry that it need not learn to compute.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.tasks.text import COORDINATE_SCALE

COUNT = 8
Numbers = tuple[float, ...]
"""`COUNT` of them from 0 to 1000, each in a part of its own of the code; NaN, which leaves its part 0: not known."""
NOTHING: Numbers = (float("nan"),) * COUNT
SCALE = 2.0
"""Amplitude of a code, as that of depths."""
FINEST_M, FARTHEST_M = 0.02, 8.0
FINEST_DEG, FARTHEST_DEG = 1.0, 180.0
_HALF = COORDINATE_SCALE / 2


def camera_numbers(offset_m: NDArray[np.floating], turn_deg: tuple[float, float], inliers: float) -> Numbers:
    """Of a later camera: x, y, z, distance, yaw, pitch, share of matches that agree.

    Args:
        offset_m: (3,) its position in the optical frame of the first camera.
        turn_deg: (yaw, pitch) of `camera_turn_deg`.
    """
    turns = _signed(np.asarray(turn_deg, np.float64), FINEST_DEG, FARTHEST_DEG)
    return _filled([*_movement(offset_m), *turns, inliers * COORDINATE_SCALE])


def place_numbers(
    there: NDArray[np.floating], share: float, is_mutual: bool, moved_m: NDArray[np.floating] | None
) -> Numbers:
    """Of a place: x and y in the later image, how sure, whether mutual, and x, y, z and length of its movement.

    Args:
        there: (2,) coordinate from 0 to 1000.  share, is_mutual: of `Matches`.
        moved_m: (3,) in the optical frame of the first camera; None where that is not known.
    """
    found = [*there, share * COORDINATE_SCALE, float(is_mutual) * COORDINATE_SCALE]
    return _filled(found if moved_m is None else [*found, *_movement(moved_m)])


def code(numbers: Numbers, width: int) -> NDArray[np.float32]:
    """(width,) sinusoids of each number in a part of its own."""
    each = width // COUNT
    out = np.zeros(width, np.float32)
    values = np.asarray(numbers, np.float64)
    parts = np.nan_to_num(sinusoids(values, each, SCALE))
    out[: COUNT * each] = parts.ravel()
    return out


def _filled(numbers: list[float]) -> Numbers:
    return (*map(float, numbers), *NOTHING[len(numbers) :])


def _movement(vector_m: NDArray[np.floating]) -> list[float]:
    """x, y, z and length, of which equal steps are equal ratios."""
    length_m = np.clip(np.linalg.norm(vector_m), FINEST_M / 4, FARTHEST_M)
    share = np.log(length_m * 4 / FINEST_M) / np.log(FARTHEST_M * 4 / FINEST_M)
    return [*_signed(vector_m, FINEST_M, FARTHEST_M), float(share) * COORDINATE_SCALE]


def _signed(values: NDArray[np.floating], finest: float, farthest: float) -> list[float]:
    """Numbers of either sign: 500 is 0, and far from it equal steps are equal ratios."""
    share = np.log1p(np.abs(values) / finest) / np.log1p(farthest / finest)
    return list(_HALF + np.sign(values) * _HALF * np.minimum(share, 1.0))
