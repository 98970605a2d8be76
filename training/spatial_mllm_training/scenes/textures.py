"""Pictures for surfaces, made from noise; each is a square (S, S, 3) uint8 RGB image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Colour = NDArray[np.float64]
Rng = np.random.Generator


def colour(rng: Rng, *, vivid: float = 1.0, dark: float = 0.12, light: float = 0.95) -> Colour:
    """Return a random RGB colour in [0, 1]; `vivid` scales the saturation."""
    hue = rng.uniform(0, 6)
    saturation = vivid * rng.beta(1.6, 1.6)
    value = rng.uniform(dark, light)
    wheel = np.clip(np.abs((hue + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return np.asarray(value * (1 - saturation + saturation * wheel))


def wood_colour(rng: Rng) -> Colour:
    """Return a brown between birch and wenge."""
    value = rng.uniform(0.2, 0.85)
    return np.asarray(
        np.clip(value * np.array([1.0, rng.uniform(0.65, 0.85), rng.uniform(0.35, 0.65)]), 0, 1)
    )


def value_noise(rng: Rng, size: int, cells: int, octaves: int = 4) -> NDArray[np.float64]:
    """Return (S, S) noise in [0, 1]: random grids of growing density, summed."""
    total = np.zeros((size, size), np.float32)
    weight, norm = 1.0, 0.0
    for _ in range(octaves):
        grid = rng.random((min(cells, size), min(cells, size)), dtype=np.float32)
        total += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        norm += weight
        weight *= 0.55
        cells *= 2
    low, high = float(total.min()), float(total.max())
    return np.asarray((total - low) / max(high - low, 1e-6), np.float64)


def blend(a: Colour, b: Colour, t: NDArray[Any]) -> Image:
    """Return the picture that runs from colour a (t = 0) to colour b (t = 1)."""
    return np.asarray(255 * np.clip(a + (b - a) * t[..., None], 0, 1), np.uint8)


def clouds(rng: Rng, size: int) -> Image:
    """Blotches of two colours, as plaster, stone or stained paint."""
    a = colour(rng)
    b = np.clip(a + rng.normal(0, 0.18, 3), 0, 1)
    return blend(a, b, value_noise(rng, size, int(rng.integers(2, 12)), 5))


def speckle(rng: Rng, size: int) -> Image:
    """Fine grain, as carpet or granite."""
    a = colour(rng, vivid=0.7)
    grain = rng.normal(0, rng.uniform(0.04, 0.2), (size, size))
    coarse = value_noise(rng, size, 4, 3) - 0.5
    return np.asarray(255 * np.clip(a + (grain + 0.2 * coarse)[..., None], 0, 1), np.uint8)


def wood(rng: Rng, size: int) -> Image:
    """Grain lines that wander along x."""
    a = wood_colour(rng)
    y, x = np.mgrid[0:size, 0:size] / size
    wander = value_noise(rng, size, 3, 3)
    rings = np.sin(2 * np.pi * (rng.uniform(4, 14) * y + rng.uniform(0.5, 3) * wander + 0.3 * x))
    fibre = cv2.resize(rng.random((size, 8)), (size, size), interpolation=cv2.INTER_LINEAR)
    return blend(a * 0.65, a, np.clip(0.5 + 0.3 * rings + 0.5 * (fibre - 0.5), 0, 1))


def planks(rng: Rng, size: int) -> Image:
    """Boards of wood side by side, each of its own tone."""
    image = wood(rng, size).astype(np.float64)
    rows = int(rng.integers(3, 9))
    for row in range(rows):
        top, bottom = size * row // rows, size * (row + 1) // rows
        shift = int(rng.integers(size))
        image[top:bottom] = np.roll(image[top:bottom], shift, axis=1) * rng.uniform(0.75, 1.15)
        image[top : top + max(1, size // 128)] *= 0.45
        image[top:bottom, shift : shift + max(1, size // 128)] *= 0.45
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def tiles(rng: Rng, size: int) -> Image:
    """Square or brick-like tiles with joints."""
    rows, columns = int(rng.integers(2, 9)), int(rng.integers(2, 7))
    base, joint = colour(rng), colour(rng, vivid=0.2)
    tone = rng.normal(0, rng.uniform(0.01, 0.12), (rows, columns, 1)) + rng.normal(
        0, 0.02, (rows, columns, 3)
    )
    y, x = np.mgrid[0:size, 0:size] / size
    row = (y * rows).astype(int)
    offset = 0.5 * (row % 2) / columns if rng.random() < 0.5 else 0.0
    along = (x + offset) % 1.0
    column = (along * columns).astype(int)
    image = base + tone[row, column] + 0.05 * (value_noise(rng, size, 16, 3)[..., None] - 0.5)
    width = rng.uniform(0.02, 0.1)
    edge = ((y * rows) % 1 < width) | ((along * columns) % 1 < width * columns / rows)
    image[edge] = joint
    return np.asarray(255 * np.clip(image, 0, 1), np.uint8)


def stripes(rng: Rng, size: int) -> Image:
    """Stripes or plaid, as cloth or wallpaper."""
    a, b, c = colour(rng), colour(rng), colour(rng)
    y, x = np.mgrid[0:size, 0:size] / size
    first = (np.sin(2 * np.pi * int(rng.integers(2, 12)) * x) > rng.uniform(-0.6, 0.6)).astype(float)
    image = a + (b - a) * first[..., None]
    if rng.random() < 0.5:
        second = np.sin(2 * np.pi * int(rng.integers(2, 12)) * y) > rng.uniform(-0.2, 0.8)
        image = np.where(second[..., None], 0.5 * (image + c), image)
    image += 0.06 * rng.normal(size=(size, size, 1))
    if rng.random() < 0.5:
        image = image.swapaxes(0, 1)
    return np.asarray(255 * np.clip(image, 0, 1), np.uint8)


def checker(rng: Rng, size: int) -> Image:
    """A chess board of two colours."""
    n = 2 * int(rng.integers(1, 5))
    a, b = colour(rng), colour(rng)
    y, x = np.mgrid[0:size, 0:size] * n // size
    return blend(a, b, ((x + y) % 2) * 1.0 + 0.1 * (value_noise(rng, size, 8, 3) - 0.5))


def gradient(rng: Rng, size: int) -> Image:
    """A slow run from one colour to another with slight grain."""
    ramp = np.linspace(0, 1, size)[:, None] * np.ones(size)
    return blend(colour(rng), colour(rng), ramp + rng.normal(0, 0.03, (size, size)))


def printed(rng: Rng, size: int) -> Image:
    """A package print: a ground, blocks and lines that look like text."""
    image = np.empty((size, size, 3), np.uint8)
    image[:] = 255 * colour(rng)
    for _ in range(int(rng.integers(1, 5))):
        x, y = (int(v) for v in rng.integers(0, size, 2))
        w, h = (int(v) for v in rng.integers(size // 8, size // 2, 2))
        tone = [float(v) for v in 255 * colour(rng)]
        if rng.random() < 0.6:
            cv2.rectangle(image, (x, y), (x + w, y + h), tone, -1)
        else:
            cv2.circle(image, (x, y), w // 2, tone, -1)
    ink = [float(v) for v in 255 * colour(rng, vivid=0.3)]
    for _ in range(int(rng.integers(2, 7))):
        y = int(rng.integers(0, size))
        x = int(rng.integers(0, size // 2))
        for _word in range(int(rng.integers(2, 7))):
            w = int(rng.integers(size // 24, size // 6))
            cv2.rectangle(image, (x, y), (x + w, y + max(1, size // 40)), ink, -1)
            x += w + size // 40
    return image


def picture(rng: Rng, size: int) -> Image:
    """A painting: sky, ground and a few discs."""
    image = gradient(rng, size)
    horizon = int(rng.uniform(0.3, 0.8) * size)
    image[horizon:] = clouds(rng, size)[horizon:]
    for _ in range(int(rng.integers(1, 6))):
        centre = tuple(int(v) for v in rng.integers(0, size, 2))
        cv2.circle(
            image, centre, int(rng.integers(size // 20, size // 4)), [float(v) for v in 255 * colour(rng)], -1
        )
    return image


OBJECT_STYLES: tuple[Callable[[Rng, int], Image], ...] = (
    clouds,
    speckle,
    wood,
    tiles,
    stripes,
    checker,
    gradient,
    printed,
    printed,
)
FLOOR_STYLES: tuple[Callable[[Rng, int], Image], ...] = (
    clouds,
    speckle,
    wood,
    planks,
    planks,
    tiles,
    tiles,
    checker,
)
WALL_STYLES: tuple[Callable[[Rng, int], Image], ...] = (
    clouds,
    clouds,
    speckle,
    tiles,
    stripes,
    gradient,
    planks,
)
TABLE_STYLES: tuple[Callable[[Rng, int], Image], ...] = (
    wood,
    wood,
    planks,
    clouds,
    speckle,
    tiles,
    checker,
    stripes,
)
CLOTH_STYLES: tuple[Callable[[Rng, int], Image], ...] = (clouds, speckle, stripes, checker)


def pick(rng: Rng, styles: tuple[Callable[[Rng, int], Image], ...], size: int) -> Image:
    """Return a picture of one of `styles`."""
    return styles[int(rng.integers(len(styles)))](rng, size)
