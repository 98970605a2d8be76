"""Which scene belongs to which split: whole places, so that no view of a room is in two splits."""

from __future__ import annotations

import hashlib

from spatial_mllm_training.scenes.split import FIRST_HELD_OUT_SEED, FIRST_TEST_SEED
from spatial_mllm_training.sources import SceneRef

SPLITS = ("train", "validation", "benchmark")
BENCHMARK_PERCENT = 10


def split_of(ref: SceneRef) -> str:
    """The split of a scene: by seed where it was simulated, else by a hash of its place."""
    if ref.seed is not None:
        if ref.seed >= FIRST_TEST_SEED:
            return "benchmark"
        return "validation" if ref.seed >= FIRST_HELD_OUT_SEED else "train"
    digest = hashlib.sha256((ref.place or ref.name).encode()).digest()
    return "benchmark" if int.from_bytes(digest[:4], "big") % 100 < BENCHMARK_PERCENT else "train"
