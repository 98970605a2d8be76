"""A score as an aligned table for the terminal."""

from __future__ import annotations

import math

from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark.means import Figure
from spatial_mllm_training.benchmark.scoring import Columns, Score, group_title

_NAME = 46


def table(score: Score) -> str:
    """Groups with their members, then the means; accuracies in per cent."""
    lines = [
        f"{score.model} on {score.data}: {score.rows} rows of {score.scenes} scenes",
        "",
        f"{'accuracy, %':<{_NAME}}{'robust':>8}{'± SE':>7}{'scene':>7}{'strict':>8}{'blind':>8}{'± SE':>7}{'n':>7}",
    ]
    for group, members in GROUPS.items():
        lines.append(_line(group_title(group), score.groups[group]))
        for name in members:
            subtask = score.subtask(name)
            served = "" if subtask.is_served else "  not served"
            lines.append(_line(f"  {name}", subtask.columns) + served)
    lines += ["", _line(group_mean_name(score), score.group_mean, digits=2)]
    if score.above_blind is not None:
        lines.append(_above(score.above_blind))
    lines.append(_line(task_mean_name(score), score.task_mean, digits=2))
    if score.served_mean is not None:
        lines.append(_line(served_mean_name(score), score.served_mean, digits=2))
    lines += [
        "",
        "robust: answers read as models write them; strict: by the published expression alone;",
        "blind: from the question's words alone; SE: binomial; scene: standard error by scene.",
    ]
    return "\n".join([*lines, *(f"note: {note}" for note in score.notes)])


def group_mean_name(score: Score) -> str:
    """The headline's name; it says so when groups are missing."""
    count = score.group_count
    return "mean of the 12 groups (headline)" if count == 12 else f"mean of {count} of the 12 groups"


def task_mean_name(score: Score) -> str:
    count = score.task_count
    return "mean of the 26 subtasks" if count == 26 else f"mean of {count} of the 26 subtasks"


def served_mean_name(score: Score) -> str:
    count = sum(s.columns is not None and s.is_served for s in score.subtasks)
    return f"mean of the {count} subtasks that are served"


def _line(name: str, columns: Columns | None, digits: int = 1) -> str:
    if columns is None:
        return f"{name:<{_NAME}}{'no rows':>8}"
    robust, blind = columns.robust, columns.blind
    return (
        f"{name:<{_NAME}}{_number(robust.percent, 8, digits)}{_number(robust.standard_error, 7, digits)}"
        f"{_number(robust.scene_error, 7, digits)}{_number(columns.strict.percent, 8, digits)}"
        f"{_blind(blind, digits)}{robust.n:>7}"
    )


def _above(figure: Figure) -> str:
    errors = _number(figure.standard_error, 7, 2) + _number(figure.scene_error, 7, 2)
    return f"{'  above blind, on the same rows':<{_NAME}}{figure.percent:>+8.2f}{errors}"


def _blind(blind: Figure | None, digits: int) -> str:
    if blind is None:
        return f"{'-':>8}{'-':>7}"
    return f"{_number(blind.percent, 8, digits)}{_number(blind.standard_error, 7, digits)}"


def _number(value: float, width: int, digits: int) -> str:
    return f"{'-':>{width}}" if math.isnan(value) else f"{value:>{width}.{digits}f}"
