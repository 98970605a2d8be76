"""MultiSPA questions to a bundle: a benchmark data set, a score that is there already, or rows made of real scenes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.benchmark.blind import FILE_NAME, Blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem, Predictions, load_rows
from spatial_mllm_training.benchmark.judging import truth_of
from spatial_mllm_training.benchmark.scoring import Score, score
from spatial_mllm_training.benchmark.serving import ask_bundle
from spatial_mllm_training.export.record import GROUP_MEAN, Measured
from spatial_mllm_training.multispa.rows import Row
from spatial_mllm_training.multispa.run import Workers, make_dataset
from spatial_mllm_training.sources import SceneRef

BLIND_NAME = "rules from the question alone"
Table = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Answers:
    """Figures of one set of questions.

    Attributes:
        result: a benchmark's score as its JSON has it.
        errors_mm: subtask -> median error of lengths and vectors; {} where the answers are not at hand.
    """

    result: Mapping[str, Any]
    errors_mm: Mapping[str, float]

    def table(self) -> Table:
        """A line for every subtask that was asked: n, accuracy, standard error by scene where there is one, blind."""
        lines: Table = {}
        for subtask in self.result["subtasks"]:
            columns = subtask["columns"]
            if columns is None or not subtask["is_served"]:
                continue
            robust, blind = columns["robust"], columns["blind"]
            error = robust["standard_error"] if robust["scene_error"] is None else robust["scene_error"]
            line = {
                "n": robust["n"],
                "accuracy": round(robust["percent"], 1),
                "standard_error": round(error, 1),
                "blind": None if blind is None else round(blind["percent"], 1),
            }
            if subtask["name"] in self.errors_mm:
                line["median_error_mm"] = round(self.errors_mm[subtask["name"]], 1)
            lines[subtask["name"]] = line
        return lines


def headline(answers: Answers) -> list[Measured]:
    """The mean of the groups and, where the bundle serves only some subtasks, the mean of those."""
    result = answers.result
    groups = result["group_count"]
    where = f"{result['data']}"
    name = "mean of the 12 groups" if groups == 12 else f"mean of {groups} of the 12 groups"
    lines = [_line("multispa/group_mean", name, where, result, "group_mean", goal=True)]
    if result["served_mean"] is not None:
        lines.append(
            _line("multispa/served_mean", "mean of the subtasks it serves", where, result, "served_mean")
        )
    return lines


def real_lines(answers: Answers, key: str, where: str) -> list[Measured]:
    """The mean of what could be asked, and every subtask of movement for itself."""
    served = "served_mean" if answers.result["served_mean"] is not None else "task_mean"
    lines = [_line(f"questions/{key}/mean", "mean of the subtasks asked", where, answers.result, served)]
    for name, line in answers.table().items():
        if not tasks.get(name).group.startswith("object_movement"):
            continue
        error = line.get("median_error_mm")
        blind = math.nan if line["blind"] is None else line["blind"]
        lines.append(
            Measured(
                f"questions/{key}/{name}", name, where, line["accuracy"], math.nan, blind, BLIND_NAME,
                line["n"], "questions", answers.result["scenes"], unit="%",
                note="" if error is None else f"median error {error:g} mm",
            )
        )  # fmt: skip
    return lines


def ask_benchmark(bundle: Path, folder: Path, blind: Blind | None) -> Answers:
    """Ask a data set made by `benchmark make` or `make_multispa`.

    Raises:
        BenchmarkProblem, SpatialError: as `benchmark score`.
    """
    rows = load_rows(folder)
    predictions = ask_bundle(bundle, rows, folder / "images")
    result: Score = score(rows, predictions, blind, data=folder.resolve().name)
    return Answers(result.to_json(), median_errors_mm(rows, predictions))


def blind_of(folder: Path) -> Blind | None:
    """The baseline beside a benchmark, None where there is none. Raises BenchmarkProblem."""
    file = folder / FILE_NAME
    return Blind.load(file) if file.exists() else None


def read_score(file: Path, model: str) -> Answers:
    """What `benchmark score --out` wrote for the same bundle.

    Raises:
        BenchmarkProblem: no such file, another layout, or another model's score.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        answers = Answers(result, {})
        headline(answers), answers.table()
        told = str(result["model"])
    except OSError as fault:
        raise BenchmarkProblem(f"cannot read the score '{file}': {fault.strerror or fault}") from None
    except (LookupError, TypeError, ValueError) as fault:
        raise BenchmarkProblem(f"'{file}' is not a score of `benchmark score --out`: {fault}") from None
    if told != model:
        raise BenchmarkProblem(f"'{file}' is the score of {told}, not of {model}")
    return answers


def ask_scenes(
    bundle: Path, refs: Sequence[SceneRef], rows: int, served: Sequence[str], blind: Blind | None, work: Path
) -> Answers:
    """Make rows of the served subtasks from scenes and ask them.

    Args:
        rows: of each subtask, at most.
        work: a folder for the data set; not there yet.

    Raises:
        SpatialError, SceneProblem: the scenes give nothing. BenchmarkProblem: no row of a served subtask.
    """
    make_dataset(refs, work, dict.fromkeys(served, rows), split=None, workers=Workers(0), quiet=True)
    return ask_benchmark(bundle, work, blind)


def median_errors_mm(rows: Sequence[Row], predictions: Predictions) -> dict[str, float]:
    """Subtask -> median of |answer - truth| of lengths and vectors that could be read."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        task = tasks.get(row.question_type)
        if task.kind not in ("scalar", "vector") or row.id not in predictions.texts:
            continue
        try:
            told = task.parse(predictions.texts[row.id])
        except SpatialError:
            continue
        off_m = float(np.linalg.norm(np.subtract(told.values, truth_of(row).values)))
        errors.setdefault(task.name, []).append(1000 * off_m)
    return {name: float(np.median(values)) for name, values in errors.items()}


def _line(
    key: str, what: str, where: str, result: Mapping[str, Any], name: str, *, goal: bool = False
) -> Measured:
    columns = result[name]
    robust, blind = columns["robust"], columns["blind"]
    error = robust["scene_error"]
    line = Measured(
        key, f"MultiSPA, {what}", where, robust["percent"], math.nan if error is None else error,
        math.nan if blind is None else blind["percent"], "" if blind is None else BLIND_NAME,
        robust["n"], "questions", result["scenes"], unit="%",
    )  # fmt: skip
    return replace(line, goal=GROUP_MEAN) if goal else line
