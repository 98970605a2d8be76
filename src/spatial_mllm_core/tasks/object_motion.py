"""Object movement: how far, and along which vector, a surface point moved between two images.

The vector is expressed in the optical frame of the first image's camera. As published, `adt`
names the moving-camera variant and `pstudio` the still one, the words are the same; `coord`
names the point by coordinates, `dot` draws it into the first image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue, Wording

_DISTANCE_QUESTIONS = (
    "How far did {p1} move in mm?",
    "How many millimetres did the object at {p1} travel between the images?",
    "What distance did {p1} of Image-1 move until Image-2?",
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
    "State the motion vector of {p1}.",
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
_DESCRIPTIONS = (
    "The images show a scene at two times; things and the camera may or may not have moved. Movement is "
    "relative to Image-1.",
    "Compare Image-1 with Image-2, taken at another time. The object, the camera, both or neither may have moved; "
    "take the first image as the reference.",
    "Time lies between the two images. Judge the movement of an object relative to the first image, whatever "
    "the camera did.",
    "Something may have moved from Image-1 to Image-2, and so may the camera; movement counts relative to the "
    "first image.",
    "Follow a surface point from Image-1 to Image-2. Its movement is meant in space, relative to the first "
    "image, not in pixels.",
)
_DOT = "A dot marks the annotated point in Image-1."


def _task(what: str, by: str, variant: str) -> Task:
    is_distance, is_dot = what == "total_distance", by == "dot"
    questions = _DISTANCE_QUESTIONS if is_distance else _VECTOR_QUESTIONS
    return Task(
        name=f"tapvid3d_{what}_{by}_{variant}",
        kind="scalar" if is_distance else "vector",
        group="object_movement_distance" if is_distance else "object_movement_vector",
        reference="dot" if is_dot else "coordinate",
        frame_count=2,
        point_count=0 if is_dot else 1,
        wordings=(
            Wording(
                tuple(q.format(p1="the annotated point") for q in questions) if is_dot else questions,
                _DISTANCE_ANSWERS if is_distance else _VECTOR_ANSWERS,
            ),
        ),
        descriptions=tuple(f"{d} {_DOT}" for d in _DESCRIPTIONS) if is_dot else _DESCRIPTIONS,
    )


def _both(what: str, by: str) -> dict[bool, Task]:
    return {True: _task(what, by, "adt"), False: _task(what, by, "pstudio")}


OBJECT_DISTANCE = _both("total_distance", "coord")
OBJECT_DISTANCE_DOT = _both("total_distance", "dot")
OBJECT_VECTOR = _both("displacement_vector", "coord")
OBJECT_VECTOR_DOT = _both("displacement_vector", "dot")
"""All four keyed by whether the camera moves."""

TASKS = (
    *OBJECT_DISTANCE.values(),
    *OBJECT_DISTANCE_DOT.values(),
    *OBJECT_VECTOR.values(),
    *OBJECT_VECTOR_DOT.values(),
)


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
    """Truth of the distance tasks from a (3,) displacement in metres."""
    return TaskValue((float(np.linalg.norm(displacement)),))


def vector_truth(displacement: NDArray[np.float64]) -> TaskValue:
    """Truth of the vector tasks from a (3,) displacement in metres."""
    return TaskValue(tuple(float(v) for v in displacement))
