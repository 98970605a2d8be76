"""All subtasks a scene can be asked for, and the drafts it gives; knows neither words nor files."""

from __future__ import annotations

import hashlib
import math

import numpy as np

from spatial_mllm_training.multispa import (
    camera_motion,
    correspondence,
    depth,
    object_motion,
    object_size,
    pair_sampling,
)
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

_BY_COUNT = (depth, object_size, object_motion)
_BY_PAIR = (correspondence, camera_motion)
_MORE_PAIRS = 2
"""Pairs tried for each draft wanted: not every pair has a point or a movement to ask about."""


def random_for(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on the seed and the names alone, never on the order of work."""
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest[:16], np.uint32).tolist()])


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    reasons: dict[str, str] = {}
    for module in (*_BY_COUNT, *_BY_PAIR):
        reasons.update(module.missing(scene, config))
    return reasons


def drafts(prepared: PreparedScene, wanted: dict[str, int], seed: int) -> dict[str, list[Draft]]:
    """At most `wanted` drafts of each subtask that the scene can give.

    Pairs are drawn anew for every subtask, balanced over the bins of overlap.
    """
    name = prepared.scene.name
    impossible = missing(prepared.scene, prepared.config)
    result: dict[str, list[Draft]] = {}
    pairs: list[pair_sampling.Pair] | None = None
    limits = prepared.config.pairs
    for module in (*_BY_COUNT, *_BY_PAIR):
        for subtask in module.SUBTASKS:
            count = wanted.get(subtask, 0)
            if count <= 0 or subtask in impossible:
                continue
            rng = random_for(seed, name, subtask)
            if module in _BY_COUNT:
                result[subtask] = module.drafts(prepared, subtask, count, rng)
                continue
            if pairs is None:
                pairs = pair_sampling.candidate_pairs(prepared)
            chosen = pair_sampling.sample_balanced(
                np.array([p.overlap_percent for p in pairs]),
                min(len(pairs), math.ceil(_MORE_PAIRS * count)),
                *limits.overlap_percent,
                limits.bin_percent,
                rng,
            )
            found = module.drafts(prepared, subtask, [pairs[int(i)] for i in chosen], rng)
            result[subtask] = _thin(found, count, rng)
    return result


def _thin(found: list[Draft], count: int, rng: np.random.Generator) -> list[Draft]:
    """At most `count` drafts, even over their groups."""
    if len(found) <= count:
        return found
    groups: dict[str, list[int]] = {}
    for index in rng.permutation(len(found)):
        groups.setdefault(found[int(index)].group, []).append(int(index))
    quotas = pair_sampling.allocate({key: len(v) for key, v in sorted(groups.items())}, count)
    return [found[i] for key in sorted(groups) for i in sorted(groups[key][: quotas[key]])]
