"""What a prompt is told of two images: numbers, and the codes that carry them.

A bundle of matching adds one such code to a question about several images, at its first token: of the place that it
names first or, where it names none, of the camera. It stands to a small language model as the rays of a camera do:
geometry that it need not learn to compute. At the last token, off which the answer is read, directions took one and
a half times the questions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.tasks.text import COORDINATE_SCALE
from spatial_mllm_core.two_view.view_pair import CameraMovement, Place, ViewPair

COUNT = 8
Numbers = tuple[float, ...]
"""`COUNT` of them from 0 to 1000, each in a part of its own of the code; NaN, which leaves its part 0: not known."""
NOTHING: Numbers = (float("nan"),) * COUNT
SCALE = 2.0
"""Amplitude of a code, as that of depths."""
_RAMP_SHARE, _RAMP = 8, 150.0
"""One of so many features of a number says nothing but to which side of 500 it is, as directions are asked for."""
FINEST_M, FARTHEST_M = 0.02, 8.0
FINEST_DEG, FARTHEST_DEG = 1.0, 180.0
_HALF = COORDINATE_SCALE / 2


def of_question(pair: ViewPair, coordinates: Sequence[tuple[float, float]]) -> Numbers:
    """What a question is told that names these coordinates (0 to 1000) of the first image."""
    for x, y in coordinates:
        return of_place(pair.place(x / COORDINATE_SCALE, y / COORDINATE_SCALE))
    return of_camera(pair.movement)


def of_camera(movement: CameraMovement | None) -> Numbers:
    """x, y, z, distance, yaw, pitch, share of matches that agree; nothing where nobody knows."""
    if movement is None:
        return NOTHING
    turns = _signed(np.asarray(movement.turn_deg, np.float64), FINEST_DEG, FARTHEST_DEG)
    return _filled([*_movement(movement.offset_m), *turns, movement.inliers * COORDINATE_SCALE])


def of_place(place: Place) -> Numbers:
    """x and y in the later image, how sure, whether mutual; x, y, z and length of its movement where it is known."""
    found = [*place.there, place.share, float(place.is_mutual)]
    numbers = [COORDINATE_SCALE * number for number in found]
    return _filled(numbers if place.moved_m is None else [*numbers, *_movement(place.moved_m)])


def code(numbers: Numbers, width: int) -> NDArray[np.float32]:
    """(width,) sinusoids of each number, and its side of 500, in a part of its own."""
    each = width // COUNT
    ramps = each // _RAMP_SHARE
    values = np.asarray(numbers, np.float64)
    side = SCALE * np.clip((values - _HALF) / _RAMP, -1.0, 1.0)[:, None]
    waves = sinusoids(values, (each - ramps) // 2 * 2, SCALE)
    parts = np.zeros((COUNT, each), np.float32)
    parts[:, : waves.shape[1]] = np.nan_to_num(waves)
    parts[:, each - ramps :] = np.nan_to_num(side)
    out = np.zeros(width, np.float32)
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
