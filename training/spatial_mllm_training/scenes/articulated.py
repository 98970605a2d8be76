"""Furniture with one part that moves by itself: a hinged door, a drawer, a lid; knows no rooms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from spatial_mllm_training.scenes.blueprint import (
    Body,
    Matrix,
    Shape,
    Vector,
    make_body,
    pose,
    rotation_about,
)
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.motion import Footprint
from spatial_mllm_training.scenes.textures import TABLE_STYLES

Rng = np.random.Generator
_BOARD_M = 0.012  # half the thickness of boards and panels
_Z = (0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Articulated:
    """A standing body and a part on a joint of it; the front looks along -y.

    Attributes:
        fixed_from_part: (4, 4) the closed part's centre in the axes of the fixed body's centre.
        joint_m: (3,) a point of the hinge's axis in the fixed body's axes; not used by a slide.
        axis: the hinge's axis or the slide's direction, unit length.
        travel: how far it opens: radians of a hinge, metres of a slide.
        front_m: how far the opening part sweeps the floor before the fixed body's front.
    """

    fixed: Body
    part: Body
    fixed_from_part: Matrix
    joint_m: Vector
    axis: tuple[float, float, float]
    travel: float
    slides: bool
    front_m: float

    def part_pose(self, world_from_fixed: Matrix, opening: float) -> Matrix:
        """Return world_from_part (4, 4) at `opening` in [0, 1]."""
        amount = opening * self.travel
        if self.slides:
            return world_from_fixed @ pose(np.eye(3), amount * np.array(self.axis)) @ self.fixed_from_part
        turn = pose(rotation_about(self.axis, amount), self.joint_m)
        return world_from_fixed @ turn @ pose(np.eye(3), -self.joint_m) @ self.fixed_from_part

    def front(self, xy: Vector, yaw_rad: float) -> Footprint:
        """Return the floor that the part needs before the fixed body at `xy` (2,); empty for a lid."""
        ahead = self.fixed.size_m[1] / 2 + self.front_m / 2
        out = np.array([np.sin(yaw_rad), -np.cos(yaw_rad)])
        radius = float(np.hypot(self.fixed.size_m[0], self.front_m) / 2) if self.front_m else 0.0
        return Footprint(xy + ahead * out, radius)


def door_cabinet(rng: Rng, paint: Paint) -> Articulated:
    """Return a cabinet with shelves, some things in it, and a door hinged at its left or right."""
    w, d, h = _u(rng, 0.2, 0.32), _u(rng, 0.18, 0.28), _u(rng, 0.3, 0.9)
    skin, board, knob = paint.solid(TABLE_STYLES, 0.6), paint.plain(), paint.grey()
    shapes = _case(w, d, h, skin, board)
    levels = int(rng.integers(1, 4))
    for level in range(levels):
        floor_m = 2 * _BOARD_M + 2 * h * level / levels
        if level:
            shapes.append(Shape("box", (w - 2 * _BOARD_M, 0.9 * d, 0.008), board, (0, 0.0, floor_m - 0.008)))
        shapes += _contents(rng, paint, w, d, floor_m, 0.6 * h / levels)
    side = float(rng.choice([-1, 1]))
    front = -d - _BOARD_M
    door = [
        Shape("box", (w, _BOARD_M, h - 0.005), paint.solid(TABLE_STYLES[:2], 0.5), (0, front, h)),
        Shape("sphere", (0.018,), knob, (-side * (w - 0.05), front - 0.025, h)),
    ]
    return _joined(
        ("cabinet", shapes), ("cabinet door", door), np.array([side * w, front, h]), (0.0, 0.0, side),
        np.radians(_u(rng, 35, 95)), front_m=2 * w,
    )  # fmt: skip


def drawer_cabinet(rng: Rng, paint: Paint) -> Articulated:
    """Return a chest of drawers of which one, with things in it, slides out."""
    w, d, rows = _u(rng, 0.2, 0.45), _u(rng, 0.2, 0.3), int(rng.integers(2, 5))
    row = _u(rng, 0.07, 0.13)  # half height
    h = rows * row
    skin, face, knob = paint.solid(TABLE_STYLES, 0.6), paint.solid(TABLE_STYLES[:2], 0.5), paint.grey()
    shapes = _case(w, d, h, skin, skin)
    opened = int(rng.integers(rows // 2, rows))  # of the upper ones one sees the inside
    part: list[Shape] = []
    for index in range(rows):
        z = row * (2 * index + 1)
        front = [
            Shape("box", (0.97 * w, _BOARD_M, 0.93 * row), face, (0, -d - _BOARD_M, z)),
            Shape("sphere", (0.015,), knob, (0, -d - 2 * _BOARD_M - 0.012, z)),
        ]
        if index:
            shapes.append(Shape("box", (w - 2 * _BOARD_M, 0.95 * d, 0.004), skin, (0, 0, z - row)))
        if index != opened:
            shapes += front
            continue
        wide, deep, low = 0.9 * w, 0.88 * d, z - 0.8 * row
        part = [*front, Shape("box", (wide, deep, 0.006), knob, (0, 0, low))]
        part += [
            Shape("box", (0.006, deep, 0.5 * row), knob, (s * wide, 0, low + 0.5 * row)) for s in (-1, 1)
        ]
        part.append(Shape("box", (wide, 0.006, 0.5 * row), knob, (0, deep, low + 0.5 * row)))
        part += _contents(rng, paint, wide, deep, low + 0.006, 0.9 * row)
    travel = _u(rng, 0.5, 1.6) * d
    return _joined(
        ("cabinet", shapes), ("drawer", part), np.zeros(3), (0.0, -1.0, 0.0), travel,
        slides=True, front_m=travel,
    )  # fmt: skip


def lidded_chest(rng: Rng, paint: Paint) -> Articulated:
    """Return a chest with things in it and a lid hinged at its upper back edge."""
    w, d, h = _u(rng, 0.25, 0.5), _u(rng, 0.18, 0.28), _u(rng, 0.14, 0.25)
    skin, inside = paint.solid(share=0.7), paint.plain()
    shapes = _case(w, d, h, skin, inside)[:-1]  # no top
    shapes.append(Shape("box", (w, _BOARD_M, h), skin, (0, -d + _BOARD_M, h)))
    shapes += _contents(rng, paint, w, d, 2 * _BOARD_M, 0.7 * h)
    lid = [
        Shape("box", (w + 0.01, d + 0.005, 0.015), paint.solid(share=0.7), (0, -0.005, 2 * h + 0.015)),
        Shape("box", (0.04, 0.008, 0.02), paint.grey(), (0, -d - 0.018, 2 * h + 0.015)),
    ]
    return _joined(
        ("chest", shapes), ("chest lid", lid), np.array([0, d, 2 * h]), (-1.0, 0.0, 0.0),
        np.radians(_u(rng, 25, 80)),
    )  # fmt: skip


OPENING: tuple[Callable[[Rng, Paint], Articulated], ...] = (door_cabinet, drawer_cabinet, lidded_chest)


def _u(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _case(w: float, d: float, h: float, skin: str, inside: str) -> list[Shape]:
    """Return sides, back, bottom and top of a case that is open at its front; it stands on z = 0."""
    t = _BOARD_M
    return [
        Shape("box", (t, d, h), skin, (-w + t, 0, h)),
        Shape("box", (t, d, h), skin, (w - t, 0, h)),
        Shape("box", (w - 2 * t, t, h), inside, (0, d - t, h)),
        Shape("box", (w - 2 * t, d, t), inside, (0, 0, t)),
        Shape("box", (w - 2 * t, d, t), skin, (0, 0, 2 * h - t)),
    ]


def _contents(rng: Rng, paint: Paint, w: float, d: float, floor_m: float, height_m: float) -> list[Shape]:
    """Return 1..3 things side by side on a board, no higher than `height_m`."""
    count = int(rng.integers(1, 4))
    cell = (w - 2 * _BOARD_M) / count
    shapes = []
    for index in range(count):
        half = cell * _u(rng, 0.4, 0.85), d * _u(rng, 0.2, 0.6), 0.5 * height_m * _u(rng, 0.4, 1.0)
        at = (cell * (2 * index + 1) - cell * count, -0.1 * d, floor_m + half[2])
        kind = "box" if rng.random() < 0.6 else "ellipsoid"
        shapes.append(Shape(kind, half, paint.plain(), at))
    return shapes


def _joined(
    fixed: tuple[str, list[Shape]],
    part: tuple[str, list[Shape]],
    joint_m: Vector,
    axis: tuple[float, float, float],
    travel: float,
    *,
    slides: bool = False,
    front_m: float = 0.0,
) -> Articulated:
    """Return both bodies centred, with the joint in the fixed one's axes."""
    bodies = [make_body(category, shapes) for category, shapes in (fixed, part)]
    centres = [
        np.array(shapes[0].position_m) - np.array(body.shapes[0].position_m)
        for (_, shapes), body in zip((fixed, part), bodies, strict=True)
    ]
    return Articulated(
        bodies[0],
        bodies[1],
        pose(np.eye(3), centres[1] - centres[0]),
        joint_m - centres[0],
        axis,
        float(travel),
        slides,
        front_m,
    )
