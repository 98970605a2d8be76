"""Frames picked for probing, evenly over every scene; knows no model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from spatial_mllm_training.multispa.split import split_of
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.sources import SceneProblem, SceneRef
from spatial_mllm_training.sources.posed_images import Place


def pick(
    refs: Sequence[SceneRef],
    *,
    per_scene: int,
    splits: Collection[str],
    wanted: Mapping[str, Collection[str]] | None = None,
) -> tuple[list[tuple[SceneRef, list[Place]]], list[str]]:
    """Frames spread evenly over every scene of the splits, and sentences on scenes left out.

    Args:
        per_scene: at most so many of a scene.
        wanted: scene -> names of frames; then exactly these, and no other scene.

    Raises:
        ProbeProblem: none is left.
    """
    picked: list[tuple[SceneRef, list[Place]]] = []
    skipped: list[str] = []
    for ref in refs:
        split = split_of(ref)
        if split not in splits or (wanted is not None and ref.name not in wanted):
            continue
        try:
            scene = ref.open(*ref.arguments)
        except SceneProblem as problem:
            skipped.append(str(problem))
            continue
        try:
            if not scene.has_depth:
                skipped.append(f"scene '{ref.name}': has no depth images to compare with")
                continue
            if wanted is not None:
                named = set(wanted[ref.name])
                positions = [i for i, f in enumerate(scene.frames) if f.name in named]
            else:
                count = len(scene.frames)
                positions = sorted({round(x) for x in np.linspace(0, count - 1, min(per_scene, count))})
            places = [Place(ref.name, scene.frames[i].name, i, split) for i in positions]
        finally:
            scene.close()
        if places:
            picked.append((ref, places))
    if not picked:
        why = f"; {skipped[0]}" if skipped else ""
        raise ProbeProblem(
            f"none of {len(refs)} scenes gives an image with depth for the split {' or '.join(sorted(splits))}{why}"
        )
    return picked, skipped
