"""The engine seam: what runs a bundle's graphs. One implementation per file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class KVCache:
    """Keys and values of a prefix; `handle` belongs to the engine that made it and is never modified."""

    length: int
    handle: Any


@dataclass(frozen=True)
class DecoderOutput:
    """One decoder call over S new tokens.

    Attributes:
        logits: (V,) float32 of the last token; (V + C,) of a bundle that copies digits, see `digits.with_copies`.
        taps: (4, S, D) float32 hidden states at the bundle's tap layers.
        cache: the prefix extended by the S tokens.
    """

    logits: Float32
    taps: Float32
    cache: KVCache


class Engine(Protocol):
    """Runs a bundle's graphs. Not thread-safe: one inference thread owns it."""

    def vision(
        self, image_rgb: NDArray[np.uint8], rays: Float32, has_camera: bool, first_rgb: NDArray[np.uint8]
    ) -> Float32:
        """(N, D) visual tokens of an (H, W, 3) image of the bundle's size and (N, 4) rays.

        Args:
            first_rgb: the first image of the prompt, of the same size, which bundles with clips look at.
        """

    def decode(
        self, embeddings: Float32, positions: NDArray[np.int64], cache: KVCache | None
    ) -> DecoderOutput:
        """Extend `cache` by (S, D) embeddings at (3, S) positions, causally."""

    def features(self, image_rgb: NDArray[np.uint8]) -> Float32:
        """(h, w, C) features of the cells of an (H, W, 3) image, for bundles of matching."""

    def dots(self, image_rgb: NDArray[np.uint8]) -> Float32:
        """(5, h, w) what `read_dots` reads, of an (H, W, 3) image of the size that dots are found in."""

    def lift(self, taps: Float32) -> tuple[Float32, Float32]:
        """(depth_h, depth_w) z-depth in metres and confidence in [0, 1] from (4, N, D) taps."""
