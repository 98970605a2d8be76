"""Where moved things are at each time step; smooth paths on a plane, free of what stands there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_training.scenes.blueprint import Matrix, Vector, pose, rotation_about

Rng = np.random.Generator


@dataclass(frozen=True)
class Footprint:
    """A disc on the plane that a body keeps for itself."""

    centre_m: Vector
    radius_m: float


@dataclass(frozen=True)
class Path:
    """A bent path on the plane with a turn about the vertical and a lift in the middle.

    Attributes:
        start_m, bow_m: (2,) start and the offset of the path's middle from the straight line.
        travel_m: (2,) end minus start.
    """

    start_m: Vector
    travel_m: Vector
    bow_m: Vector
    yaw_rad: float
    turn_rad: float
    lift_m: float

    def place(self, part: float, height_m: float) -> Matrix:
        """Return world_from_body (4, 4) at `part` in [0, 1] of the way; the centre rests at `height_m`."""
        xy = self.start_m + part * self.travel_m + 4 * part * (1 - part) * self.bow_m
        z = height_m + self.lift_m * float(np.sin(np.pi * part) ** 2 if part < 1 else 0.0)
        return pose(rotation_about((0, 0, 1), self.yaw_rad + part * self.turn_rad), np.array([*xy, z]))

    def heading(self, part: float) -> Vector:
        """Return the unit direction (2,) of travel at `part`."""
        along = self.travel_m + 4 * (1 - 2 * part) * self.bow_m
        norm = float(np.linalg.norm(along))
        return along / norm if norm > 1e-9 else np.array([1.0, 0.0])


def draw_distance(rng: Rng, longest_m: float) -> float:
    """Return a travel: one in seven under 3 cm, the others even up to `longest_m`."""
    return float(rng.uniform(0.003, 0.03) if rng.random() < 0.15 else rng.uniform(0.03, longest_m))


def find_path(rng: Rng, start: Footprint, others: list[Footprint], half_m: Vector, longest_m: float,
              *, lifts: bool, yaw_rad: float) -> Path | None:
    """Return a path from `start` that stays within +-`half_m` (2,) and away from `others`, or None."""
    for _ in range(40):
        distance = draw_distance(rng, longest_m)
        angle = rng.uniform(0, 2 * np.pi)
        travel = distance * np.array([np.cos(angle), np.sin(angle)])
        bow = rng.normal(0, 0.08) * distance * np.array([-np.sin(angle), np.cos(angle)])
        lift = float(rng.uniform(0.02, 0.25)) if lifts and rng.random() < 0.25 else 0.0
        path = Path(start.centre_m, travel, bow, yaw_rad, float(rng.normal(0, 0.5) * min(1, distance / 0.2)), lift)
        points = [path.place(float(p), 0.0)[:2, 3] for p in np.linspace(0, 1, 9)]
        inside = all((np.abs(p) + start.radius_m <= half_m).all() for p in points)
        free = all(np.linalg.norm(p - o.centre_m) > start.radius_m + o.radius_m for p in points for o in others)
        if inside and free:
            return path
    return None


def draw_progress(rng: Rng, steps: int) -> Vector:
    """Return the part of the way (T,) at each step: mostly onward, at times back, at times resting."""
    parts = rng.uniform(0, 1, steps)
    if rng.random() < 0.7:
        parts.sort()
        parts[0] = 0.0
        parts[-1] = 1.0
    if steps > 2 and rng.random() < 0.3:
        rest = int(rng.integers(1, steps))
        parts[rest] = parts[rest - 1]
    return np.asarray(parts)
