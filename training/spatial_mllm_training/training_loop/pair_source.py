"""Pairs of views drawn from scene files, as a numbered source."""

from __future__ import annotations

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
        """Of the scene files."""
        return self.builder.views.digest()

    def subtasks(self) -> frozenset[str]:
        """Names of the subtasks that pairs are asked."""
        return self.builder.config.subtasks
