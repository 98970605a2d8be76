"""Camera translation between two images, in the optical frame of the first camera.

v = (E1^-1 E2)[:3, 3] with E = world_from_camera; x > 0 right, y > 0 down, z > 0 forward
(papers.md 2.3). As published there is no dead zone in the direction words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue

CAMERA_DISTANCE = Task(
    name="total_distance",
    kind="scalar",
    frame_count=2,
    point_count=0,
    questions=(
        "How far did the camera move in mm?",
        "What distance did the camera travel between the images?",
        "How many millimetres apart were the two images taken?",
        "Give the length of the camera movement in mm.",
        "By how much did the camera shift?",
        "How long is the path of the camera, straight, in mm?",
        "From Image-1 to Image-2, how far did the camera go?",
        "What is the total distance of the camera movement?",
        "Measure the camera displacement.",
        "How large was the camera translation in mm?",
    ),
    answers=(
        "`{value}`",
        "`{value}` mm.",
        "It moved `{value}` mm.",
        "The distance is `{value}` mm.",
        "About `{value}` mm.",
    ),
)

CAMERA_VECTOR = Task(
    name="displacement_vector",
    kind="vector",
    frame_count=2,
    point_count=0,
    questions=(
        "Along which vector did the camera move in mm?",
        "Give the camera displacement vector in millimetres.",
        "What is the movement of the camera, as x, y, z in mm?",
        "How did the camera move: right, down, forward, in mm?",
        "Camera displacement from Image-1 to Image-2 as a vector?",
        "State the motion vector of the camera.",
        "Where did the camera go, as a vector in the first camera?",
        "Express the camera movement in its first axes, mm.",
        "By what vector was the camera displaced?",
        "Report x, y and z of the camera motion.",
    ),
    answers=(
        "`{value}`",
        "`{value}` mm.",
        "It moved by `{value}` mm.",
        "The vector is `{value}`.",
        "Displaced by `{value}` mm.",
    ),
)


def _direction(name: str, words: tuple[str, str]) -> Task:
    plus, minus = words
    return Task(
        name=name,
        kind="label",
        frame_count=2,
        point_count=0,
        questions=(
            f"Did the camera move {plus} or {minus}?",
            f"Which way did the camera go, {plus} or {minus}?",
            f"From Image-1 to Image-2, was the camera moved {plus} or {minus}?",
            f"Camera movement: {plus} or {minus}?",
            f"Tell whether the camera went {plus} or {minus}.",
            f"Is the second view taken more to the {plus} or {minus} side?",
            f"In its first axes, did the camera shift {plus} or {minus}?",
            f"Say {plus} or {minus} for the camera movement.",
            f"The camera moved: {plus} or {minus}?",
            f"Decide if the camera travelled {plus} or {minus}.",
        ),
        answers=(
            "`{value}`",
            "`{value}`.",
            "It moved `{value}`.",
            "The direction is `{value}`.",
            "To the `{value}` side.",
        ),
        labels=words,
    )


X_MOVEMENT = _direction("x_movement", ("right", "left"))
Y_MOVEMENT = _direction("y_movement", ("down", "up"))
Z_MOVEMENT = _direction("z_movement", ("forward", "backward"))

TASKS = (X_MOVEMENT, Y_MOVEMENT, Z_MOVEMENT, CAMERA_DISTANCE, CAMERA_VECTOR)


def camera_displacement_m(
    world_from_camera_1: NDArray[np.float64], world_from_camera_2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3,) position of the second camera in the first camera's optical frame, metres."""
    offset = world_from_camera_2[:3, 3] - world_from_camera_1[:3, 3]
    return np.asarray(offset @ world_from_camera_1[:3, :3], np.float64)


def distance_truth(displacement: NDArray[np.float64]) -> TaskValue:
    """Truth of `CAMERA_DISTANCE` from a (3,) displacement in metres."""
    return TaskValue((float(np.linalg.norm(displacement)),))


def vector_truth(displacement: NDArray[np.float64]) -> TaskValue:
    """Truth of `CAMERA_VECTOR` from a (3,) displacement in metres."""
    return TaskValue(tuple(float(v) for v in displacement))


def direction_truths(displacement: NDArray[np.float64]) -> dict[str, TaskValue]:
    """Truths of the three direction tasks, by task name."""
    return {
        task.name: TaskValue(label=task.labels[0] if displacement[axis] > 0 else task.labels[1])
        for axis, task in enumerate((X_MOVEMENT, Y_MOVEMENT, Z_MOVEMENT))
    }
