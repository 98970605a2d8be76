"""Camera movement between two images: translation in the first camera's optical frame, turns about gravity.

v = (E1^-1 E2)[:3, 3] with E = world_from_camera; x > 0 right, y > 0 down, z > 0 forward. Yaw is
the heading of the optical axis about world up, pitch its angle to the horizontal plane; a
growing yaw turns left, a growing pitch turns up (papers.md 2.3). As published there is no dead
zone in the direction words.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue, Wording

_DESCRIPTIONS = (
    "Two images of a scene that does not move were taken one after the other. Judge how the camera moved, relative "
    "to the first image.",
    "Everything in the scene stands still; only the camera changed its place or direction from Image-1 to Image-2. "
    "Movement is relative to the first image.",
    "Compare the two views of one static scene to find the movement of the camera, with Image-1 as the reference.",
    "The camera took Image-1, moved, and took Image-2; the objects are assumed to be static. Answer relative to the "
    "first image.",
    "From the change between the images, tell what the camera did. The scene is static, and the first image is the "
    "reference.",
)
_YAW_MEANING = "Yaw is the turn of the camera to the left or right, about the vertical."
_PITCH_MEANING = "Pitch is the tilt of the camera up or down, against the horizontal plane."


def _direction(name: str, words: tuple[str, str], questions: tuple[str, ...]) -> Task:
    return Task(
        name=name,
        kind="label",
        group="camera_translation_direction",
        frame_count=2,
        wordings=(
            Wording(
                questions,
                (
                    "`{value}`",
                    "`{value}`.",
                    "It moved `{value}`.",
                    "The direction is `{value}`.",
                    "The camera went `{value}`.",
                ),
            ),
        ),
        descriptions=_DESCRIPTIONS,
        labels=words,
    )


def _both_words(plus: str, minus: str) -> tuple[str, ...]:
    """Questions that fit all three axes; the first one is what the shipped model was trained on."""
    return (
        f"Did the camera move {plus} or {minus}?",
        f"Which way did the camera go, {plus} or {minus}?",
        f"From Image-1 to Image-2, was the camera moved {plus} or {minus}?",
        f"Camera movement: {plus} or {minus}?",
        f"Tell whether the camera went {plus} or {minus}.",
        f"Was the camera carried {plus} or {minus} before the second image?",
        f"In its first axes, did the camera shift {plus} or {minus}?",
        f"Say {plus} or {minus} for the camera movement.",
        f"The camera moved: {plus} or {minus}?",
        f"Decide if the camera travelled {plus} or {minus}.",
    )


X_MOVEMENT = _direction("x_movement", ("right", "left"), _both_words("right", "left"))
Y_MOVEMENT = _direction("y_movement", ("down", "up"), _both_words("down", "up"))
Z_MOVEMENT = _direction("z_movement", ("forward", "backward"), _both_words("forward", "backward"))


def _turn(name: str, words: tuple[str, str], meaning: str, verb: str, noun: str) -> Task:
    plus, minus = words
    return Task(
        name=name,
        kind="label",
        group="camera_orientation_direction",
        frame_count=2,
        wordings=(
            Wording(
                questions=(
                    f"Did the camera {verb} {plus} or {minus}?",
                    f"Which way did the camera {verb}, {plus} or {minus}?",
                    f"From Image-1 to Image-2, does the camera {verb} {plus} or {minus}?",
                    f"Camera {noun}: {plus} or {minus}?",
                    f"Tell whether the {noun} of the camera goes {plus} or {minus}.",
                    f"Does the second view look farther {plus} or {minus} than the first?",
                    f"Is the {noun} between the images {plus} or {minus}?",
                    f"Say {plus} or {minus} for the {noun} of the camera.",
                    f"In which direction is the camera's {noun}: {plus} or {minus}?",
                    f"Decide if the camera's viewing direction swings {plus} or {minus}.",
                ),
                answers=(
                    "`{value}`",
                    "`{value}`.",
                    f"The {noun} goes `{{value}}`.",
                    "The direction is `{value}`.",
                    f"The camera did {verb} `{{value}}`.",
                ),
            ),
        ),
        descriptions=tuple(f"{d} {meaning}" for d in _DESCRIPTIONS),
        labels=words,
    )


YAW_MOVEMENT = _turn("yaw_movement", ("left", "right"), _YAW_MEANING, "turn", "yaw turn")
PITCH_MOVEMENT = _turn("pitch_movement", ("up", "down"), _PITCH_MEANING, "tilt", "pitch tilt")


def _angle(name: str, meaning: str, verb: str, noun: str, axis: str) -> Task:
    return Task(
        name=name,
        kind="angle",
        group="camera_orientation_degree",
        frame_count=2,
        wordings=(
            Wording(
                questions=(
                    f"By how many degrees did the camera {verb} {axis}?",
                    f"What is the {noun} of the camera in degrees?",
                    f"How large is the {noun} between the images, in degrees?",
                    f"Give the angle by which the camera did {verb} {axis}, in degrees.",
                    f"How far did the camera {verb} {axis}, in degrees?",
                    f"From Image-1 to Image-2, how many degrees of {noun} are there?",
                    f"Measure the {noun} of the camera in degrees.",
                    f"State the size of the camera's {noun} in degrees, without a sign.",
                    f"Through what angle does the viewing direction {verb} {axis}, in degrees?",
                    f"Estimate in degrees how much the camera did {verb} {axis}.",
                ),
                answers=(
                    "`{value}`",
                    "`{value}` degrees.",
                    "It is `{value}` degrees.",
                    f"The {noun} is `{{value}}` degrees.",
                    "About `{value}` degrees.",
                ),
            ),
        ),
        descriptions=tuple(f"{d} {meaning}" for d in _DESCRIPTIONS),
    )


YAW_ANGLE = _angle("yaw_angle", _YAW_MEANING, "turn", "yaw angle", "sideways")
PITCH_ANGLE = _angle("pitch_angle", _PITCH_MEANING, "tilt", "pitch angle", "up or down")

CAMERA_DISTANCE = Task(
    name="total_distance",
    kind="scalar",
    group="camera_translation_distance",
    frame_count=2,
    wordings=(
        Wording(
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
        ),
    ),
    descriptions=_DESCRIPTIONS,
)

CAMERA_VECTOR = Task(
    name="displacement_vector",
    kind="vector",
    group="camera_translation_vector",
    frame_count=2,
    wordings=(
        Wording(
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
        ),
    ),
    descriptions=_DESCRIPTIONS,
)

TASKS = (
    X_MOVEMENT,
    Y_MOVEMENT,
    Z_MOVEMENT,
    YAW_MOVEMENT,
    PITCH_MOVEMENT,
    YAW_ANGLE,
    PITCH_ANGLE,
    CAMERA_DISTANCE,
    CAMERA_VECTOR,
)

_VERTICAL = 1e-3  # sine of the angle to the vertical below which an optical axis has no heading


def camera_displacement_m(
    world_from_camera_1: NDArray[np.float64], world_from_camera_2: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(3,) position of the second camera in the first camera's optical frame, metres."""
    offset = world_from_camera_2[:3, 3] - world_from_camera_1[:3, 3]
    return np.asarray(offset @ world_from_camera_1[:3, :3], np.float64)


