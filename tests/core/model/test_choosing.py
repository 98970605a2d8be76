"""Answers that are one of a few: always one of them, the likeliest at each fork; every task gives its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core import tasks
from spatial_mllm_core.model.choosing import ChoiceReader, chooser

VOCABULARY, STOP = 12, 0
words = st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=5).map(lambda w: (*w, STOP))


def read(choices, logits_of):
    reader, said = ChoiceReader(choices), []
    while not said or said[-1] != STOP:
        said.append(reader.choose(logits_of(tuple(said))))
    return tuple(said)


@given(st.lists(words, min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_whatever_is_thought_the_answer_is_one_of_them(choices, seed):
    rng = np.random.default_rng(seed)
    assert read(choices, lambda _: rng.normal(size=VOCABULARY)) in choices


@given(st.lists(words, min_size=1, max_size=6), st.data())
@settings(max_examples=200, deadline=None)
def test_what_is_thought_is_said_where_it_is_one_of_them(choices, data):
    thought = data.draw(st.sampled_from(choices))

    def logits(said):
        one = np.zeros(VOCABULARY)
        one[thought[len(said)]] = 5.0
        return one

    assert read(choices, logits) == thought


def test_an_inadmissible_token_is_passed_over_for_the_likelier_of_the_others():
    logits = np.array([0.0, 9.0, 2.0, 3.0])
    assert ChoiceReader([(2, STOP), (3, STOP)]).choose(logits) == 3


def test_any_answer_is_free_and_numbers_are_medians_where_they_have_a_width():
    free = chooser((), digits=0, encode=list, id_of=int, stop_id=STOP)
    assert free(np.array([0.0, 2.0, 1.0])) == 1
    ids = {c: i for i, c in enumerate("0123456789-+`")}
    median = chooser((), digits=1, encode=list, id_of=ids.__getitem__, stop_id=STOP)
    quote, digits = np.zeros(13), np.full(13, -9.0)
    quote[ids["`"]] = 5.0
    digits[:10] = [3, 0, 0, 2.9, 2.9, 0, 0, 0, 0, 0]
    assert median(quote) == ids["`"]
    assert median(digits) == 3  # the likeliest alone is 0


@pytest.mark.parametrize("name", tasks.names())
def test_every_choice_of_a_task_is_read_back_as_itself(name):
    task = tasks.get(name)
    points = ((120, 30), (880, 512))[: task.point_count]
    for variant in ("", *task.variants):
        choices = task.choices(points, variant=variant)
        if task.names_its_answer:
            assert [task.parse(c).values for c in choices] == [tuple(map(float, p)) for p in points]
        else:
            assert [task.parse(c).label for c in choices] == list(task.labels)
        assert bool(choices) == (task.kind == "label" or task.names_its_answer)


def test_comparisons_directions_and_the_multiple_choice_are_choices():
    named = {n for n in tasks.names() if tasks.get(n).choices(((0, 0), (1, 1))[: tasks.get(n).point_count])}
    assert named == {
        "depth_comparison_annotated", "depth_comparison_coordinate", "visual_correspondence_multiple_choice",
        "x_movement", "y_movement", "z_movement", "yaw_movement", "pitch_movement",
    }  # fmt: skip
