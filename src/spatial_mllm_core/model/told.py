"""What a prompt is told of two images: numbers, and the codes that carry them.

A bundle of matching adds one such code to a question about several images, at its first token: of the place that it
names first or, where it names none, of the camera. It stands to a small language model as the rays of a camera do:
geometry that it need not learn to compute. At the last token, off which the answer is read, directions took one and
a half times the questions. A bundle that is told digits has those of the same numbers while it answers (`digits`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.digits import COUNT
from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.tasks.text import COORDINATE_SCALE, whole, whole_coordinate, whole_mm
from spatial_mllm_core.two_view.view_pair import CameraMovement, Place, ViewPair

Numbers = tuple[float, ...]
"""`COUNT` of them, each in a part of its own of a code; NaN, which leaves its part 0: not known."""
_UNKNOWN: Numbers = (float("nan"),) * COUNT


class Told(NamedTuple):
    """What is told of two images.

    Attributes:
        shares: from 0 to 1000, by what ratios of lengths and angles matter.
        spelled: how large the same are as answers spell them, without signs: whole millimetres, degrees and
            coordinates.
    """

    shares: Numbers = _UNKNOWN
    spelled: Numbers = _UNKNOWN


NOTHING = Told()
SCALE = 2.0
"""Amplitude of a code, as that of depths."""
_RAMP_SHARE, _RAMP = 8, 150.0
"""One of so many features of a number says nothing but to which side of 500 it is, as directions are asked for."""
FINEST_M, FARTHEST_M = 0.02, 8.0
FINEST_DEG, FARTHEST_DEG = 1.0, 180.0
_HALF = COORDINATE_SCALE / 2
STILL_M = 0.01
"""What has moved by less is spelled as 0: matches cannot tell it from that, and in MultiSPA it is static, too. Of 200
rows of the training split, cameras still and moved, 30 and 25 % of distances are then right instead of 20 and 20."""


def of_question(
    pair: ViewPair, coordinates: Sequence[tuple[float, float]], among: Sequence[tuple[float, float]] = ()
) -> Told:
    """What a question is told that names these coordinates (0 to 1000) of the first image.

    Args:
        among: coordinates of the later image, of which the first of these is one there; (): any.
    """
    few = [(x / COORDINATE_SCALE, y / COORDINATE_SCALE) for x, y in among]
    for x, y in coordinates:
        return of_place(pair.place(x / COORDINATE_SCALE, y / COORDINATE_SCALE, few))
    return of_camera(pair.movement)


def of_camera(movement: CameraMovement | None) -> Told:
    """x, y, z, distance, yaw, pitch, share of matches that agree; nothing where nobody knows."""
    if movement is None:
        return NOTHING
    turns = _signed(np.asarray(movement.turn_deg, np.float64), FINEST_DEG, FARTHEST_DEG)
    shares = [*_movement(movement.offset_m), *turns, movement.inliers * COORDINATE_SCALE]
    degrees = [whole(abs(turn)) for turn in movement.turn_deg]
    return Told(_filled(shares), _filled([*_millimetres(movement.offset_m), *degrees]))


def of_place(place: Place) -> Told:
    """x and y in the later image, how sure, whether mutual; x, y, z and length of its movement where it is known."""
    x, y = place.there
    moved_m = place.moved_m
    shares = [COORDINATE_SCALE * number for number in (x, y, place.share, float(place.is_mutual))]
    spelled = [*map(float, whole_coordinate((x * COORDINATE_SCALE, y * COORDINATE_SCALE))), *_UNKNOWN[:2]]
    if moved_m is not None:
        shares += _movement(moved_m)
        spelled += _millimetres(moved_m if np.linalg.norm(moved_m) >= STILL_M else np.zeros(3))
    return Told(_filled(shares), _filled(spelled))


def of_depths(depths_m: Sequence[float]) -> Told:
    """What a question is told in digits that points at these z-depths; their sinusoids stand where it points."""
    return Told(spelled=_filled([float(whole_mm(z)) if np.isfinite(z) else np.nan for z in depths_m[:COUNT]]))


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


def _filled(numbers: Sequence[float]) -> Numbers:
    return (*map(float, numbers), *_UNKNOWN[len(numbers) :])


def _millimetres(vector_m: NDArray[np.floating]) -> list[float]:
    """Of x, y, z and length, without signs."""
    return [float(whole_mm(abs(length_m))) for length_m in (*vector_m.tolist(), np.linalg.norm(vector_m))]


def _movement(vector_m: NDArray[np.floating]) -> list[float]:
    """x, y, z and length, of which equal steps are equal ratios."""
    length_m = np.clip(np.linalg.norm(vector_m), FINEST_M / 4, FARTHEST_M)
    share = np.log(length_m * 4 / FINEST_M) / np.log(FARTHEST_M * 4 / FINEST_M)
    return [*_signed(vector_m, FINEST_M, FARTHEST_M), float(share) * COORDINATE_SCALE]


def _signed(values: NDArray[np.floating], finest: float, farthest: float) -> list[float]:
    """Numbers of either sign: 500 is 0, and far from it equal steps are equal ratios."""
    share = np.log1p(np.abs(values) / finest) / np.log1p(farthest / finest)
    return list(_HALF + np.sign(values) * _HALF * np.minimum(share, 1.0))
