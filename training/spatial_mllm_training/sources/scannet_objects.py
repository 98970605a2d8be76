"""The annotated objects of a ScanNet scan on its mesh; knows nothing about images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.sources.base import SceneObject, SceneProblem
from spatial_mllm_training.sources.reading import read_json

_SEGMENTS = "_vh_clean_2.0.010000.segs.json"
_AGGREGATIONS = (".aggregation.json", "_vh_clean.aggregation.json")
_MOST_UNKNOWN = 0.05  # share of named segments that the mesh may lack


def read_objects(scene: str, folder: Path, points_m: NDArray[np.float32]) -> list[SceneObject]:
    """Boxes along the world's axes around the instances; [] where the annotation was not downloaded.

    Args:
        points_m: (P, 3) vertices of <scan>_vh_clean_2.ply in the world of the scene.

    Raises:
        SceneProblem: the files are broken, or belong to another mesh.
    """
    segments_file = folder / f"{folder.name}{_SEGMENTS}"
    groups_file = next(
        (f for f in (folder / f"{folder.name}{ending}" for ending in _AGGREGATIONS) if f.is_file()), None
    )
    if groups_file is None or not segments_file.is_file():
        return []
    segment_of = _segments(scene, segments_file, len(points_m))
    groups = _groups(scene, groups_file)
    known = set(np.unique(segment_of).tolist())
    named = {segment for _, _, segments in groups for segment in segments}
    if len(named - known) > _MOST_UNKNOWN * len(named):
        raise SceneProblem(
            scene, str(groups_file), f"names segments that {segments_file.name} lacks: it is of another mesh"
        )
    objects = []
    for name, category, segments in groups:
        ids = np.flatnonzero(np.isin(segment_of, list(segments)))
        if len(ids):
            low, high = points_m[ids].min(axis=0), points_m[ids].max(axis=0)
            world_from_box = np.eye(4)
            world_from_box[:3, 3] = (low.astype(np.float64) + high) / 2
            objects.append(
                SceneObject(
                    name, category, world_from_box, high.astype(np.float64) - low, ids.astype(np.int64)
                )
            )
    return objects


def _segments(scene: str, file: Path, count: int) -> NDArray[np.int64]:
    """(P,) segment of each vertex."""
    found = read_json(scene, file).get("segIndices")
    try:
        segments = np.asarray(found)
        if segments.dtype.kind not in "iu" or segments.shape != (count,):
            raise ValueError
    except ValueError:
        raise SceneProblem(
            scene, str(file), f"segIndices should be {count} whole numbers, one a vertex"
        ) from None
    return segments.astype(np.int64)


def _groups(scene: str, file: Path) -> list[tuple[str, str, set[int]]]:
    """Name, category and segments of each object."""
    found = read_json(scene, file).get("segGroups")
    try:
        return [
            (
                f"{group['label'].strip()}_{int(group['objectId'])}",
                group["label"].strip().lower(),
                {int(segment) for segment in group["segments"]},
            )
            for group in found  # type: ignore[union-attr]
        ]
    except (TypeError, KeyError, AttributeError, ValueError):
        raise SceneProblem(
            scene, str(file), "segGroups should hold objects with objectId, label and segments"
        ) from None
