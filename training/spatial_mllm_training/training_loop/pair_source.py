"""Pairs of views drawn from scene files, as a numbered source."""

from __future__ import annotations

import hashlib

import numpy as np

from spatial_mllm_training.data.packing import Sample
from spatial_mllm_training.data.pairs import PairBuilder


class PairSource:
    """Sample i is drawn with a generator seeded by (seed, i)."""

    def __init__(self, builder: PairBuilder, seed: int) -> None:
        self.builder, self.seed = builder, seed

    def sample(self, number: int) -> Sample:
        return self.builder.sample(np.random.default_rng([self.seed, number]), f"pair {number}")

    def digest(self) -> str:
        """sha256 over the names and sizes of the scene files."""
        text = "".join(f"{p.name} {p.stat().st_size}\n" for p in sorted(self.builder.scenes))
        return hashlib.sha256(text.encode()).hexdigest()

    def subtasks(self) -> frozenset[str]:
        """Names of the subtasks that pairs are asked."""
        return self.builder.config.subtasks
