"""Depth perception: the depth of one point, and which of two points is nearer or farther.

Points are named by coordinates, or drawn as dots; two dots carry the letters A and B.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue, Wording

LETTERS = ("A", "B")

_VALUE_QUESTIONS = (
    "How deep is {p1} in mm?",
    "What is the depth of {p1} in millimetres?",
    "How far from the camera, along its axis, is {p1}?",
    "Give the z distance of {p1} in mm.",
    "Depth at {p1}?",
    "At {p1}, how many millimetres away is the surface?",
    "Tell me the metric depth of {p1}.",
    "Estimate how far the surface at {p1} lies in front of the camera.",
    "How many mm of depth does {p1} have?",
    "Measure the depth of {p1}.",
)
_VALUE_ANSWERS = (
    "`{value}`",
    "`{value}` mm.",
    "The depth is `{value}` mm.",
    "It lies `{value}` mm away.",
    "About `{value}` mm.",
)
_CLOSER_QUESTIONS = (
    "Which is closer to the camera, {p1} or {p2}?",
    "Of {p1} and {p2}, which one is nearer?",
    "Name the nearer one of {p1} and {p2}.",
    "Between {p1} and {p2}, which has less depth?",
    "Which of the two, {p1} or {p2}, is in front?",
    "Pick the closer one: {p1} or {p2}.",
    "Is {p1} or {p2} closer to the camera?",
    "Compare {p1} with {p2}: which one is nearer?",
    "Which surface is less far, at {p1} or at {p2}?",
    "Give the point of smaller depth among {p1} and {p2}.",
)
_CLOSER_ANSWERS = (
    "`{value}`",
    "`{value}` is closer.",
    "The closer one is `{value}`.",
    "The one at `{value}` is nearer.",
    "Less deep is `{value}`.",
)
_FARTHER_QUESTIONS = (
    "Which is farther from the camera, {p1} or {p2}?",
    "Of {p1} and {p2}, which one is more distant?",
    "Name the farther one of {p1} and {p2}.",
    "Between {p1} and {p2}, which has more depth?",
    "Which of the two, {p1} or {p2}, is behind?",
    "Pick the more remote one: {p1} or {p2}.",
    "Is {p1} or {p2} farther from the camera?",
    "Compare {p1} with {p2}: which one is farther away?",
    "Which surface is less near, at {p1} or at {p2}?",
    "Give the point of greater depth among {p1} and {p2}.",
)
_FARTHER_ANSWERS = (
    "`{value}`",
    "`{value}` is farther.",
    "The farther one is `{value}`.",
    "The one at `{value}` is more distant.",
    "Deeper is `{value}`.",
)


def _dotted(templates: tuple[str, ...], **names: str) -> tuple[str, ...]:
    return tuple(t.format(value="{value}", **names) for t in templates)


DEPTH_VALUE_DOT = Task(
    name="depth_estimation_dot",
    kind="scalar",
    group="depth_value",
    reference="dot",
    wordings=(Wording(_dotted(_VALUE_QUESTIONS, p1="the annotated point"), _VALUE_ANSWERS),),
    descriptions=(
        "In the image one point is annotated with a dot.",
        "A dot marks one point of the image; the question is about its depth.",
        "Look at the image and the dot drawn into it.",
        "The image shows a scene in which one point carries a dot.",
        "Judge how far the dotted surface point is from the camera.",
    ),
)

DEPTH_VALUE = Task(
    name="depth_estimation_coor",
    kind="scalar",
    group="depth_value",
    reference="coordinate",
    point_count=1,
    wordings=(Wording(_VALUE_QUESTIONS, _VALUE_ANSWERS),),
    descriptions=(
        "The question names one point of the image by its coordinates.",
        "Look at the image; a point of it is given by coordinates.",
        "One point of this image is named, and its depth is asked for.",
        "The image shows a scene; a coordinate pair picks one surface point.",
        "Judge how far the named surface point is from the camera.",
    ),
)

DEPTH_COMPARISON_DOT = Task(
    name="depth_comparison_annotated",
    kind="label",
    group="depth_comparison",
    reference="dot",
    wordings=(
        Wording(_dotted(_CLOSER_QUESTIONS, p1="dot A", p2="dot B"), _CLOSER_ANSWERS, "closer"),
        Wording(_dotted(_FARTHER_QUESTIONS, p1="dot A", p2="dot B"), _FARTHER_ANSWERS, "farther"),
    ),
    descriptions=(
        "In the image two points are annotated with dots, lettered A and B.",
        "Two dots, A and B, are drawn into the image; compare their distances to the camera.",
        "Look at the image and the annotated points A and B.",
        "The image shows a scene in which two points carry dots with the letters A and B.",
        "Judge which of the annotated points is closer to the camera and which is farther.",
    ),
    labels=LETTERS,
)

DEPTH_COMPARISON = Task(
    name="depth_comparison_coordinate",
    kind="coordinate",
    group="depth_comparison",
    reference="coordinate",
    point_count=2,
    wordings=(
        Wording(_CLOSER_QUESTIONS, _CLOSER_ANSWERS, "closer"),
        Wording(_FARTHER_QUESTIONS, _FARTHER_ANSWERS, "farther"),
    ),
    descriptions=(
        "The question names two points of the image by their coordinates.",
        "Two points of this image are given; compare their distances to the camera.",
        "Look at the image; two coordinate pairs pick two surface points.",
        "The image shows a scene, and two of its points are to be compared in depth.",
        "Judge which of the named points is closer to the camera and which is farther.",
    ),
)

TASKS = (DEPTH_VALUE_DOT, DEPTH_VALUE, DEPTH_COMPARISON_DOT, DEPTH_COMPARISON)

Depths = NDArray[np.floating] | tuple[float, float]


def depth_truth(depth_m: float) -> TaskValue:
    """Truth of `DEPTH_VALUE` and `DEPTH_VALUE_DOT` from z-depth in metres."""
    return TaskValue((depth_m,))


def comparison_truth(
    coordinates: tuple[tuple[float, float], tuple[float, float]], depths_m: Depths, variant: str = "closer"
) -> TaskValue:
    """Truth of `DEPTH_COMPARISON`: the coordinate of the point with the smaller or larger z-depth."""
    x, y = coordinates[_chosen(depths_m, variant)]
    return TaskValue((float(x), float(y)))


def letter_truth(depths_m: Depths, variant: str = "closer") -> TaskValue:
    """Truth of `DEPTH_COMPARISON_DOT`; the first depth is dot A's."""
    return TaskValue(label=LETTERS[_chosen(depths_m, variant)])


def _chosen(depths_m: Depths, variant: str) -> int:
    nearer = 0 if depths_m[0] <= depths_m[1] else 1
    return {"closer": nearer, "farther": 1 - nearer}[variant]
