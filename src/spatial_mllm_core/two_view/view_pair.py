"""Two images as a model is told of them: how the camera moved, and what became of a place.

Made of matched cells and of the model's own depth maps; `told` says how it reaches the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.camera_motion import camera_turn_deg
from spatial_mllm_core.tasks.text import COORDINATE_SCALE
from spatial_mllm_core.two_view import told
from spatial_mllm_core.two_view.matching import Matches, centres, match
from spatial_mllm_core.two_view.pose import RelativePose, relative_pose
from spatial_mllm_core.two_view.told import Numbers
from spatial_mllm_core.two_view.upright import up_direction

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


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

    @cached_property
    def camera_numbers(self) -> Numbers:
        """What is said of the later camera, see `told.camera_numbers`; nothing without a pose."""
        pose = self.pose
        if pose is None:
            return told.NOTHING
        return told.camera_numbers(pose.first_from_later[:3, 3], self.turn_deg(pose), pose.inliers)

    def place_numbers(self, x: float, y: float) -> Numbers:
        """What is said of a coordinate (0 to 1000) of the first image, see `told.place_numbers`."""
        at = np.array([[x, y]]) / COORDINATE_SCALE
        rows, columns = self.first.features.shape[:2]
        row, column = (
            min(int(share * count), count - 1) for share, count in ((at[0, 1], rows), (at[0, 0], columns))
        )
        cell = row * columns + column
        beside = at - centres(rows, columns)[[cell]]
        there = np.clip(self.matches.places[[cell]] + beside, 0.0, 1.0)
        moved_m = None
        if (pose := self.pose) is not None:
            later_m = pose.first_from_later[:3, :3] @ self.later.points_at(there)[0]
            moved_m = later_m + pose.first_from_later[:3, 3] - self.first.points_at(at)[0]
        share, is_mutual = float(self.matches.shares[cell]), bool(self.matches.is_mutual[cell])
        return told.place_numbers(there[0] * COORDINATE_SCALE, share, is_mutual, moved_m)
