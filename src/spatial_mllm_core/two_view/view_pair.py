"""What a model is told about two images beside their visual tokens: how the camera moved, and how a place did.

A bundle of matching adds these codes to words of a question: that of the camera to the first one, that of a place to
the bracket that opens its coordinates. They are made of the model's own depth maps and of matched cells, which
stand to a small language model as a camera's rays do: geometry that it need not learn to compute.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_core.tasks.camera_motion import camera_turn_deg
from spatial_mllm_core.tasks.text import COORDINATE_SCALE
from spatial_mllm_core.two_view.matching import Matches, centres, match
from spatial_mllm_core.two_view.pose import RelativePose, relative_pose
from spatial_mllm_core.two_view.upright import up_direction

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

NUMBERS = 8
"""That a code holds, in so many parts of its width; one that is not known leaves its part 0."""
CODE_SCALE = 2.0
_FINEST_M, _FARTHEST_M = 0.02, 8.0
_FINEST_DEG, _FARTHEST_DEG = 1.0, 180.0
_HALF = COORDINATE_SCALE / 2


@dataclass(frozen=True, eq=False)
class View:
    """One of the two images.

    Attributes:
        features: (h, w, C) of its cells, whose inner products say what is alike.
        depth_m: (H, W) z-depth of cells that cover the image evenly.
        token_rays: (gh, gw, 2) x/z and y/z at the centres of its visual tokens; None without a camera.
    """

    features: Float32
    depth_m: Float32
    token_rays: Float32 | None

    def rays_at(self, places: NDArray[np.floating]) -> Float64:
        """(N, 2) x/z and y/z at (N, 2) places: exact for a pinhole, else between tokens, and beyond the outer ones."""
        assert self.token_rays is not None
        rays = np.asarray(self.token_rays, np.float64)
        low, share = [], []
        for axis, count in ((1, rays.shape[0]), (0, rays.shape[1])):
            at = places[:, axis] * count - 0.5
            start = np.clip(np.floor(at).astype(np.int64), 0, max(count - 2, 0))
            low.append(start)
            share.append((at - start)[:, None])
        (row, column), (down, across) = low, share
        below, right = np.minimum(row + 1, rays.shape[0] - 1), np.minimum(column + 1, rays.shape[1] - 1)
        upper = rays[row, column] * (1 - across) + rays[row, right] * across
        lower = rays[below, column] * (1 - across) + rays[below, right] * across
        return np.asarray(upper * (1 - down) + lower * down, np.float64)

    def points_at(self, places: NDArray[np.floating]) -> Float64:
        """(N, 3) what is seen at (N, 2) places, in the camera's optical frame, metres."""
        height, width = self.depth_m.shape
        row = np.clip((places[:, 1] * height).astype(np.int64), 0, height - 1)
        column = np.clip((places[:, 0] * width).astype(np.int64), 0, width - 1)
        depth_m = np.asarray(self.depth_m[row, column], np.float64)[:, None]
        return np.concatenate([self.rays_at(places) * depth_m, depth_m], axis=1)

    def point_map(self) -> Float64:
        """(H, W, 3) of all cells of the depth map."""
        return self.points_at(centres(*self.depth_m.shape)).reshape(*self.depth_m.shape, 3)


class ViewPair:
    """The first image of a question and a later one."""

    def __init__(self, first: View, later: View) -> None:
        self.first, self.later = first, later
        self.matches: Matches = match(first.features, later.features)

    @cached_property
    def pose(self) -> RelativePose | None:
        """Of the later camera; None without cameras, or where the images do not tell."""
        if self.first.token_rays is None or self.later.token_rays is None:
            return None
        found = self.matches.is_mutual
        here = centres(*self.first.features.shape[:2])[found]
        there = self.matches.places[found]
        return relative_pose(
            self.first.points_at(here),
            self.first.rays_at(here),
            self.later.points_at(there),
            self.later.rays_at(there),
        )

    def turn_deg(self, pose: RelativePose) -> tuple[float, float]:
        """(yaw, pitch) about what both images take for up, see `camera_turn_deg`."""
        turned = pose.first_from_later[:3, :3]
        up = up_direction(self.first.point_map()) + turned @ up_direction(self.later.point_map())
        if np.linalg.norm(up) < 0.1:  # they contradict each other
            up = np.array([0.0, -1.0, 0.0])
        return camera_turn_deg(np.eye(4), pose.first_from_later, up)

    def camera_code(self, width: int) -> Float32:
        """(width,) position, distance, yaw and pitch of the later camera, and how many matches agree."""
        pose = self.pose
        if pose is None:
            return np.zeros(width, np.float32)
        offset_m = pose.first_from_later[:3, 3]
        numbers = [*_signed(offset_m, _FINEST_M, _FARTHEST_M), _length(offset_m)]
        numbers += _signed(np.array(self.turn_deg(pose)), _FINEST_DEG, _FARTHEST_DEG).tolist()
        return _code([*numbers, pose.inliers * COORDINATE_SCALE], width)

    def place_code(self, x: float, y: float, width: int) -> Float32:
        """(width,) where a coordinate (0 to 1000) of the first image is in the later one, how sure, and its way."""
        at = np.array([[x, y]]) / COORDINATE_SCALE
        rows, columns = self.first.features.shape[:2]
        row, column = (
            min(int(share * count), count - 1) for share, count in ((at[0, 1], rows), (at[0, 0], columns))
        )
        cell = row * columns + column
        beside = at - centres(rows, columns)[[cell]]
        there = np.clip(self.matches.places[[cell]] + beside, 0.0, 1.0)
        numbers = [*(there[0] * COORDINATE_SCALE), self.matches.shares[cell] * COORDINATE_SCALE]
        numbers.append(COORDINATE_SCALE * float(self.matches.is_mutual[cell]))
        if (pose := self.pose) is not None:
            later_m = self.later.points_at(there)[0]
            moved_m = pose.first_from_later[:3, :3] @ later_m + pose.first_from_later[:3, 3]
            moved_m = moved_m - self.first.points_at(at)[0]
            numbers += [*_signed(moved_m, _FINEST_M, _FARTHEST_M), _length(moved_m)]
        return _code(numbers, width)


def _signed(values: NDArray[np.floating], finest: float, farthest: float) -> Float64:
    """Numbers of either sign as 0 to 1000: 500 is 0, and far from it equal steps are equal ratios."""
    share = np.log1p(np.abs(values) / finest) / np.log1p(farthest / finest)
    return np.asarray(_HALF + np.sign(values) * _HALF * np.minimum(share, 1.0), np.float64)


def _length(vector_m: NDArray[np.floating]) -> float:
    """Its length as 0 to 1000: equal steps are equal ratios."""
    length_m = np.clip(np.linalg.norm(vector_m), _FINEST_M / 4, _FARTHEST_M)
    return float(np.log(length_m * 4 / _FINEST_M) / np.log(_FARTHEST_M * 4 / _FINEST_M) * COORDINATE_SCALE)


def _code(numbers: list[float], width: int) -> Float32:
    """(width,) sinusoids of each number (0 to 1000) in a part of its own; 0 for one that is NaN or is not given."""
    each = width // NUMBERS
    out = np.zeros(width, np.float32)
    values = np.asarray(numbers, np.float64)
    parts = sinusoids(values, each, CODE_SCALE)
    out[: len(values) * each] = np.where(np.isfinite(values)[:, None], np.nan_to_num(parts), 0.0).ravel()
    return out
