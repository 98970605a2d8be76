"""Furniture with names, built of a few primitives at real sizes; knows nothing about where it stands."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spatial_mllm_training.scenes.blueprint import Body, Shape, make_body
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.textures import CLOTH_STYLES, TABLE_STYLES

Rng = np.random.Generator


def _u(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def table(rng: Rng, paint: Paint) -> Body:
    """A table: top (round or not) on four legs or one foot."""
    a, b, h, t = _u(rng, 0.35, 0.9), _u(rng, 0.3, 0.5), _u(rng, 0.4, 0.9), _u(rng, 0.012, 0.03)
    top, leg = paint.flat(TABLE_STYLES, _u(rng, 0.3, 1.2)), paint.solid(TABLE_STYLES[:2], 0.4)
    if rng.random() < 0.25:
        r = 0.5 * (a + b)
        return make_body(
            "table",
            [
                Shape("cylinder", (r, t), top, (0, 0, h - t)),
                Shape("cylinder", (0.05, h / 2 - t), leg, (0, 0, h / 2 - t)),
                Shape("cylinder", (0.5 * r, 0.015), leg, (0, 0, 0.015)),
            ],
        )
    w = _u(rng, 0.018, 0.04)
    legs = [
        Shape("box", (w, w, h / 2 - t), leg, (sx * (a - 2 * w), sy * (b - 2 * w), h / 2 - t))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return make_body("table", [Shape("box", (a, b, t), top, (0, 0, h - t)), *legs])


def chair(rng: Rng, paint: Paint) -> Body:
    """A chair: seat, back, four legs."""
    s, h, back, w = _u(rng, 0.18, 0.25), _u(rng, 0.4, 0.5), _u(rng, 0.2, 0.32), _u(rng, 0.012, 0.025)
    seat, leg = paint.solid(CLOTH_STYLES, 0.6), paint.wood()
    legs = [
        Shape("box", (w, w, h / 2), leg, (sx * (s - w), sy * (s - w), h / 2))
        for sx in (-1, 1)
        for sy in (-1, 1)
    ]
    return make_body(
        "chair",
        [
            Shape("box", (s, s, 0.025), seat, (0, 0, h)),
            Shape("box", (0.02, s, back), seat, (-s + 0.02, 0, h + back)),
            *legs,
        ],
    )


def stool(rng: Rng, paint: Paint) -> Body:
    """A stool."""
    r, h = _u(rng, 0.14, 0.22), _u(rng, 0.35, 0.7)
    return make_body(
        "stool",
        [
            Shape("cylinder", (r, 0.025), paint.solid(), (0, 0, h)),
            Shape("cylinder", (0.03, h / 2), paint.grey(), (0, 0, h / 2)),
            Shape("cylinder", (r * 0.9, 0.012), paint.grey(), (0, 0, 0.012)),
        ],
    )


def shelf(rng: Rng, paint: Paint) -> Body:
    """A shelf with boards, sides and rows of books."""
    w, d, h = _u(rng, 0.3, 0.6), _u(rng, 0.12, 0.2), _u(rng, 0.8, 2.0)
    skin = paint.solid(TABLE_STYLES[:2], 0.5)
    boards = int(rng.integers(3, 6))
    shapes = [Shape("box", (0.012, d, h / 2), skin, (sx * w, 0, h / 2)) for sx in (-1, 1)]
    shapes.append(Shape("box", (w, 0.006, h / 2), skin, (0, d, h / 2)))
    for i in range(boards):
        z = 0.02 + (h - 0.04) * i / (boards - 1)
        shapes.append(Shape("box", (w, d, 0.012), skin, (0, 0, z)))
        if i < boards - 1:
            gap = (h - 0.04) / (boards - 1)
            x = -w + 0.03
            while x < w - 0.1 and len(shapes) < 24:
                half = _u(rng, 0.02, 0.09)
                x += half
                tall = gap * _u(rng, 0.25, 0.42)
                if x + half < w - 0.02 and rng.random() < 0.8:
                    shapes.append(
                        Shape(
                            "box",
                            (half, d * _u(rng, 0.5, 0.85), tall),
                            paint.solid(share=0.25),
                            (x, 0, z + 0.012 + tall),
                        )
                    )
                x += half + 0.01
    return make_body("shelf", shapes)


def cabinet(rng: Rng, paint: Paint) -> Body:
    """A cabinet or drawer unit with fronts and knobs."""
    w, d, h = _u(rng, 0.25, 0.6), _u(rng, 0.2, 0.3), _u(rng, 0.3, 1.0)
    skin, front, knob = paint.solid(TABLE_STYLES, 0.6), paint.solid(TABLE_STYLES[:2], 0.5), paint.grey()
    rows = int(rng.integers(1, 5))
    shapes = [Shape("box", (w, d, h), skin, (0, 0, h))]
    for i in range(rows):
        z = 2 * h * (i + 0.5) / rows
        shapes.append(Shape("box", (w * 0.95, 0.008, h / rows * 0.92), front, (0, -d - 0.008, z)))
        shapes.append(Shape("sphere", (0.015,), knob, (0, -d - 0.025, z)))
    return make_body("cabinet", shapes)


def sofa(rng: Rng, paint: Paint) -> Body:
    """A sofa or armchair."""
    w, d, h = _u(rng, 0.4, 1.05), _u(rng, 0.35, 0.45), _u(rng, 0.18, 0.24)
    cloth, pillow = paint.solid(CLOTH_STYLES, 0.8), paint.solid(CLOTH_STYLES, 0.8)
    return make_body(
        "sofa",
        [
            Shape("box", (w, d, h), cloth, (0, 0, h)),
            Shape("box", (w, 0.09, h * 0.95), cloth, (0, d - 0.09, 2.9 * h)),
            Shape("box", (0.08, d, 0.12), cloth, (-w + 0.08, 0, 2 * h + 0.12)),
            Shape("box", (0.08, d, 0.12), cloth, (w - 0.08, 0, 2 * h + 0.12)),
            Shape("ellipsoid", (0.2, 0.09, 0.18), pillow, (_u(rng, -0.4, 0.4) * w, d - 0.26, 2 * h + 0.17)),
        ],
    )


def bed(rng: Rng, paint: Paint) -> Body:
    """A bed: frame, mattress, pillow, head board."""
    w, length = _u(rng, 0.45, 0.9), _u(rng, 0.95, 1.05)
    return make_body(
        "bed",
        [
            Shape("box", (w, length, 0.12), paint.wood(), (0, 0, 0.18)),
            Shape("box", (w * 0.97, length * 0.98, 0.1), paint.solid(CLOTH_STYLES, 0.9), (0, 0, 0.4)),
            Shape(
                "ellipsoid", (w * 0.6, 0.2, 0.08), paint.solid(CLOTH_STYLES, 0.5), (0, length * 0.75, 0.53)
            ),
            Shape("box", (w, 0.03, 0.4), paint.wood(), (0, length, 0.45)),
        ],
    )


def carton(rng: Rng, paint: Paint) -> Body:
    """A moving box on the floor."""
    a, b, c = _u(rng, 0.12, 0.35), _u(rng, 0.12, 0.3), _u(rng, 0.1, 0.3)
    return make_body(
        "box",
        [
            Shape("box", (a, b, c), paint.solid(share=0.85)),
            Shape("box", (1.003 * a, 0.15 * b, 1.003 * c), paint.plain()),
        ],
    )


def bin_(rng: Rng, paint: Paint) -> Body:
    """A waste bin."""
    r, h = _u(rng, 0.1, 0.2), _u(rng, 0.13, 0.35)
    return make_body(
        "bin",
        [
            Shape("cylinder", (r, h), paint.solid(share=0.5)),
            Shape("cylinder", (r * 1.05, 0.015), paint.grey(), (0, 0, h)),
        ],
    )


def lamp(rng: Rng, paint: Paint) -> Body:
    """A standing lamp."""
    h = _u(rng, 0.55, 0.85)
    return make_body(
        "lamp",
        [
            Shape("cylinder", (0.15, 0.015), paint.grey()),
            Shape("cylinder", (0.015, h), paint.grey(), (0, 0, h)),
            Shape(
                "cylinder",
                (_u(rng, 0.12, 0.2), 0.13),
                paint.plain(np.array([1, 0.93, 0.75]), emission=0.5),
                (0, 0, 2 * h),
            ),
        ],
    )


def plant(rng: Rng, paint: Paint) -> Body:
    """A potted plant of ellipsoids."""
    r, h = _u(rng, 0.1, 0.2), _u(rng, 0.12, 0.2)
    green = paint.plain(np.array([0.15, _u(rng, 0.3, 0.6), 0.15]))
    shapes = [
        Shape("cylinder", (r, h), paint.solid()),
        Shape("cylinder", (0.015, 0.25), paint.wood(), (0, 0, h + 0.2)),
    ]
    for _ in range(int(rng.integers(4, 9))):
        x, y = rng.normal(0, 0.12, 2)
        shapes.append(
            Shape(
                "ellipsoid",
                (_u(rng, 0.04, 0.14), _u(rng, 0.04, 0.14), _u(rng, 0.03, 0.1)),
                green,
                (float(x), float(y), h + _u(rng, 0.2, 0.6)),
            )
        )
    return make_body("plant", shapes)


def screen(rng: Rng, paint: Paint) -> Body:
    """A monitor on its foot."""
    w, h = _u(rng, 0.2, 0.4), _u(rng, 0.13, 0.24)
    dark = paint.plain(np.full(3, 0.12))
    return make_body(
        "monitor",
        [
            Shape("box", (0.015, w, h), dark, (0, 0, h + 0.1)),
            Shape("box", (0.003, 0.95 * w, 0.92 * h), paint.solid(share=0.8), (0.015, 0, h + 0.1)),
            Shape("box", (0.02, 0.03, 0.06), dark, (-0.015, 0, 0.06)),
            Shape("cylinder", (0.11, 0.008), dark),
        ],
    )


AT_WALL: tuple[Callable[[Rng, Paint], Body], ...] = (
    shelf,
    shelf,
    cabinet,
    cabinet,
    sofa,
    bed,
    lamp,
    plant,
    table,
    bin_,
)
IN_ROOM: tuple[Callable[[Rng, Paint], Body], ...] = (
    table,
    chair,
    chair,
    stool,
    carton,
    carton,
    bin_,
    sofa,
    plant,
)
MOVABLE_FURNITURE: tuple[Callable[[Rng, Paint], Body], ...] = (
    chair,
    chair,
    stool,
    carton,
    carton,
    bin_,
    plant,
)
