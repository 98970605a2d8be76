"""From rows and answers to the score of a model: 26 subtasks, 12 groups, two means; knows no layout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark import means
from spatial_mllm_training.benchmark.blind import Asked, Blind
from spatial_mllm_training.benchmark.data import Predictions
from spatial_mllm_training.benchmark.judging import WRONG, has_zero_truth, judge
from spatial_mllm_training.benchmark.means import Figure
from spatial_mllm_training.multispa.rows import Row


@dataclass(frozen=True)
class Columns:
    """The same average of three sets of verdicts.

    Attributes:
        robust: answers read as models write them; what is reported first.
        strict: answers read by the published expression only.
        blind: the answers from the question's words alone; None where no blind baseline was given.
    """

    robust: Figure
    strict: Figure
    blind: Figure | None


@dataclass(frozen=True)
class SubtaskScore:
    """A published subtask.

    Attributes:
        columns: None where the data set has no row of it.
        is_served: False where the model was not asked; its rows count as wrong.
        unparsable, unparsable_strict: answers in which no answer could be read.
        missing: rows of a served subtask without an answer; wrong.
        zero_truth: rows whose truth is 0, where 20 % of the truth leaves only exactly 0.
        blind_rule: how the blind baseline answers.
    """

    name: str
    columns: Columns | None
    is_served: bool
    unparsable: int
    unparsable_strict: int
    missing: int
    zero_truth: int
    blind_rule: str


@dataclass(frozen=True)
class Score:
    """Everything that a report shows.

    Attributes:
        groups: the 12 groups of the paper's table 2; None where no member has rows.
        group_mean: mean of the groups that have rows, the headline.
        task_mean: mean of the subtasks that have rows.
        served_mean: mean of the subtasks that the model serves; None when it serves all.
        above_blind: robust headline minus blind headline on the same rows, with the errors of the
            paired difference; None without a blind baseline.
    """

    model: str
    data: str
    rows: int
    scenes: int
    subtasks: tuple[SubtaskScore, ...]
    groups: Mapping[str, Columns | None]
    group_mean: Columns
    task_mean: Columns
    served_mean: Columns | None
    above_blind: Figure | None
    notes: tuple[str, ...]

    @property
    def group_count(self) -> int:
        return sum(columns is not None for columns in self.groups.values())

    @property
    def task_count(self) -> int:
        return sum(s.columns is not None for s in self.subtasks)

    def subtask(self, name: str) -> SubtaskScore:
        return next(s for s in self.subtasks if s.name == name)

    def to_json(self) -> dict[str, Any]:
        """The score as JSON values; accuracies in per cent, NaN as null."""
        record = asdict(self)
        return {**_without_nan(record), "group_count": self.group_count, "task_count": self.task_count}


def group_title(group: str) -> str:
    """A group's name for a person."""
    return group.replace("_", " ").replace("mcq", "multiple choice").capitalize()


def score(rows: Sequence[Row], predictions: Predictions, blind: Blind | None, *, data: str) -> Score:
    """Judge every row; a row without an answer is wrong.

    Args:
        data: name of the data set, for the report.
    """
    texts = predictions.texts
    verdicts = {
        strict: [judge(row, texts[row.id], strict=strict) if row.id in texts else WRONG for row in rows]
        for strict in (False, True)
    }
    robust, strict = (np.array([v.is_right for v in verdicts[s]]) for s in (False, True))
    guessed = None
    if blind is not None:
        guessed = np.array([judge(row, blind.answer(Asked.of(row))).is_right for row in rows])
    table = means.Rows([row.question_type for row in rows], [row.spatial.scene for row in rows])
    counted = [name for name in tasks.names() if name in set(table.counted.tolist())]

    def columns(weights: Mapping[str, float]) -> Columns:
        return Columns(
            table.figure(robust, weights),
            table.figure(strict, weights),
            None if guessed is None else table.figure(guessed, weights),
        )

    served = frozenset(tasks.names()) if predictions.served is None else predictions.served
    subtasks = tuple(
        _subtask(
            name,
            rows,
            verdicts,
            texts,
            columns({name: 1.0}) if name in counted else None,
            name in served,
            blind.rule_of(name) if blind else "",
        )
        for name in tasks.names()
    )
    groups = {g: columns(w) if (w := means.group_weights(g, counted)) else None for g in GROUPS}
    headline = means.headline_weights(counted)
    above = None
    if guessed is not None:
        above = table.figure(robust.astype(np.int64) - guessed.astype(np.int64), headline)
    asked = [name for name in counted if name in served]
    return Score(
        model=predictions.model,
        data=data,
        rows=len(rows),
        scenes=len({row.spatial.scene for row in rows}),
        subtasks=subtasks,
        groups=groups,
        group_mean=columns(headline),
        task_mean=columns(means.task_weights(counted)),
        served_mean=columns(means.task_weights(asked)) if 0 < len(asked) < len(counted) else None,
        above_blind=above,
        notes=(*predictions.notes, *_notes(rows, subtasks, blind is not None)),
    )


def _subtask(
    name: str,
    rows: Sequence[Row],
    verdicts: Mapping[bool, Sequence[Any]],
    texts: Mapping[str, str],
    columns: Columns | None,
    is_served: bool,
    blind_rule: str,
) -> SubtaskScore:
    mine = [i for i, row in enumerate(rows) if row.question_type == name]
    answered = [i for i in mine if rows[i].id in texts]
    return SubtaskScore(
        name=name,
        columns=columns,
        is_served=is_served,
        unparsable=sum(not verdicts[False][i].is_read for i in answered),
        unparsable_strict=sum(not verdicts[True][i].is_read for i in answered),
        missing=len(mine) - len(answered) if is_served else 0,
        zero_truth=sum(has_zero_truth(rows[i]) for i in mine),
        blind_rule=blind_rule,
    )


def _notes(rows: Sequence[Row], subtasks: Sequence[SubtaskScore], has_blind: bool) -> list[str]:
    """What a reader of the figures must know, as sentences."""
    notes = []
    empty = [s.name for s in subtasks if s.columns is None]
    if empty:
        notes.append(
            f"{len(empty)} of the 26 subtasks have no row here and are left out of the means, which are "
            f"therefore not comparable with the published ones: {', '.join(empty)}."
        )
    unserved = [s.name for s in subtasks if s.columns is not None and not s.is_served]
    if unserved:
        notes.append(
            f"The model does not serve {len(unserved)} subtasks, whose rows count as wrong: {', '.join(unserved)}."
        )
    missing = sum(s.missing for s in subtasks)
    if missing:
        notes.append(f"Rows without an answer, counted as wrong: {missing}.")
    unparsable = sum(s.unparsable for s in subtasks)
    strictly = sum(s.unparsable_strict for s in subtasks)
    if unparsable or strictly:
        notes.append(
            f"Texts in which no answer could be read, counted as wrong: {unparsable} "
            f"({strictly} with the published extraction)."
        )
    zero = sum(s.zero_truth for s in subtasks)
    if zero:
        notes.append(f"Rows whose truth is 0, where only exactly 0 is right (20 % of nothing): {zero}.")
    training = sum(row.spatial.split != "benchmark" for row in rows)
    if training:
        notes.append(f"Rows outside the benchmark split, which a model may have seen: {training}.")
    if not has_blind:
        notes.append("There is no blind baseline to read the figures against; `benchmark blind` makes one.")
    return notes


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
