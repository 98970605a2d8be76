"""Questions about dots become those about coordinates: word for word, and for each of their wordings."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import correspondence, depth
from spatial_mllm_core.tasks.dots import LABELS, SISTERS, by_coordinates, nearest, speaks_of_dots

FIRST = {"": (120, 640), "A": (10, 20), "B": (990, 5)}
LATER = {"A": (100, 100), "B": (900, 100), "C": (100, 900), "D": (500, 500)}
LABELS_OF = {"depth_comparison_annotated": ["A", "B"]}
ASKED = {name: sister for name, sister in SISTERS.items() if name != "visual_correspondence_multiple_choice"}


@pytest.mark.parametrize("name", ASKED)
def test_every_wording_is_that_of_the_coordinate_sister(name):
    task, sister = tasks.get(name), tasks.get(SISTERS[name])
    points = tuple(FIRST[label] for label in LABELS_OF.get(name, [""]))
    for variant in task.variants or ("",):
        for template in range(len(task.questions_of(variant))):
            words = task.question(template=template, variant=variant)
            assert speaks_of_dots(words)
            wanted = sister.question(points, template=template, variant=variant)
            assert by_coordinates(words, FIRST, {}) == (wanted, {})


def test_every_wording_of_the_choice_asks_for_a_coordinate_and_keeps_the_letters():
    for template in range(len(correspondence.CORRESPONDENCE_CHOICE.questions)):
        words = correspondence.CORRESPONDENCE_CHOICE.question(template=template)
        assert speaks_of_dots(words)
        asked = by_coordinates(words, FIRST, {**LATER, "": (1, 1)})
        assert asked == (correspondence.CORRESPONDENCE.question(((120, 640),)), LATER)
        assert by_coordinates(words, {}, LATER) is None
        assert by_coordinates(words, FIRST, {"": (1, 1), "C": (2, 2)}) is None  # one letter is no choice


def test_no_other_task_speaks_of_dots():
    dotted = set(SISTERS)
    assert dotted == {name for name in tasks.names() if tasks.get(name).reference == "dot"}
    for name in set(tasks.names()) - dotted:
        task = tasks.get(name)
        points = ((1, 2), (3, 4))[: task.point_count]
        for variant in task.variants or ("",):
            for template in range(len(task.questions_of(variant))):
                words = task.question(points, template=template, variant=variant, category="chair")
                assert not speaks_of_dots(words), words


def test_a_dot_that_was_not_found_leaves_the_question_as_it_is():
    words = depth.DEPTH_COMPARISON_DOT.question()
    assert by_coordinates(words, {"A": (1, 2), "": (3, 4)}, {}) is None
    assert by_coordinates("Is there a chair?", FIRST, LATER) is None


@pytest.mark.parametrize("seed", range(20))
def test_the_nearest_letter_is_the_nearest_in_pixels(seed):
    rng = np.random.default_rng(seed)
    width, height = rng.integers(50, 2000, 2)
    letters = {label: tuple(map(int, rng.integers(0, 1000, 2))) for label in LABELS[1:]}
    x, y = rng.uniform(0, 1000, 2)
    apart = [np.hypot((u - x) * width / 1000, (v - y) * height / 1000) for u, v in letters.values()]
    assert nearest(letters, (x, y), width, height) == list(letters)[int(np.argmin(apart))]
