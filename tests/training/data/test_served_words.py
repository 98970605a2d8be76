"""Rows in the runtime's words say what the row says, shorter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_training.augment import AugmentConfig, augment_row
from spatial_mllm_training.data.pictures import read_image
from spatial_mllm_training.data.served_words import served_answer, served_question


def test_the_words_of_every_stored_row_ask_and_answer_the_same(stored_rows):
    for row in stored_rows:
        task = tasks.get(row.question_type)
        question, answer = served_question(row), served_answer(row)
        assert task.gt_value(task.parse_strictly(answer)) == row.gt_value
        assert task.gt_value(task.parse(row.answer)) == row.gt_value
        by_number = task.questions_of(row.spatial.variant)
        first = by_number[0].split("{", maxsplit=1)[0]
        assert question.startswith(first)
        coordinates = [w for w in row.question.split("[ ")[1:] if w[0].isdigit()][: task.point_count]
        assert all(f"[ {c.split(' ]')[0]} ]" in question for c in coordinates)
        assert row.spatial.category in question


def test_the_wording_of_the_row_is_kept(stored_rows):
    rows = [r for r in stored_rows if r.question_type == "depth_comparison_coordinate"]
    row = next(r for r in rows if r.spatial.variant == "farther")
    other = replace(row, spatial=replace(row.spatial, variant="closer"))
    assert "farther" in served_question(row) and "closer" in served_question(other)


def test_an_augmented_row_names_its_new_coordinates(stored_rows, mini):
    """The coordinates of a question move with its image, in either wording."""
    rows = [r for r in stored_rows if r.question_type == "depth_comparison_coordinate"]
    moved = 0
    for number, row in enumerate(rows):
        images = [read_image(mini / "images" / name) for name in row.spatial.source_image]
        changed = augment_row(row, images, AugmentConfig(), np.random.default_rng(number))
        if changed is None:
            continue
        for word in served_question(changed.row).split("[ ")[1:]:
            assert f"[ {word.split(' ]')[0]} ]" in changed.row.question
        moved += served_question(changed.row) != served_question(row)
    assert moved > 5
