"""The pose between two cameras from places that both see; knows no features."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.floating]

FEWEST = 12
"""Matches, below which nothing is said."""
_TOLERANCE = 0.03
"""Off a ray, in units of the focal length: 1.7 degrees at the image's centre."""
_TRIES = 1000
_STILL_SHARE = 0.6
_STILL = 0.03
"""A camera in whose images this share of the matches stays within so much of its ray has not moved."""


@dataclass(frozen=True)
class RelativePose:
    """How one camera stands in the optical frame of another.

    Attributes:
        first_from_later: (4, 4), metres.
        inliers: share of the matches that agree with it.
    """

    first_from_later: NDArray[np.float64]
    inliers: float

    @property
    def is_still(self) -> bool:
        """Whether the camera has not moved."""
        return np.array_equal(self.first_from_later, np.eye(4))


def relative_pose(
    first_m: Float, first_rays: Float, later_m: Float, later_rays: Float
) -> RelativePose | None:
    """From N matched points, each lifted in both images; None where they do not tell.

    Each image's points are fitted to the rays of the other (PnP in a RANSAC loop, OpenCV), and the pose is the mean of
    both fits: either depth map then counts alike.

    Args:
        first_m, later_m: (N, 3) the points in the optical frame of the camera of each image, metres.
        first_rays, later_rays: (N, 2) x/z and y/z of the same.
    """
    if len(first_m) < FEWEST:
        return None
    if (np.abs(later_rays - first_rays).max(axis=1) <= _STILL).mean() >= _STILL_SHARE:
        return RelativePose(np.eye(4), 1.0)
    forth, back = _fit(first_m, later_rays), _fit(later_m, first_rays)
    if forth is None or back is None:
        return None
    (later_from_first, inliers_forth), (first_from_later, inliers_back) = forth, back
    there = np.linalg.inv(later_from_first)
    halfway = cv2.Rodrigues(cv2.Rodrigues(first_from_later[:3, :3] @ there[:3, :3].T)[0] / 2)[0]
    pose = np.eye(4)
    pose[:3, :3] = halfway @ there[:3, :3]
    pose[:3, 3] = (there[:3, 3] + first_from_later[:3, 3]) / 2
    return RelativePose(pose, (inliers_forth + inliers_back) / 2)


def _fit(points_m: Float, rays: Float) -> tuple[NDArray[np.float64], float] | None:
    """((4, 4) the points' frame in the camera of the rays, share of inliers)."""
    points = np.ascontiguousarray(points_m, np.float64)
    seen_at = np.ascontiguousarray(rays, np.float64)
    found, _, turn, offset, inliers = cv2.solvePnPRansac(
        points, seen_at, np.eye(3), np.zeros(4), params=_consensus()
    )
    if not found or inliers is None or len(inliers) < FEWEST // 2:
        return None
    kept = inliers[:, 0]
    turn, offset = cv2.solvePnPRefineLM(points[kept], seen_at[kept], np.eye(3), None, turn, offset)
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = cv2.Rodrigues(turn)[0], offset[:, 0]
    return (pose, len(kept) / len(points)) if np.isfinite(pose).all() else None


def _consensus() -> cv2.UsacParams:
    """RANSAC that scores by squared errors and refines each best pose: as good as three times the plain tries."""
    params = cv2.UsacParams()
    params.threshold, params.maxIterations, params.confidence = _TOLERANCE, _TRIES, 0.999
    params.score, params.loMethod = cv2.SCORE_METHOD_MSAC, cv2.LOCAL_OPTIM_INNER_LO
    params.sampler, params.randomGeneratorState, params.isParallel = cv2.SAMPLING_UNIFORM, 0, False
    return params
