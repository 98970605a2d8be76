"""Draws the dots and letters of dot subtasks into a copy of an image; knows nothing about questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_PUBLISHED_WIDTH_PX = 1296
_APART = 300
"""Smallest L1 distance between the RGB colours of two dots, as published."""
_TRIES = 10


@dataclass(frozen=True)
class Dot:
    """A filled circle at (u, v), integers being pixel centres, with an optional letter beside it."""

    u_px: float
    v_px: float
    label: str = ""


@dataclass(frozen=True)
class DrawnDot:
    """What was drawn for a dot."""

    radius_px: int
    rgb: tuple[int, int, int]


def radius_px(width: int) -> int:
    """Radius of a dot in an image of `width` pixels: the published W // 100, at least 3."""
    return max(3, width // 100)


def draw(
    image: NDArray[np.uint8], dots: Sequence[Dot], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], list[DrawnDot]]:
    """A copy of `image` (H, W, 3) RGB with dots of colours that differ from each other and from the ground."""
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    radius = radius_px(width)
    scale = max(0.5, width / _PUBLISHED_WIDTH_PX)
    thickness = max(1, round(2 * width / _PUBLISHED_WIDTH_PX))
    drawn: list[DrawnDot] = []
    for dot in dots:
        rgb = _colour(image, dot, [d.rgb for d in drawn], radius, rng)
        centre = (round(dot.u_px * 16), round(dot.v_px * 16))
        cv2.circle(canvas, centre, radius * 16, rgb, cv2.FILLED, cv2.LINE_AA, shift=4)
        drawn.append(DrawnDot(radius, rgb))
    for dot, mark in zip(dots, drawn, strict=True):  # letters last, so that no dot covers one
        if dot.label:
            _write(canvas, dot, mark, scale, thickness, width, height)
    return canvas, drawn


def _colour(
    image: NDArray[np.uint8],
    dot: Dot,
    taken: list[tuple[int, int, int]],
    radius: int,
    rng: np.random.Generator,
) -> tuple[int, int, int]:
    """The one of ten random colours that stands out most from the ground and is apart from the others."""
    u, v, reach = round(dot.u_px), round(dot.v_px), 2 * radius
    patch = image[max(0, v - reach) : v + reach + 1, max(0, u - reach) : u + reach + 1]
    ground = patch.reshape(-1, 3).mean(axis=0)
    tries = rng.integers(0, 256, (_TRIES, 3))
    contrast = np.abs(tries - ground).sum(axis=1)
    if taken:
        nearest = np.abs(tries[:, None] - np.array(taken)[None]).sum(axis=2).min(axis=1)
        contrast = contrast + 1000 * np.minimum(nearest, _APART) / _APART
    red, green, blue = tries[int(contrast.argmax())].tolist()
    return (red, green, blue)


def _write(
    canvas: NDArray[np.uint8], dot: Dot, mark: DrawnDot, scale: float, thickness: int, width: int, height: int
) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    (wide, high), _ = cv2.getTextSize(dot.label, font, scale, thickness)
    gap = mark.radius_px + max(2, thickness)
    x = dot.u_px + gap if dot.u_px + gap + wide < width else dot.u_px - gap - wide
    y = min(max(dot.v_px + high / 2, high + 1), height - 2)
    for rgb, extra in (((0, 0, 0), 2), ((255, 255, 255), 0)):  # white on black reads on any ground
        cv2.putText(canvas, dot.label, (round(x), round(y)), font, scale, rgb, thickness + extra, cv2.LINE_AA)
