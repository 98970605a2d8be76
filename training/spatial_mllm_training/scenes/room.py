"""An empty room with its walls, what hangs on them, and lamps; knows no furniture."""

from __future__ import annotations

import numpy as np

from spatial_mllm_training.scenes.blueprint import Blueprint, Light, Shape, Vector, quaternion_from_rotation
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.textures import FLOOR_STYLES, OBJECT_STYLES, WALL_STYLES, colour

Rng = np.random.Generator


def empty_room(rng: Rng, kind: str, size: Vector) -> tuple[Blueprint, Paint]:
    """Return an empty room around the origin: floor, walls with pictures, windows and doors, ceiling."""
    height = float(rng.uniform(2.3, 3.2))
    half = size / 2
    blueprint = Blueprint(
        kind,
        (-half[0], -half[1], half[0], half[1], height),
        ambient=float(rng.uniform(0.15, 0.45)),
        headlight=float(rng.uniform(0.0, 0.3)),
    )
    paint = Paint(blueprint, rng)
    floor = paint.flat(FLOOR_STYLES, float(rng.uniform(0.6, 2.5)))
    blueprint.static_shapes.append(Shape("plane", (half[0], half[1]), floor, casts_shadow=False))
    bright = colour(rng, vivid=0.25, dark=0.6)
    walls = (
        paint.flat(WALL_STYLES, float(rng.uniform(0.8, 3.0))) if rng.random() < 0.6 else paint.plain(bright)
    )
    ceiling = paint.plain(np.full(3, rng.uniform(0.7, 0.95)))
    blueprint.static_shapes.append(
        Shape("plane", (half[0], half[1]), ceiling, (0, 0, height), (0, 1, 0, 0), casts_shadow=False)
    )
    trim = paint.plain()
    for wall in range(4):
        yaw = wall * np.pi / 2
        inward = -np.array([np.cos(yaw), np.sin(yaw), 0.0])
        along = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        distance, reach = float(half[wall % 2]), float(half[1 - wall % 2])
        rotation = np.stack([along, np.cross(inward, along), inward], axis=1)
        q = quaternion_from_rotation(rotation)
        turn = (float(q[0]), float(q[1]), float(q[2]), float(q[3]))

        def put(
            shape_kind: str,
            half_m: tuple[float, ...],
            material: str,
            side: float,
            up: float,
            out: float,
            *,
            base: Vector = -inward * distance,
            right: Vector = along,
            normal: Vector = inward,
            q: tuple[float, float, float, float] = turn,
        ) -> None:
            at = base + right * side + normal * out
            blueprint.static_shapes.append(
                Shape(shape_kind, half_m, material, (float(at[0]), float(at[1]), up), q, casts_shadow=False)
            )

        put("plane", (reach, height / 2), walls, 0.0, height / 2, 0.0)
        put("box", (reach, 0.04, 0.01), trim, 0.0, 0.04, 0.01)
        side = -reach + 0.3
        while side < reach - 0.5:
            thing = rng.random()
            width = float(rng.uniform(0.15, 0.6))
            middle = side + width
            if middle + width > reach:
                break
            if thing < 0.35:
                tall = float(rng.uniform(0.15, 0.5))
                put("box", (width * 0.8 + 0.03, tall + 0.03, 0.012), paint.plain(), middle, 1.55, 0.012)
                put(
                    "box",
                    (width * 0.8, tall, 0.014),
                    paint.solid((OBJECT_STYLES[0], OBJECT_STYLES[4], OBJECT_STYLES[7])),
                    middle,
                    1.55,
                    0.014,
                )
            elif thing < 0.5:
                put("box", (width + 0.05, 0.65, 0.02), paint.plain(np.full(3, 0.85)), middle, 1.5, 0.02)
                put(
                    "box",
                    (width, 0.6, 0.025),
                    paint.plain(np.array([0.75, 0.85, 0.95]), emission=0.6),
                    middle,
                    1.5,
                    0.025,
                )
            elif thing < 0.6 and width > 0.35:
                put("box", (0.45, 1.0, 0.02), paint.wood(), middle, 1.0, 0.02)
                put("sphere", (0.03,), paint.grey(), middle + 0.37, 1.0, 0.05)
            side = middle + width + float(rng.uniform(0.2, 1.2))
    return blueprint, paint


def hang_lights(rng: Rng, blueprint: Blueprint) -> None:
    """Hang 1..3 lamps; the first casts shadows."""
    count = int(rng.integers(1, 4))
    warm = rng.uniform(-0.12, 0.12)
    x0, y0, x1, y1, height = blueprint.room_m
    for index in range(count):
        at = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(0.8, 0.97) * height])
        down = rng.normal(0, 0.45, 3)
        down[2] = -1.0
        if index == 0:  # parallel light: only what lies below its plane gets shadows
            at = -0.6 * (x1 - x0 + y1 - y0) * down / np.linalg.norm(down)
        level = rng.uniform(0.35, 0.8) / (1 if count == 1 else 1.4 if index == 0 else 2.2)
        tint = np.clip(level * np.array([1 + warm, 1.0, 1 - warm]), 0, 1)
        blueprint.lights.append(
            Light(
                (float(at[0]), float(at[1]), float(at[2])),
                (float(down[0]), float(down[1]), float(down[2])),
                (float(tint[0]), float(tint[1]), float(tint[2])),
                directional=index == 0,
                casts_shadow=index == 0,
            )
        )
