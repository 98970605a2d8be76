"""A MultiSPA row in the words of the runtime: its first question wording, its shortest answer; knows no model.

The published turn of a row has a description, one of ten wordings and hints about the form of the
answer; the runtime asks with `Task.question` alone.
"""

from __future__ import annotations

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks.text import pixel_to_coordinate
from spatial_mllm_training.multispa.rows import Row


def served_question(row: Row) -> str:
    """`Task.question` with the coordinates of the asked points, the row's variant and category."""
    task = tasks.get(row.question_type)
    return task.question(_named(row), variant=row.spatial.variant, category=row.spatial.category)


def served_choices(row: Row) -> tuple[str, ...]:
    """`Task.choices` of the row: the admissible answers where there are few, else ()."""
    return tasks.get(row.question_type).choices(_named(row), variant=row.spatial.variant)


def _named(row: Row) -> tuple[tuple[int, int], ...]:
    """Coordinates of the points that the question names."""
    named = [p for p in row.spatial.points if p.role == "asked"]
    named = named[: tasks.get(row.question_type).point_count]
    return tuple(pixel_to_coordinate((p.u_px, p.v_px), *row.spatial.size[p.image]) for p in named)


def served_answer(row: Row) -> str:
    """The published value in the first answer wording."""
    task = tasks.get(row.question_type)
    truth = task.truth_of(row.gt_value)
    return task.answer_text(truth, variant=row.spatial.variant, category=row.spatial.category)
