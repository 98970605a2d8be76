"""Object movement: how far, and along which vector, a surface point moved between two images.

The vector is expressed in the optical frame of the first image's camera. As published, `adt`
names the moving-camera variant and `pstudio` the still one; the words are the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue

_DISTANCE_QUESTIONS = (
    "How far did {p1} move in mm?",
    "How many millimetres did the object at {p1} travel between the images?",
    "What distance did the point {p1} of Image-1 move until Image-2?",
    "Give the displacement length of {p1} in mm.",
    "By how much was the thing at {p1} displaced?",
    "How long is the movement of {p1} in mm?",
    "From Image-1 to Image-2, how far did {p1} go?",
    "What is the total distance moved by {p1}?",
    "Measure how far the surface at {p1} shifted.",
    "How large is the motion of {p1} in millimetres?",
)
_DISTANCE_ANSWERS = (
    "`{value}`",
    "`{value}` mm.",
    "It moved `{value}` mm.",
    "The distance is `{value}` mm.",
    "About `{value}` mm.",
)
_VECTOR_QUESTIONS = (
    "Along which vector did {p1} move in mm?",
    "Give the displacement vector of {p1} in millimetres.",
    "What is the movement of the object at {p1}, as x, y, z in mm?",
    "How did {p1} move: right, down, forward, in mm?",
    "Displacement of {p1} from Image-1 to Image-2 as a vector?",
    "State the motion vector of the point {p1}.",
    "Where did {p1} go, as a vector in the first camera?",
    "Express the movement of {p1} in camera axes, mm.",
    "By what vector was the surface at {p1} displaced?",
    "Report x, y and z of the motion of {p1}.",
)
_VECTOR_ANSWERS = (
    "`{value}`",
    "`{value}` mm.",
    "It moved by `{value}` mm.",
    "The vector is `{value}`.",
    "Displaced by `{value}` mm.",
)


def _distance(variant: str) -> Task:
    return Task(
        f"tapvid3d_total_distance_coord_{variant}", "scalar", 2, 1, _DISTANCE_QUESTIONS, _DISTANCE_ANSWERS
    )


def _vector(variant: str) -> Task:
    return Task(
        f"tapvid3d_displacement_vector_coord_{variant}", "vector", 2, 1, _VECTOR_QUESTIONS, _VECTOR_ANSWERS
    )


OBJECT_DISTANCE = {False: _distance("pstudio"), True: _distance("adt")}
OBJECT_VECTOR = {False: _vector("pstudio"), True: _vector("adt")}
"""Both keyed by whether the camera moves."""

TASKS = (*OBJECT_DISTANCE.values(), *OBJECT_VECTOR.values())


def displacement_m(
    point_in_world_1: NDArray[np.float64],
    point_in_world_2: NDArray[np.float64],
    world_from_camera_1: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Movement of a surface point in the first camera's optical axes.

    Args:
        point_in_world_1, point_in_world_2: (3,) or (N, 3) metres, before and after.
        world_from_camera_1: (4, 4) pose of the first camera.
    """
    delta = np.asarray(point_in_world_2, np.float64) - np.asarray(point_in_world_1, np.float64)
    return np.asarray(delta @ world_from_camera_1[:3, :3], np.float64)


def distance_truth(displacement: NDArray[np.float64]) -> TaskValue:
    """Truth of `OBJECT_DISTANCE` from a (3,) displacement in metres."""
    return TaskValue((float(np.linalg.norm(displacement)),))


def vector_truth(displacement: NDArray[np.float64]) -> TaskValue:
    """Truth of `OBJECT_VECTOR` from a (3,) displacement in metres."""
    return TaskValue(tuple(float(v) for v in displacement))
