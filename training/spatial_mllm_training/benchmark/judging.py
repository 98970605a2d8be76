"""Whether one answer is right by the published rules (MultiSPA, section 4.1); knows no averages."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.multispa.rows import Row


@dataclass(frozen=True)
class Verdict:
    """An answer's reading: `is_read` is False where no answer could be found in the text."""

    is_right: bool
    is_read: bool


WRONG = Verdict(is_right=False, is_read=False)


def truth_of(row: Row) -> TaskValue:
    """The published, rounded truth of a row; the exact one in `spatial` is not what is scored."""
    return tasks.get(row.question_type).truth_of(row.gt_value)


def answer_size(row: Row) -> tuple[int, int]:
    """(width, height) px of the image that a coordinate answer lies in."""
    return row.spatial.size[tasks.get(row.question_type).answer_image]


def judge(row: Row, text: str, *, strict: bool = False) -> Verdict:
    """Read an answer and compare it with the row's truth.

    Args:
        strict: read only what the published expression finds, a value in backticks.
    """
    task = tasks.get(row.question_type)
    try:
        predicted = task.parse_strictly(text) if strict else task.parse(text)
    except SpatialError:
        return WRONG
    return Verdict(task.is_correct(predicted, truth_of(row), size=answer_size(row)), is_read=True)


def has_zero_truth(row: Row) -> bool:
    """Whether 20 % of the truth is nothing, so that only exactly 0 is right."""
    truth = truth_of(row)
    return tasks.get(row.question_type).kind in ("scalar", "angle", "vector") and not any(truth.values)
