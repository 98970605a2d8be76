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

    def meets(self, other: Footprint) -> bool:
        """Tell whether the discs overlap."""
        return bool(np.linalg.norm(self.centre_m - other.centre_m) <= self.radius_m + other.radius_m)


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

    def sweep(self, radius_m: float) -> list[Footprint]:
        """Return discs that cover the way of a disc."""
        return [Footprint(self.place(float(p), 0.0)[:2, 3], radius_m) for p in np.linspace(0, 1, 9)]

    def heading(self, part: float) -> Vector:
        """Return the unit direction (2,) of travel at `part`."""
        along = self.travel_m + 4 * (1 - 2 * part) * self.bow_m
        norm = float(np.linalg.norm(along))
        return along / norm if norm > 1e-9 else np.array([1.0, 0.0])


@dataclass(frozen=True)
class PushScript:
    """One push told step by step instead of drawn.

    Attributes:
        travel_m: length of the straight way.
        progress: (T,) part of the way at each step.
        away_m, above_m: (T,) how far behind its point of contact and how far over it the tip is.
    """

    travel_m: float
    progress: Vector
    away_m: Vector
    above_m: Vector


def draw_distance(rng: Rng, longest_m: float) -> float:
    """Return a travel: one in seven under 3 cm, the others even up to `longest_m`."""
    return float(rng.uniform(0.003, 0.03) if rng.random() < 0.15 else rng.uniform(0.03, longest_m))


def draw_path(
    rng: Rng,
    radius_m: float,
    others: list[Footprint],
    half_m: Vector,
    longest_m: float,
    *,
    lifts: bool,
    exactly_m: float | None = None,
) -> Path | None:
    """Return a path of a disc that stays within +-`half_m` (2,) and away from `others`, or None.

    The travel (`exactly_m` when given) comes first, its place second, so that long ways
    are not crowded out by short ones.
    """
    for _ in range(8):
        distance = draw_distance(rng, longest_m) if exactly_m is None else exactly_m
        for _ in range(12):
            angle = rng.uniform(0, 2 * np.pi)
            along = np.array([np.cos(angle), np.sin(angle)])
            room = half_m - radius_m - np.abs(distance * along) / 2
            if (room <= 0).any():
                continue
            start = rng.uniform(-1, 1, 2) * room - distance * along / 2
            bow = rng.normal(0, 0.08) * distance * np.array([-along[1], along[0]])
            lift = float(rng.uniform(0.02, 0.25)) if lifts and rng.random() < 0.25 else 0.0
            turn = float(rng.normal(0, 0.5) * min(1, distance / 0.2))
            path = Path(start, distance * along, bow, float(rng.uniform(0, 2 * np.pi)), turn, lift)
            swept = path.sweep(radius_m)
            inside = all((np.abs(f.centre_m) + radius_m <= half_m + 1e-9).all() for f in swept)
            if inside and not any(f.meets(o) for f in swept for o in others):
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
