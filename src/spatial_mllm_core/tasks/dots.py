"""Questions about dots that are drawn into images, asked by coordinates instead; knows neither pixels nor models.

The published dot subtasks use the words of their coordinate sisters, with "the annotated point" or "dot A" where
these name a coordinate. Who has found the dots can so ask for what is better learnt.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from spatial_mllm_core.tasks import depth, object_motion
from spatial_mllm_core.tasks.correspondence import CORRESPONDENCE, CORRESPONDENCE_CHOICE
from spatial_mllm_core.tasks.text import coordinate_to_pixel, format_coordinate

PLAIN = ""
LABELS = (PLAIN, *CORRESPONDENCE_CHOICE.labels)
"""Of dots: none, or the letter beside it."""
Dots = Mapping[str, tuple[int, int]]
"""Coordinates, from 0 to 1000, by label."""
SISTERS = {
    dotted.name: sister.name
    for dotted, sister in (
        (depth.DEPTH_VALUE_DOT, depth.DEPTH_VALUE),
        (depth.DEPTH_COMPARISON_DOT, depth.DEPTH_COMPARISON),
        (CORRESPONDENCE_CHOICE, CORRESPONDENCE),
        *((object_motion.OBJECT_DISTANCE_DOT[m], object_motion.OBJECT_DISTANCE[m]) for m in (True, False)),
        *((object_motion.OBJECT_VECTOR_DOT[m], object_motion.OBJECT_VECTOR[m]) for m in (True, False)),
    )
}
"""The coordinate subtask that each dot subtask is asked as."""
_NAMED = re.compile(r"\bthe annotated point\b|\bdot ([A-D])\b")
_CHOICE_QUESTIONS = frozenset(CORRESPONDENCE_CHOICE.questions)


class Asked(NamedTuple):
    """A question by coordinates.

    Attributes:
        letters: the dots among which the answer, a coordinate of the later image, is the nearest; {} where the
            answer stays what it was.
    """

    words: str
    letters: Dots


def speaks_of_dots(words: str) -> bool:
    """Whether a question names a dot in the published words."""
    return bool(_NAMED.search(words)) or asks_for_letter(words)


def asks_for_letter(words: str) -> bool:
    """Whether a question is about dots of the later image, too."""
    return words in _CHOICE_QUESTIONS


def by_coordinates(words: str, first: Dots, later: Dots) -> Asked | None:
    """The question with the coordinates of the dots that it names; None where one of them was not found.

    Args:
        first, later: dots of the image that the question names points of, and of the one that it may ask about.
    """
    if asks_for_letter(words):
        letters = {label: at for label, at in later.items() if label != PLAIN}
        if PLAIN not in first or len(letters) < 2:
            return None
        return Asked(CORRESPONDENCE.question((first[PLAIN],)), letters)
    named = {match[1] or PLAIN for match in _NAMED.finditer(words)}
    if not named or not named <= set(first):
        return None
    return Asked(_NAMED.sub(lambda match: format_coordinate(first[match[1] or PLAIN]), words), {})


def nearest(letters: Dots, coordinate: tuple[float, float], width: int, height: int) -> str:
    """The letter that lies nearest to a coordinate, in pixels of an image."""
    pixel = coordinate_to_pixel(coordinate, width, height)
    return min(
        letters, key=lambda label: math.dist(coordinate_to_pixel(letters[label], width, height), pixel)
    )
