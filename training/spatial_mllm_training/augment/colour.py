"""Photometric jitter: gains, gamma and sensor noise; knows nothing about cameras."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np
from numpy.typing import NDArray

# Normal numbers by a table of their 256 quantiles: six times as fast as drawing them, and finer than a grey level.
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)])
_NORMAL = _QUANTILES / _QUANTILES.std()


@dataclass(frozen=True)
class Colour:
    """A change of colours.

    Attributes:
        gain: of red, green and blue.
        gamma: exponent, applied before the gains.
        noise: standard deviation of the noise of a value, parts of full scale.
    """

    gain: tuple[float, float, float]
    gamma: float
    noise: float

    def image(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
        """The changed (H, W, 3) image; `rng` gives the noise."""
        levels = (np.arange(256) / 255.0) ** self.gamma
        table = np.rint(np.clip(255.0 * levels[:, None] * self.gain, 0, 255)).astype(np.uint8)
        changed = cv2.LUT(np.ascontiguousarray(image), table[None])
        if self.noise > 0:
            drawn = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
            steps = np.rint(255.0 * self.noise * _NORMAL).astype(np.int16)
            changed = cv2.add(changed, cv2.LUT(drawn, steps), dtype=cv2.CV_8U)
        return np.asarray(changed)
