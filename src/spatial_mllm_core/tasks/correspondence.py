"""Visual correspondence: where a surface point of the first image appears in the second.

The coordinate task names the point by coordinates and wants coordinates; the multiple choice
draws a dot into the first image and four lettered dots into the second.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.tasks.base import Task, TaskValue, Wording
from spatial_mllm_core.tasks.text import COORDINATE_SCALE

LETTERS = ("A", "B", "C", "D")

CORRESPONDENCE_CHOICE = Task(
    name="visual_correspondence_multiple_choice",
    kind="label",
    group="correspondence_mcq",
    reference="dot",
    frame_count=2,
    wordings=(
        Wording(
            questions=(
                "Which dot of Image-2, A, B, C or D, shows the annotated point of Image-1?",
                "The annotated point of Image-1 appears in Image-2 at which letter: A, B, C or D?",
                "Of the dots A, B, C and D in Image-2, which one lies on the annotated point of Image-1?",
                "Pick the letter in Image-2 that marks the same surface point as the dot in Image-1.",
                "Where in Image-2 is the annotated point of Image-1: at A, B, C or D?",
                "Match the annotated dot of Image-1 with one of A, B, C and D in Image-2.",
                "Name the letter whose dot in Image-2 corresponds to the annotated dot in Image-1.",
                "Which of the four lettered dots in Image-2 is the point annotated in Image-1?",
                "Find the annotated point of Image-1 again: is it A, B, C or D in Image-2?",
                "In Image-2, which letter stands at the place that is annotated in Image-1?",
            ),
            answers=(
                "`{value}`",
                "`{value}`.",
                "It is dot `{value}`.",
                "The same point is `{value}`.",
                "In Image-2 it is `{value}`.",
            ),
        ),
    ),
    descriptions=(
        "Both images show one scene; a dot marks a point in Image-1, four lettered dots mark points in Image-2.",
        "Find a point of Image-1 again in Image-2, among four dots with the letters A, B, C and D.",
        "The two images were taken from different places. Image-1 has one dot, Image-2 has dots A, B, C and D.",
        "One of the lettered dots in Image-2 lies on the same surface point as the dot in Image-1.",
        "Compare the annotated point of Image-1 with the annotated points of Image-2.",
    ),
    labels=LETTERS,
)

CORRESPONDENCE = Task(
    name="visual_correspondence_coor_2_coor",
    kind="coordinate",
    group="correspondence_coordinate",
    reference="coordinate",
    frame_count=2,
    point_count=1,
    answer_image=1,
    wordings=(
        Wording(
            questions=(
                "Where in Image-2 is the point {p1} of Image-1?",
                "The point {p1} of Image-1 appears at which coordinates of Image-2?",
                "Find {p1} of Image-1 again in Image-2.",
                "Which coordinates of Image-2 show the same surface point as {p1} in Image-1?",
                "Give the match in Image-2 for {p1} in Image-1.",
                "At what place of Image-2 does one see what is at {p1} in Image-1?",
                "Carry {p1} over from Image-1 to Image-2: what are its coordinates there?",
                "In Image-1 a point lies at {p1}. Where does it lie in Image-2?",
                "Locate in Image-2 the surface point seen at {p1} in Image-1.",
                "What in Image-2 corresponds to {p1} of Image-1?",
            ),
            answers=(
                "`{value}`",
                "`{value}`.",
                "It is at `{value}`.",
                "In Image-2 it lies at `{value}`.",
                "The same point is at `{value}` there.",
            ),
        ),
    ),
    descriptions=(
        "Both images show one scene; a point of Image-1 is to be found again in Image-2.",
        "The two images were taken from different places and share a part of the scene.",
        "Find the pixel of Image-2 that shows the same surface point as a pixel of Image-1.",
        "A point of Image-1 is given by coordinates; its coordinates in Image-2 are asked for.",
        "Match a point between the two images.",
    ),
)

TASKS = (CORRESPONDENCE_CHOICE, CORRESPONDENCE)


def corresponding_pixels(
    pixels_px: NDArray[np.float64],
    depths_m: NDArray[np.float64],
    camera_1: CameraModel,
    world_from_camera_1: NDArray[np.float64],
    camera_2: CameraModel,
    world_from_camera_2: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Raw pixels (N, 2) of the second image, and z-depths (N,) there, of unmoved points of the first.

    Geometry alone: a pixel may lie outside the second image or be hidden there, and is NaN behind it.

    Args:
        pixels_px, depths_m: (N, 2) raw pixels and (N,) z-depths in the first image.
    """
    in_world = (
        camera_1.unproject(pixels_px, depths_m) @ world_from_camera_1[:3, :3].T + world_from_camera_1[:3, 3]
    )
    in_camera_2 = (in_world - world_from_camera_2[:3, 3]) @ world_from_camera_2[:3, :3]
    return camera_2.project(in_camera_2), np.asarray(in_camera_2[:, 2])


def coordinate_truth(pixel_px: tuple[float, float], width: int, height: int) -> TaskValue:
    """Truth of `CORRESPONDENCE` from the exact pixel of the second image, which has that size."""
    u, v = pixel_px
    return TaskValue((u / width * COORDINATE_SCALE, v / height * COORDINATE_SCALE))


def letter_truth(place: int) -> TaskValue:
    """Truth of `CORRESPONDENCE_CHOICE`: the letter of the `place`-th dot, counted from 0."""
    return TaskValue(label=LETTERS[place])
