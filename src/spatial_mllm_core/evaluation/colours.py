"""Depth and confidence as colours, with the scale they were painted with; knows arrays only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_NO_VALUE = np.array([70, 74, 82], np.uint8)


@dataclass(frozen=True)
class Scale:
    """A linear colour scale: `low` is painted in the first colour, `high` in the last.

    Attributes:
        low, high: ends of the scale, in the unit of the picture (metres for depth).
        colours: (256, 3) uint8 RGB.
    """

    low: float
    high: float
    colours: NDArray[np.uint8]

    def paint(self, values: NDArray[np.floating]) -> NDArray[np.uint8]:
        """(H, W) numbers to (H, W, 3) uint8 RGB; NaN and infinity become dark grey."""
        known = np.isfinite(values)
        unit = np.clip((np.where(known, values, self.low) - self.low) / (self.high - self.low), 0, 1)
        painted = self.colours[np.rint(unit * 255).astype(np.uint8)]
        painted[~known] = _NO_VALUE
        return painted

    def ticks(self, wanted: int = 5) -> list[float]:
        """Round numbers inside of the scale, about `wanted` of them."""
        return round_ticks(self.low, self.high, wanted)


def depth_scale(images: list[NDArray[np.floating]]) -> Scale:
    """One scale for several depth images: red is near, blue is far, round metres at both ends."""
    values = [image[np.isfinite(image) & (image > 0)] for image in images]
    known = np.concatenate(values) if values else np.empty(0)
    low, high = (float(v) for v in np.percentile(known, (1, 99))) if known.size else (0.0, 1.0)
    step = _round_step(max(high - low, 1e-3) / 15)
    low, high = np.floor(low / step) * step, np.ceil(high / step) * step
    return Scale(max(0.0, float(low)), float(high), turbo()[::-1])


def confidence_scale() -> Scale:
    """0 dark, 1 bright."""
    return Scale(0.0, 1.0, viridis())


def round_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten within [low, high]."""
    if not high > low:
        return [low]
    step = _round_step((high - low) / wanted)
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return [round(i * step, 10) for i in range(first, last + 1)]


def _round_step(raw: float) -> float:
    power = 10.0 ** np.floor(np.log10(raw))
    return float(min((m for m in (1, 2, 5, 10) if m * power >= raw * 0.999), default=10) * power)


@lru_cache(maxsize=1)
def turbo() -> NDArray[np.uint8]:
    """(256, 3) RGB of the Turbo colour map (Mikhailov 2019), from dark blue to dark red."""
    import cv2

    return _table(cv2.COLORMAP_TURBO)


@lru_cache(maxsize=1)
def viridis() -> NDArray[np.uint8]:
    """(256, 3) RGB of Viridis, from dark violet to yellow."""
    import cv2

    return _table(cv2.COLORMAP_VIRIDIS)


def _table(colour_map: int) -> NDArray[np.uint8]:
    import cv2

    bgr = cv2.applyColorMap(np.arange(256, dtype=np.uint8).reshape(-1, 1), colour_map)
    return np.ascontiguousarray(np.asarray(bgr, np.uint8).reshape(256, 3)[:, ::-1])
