"""A sphere of known radius in a cloud of measured points; knows neither images nor scenes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SCALES_M = (3e-3, 1e-3, 3e-4)  # of the Cauchy weights; the last is the depth noise of a close-range sensor
_ITERATIONS = 30
_INLIER_M = 1e-3


@dataclass(frozen=True)
class SphereFit:
    """Attributes:
    centre_m: (3,) in the axes of the points.
    inliers: points within 1 mm of the sphere.
    rms_m: of the inliers' distances from it.
    """

    centre_m: NDArray[np.float64]
    inliers: int
    rms_m: float


def fit_sphere(points_m: NDArray[np.float64], radius_m: float) -> SphereFit | None:
    """Fit the centre of a sphere that is seen from the origin, so that only its near side is measured.

    Gauss-Newton on the distances from the surface under Cauchy weights, from coarse to fine, so that a
    shaft through the ball and flying pixels at its rim do not pull. The radius stays fixed: a cap of
    half a ball tells its depth and radius apart only poorly.

    Args:
        points_m: (N, 3) in the sensor's optical frame.

    Returns:
        None when there are fewer than four points or they do not lie on such a sphere.
    """
    if len(points_m) < 4:
        return None
    middle = np.median(points_m, axis=0)
    distance = float(np.linalg.norm(middle))
    if distance == 0:
        return None
    centre = middle * (1 + 0.6 * radius_m / distance)
    for scale_m in _SCALES_M:
        for _ in range(_ITERATIONS):
            offset = points_m - centre
            length = np.maximum(np.linalg.norm(offset, axis=1), 1e-9)
            residual = length - radius_m
            weight = 1 / (1 + (residual / scale_m) ** 2)
            jacobian = -offset / length[:, None]
            normal = jacobian.T @ (weight[:, None] * jacobian) + 1e-9 * np.eye(3)
            step = -np.linalg.solve(normal, jacobian.T @ (weight * residual))
            step *= min(1.0, radius_m / max(float(np.linalg.norm(step)), 1e-12))
            centre = centre + step
            if np.linalg.norm(step) < 1e-8:
                break
    residual = np.linalg.norm(points_m - centre, axis=1) - radius_m
    near = np.abs(residual) <= _INLIER_M
    if near.sum() < 4 or np.linalg.norm(centre) < distance:
        return None
    return SphereFit(centre, int(near.sum()), float(np.sqrt(np.mean(residual[near] ** 2))))
