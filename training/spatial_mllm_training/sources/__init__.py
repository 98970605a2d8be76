"""Scene readers: any posed RGB-D source as one kind of `Scene`; knows nothing about questions."""

from spatial_mllm_training.sources.base import (
    PointTracks,
    Scene,
    SceneFrame,
    SceneObject,
    SceneProblem,
    SceneRef,
)

__all__ = ["PointTracks", "Scene", "SceneFrame", "SceneObject", "SceneProblem", "SceneRef"]
