"""Camera-aware views of a rendered frame: random crop, zoom and aspect with K kept right.

The crop moves the principal point, the zoom changes the focal length in pixels, the aspect
makes pixels non-square; depth values never change (papers.md 1.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.images.resize import resized

_NOISE = np.float32(0.012)


@dataclass(frozen=True)
class Crop:
    """A window of the source image that becomes the model's input, in source pixels."""

    x: int
    y: int
    width: int
    height: int

    @staticmethod
    def random(rng: np.random.Generator, width: int, height: int, *, smallest: float, aspect: float) -> Crop:
        """A window with side >= `smallest` of the source and pixel aspect within 1/aspect..aspect."""
        ratio = np.exp(rng.uniform(-np.log(aspect), np.log(aspect)))
        side = rng.uniform(smallest, 1.0) if rng.random() > 0.25 else 1.0
        w = min(width, round(width * side * min(1.0, ratio)))
        h = min(height, round(height * side * min(1.0, 1.0 / ratio)))
        return Crop(int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1)), w, h)

    def camera(self, source: CameraModel, out_width: int, out_height: int) -> CameraModel:
        return source.cropped(self.x, self.y, self.width, self.height).resized(out_width, out_height)

    def image(self, source: NDArray[np.uint8], out_width: int, out_height: int) -> NDArray[np.uint8]:
        window = np.array(source[self.y : self.y + self.height, self.x : self.x + self.width])
        return resized(window, out_width, out_height)

    def nearest(self, source: NDArray, out_width: int, out_height: int) -> NDArray:
        """Nearest source sample of every output pixel centre (depth, ids)."""
        xs = self.x + np.minimum(
            ((np.arange(out_width) + 0.5) * self.width / out_width).astype(int), self.width - 1
        )
        ys = self.y + np.minimum(
            ((np.arange(out_height) + 0.5) * self.height / out_height).astype(int), self.height - 1
        )
        return source[ys[:, None], xs[None, :]]

    def to_output(self, u: NDArray, v: NDArray, out_width: int, out_height: int) -> tuple[NDArray, NDArray]:
        """Source pixel centres to output pixel coordinates."""
        return (
            (u - self.x + 0.5) * out_width / self.width - 0.5,
            (v - self.y + 0.5) * out_height / self.height - 0.5,
        )


def jitter_colour(
    rng: np.random.Generator, image: NDArray[np.uint8], gains: NDArray[np.float32], gamma: float
) -> NDArray[np.uint8]:
    """Per-channel gain, gamma and sensor noise."""
    levels = np.arange(256, dtype=np.float32) / 255.0
    table = np.power(levels, gamma)[:, None] * (255.0 * gains)
    x = cv2.LUT(image, np.ascontiguousarray(table, np.float32)[None])
    x += (_NOISE * 255.0) * rng.standard_normal(image.shape, np.float32)
    x += 0.5
    return np.clip(x, 0.0, 255.0, out=x).astype(np.uint8)
