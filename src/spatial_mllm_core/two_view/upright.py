"""Which way is up in an image: the direction that most of its surfaces face; knows no motion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]

_STEP = 3
"""Cells on either side, between which a surface's slope is measured."""
_FLATTEST = 0.15
"""Least share of a normal that points up in the image; others are walls, or ceilings."""
_ALIKE = float(np.cos(np.radians(12.0)))
_TRIED, _FEWEST, _ROUNDS = 150, 50, 5


def up_direction(points_hw3: Float) -> NDArray[np.float64]:
    """(3,) unit vector in the optical frame: the most frequent normal of those that point up in the image.

    Rooms are made of level surfaces; where an image shows too few, the camera is taken to be level itself.

    Args:
        points_hw3: a point map in the optical frame of its camera, metres.
    """
    level = np.array([0.0, -1.0, 0.0])
    inner = points_hw3[_STEP:-_STEP, _STEP:-_STEP]
    if min(inner.shape[:2], default=0) < 1:
        return level
    across = points_hw3[_STEP:-_STEP, 2 * _STEP :] - points_hw3[_STEP:-_STEP, : -2 * _STEP]
    down = points_hw3[2 * _STEP :, _STEP:-_STEP] - points_hw3[: -2 * _STEP, _STEP:-_STEP]
    normals = np.cross(across, down)
    normals *= -np.sign((normals * inner).sum(axis=-1, keepdims=True))  # towards the camera
    length = np.linalg.norm(normals, axis=-1)
    ok = np.isfinite(length) & (length > 0)
    unit = normals[ok] / length[ok][:, None]
    unit = unit[unit[:, 1] < -_FLATTEST]
    if len(unit) < _FEWEST:
        return level
    tried = unit[:: max(1, len(unit) // _TRIED)]
    best = tried[((tried @ unit.T) > _ALIKE).sum(axis=1).argmax()]
    for _ in range(_ROUNDS):
        mean = unit[(unit @ best) > _ALIKE].mean(axis=0)
        best = mean / np.linalg.norm(mean)
    return np.asarray(best, np.float64)