def camera_turn_deg(
    world_from_camera_1: NDArray[np.float64],
    world_from_camera_2: NDArray[np.float64],
    world_up: NDArray[np.float64],
) -> tuple[float, float]:
    """(yaw, pitch) from the first camera to the second, degrees; yaw > 0 turns left, pitch > 0 up.

    yaw lies in (-180, 180]; it is NaN where a camera looks straight up or down and so has no heading.

    Args:
        world_up: (3,) direction against gravity in world axes, of any length.

    Raises:
        ValueError: `world_up` has no direction.
    """
    length = float(np.linalg.norm(world_up))
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"world_up must be a direction, got {world_up}")
    up = np.asarray(world_up, np.float64) / length
    first = np.asarray(world_from_camera_1[:3, 2], np.float64)
    second = np.asarray(world_from_camera_2[:3, 2], np.float64)
    # the published angles take z for up; about any other up only the parts along and across it matter
    across_1, across_2 = first - up * (first @ up), second - up * (second @ up)
    shares = float(np.linalg.norm(across_1)), float(np.linalg.norm(across_2))
    yaw = float("nan")
    if min(shares) > _VERTICAL:
        yaw = float(np.degrees(np.arctan2(up @ np.cross(across_1, across_2), across_1 @ across_2)))
    pitch = np.arctan2(second @ up, shares[1]) - np.arctan2(first @ up, shares[0])
    return (180.0 if yaw == -180.0 else yaw), float(np.degrees(pitch))


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


def turn_truths(turn_deg: tuple[float, float]) -> dict[str, TaskValue]:
    """Truths of the yaw and pitch tasks, by task name; none about a yaw that is NaN.

    Args:
        turn_deg: (yaw, pitch) of `camera_turn_deg`.
    """
    truths: dict[str, TaskValue] = {}
    for angle, direction_task, angle_task in zip(
        turn_deg, (YAW_MOVEMENT, PITCH_MOVEMENT), (YAW_ANGLE, PITCH_ANGLE), strict=True
    ):
        if np.isfinite(angle):
            truths[direction_task.name] = TaskValue(label=direction_task.labels[0 if angle > 0 else 1])
            truths[angle_task.name] = TaskValue((abs(angle),))
    return truths


def all_truths(displacement: NDArray[np.float64], turn_deg: tuple[float, float]) -> dict[str, TaskValue]:
    """Truths of all tasks of this module that have one, by task name, from what the functions above take."""
    return {
        CAMERA_DISTANCE.name: distance_truth(displacement),
        CAMERA_VECTOR.name: vector_truth(displacement),
        **direction_truths(displacement),
        **turn_truths(turn_deg),
    }
