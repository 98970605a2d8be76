"""Object size: height, length and width of a thing that its category names, from one to five images.

Length is the longer and width the shorter horizontal extent of the object's upright box, height
its vertical one (papers.md 2.3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.base import Task, TaskValue, Wording

MAX_IMAGES = 5

_QUESTIONS = (
    "What is the {dimension} of the {category} in mm?",
    "How many millimetres of {dimension} does the {category} have?",
    "Give the {dimension} of the {category} in millimetres.",
    "Estimate the {dimension} of the {category} itself, in mm.",
    "The {category} shown here: what is its {dimension} in mm?",
    "Measure the {category}: what {dimension} does it have, in mm?",
    "State how large the {dimension} of the {category} is, in millimetres.",
    "What {dimension} in mm would you measure at the real {category}?",
    "From what you see, how large is the {dimension} of the {category} in mm?",
    "Tell the metric {dimension} of the {category}.",
)
_ANSWERS = (
    "`{value}`",
    "`{value}` mm.",
    "The {dimension} is `{value}` mm.",
    "Its {dimension} is about `{value}` mm.",
    "The {category} has a {dimension} of `{value}` mm.",
)
_DESCRIPTIONS = (
    "The scene is unchanged in all images; integrate what every image shows of the object.",
    "Nothing moves between the images. Put together the views of all images to judge the size of the object.",
    "All images show the same unchanged scene; use every one of them, for none alone may show the whole object.",
    "The object stays as it is while the camera goes around; combine all images given.",
    "Judge the size of a thing in an unchanged scene from all images together.",
)


def _size(dimension: str, meaning: str) -> Task:
    return Task(
        name=f"object_perception_{dimension}_estimation",
        kind="scalar",
        group="object_size",
        reference="category",
        extra_frame_count=MAX_IMAGES - 1,
        wordings=(
            Wording(
                tuple(q.format(dimension=dimension, category="{category}") for q in _QUESTIONS),
                tuple(
                    a.format(dimension=dimension, category="{category}", value="{value}") for a in _ANSWERS
                ),
            ),
        ),
        descriptions=tuple(f"{d} {meaning}" for d in _DESCRIPTIONS),
    )


OBJECT_HEIGHT = _size("height", "Height is the vertical extent.")
OBJECT_LENGTH = _size("length", "Length is the longer horizontal extent.")
OBJECT_WIDTH = _size("width", "Width is the shorter horizontal extent.")

TASKS = (OBJECT_HEIGHT, OBJECT_LENGTH, OBJECT_WIDTH)


def size_truths(size_m: NDArray[np.float64]) -> dict[str, TaskValue]:
    """Truths of the three tasks, by task name.

    Args:
        size_m: (3,) full extents of an upright box, metres; the third one is vertical.
    """
    horizontal = (float(size_m[0]), float(size_m[1]))
    return {
        OBJECT_HEIGHT.name: TaskValue((float(size_m[2]),)),
        OBJECT_LENGTH.name: TaskValue((max(horizontal),)),
        OBJECT_WIDTH.name: TaskValue((min(horizontal),)),
    }
