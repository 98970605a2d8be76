"""The MultiSPA subtasks under their published names; the only owner of question and answer text."""

from __future__ import annotations

import difflib

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import camera_motion, correspondence, depth, object_motion, object_size
from spatial_mllm_core.tasks.base import Task, TaskValue

__all__ = ["GROUPS", "Task", "TaskValue", "get", "names"]

_REGISTRY: dict[str, Task] = {
    task.name: task
    for module in (depth, correspondence, camera_motion, object_size, object_motion)
    for task in module.TASKS
}

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(task.name for task in _REGISTRY.values() if task.group == group)
    for group in (
        "depth_comparison",
        "depth_value",
        "correspondence_coordinate",
        "correspondence_mcq",
        "camera_orientation_direction",
        "camera_orientation_degree",
        "camera_translation_direction",
        "camera_translation_distance",
        "camera_translation_vector",
        "object_movement_distance",
        "object_movement_vector",
        "object_size",
    )
}
"""The twelve rows of the paper's Table 2, whose mean is its headline; each with its subtasks."""


def names() -> tuple[str, ...]:
    """Names of the 26 subtasks in the published order."""
    return tuple(_REGISTRY)


def get(name: str) -> Task:
    """The task of a published name.

    Raises:
        SpatialError: UNKNOWN_TASK, with the nearest names.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        near = difflib.get_close_matches(name[:80], _REGISTRY, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK,
            f"no task is named '{name[:80]}'; {hint}spatial-mllm ask --list-tasks shows all {len(_REGISTRY)}",
        ) from None
