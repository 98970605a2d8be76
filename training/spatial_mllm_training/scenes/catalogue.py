"""Things on tables, built of a few primitives at real sizes, and their paint; knows no places."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spatial_mllm_training.scenes.blueprint import Blueprint, Body, Material, Shape, Texture, make_body
from spatial_mllm_training.scenes.textures import (
    CLOTH_STYLES,
    OBJECT_STYLES,
    colour,
    pick,
    wood_colour,
)

Rng = np.random.Generator
HALF_TURN_X = (float(np.sqrt(0.5)), float(np.sqrt(0.5)), 0.0, 0.0)  # z axis to -y
HALF_TURN_Y = (float(np.sqrt(0.5)), 0.0, float(np.sqrt(0.5)), 0.0)  # z axis to x


class Paint:
    """Hands out materials of a blueprint, with new textures now and then."""

    def __init__(self, blueprint: Blueprint, rng: Rng, texture_px: int = 128) -> None:
        self._blueprint, self._rng, self._size = blueprint, rng, texture_px

    def plain(self, rgb: np.ndarray | None = None, *, emission: float = 0.0) -> str:
        """Return a material of one colour."""
        return self._keep(colour(self._rng) if rgb is None else rgb, None, 1.0, emission)

    def wood(self) -> str:
        """Return wood of one tone."""
        return self.plain(wood_colour(self._rng))

    def grey(self) -> str:
        """Return metal or plastic without much colour."""
        return self.plain(colour(self._rng, vivid=0.15))

    def solid(self, styles: tuple = OBJECT_STYLES, share: float = 0.7) -> str:
        """Return a material for a solid: textured with probability `share`, else plain."""
        if self._rng.random() > share:
            return self.plain()
        return self._textured(styles, True, 1.0)

    def flat(self, styles: tuple, half_period_m: float) -> str:
        """Return a material that repeats every `2 half_period_m` on a plane (or on top of a table)."""
        return self._textured(styles, False, 1.0 / half_period_m)

    def _textured(self, styles: tuple, cube: bool, repeat: float) -> str:
        size = self._size if cube else 2 * self._size
        name = f"texture{len(self._blueprint.textures)}"
        self._blueprint.add_texture(Texture(name, pick(self._rng, styles, size), cube))
        return self._keep(np.full(3, self._rng.uniform(0.8, 1.0)), name, repeat, 0.0)

    def _keep(self, rgb: np.ndarray, texture: str | None, repeat: float, emission: float) -> str:
        return self._blueprint.add_material(
            Material(
                f"material{len(self._blueprint.materials)}",
                (float(rgb[0]), float(rgb[1]), float(rgb[2])),
                texture,
                repeat,
                float(self._rng.beta(1, 3)),
                float(self._rng.uniform(0.05, 0.8)),
                emission,
            )
        )


def _u(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def box(rng: Rng, paint: Paint) -> Body:
    """A carton of one or two parts."""
    a, b, c = _u(rng, 0.025, 0.1), _u(rng, 0.02, 0.08), _u(rng, 0.015, 0.1)
    shapes = [Shape("box", (a, b, c), paint.solid())]
    if rng.random() < 0.4:  # a strip of tape around it
        shapes.append(Shape("box", (a * 1.004, b * _u(rng, 0.1, 0.3), c * 1.004), paint.plain()))
    return make_body("box", shapes)


def can(rng: Rng, paint: Paint) -> Body:
    """A food or drink can with bright rims."""
    r, h = _u(rng, 0.026, 0.05), _u(rng, 0.03, 0.085)
    rim = paint.grey()
    return make_body(
        "can",
        [
            Shape("cylinder", (r, h), paint.solid()),
            Shape("cylinder", (r * 0.96, 0.003), rim, (0, 0, h + 0.002)),
            Shape("cylinder", (r * 0.96, 0.003), rim, (0, 0, -h - 0.002)),
        ],
    )


def bottle(rng: Rng, paint: Paint) -> Body:
    """A bottle: belly, neck, cap."""
    r, h, n = _u(rng, 0.03, 0.05), _u(rng, 0.05, 0.1), _u(rng, 0.015, 0.04)
    return make_body(
        "bottle",
        [
            Shape("cylinder", (r, h), paint.solid(share=0.5)),
            Shape("ellipsoid", (r, r, 0.6 * r), paint.plain(), (0, 0, h)),
            Shape("cylinder", (0.35 * r, n), paint.plain(), (0, 0, h + 0.5 * r + n)),
        ],
    )


def cup(rng: Rng, paint: Paint) -> Body:
    """A mug with a handle."""
    r, h = _u(rng, 0.03, 0.048), _u(rng, 0.035, 0.06)
    skin = paint.solid(share=0.5)
    return make_body(
        "cup",
        [
            Shape("cylinder", (r, h), skin),
            Shape("cylinder", (0.88 * r, 0.001), paint.plain(colour(rng, dark=0.05, light=0.4)), (0, 0, h)),
            Shape("box", (0.35 * r, 0.006, 0.55 * h), skin, (r + 0.25 * r, 0, 0)),
        ],
    )


def ball(rng: Rng, paint: Paint) -> Body:
    """A ball."""
    return make_body("ball", [Shape("sphere", (_u(rng, 0.02, 0.06),), paint.solid(share=0.85))])


def book(rng: Rng, paint: Paint) -> Body:
    """A book that lies: two covers around pages."""
    a, b, c = _u(rng, 0.06, 0.13), _u(rng, 0.09, 0.17), _u(rng, 0.007, 0.025)
    return make_body(
        "book",
        [
            Shape("box", (a, b, c), paint.solid()),
            Shape(
                "box",
                (a * 0.985, b * 1.001, c * 0.75),
                paint.plain(np.array([0.9, 0.88, 0.8])),
                (a * 0.02, 0, 0),
            ),
        ],
    )


def block(rng: Rng, paint: Paint) -> Body:
    """A wooden or painted toy block, or two stuck together."""
    s = _u(rng, 0.015, 0.04)
    shapes = [Shape("box", (s, s * _u(rng, 0.8, 2.2), s), paint.solid(share=0.4))]
    if rng.random() < 0.4:
        shapes.append(Shape("box", (s, s, s), paint.plain(), (0, 0, 2 * s)))
    return make_body("block", shapes)


def jar(rng: Rng, paint: Paint) -> Body:
    """A jar with a lid."""
    r, h = _u(rng, 0.025, 0.055), _u(rng, 0.025, 0.07)
    return make_body(
        "jar",
        [
            Shape("cylinder", (r, h), paint.solid()),
            Shape("cylinder", (r * 1.06, 0.009), paint.plain(), (0, 0, h + 0.008)),
        ],
    )


def toy_car(rng: Rng, paint: Paint) -> Body:
    """A toy car: body, cabin, axles."""
    a, b, r = _u(rng, 0.04, 0.08), _u(rng, 0.02, 0.035), _u(rng, 0.01, 0.016)
    wheel = paint.plain(np.full(3, 0.1))
    return make_body(
        "toy car",
        [
            Shape("box", (a, b, 0.014), paint.solid(share=0.3), (0, 0, r + 0.008)),
            Shape("box", (0.5 * a, 0.85 * b, 0.013), paint.plain(), (-0.1 * a, 0, r + 0.034)),
            Shape("cylinder", (r, 1.05 * b), wheel, (0.6 * a, 0, r), HALF_TURN_X),
            Shape("cylinder", (r, 1.05 * b), wheel, (-0.6 * a, 0, r), HALF_TURN_X),
        ],
    )


def fruit(rng: Rng, paint: Paint) -> Body:
    """An apple-like fruit with a stalk."""
    r = _u(rng, 0.025, 0.045)
    return make_body(
        "fruit",
        [
            Shape("ellipsoid", (r, r, 0.9 * r), paint.solid(CLOTH_STYLES[:2], 0.7)),
            Shape("capsule", (0.003, 0.008), paint.wood(), (0, 0, 0.95 * r)),
        ],
    )


def tin_stack(rng: Rng, paint: Paint) -> Body:
    """Two discs of different width, as a stack or a spool."""
    r, h = _u(rng, 0.03, 0.07), _u(rng, 0.012, 0.03)
    return make_body(
        "stack",
        [
            Shape("cylinder", (r, h), paint.solid()),
            Shape("cylinder", (r * _u(rng, 0.5, 0.9), h), paint.solid(), (0, 0, 2 * h)),
        ],
    )


def hammer(rng: Rng, paint: Paint) -> Body:
    """A hammer that lies on its side."""
    length, r = _u(rng, 0.08, 0.14), _u(rng, 0.009, 0.014)
    return make_body(
        "hammer",
        [
            Shape("capsule", (r, length), paint.wood(), (0, 0, 0), HALF_TURN_Y),
            Shape("box", (0.015, 0.045, 0.015), paint.grey(), (length, 0, 0)),
        ],
    )


def bowl(rng: Rng, paint: Paint) -> Body:
    """A bowl with something in it."""
    r = _u(rng, 0.05, 0.09)
    return make_body(
        "bowl",
        [
            Shape("cylinder", (0.5 * r, 0.004), paint.plain()),
            Shape("ellipsoid", (r, r, 0.45 * r), paint.solid(), (0, 0, 0.42 * r)),
            Shape("cylinder", (r * 1.02, 0.006), paint.plain(), (0, 0, 0.5 * r)),
        ],
    )


TABLE_THINGS: tuple[Callable[[Rng, Paint], Body], ...] = (
    box,
    box,
    can,
    can,
    bottle,
    cup,
    ball,
    book,
    block,
    jar,
    toy_car,
    fruit,
    tin_stack,
    hammer,
    bowl,
)
PUSHABLE: tuple[Callable[[Rng, Paint], Body], ...] = (box, box, can, bottle, cup, block, jar, toy_car, book)
