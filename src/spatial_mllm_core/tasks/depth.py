"""Depth perception: the depth of one point, and which of two points is nearer or farther."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue

DEPTH_VALUE = Task(
    name="depth_estimation_coor",
    kind="scalar",
    frame_count=1,
    point_count=1,
    questions=(
        "How deep is {p1} in mm?",
        "What is the depth of the point {p1} in millimetres?",
        "How far from the camera, along its axis, is {p1}?",
        "Give the z distance of {p1} in mm.",
        "Depth at {p1}?",
        "At {p1}, how many millimetres away is the surface?",
        "Tell me the metric depth of pixel {p1}.",
        "Estimate how far the surface at {p1} lies in front of the camera.",
        "How many mm of depth does {p1} have?",
        "Measure the depth of {p1}.",
    ),
    answers=(
        "`{value}`",
        "`{value}` mm.",
        "The depth is `{value}` mm.",
        "It lies `{value}` mm away.",
        "About `{value}` mm.",
    ),
)

DEPTH_COMPARISON = Task(
    name="depth_comparison_coordinate",
    kind="coordinate",
    frame_count=1,
    point_count=2,
    questions=(
        "Which is closer to the camera, {p1} or {p2}?",
        "Of {p1} and {p2}, which point is nearer?",
        "Name the nearer one of {p1} and {p2}.",
        "Between {p1} and {p2}, which has less depth?",
        "Which of the two points {p1} and {p2} is in front?",
        "Pick the closer point: {p1} or {p2}.",
        "Is {p1} or {p2} closer to the camera?",
        "Compare {p1} with {p2}: which one is nearer?",
        "Which surface is less far, at {p1} or at {p2}?",
        "Give the point of smaller depth among {p1} and {p2}.",
    ),
    answers=(
        "`{value}`",
        "`{value}` is closer.",
        "The closer one is `{value}`.",
        "The point `{value}` is nearer.",
        "It is `{value}`.",
    ),
)

TASKS = (DEPTH_VALUE, DEPTH_COMPARISON)


def depth_truth(depth_m: float) -> TaskValue:
    """Truth of `DEPTH_VALUE` from z-depth in metres."""
    return TaskValue((depth_m,))


def comparison_truth(
    coordinates: tuple[tuple[int, int], tuple[int, int]], depths_m: NDArray[np.floating] | tuple[float, float]
) -> TaskValue:
    """Truth of `DEPTH_COMPARISON`: the coordinate of the point with the smaller z-depth."""
    nearer = coordinates[0] if depths_m[0] <= depths_m[1] else coordinates[1]
    return TaskValue((float(nearer[0]), float(nearer[1])))
