"""The MultiSPA subtasks under their published names; the only owner of question and answer text."""

from __future__ import annotations

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import camera_motion, depth, object_motion
from spatial_mllm_core.tasks.base import Task, TaskValue

__all__ = ["Task", "TaskValue", "get", "names"]

_REGISTRY: dict[str, Task] = {
    task.name: task for module in (depth, camera_motion, object_motion) for task in module.TASKS
}


def names() -> tuple[str, ...]:
    """Names of the subtasks that this version owns, in the published order of capabilities."""
    return tuple(_REGISTRY)


def get(name: str) -> Task:
    """The task of a published name.

    Raises:
        SpatialError: UNKNOWN_TASK, with the names there are.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK, f"no task is named '{name}'; there are: {', '.join(names())}"
        ) from None
