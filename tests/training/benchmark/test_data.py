"""Every fault of a data set or of a predictions file is one sentence that names the place."""

from __future__ import annotations

import dataclasses
import json

import pytest

from spatial_mllm_training.benchmark.data import BenchmarkProblem, load_rows, read_predictions


@pytest.fixture
def rows(make_row):
    return [make_row("x_movement", i) for i in range(3)]


def test_rows_come_back_equal(tmp_path, write_rows, every_row):
    rows = every_row(2)
    assert load_rows(write_rows(tmp_path / "d", rows)) == rows


@pytest.mark.parametrize("key", ["text", "prediction"])
def test_answers_are_read(tmp_path, rows, key):
    file = tmp_path / "answers.jsonl"
    file.write_text(f'{{"id": "{rows[0].id}", "{key}": "`left`"}}\n\n{{"id": "{rows[2].id}", "{key}": ""}}\n')
    predictions = read_predictions(file, rows)
    assert predictions.texts == {rows[0].id: "`left`", rows[2].id: ""}
    assert predictions.model == "answers"
    assert predictions.served is None


def test_an_answer_may_hold_any_separator_of_lines(tmp_path, rows):
    texts = {row.id: f"it is{mark}`left`" for row, mark in zip(rows, "\u2028\u2029\x85\x1c", strict=False)}
    lines = (json.dumps({"id": i, "text": text}, ensure_ascii=False) for i, text in texts.items())
    file = tmp_path / "answers.jsonl"
    file.write_bytes("\r\n".join(lines).encode())
    assert read_predictions(file, rows).texts == texts


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("{ok}\nnonsense\n", "line 2: not JSON: 'nonsense'"),
        ("{ok}\n" + "[" * 100_000, "line 2: not JSON"),
        ('{ok}\n["a", "b"]\n', "line 2: expected an object"),
        ('{{"id": "{id}"}}\n', "line 1: 'id' and 'text'"),
        ('{{"id": "{id}", "text": 1150}}\n', "line 1: 'id' and 'text'"),
        ('{{"id": 7, "text": "left"}}\n', "line 1: 'id' and 'text'"),
        ("{ok}\n{ok}\n", "line 2: a second answer for the row '{id}'"),
        ('{ok}\n{{"id": "x", "text": "y"}}\n', "line 2: the benchmark has no row 'x'; are these"),
        (
            '{{"id": "x", "text": "y"}}\n{{"id": "z", "text": "y"}}\n',
            r"line 1: the benchmark has no row 'x' \(and 1 more such lines\)",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path, rows, lines, sentence):
    file = tmp_path / "answers.jsonl"
    ok = f'{{"id": "{rows[0].id}", "text": "`left`"}}'
    file.write_text(
        lines.replace("{ok}", ok).replace("{id}", rows[0].id).replace("{{", "{").replace("}}", "}")
    )
    with pytest.raises(BenchmarkProblem, match=sentence.replace("{id}", rows[0].id)) as fault:
        read_predictions(file, rows)
    assert "answers.jsonl" in str(fault.value)
    assert "\n" not in str(fault.value)


def test_no_file_and_bytes_that_are_no_text(tmp_path, rows):
    with pytest.raises(BenchmarkProblem, match="cannot read the predictions"):
        read_predictions(tmp_path / "none.jsonl", rows)
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BenchmarkProblem, match="cannot read the predictions"):
        read_predictions(tmp_path / "bytes.jsonl", rows)


def test_faults_of_a_folder(tmp_path, write_rows, rows):
    with pytest.raises(BenchmarkProblem, match="there is no data set folder"):
        load_rows(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BenchmarkProblem, match=r"holds no rows-\*.parquet"):
        load_rows(tmp_path / "empty")
    with pytest.raises(BenchmarkProblem, match="hold no row"):
        load_rows(write_rows(tmp_path / "norows", []))
    with pytest.raises(BenchmarkProblem, match=f"two rows of the id '{rows[0].id}'"):
        load_rows(write_rows(tmp_path / "twice", [*rows, rows[0]]))
    strange = dataclasses.replace(rows[0], question_type="no_such_task")
    with pytest.raises(BenchmarkProblem, match=f"row '{rows[0].id}': no task is named 'no_such_task'"):
        load_rows(write_rows(tmp_path / "strange", [strange]))


def test_a_truncated_shard_is_named(tmp_path, write_rows, rows):
    folder = write_rows(tmp_path / "d", rows)
    whole = (folder / "rows-00000.parquet").read_bytes()
    (folder / "rows-00001.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BenchmarkProblem, match=r"rows-00001\.parquet is not a whole shard"):
        load_rows(folder)


def test_a_parquet_file_of_something_else_is_named(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1]}), tmp_path / "rows-00000.parquet")
    with pytest.raises(BenchmarkProblem, match="is not a whole shard of MultiSPA rows"):
        load_rows(tmp_path)
