"""Questions about the height, length or width of a thing that one to five images show; knows no words.

Multi-SpatialMLLM, appendix F. Unlike there, an image that also shows another thing of the same
category is not used: the question names nothing but the category.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.object_size import size_truths
from spatial_mllm_training.multispa.config import MultispaConfig, ObjectSizeConfig
from spatial_mllm_training.multispa.coverage_sets import minimum_coverage_sets
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.pair_sampling import allocate, choose_evenly
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.multispa.visibility import VisiblePoints
from spatial_mllm_training.sources.base import Scene, SceneObject

SUBTASKS = tuple(f"object_perception_{extent}_estimation" for extent in ("height", "length", "width"))


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    if not scene.has_depth:
        return dict.fromkeys(SUBTASKS, "the scene has no depth to tell what an image shows of an object")
    if not any(scene.objects(state) for state in sorted({frame.state for frame in scene.frames})):
        return dict.fromkeys(SUBTASKS, "the scene has no objects with boxes and categories")
    return {}


def drafts(prepared: PreparedScene, subtask: str, wanted: int, rng: np.random.Generator) -> list[Draft]:
    """At most `wanted` questions, even over the number of images and, within it, over objects."""
    found: list[_Sight] = []
    for state, visible in sorted(prepared.states.items()):
        objects = prepared.scene.objects(state)
        if objects:
            found += _sights(visible, objects, subtask, wanted, prepared.config.object_size, rng)
    counts = np.array([len(sight.frames) for sight in found], np.int64)
    names = list(dict.fromkeys(sight.name for sight in found))
    of_object = np.array([names.index(sight.name) for sight in found], np.int64)
    sizes = Counter(rng.permutation(counts).tolist())  # in an order of chance, in which remainders are given
    chosen = [np.zeros(0, np.int64)]
    for number, quota in allocate(sizes, wanted).items():
        members = np.flatnonzero(counts == number)
        chosen.append(members[choose_evenly(of_object[members], quota, rng)])
    return [found[i].draft(subtask) for i in rng.permutation(np.concatenate(chosen)).tolist()]


@dataclass(frozen=True)
class _Sight:
    """A minimal set of frames that shows an object from end to end."""

    name: str
    category: str
    frames: tuple[int, ...]
    truth: TaskValue

    def draft(self, subtask: str) -> Draft:
        group = f"images {len(self.frames)}"
        return Draft(subtask, self.frames, (), self.truth, category=self.category, group=group)


def _sights(
    visible: VisiblePoints,
    objects: list[SceneObject],
    subtask: str,
    most: int,
    config: ObjectSizeConfig,
    rng: np.random.Generator,
) -> list[_Sight]:
    """Minimal sets of one state's frames for each object, at most `most` of a size for an object."""
    axes = [_axis(thing, subtask) for thing in objects]
    counts, spans_m = _shown(visible, objects, axes)
    share = np.array([config.visible_share * len(thing.point_ids) for thing in objects])
    noticed = counts >= np.maximum(1, np.minimum(config.min_points, share))
    enough = counts >= np.maximum(config.min_points, share)
    categories = [_plain(thing.category) for thing in objects]
    excluded = {"", *(_plain(name) for name in config.excluded)}
    found = []
    for number, thing in enumerate(objects):
        truth = size_truths(thing.size_m)[subtask]
        if categories[number] in excluded:
            continue
        rivals = [i for i, name in enumerate(categories) if name == categories[number] and i != number]
        rows = np.flatnonzero(enough[:, number] & ~noticed[:, rivals].any(axis=1))
        if len(rows) > config.candidate_images:
            rows = np.sort(rng.choice(rows, config.candidate_images, replace=False))
        sets = minimum_coverage_sets(
            spans_m[rows, number],
            truth.values[0],
            tolerance=config.tolerance,
            max_images=config.max_images,
            combinations_per_level=config.combinations_per_level,
            rng=rng,
        )
        sizes = np.array([len(images) for images in sets], np.int64)
        for size in np.unique(sizes):
            same = np.flatnonzero(sizes == size)
            if len(same) > most:
                same = np.sort(rng.choice(same, most, replace=False))
            for index in same.tolist():
                frames = tuple(visible.frames[rows[image]] for image in sets[index])
                found.append(_Sight(thing.name, thing.category.strip(), frames, truth))
    return found


def _axis(thing: SceneObject, subtask: str) -> int:
    """The box axis of a subtask; length is the longer horizontal one, the first where both are equal."""
    if "height" in subtask:
        return 2
    longer = 0 if thing.size_m[0] >= thing.size_m[1] else 1
    return longer if "length" in subtask else 1 - longer


def _shown(
    visible: VisiblePoints, objects: list[SceneObject], axes: list[int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(F, O) visible points of each object and (F, O, 2) their span along its axis, metres, NaN for none."""
    along_m = [
        (visible.points_m[thing.point_ids].astype(np.float64) - thing.world_from_box[:3, 3])
        @ thing.world_from_box[:3, axis]
        for thing, axis in zip(objects, axes, strict=True)
    ]
    counts = np.zeros((len(visible.frames), len(objects)), np.int64)
    spans_m = np.full((len(visible.frames), len(objects), 2), np.nan)
    for row, frame in enumerate(visible.frames):
        seen = np.zeros(len(visible.points_m), bool)
        seen[visible.ids(frame)] = True
        for column, thing in enumerate(objects):
            of_object = along_m[column][seen[thing.point_ids]]
            if len(of_object):
                counts[row, column] = len(of_object)
                spans_m[row, column] = of_object.min(), of_object.max()
    return counts, spans_m


def _plain(category: str) -> str:
    return " ".join(category.lower().split())
