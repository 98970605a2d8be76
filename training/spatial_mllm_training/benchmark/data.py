"""Rows of a benchmark and answers to them, read from disk with every fault as one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError, one_line
from spatial_mllm_training.multispa.rows import Row, read_rows, shard_files


class BenchmarkProblem(ValueError):
    """Data or answers that cannot be scored: one sentence that names the file."""

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


@dataclass(frozen=True)
class Predictions:
    """What a model said.

    Attributes:
        model: its name, for the report.
        texts: row id -> the model's text.
        served: the subtasks it was asked, None = all.
        notes: sentences for the report.
    """

    model: str
    texts: Mapping[str, str]
    served: frozenset[str] | None = None
    notes: tuple[str, ...] = field(default=())


def load_rows(folder: Path) -> list[Row]:
    """All rows of a data set folder; raises as `each_row`."""
    return list(each_row(folder))


def each_row(folder: Path) -> Iterator[Row]:
    """The rows of a data set folder one by one.

    Raises:
        BenchmarkProblem: no folder, no shard, no row, a shard that does not open, an unknown
            subtask or an id that stands there twice.
    """
    if not folder.is_dir():
        raise BenchmarkProblem(f"there is no data set folder '{folder}'")
    if not shard_files(folder):
        raise BenchmarkProblem(f"'{folder}' holds no rows-*.parquet; it is not a MultiSPA data set")
    seen: set[str] = set()
    try:
        for row in read_rows(folder):
            if row.id in seen:
                raise BenchmarkProblem(f"'{folder}' holds two rows of the id '{row.id}'")
            seen.add(row.id)
            _check_subtask(folder, row)
            yield row
    except SpatialError as fault:
        raise BenchmarkProblem(fault.sentence) from None
    if not seen:
        raise BenchmarkProblem(f"the shards in '{folder}' hold no row")


def _check_subtask(folder: Path, row: Row) -> None:
    try:
        tasks.get(row.question_type)
    except SpatialError as fault:
        raise BenchmarkProblem(f"'{folder}', row '{row.id}': {fault.sentence}") from None


def read_predictions(file: Path, rows: list[Row]) -> Predictions:
    """Answers from JSON lines {"id": ..., "text": ...}; "prediction" is accepted for "text".

    Raises:
        BenchmarkProblem: naming the line that is no such record, an id twice, or an unknown id.
    """
    try:
        # not splitlines: JSON may hold other line separators of Unicode as they are
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as fault:
        raise BenchmarkProblem(f"cannot read the predictions '{file}': {fault}") from None
    texts: dict[str, str] = {}
    known = {row.id for row in rows}
    unknown: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row_id, text = _record(line, f"{file}, line {number}")
        if row_id in texts:
            raise BenchmarkProblem(f"{file}, line {number}: a second answer for the row '{row_id}'")
        if row_id not in known:
            unknown.append((number, row_id))
        texts[row_id] = text
    if unknown:
        number, row_id = unknown[0]
        more = f" (and {len(unknown) - 1} more such lines)" if len(unknown) > 1 else ""
        raise BenchmarkProblem(
            f"{file}, line {number}: the benchmark has no row '{row_id}'{more}; are these answers to other data?"
        )
    return Predictions(file.stem, texts)


def _record(line: str, where: str) -> tuple[str, str]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise BenchmarkProblem(f"{where}: not JSON: '{line[:60]}'") from None
    if not isinstance(record, dict):
        raise BenchmarkProblem(f"{where}: expected an object with 'id' and 'text', found '{line[:60]}'")
    row_id, text = record.get("id"), record.get("text", record.get("prediction"))
    if not isinstance(row_id, str) or not isinstance(text, str):
        raise BenchmarkProblem(f"{where}: 'id' and 'text' (or 'prediction') must both be strings")
    return row_id, text
