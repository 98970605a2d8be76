"""Two images of a scene: how the camera moved, and what became of a place, by matched cells and depth maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.camera_motion import camera_turn_deg
from spatial_mllm_core.two_view.matching import NEVER, Matches, centres, match
from spatial_mllm_core.two_view.pose import RelativePose, relative_pose
from spatial_mllm_core.two_view.upright import up_direction

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

GUIDED_WITHIN = 0.3
"""How far from where the first pose puts them cells are looked for again, in units of the focal length."""
GUIDED = 0.1, 0.01
"""The same for the pose of these: how far from there (standard deviation), and the weight of being anywhere. Of nine
figures about 160 far validation pairs 71 % are told rightly so, 69 within 0.15."""
_STAYS, _MOVES = 0.05, 0.3
"""The same for places, of which some have moved. On 250 rows of MultiSPA's training split 61 % of places are right
with it, 58 with those near the pose unless others are three times as likely; of moved things 46 and 47."""
_CHOSEN, _CHOSEN_STAYS, _CHOSEN_MOVES = 0.2, 0.07, 1e-3
"""The same where a place is one of a few, after the weight of what looks alike, too sure of itself there: of 250 rows
of the training split 73 % of the choices are right; by looks alone 45, by the nearest to the place 53."""
_NEAREST_M = 0.05
_LIFTED = 1.6
"""A thing keeps its height where the depth map is not off by more than this factor; what is lifted, or falls, is told
by the map. Of 575 points on things that moved, in validation views, 26 and 23 % of distances (camera still, moved) are
within 20 % by the map, and 7 and 4 % of vectors; 31 and 32, 19 and 16 % by their height."""
_GLANCING = 0.05
"""Sine of the angle between a ray and the level below which no height is told by it."""


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

    @cached_property
    def up(self) -> Float64:
        """(3,) see `up_direction`; kept, as a first image is compared with many."""
        return up_direction(self.point_map())


@dataclass(frozen=True, eq=False)
class CameraMovement:
    """From the first image to the later one.

    Attributes:
        offset_m: (3,) position of the later camera in the optical frame of the first one.
        turn_deg: (yaw, pitch), see `camera_turn_deg`.
        inliers: share of the matches that agree.
    """

    offset_m: Float64
    turn_deg: tuple[float, float]
    inliers: float


@dataclass(frozen=True, eq=False)
class Place:
    """What became of a place of the first image.

    Attributes:
        there: (x, y) in the later image, in shares of its width and height.
        share, is_mutual: see `Matches`.
        moved_m: (3,) its movement in the optical frame of the first camera; None without a pose.
    """

    there: tuple[float, float]
    share: float
    is_mutual: bool
    moved_m: Float64 | None


class ViewPair:
    """The first image and a later one."""

    def __init__(self, first: View, later: View) -> None:
        self.first, self.later = first, later
        self.matches: Matches = match(first.features, later.features)

    @cached_property
    def pose(self) -> RelativePose | None:
        """Of the later camera; None without cameras, or where the images do not tell."""
        if self.first.token_rays is None or self.later.token_rays is None:
            return None
        pose = self._fitted(self.matches)
        for prior in (_within, _about):
            if pose is None or pose.is_still:
                break
            better = self._fitted(self._guided(pose, prior))
            pose = pose if better is None else replace(better, inliers=pose.inliers)
        return pose

    def _fitted(self, matches: Matches) -> RelativePose | None:
        found = matches.is_mutual
        here = centres(*self.first.features.shape[:2])[found]
        there = matches.places[found]
        return relative_pose(
            self.first.points_at(here),
            self.first.rays_at(here),
            self.later.points_at(there),
            self.later.rays_at(there),
        )

    def _guided(self, pose: RelativePose, prior: Callable[[Float32], Float32]) -> Matches:
        """Matches of cells that a pose puts somewhere ("guided matching": Hartley and Zisserman, Multiple View
        Geometry, 2nd edition, algorithm 4.6).

        Args:
            prior: of how far a cell is from there, in units of the focal length, as `match` takes it.
        """
        first, later = self.first, self.later
        put_at = _seen_from(pose, first.points_at(centres(*first.features.shape[:2])))
        rays = np.asarray(later.rays_at(centres(*later.features.shape[:2])), np.float32)
        across, down = put_at[:, 0, None] - rays[:, 0], put_at[:, 1, None] - rays[:, 1]
        return match(first.features, later.features, prior(np.sqrt(across * across + down * down)))

    @cached_property
    def found(self) -> Matches:
        """Where cells are, by what looks alike and where they would be if nothing but the camera had moved."""
        pose = self.pose
        if pose is None or pose.is_still:
            return self.matches
        return self._guided(pose, _mostly_still)

    def turn_deg(self, pose: RelativePose) -> tuple[float, float]:
        """(yaw, pitch) about what both images take for up, see `camera_turn_deg`."""
        if pose.is_still:
            return 0.0, 0.0
        return camera_turn_deg(np.eye(4), pose.first_from_later, self._up)

    @cached_property
    def _up(self) -> Float64:
        """(3,) unit vector in the optical frame of the first camera, for a pair with a pose: up, as both images say."""
        assert self.pose is not None
        turned = self.pose.first_from_later[:3, :3]
        up = self.first.up + turned @ self.later.up
        if np.linalg.norm(up) < 0.1:  # they contradict each other
            up = np.array([0.0, -1.0, 0.0])
        return np.asarray(up / np.linalg.norm(up), np.float64)

    @cached_property
    def movement(self) -> CameraMovement | None:
        """How the camera moved; None without a pose."""
        pose = self.pose
        if pose is None:
            return None
        return CameraMovement(pose.first_from_later[:3, 3], self.turn_deg(pose), pose.inliers)

    def place(self, x: float, y: float, among: Sequence[tuple[float, float]] = ()) -> Place:
        """What became of what the first image shows at (x, y), in shares of its width and height.

        Args:
            among: places of the later image, of which it is one; (): any.
        """
        at = np.array([[x, y]])
        rows, columns = self.first.features.shape[:2]
        cell = _cell(x, y, rows, columns)
        share, is_mutual = float(self.found.shares[cell]), bool(self.found.is_mutual[cell])
        if among:
            there = np.array([among[self._chosen(at, among)]])
        else:
            beside = at - centres(rows, columns)[[cell]]
            there = np.clip(self.found.places[[cell]] + beside, 0.0, 1.0)
        moved_m = None
        if (pose := self.pose) is not None:
            moved_m = self._moved_m(pose, self.first.points_at(at)[0], self.later.points_at(there)[0])
        return Place((float(there[0, 0]), float(there[0, 1])), share, is_mutual, moved_m)

    def _chosen(self, at: Float64, among: Sequence[tuple[float, float]]) -> int:
        """Which of some places of the later image shows what the first one does at (1, 2) `at`."""
        of_first = self.first.features
        looks = of_first.reshape(-1, of_first.shape[2])[_cell(*at[0].tolist(), *of_first.shape[:2])]
        alike = self.later.features @ looks
        rows, columns = alike.shape
        scores = np.zeros(len(among))
        for n, (x, y) in enumerate(among):
            row, column = divmod(_cell(x, y, rows, columns), columns)
            scores[n] = _CHOSEN * alike[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].max()
        if self.pose is not None:
            put_at = _seen_from(self.pose, self.first.points_at(at))
            off = np.linalg.norm(self.later.rays_at(np.asarray(among, np.float64)) - put_at, axis=1)
            scores += _gaussian(off.astype(np.float32), _CHOSEN_STAYS, _CHOSEN_MOVES)
        return int(np.argmax(scores))

    def _moved_m(self, pose: RelativePose, first_m: Float64, later_m: Float64) -> Float64:
        """(3,) from a point to what became of it, each in the optical frame of its image, in that of the first.

        The difference of two depths is far less sure than either. Most of what moves stays at its height above what it
        stands on, which tells how far along the later ray it is.
        """
        ray = pose.first_from_later[:3, :3] @ (later_m / later_m[2])
        camera_m = pose.first_from_later[:3, 3]
        depth_m = float(later_m[2])
        rise = float(self._up @ ray)
        if abs(rise) > _GLANCING * np.linalg.norm(ray):
            level_m = float(self._up @ (first_m - camera_m)) / rise
            if depth_m / _LIFTED < level_m < depth_m * _LIFTED:
                depth_m = level_m
        return np.asarray(ray * depth_m + camera_m - first_m, np.float64)


def _cell(x: float, y: float, rows: int, columns: int) -> int:
    """Raster index of the cell that a place lies in."""
    return min(int(y * rows), rows - 1) * columns + min(int(x * columns), columns - 1)


def _seen_from(pose: RelativePose, points_m: Float64) -> Float32:
    """(N, 2) x/z and y/z in the later camera of (N, 3) points in the optical frame of the first; inf behind it."""
    in_later = (points_m - pose.first_from_later[:3, 3]) @ pose.first_from_later[:3, :3]
    is_before = in_later[:, 2] > _NEAREST_M
    rays = in_later[:, :2] / np.where(is_before, in_later[:, 2], 1.0)[:, None]
    return np.where(is_before[:, None], rays, np.inf).astype(np.float32)


def _within(off: Float32) -> Float32:
    return np.where(off < np.float32(GUIDED_WITHIN), np.float32(0.0), NEVER)


def _about(off: Float32) -> Float32:
    return _gaussian(off, *GUIDED)


def _mostly_still(off: Float32) -> Float32:
    return _gaussian(off, _STAYS, _MOVES)


def _gaussian(off: Float32, deviation: float, elsewhere: float) -> Float32:
    """Logarithm of a Gaussian of a distance, and of the weight of being anywhere."""
    near = np.exp(-0.5 * np.square(off / np.float32(deviation)))
    return np.asarray(np.log(near + np.float32(elsewhere)), np.float32)
