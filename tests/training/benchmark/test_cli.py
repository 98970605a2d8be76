"""The verb as a user runs it: exit codes, what is printed and written, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark.__main__ import main


@pytest.fixture
def data(tmp_path, write_rows, every_row):
    return write_rows(tmp_path / "sim", every_row(3))


@pytest.fixture
def answers(tmp_path, every_row):
    file = tmp_path / "answers.jsonl"
    file.write_text("".join(json.dumps({"id": r.id, "text": r.answer}) + "\n" for r in every_row(3)))
    return file


def test_blind_then_score(tmp_path, data, answers, write_rows, every_row, capsys):
    train = write_rows(tmp_path / "train", every_row(9, split="train", seed=4))
    assert main(["blind", "--train", str(train), "--out", str(data / "blind.json")]) == 0
    assert "234 training rows of 5 scenes" in capsys.readouterr().out
    out, html = tmp_path / "score.json", tmp_path / "score.html"
    arguments = ["--data", str(data), "--predictions", str(answers), "--out", str(out), "--html", str(html)]
    assert main(["score", *arguments]) == 0
    printed = capsys.readouterr().out
    headline = next(
        line for line in printed.splitlines() if line.startswith("mean of the 12 groups (headline)")
    )
    assert headline.split()[6] == "100.00"
    assert headline.split()[-3] != "-"  # the blind baseline beside the data is used
    record = json.loads(out.read_text())
    assert record["group_mean"]["robust"]["percent"] == pytest.approx(100)
    assert record["model"] == "answers"
    page = html.read_text()
    assert page.count('class="line1"') == len(GROUPS)
    assert "<script" not in page
    assert "http" not in page


def test_without_blind_the_table_says_so(data, answers, capsys):
    assert main(["score", "--data", str(data), "--predictions", str(answers)]) == 0
    assert "no blind baseline" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "{tmp}/none", "--predictions", "{answers}"], "there is no data set folder"),
        (["--data", "{data}", "--predictions", "{tmp}/none.jsonl"], "cannot read the predictions"),
        (
            ["--data", "{data}", "--predictions", "{answers}", "--blind", "{tmp}/no.json"],
            "cannot read the blind",
        ),
        (["--data", "{data}", "--bundle", "{tmp}/no"], "MODEL_MISSING"),
        (
            ["--data", "{data}", "--predictions", "{answers}", "--out", "{tmp}"],
            "cannot be written",
        ),
    ],
)
def test_a_fault_is_one_sentence_and_exit_2(tmp_path, data, answers, capsys, options, sentence):
    filled = [o.format(tmp=tmp_path, data=data, answers=answers) for o in options]
    assert main(["score", *filled]) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said
    assert len(said.splitlines()) == 1


def test_blind_refuses_the_benchmark_itself(tmp_path, data, capsys):
    assert main(["blind", "--train", str(data), "--out", str(tmp_path / "b.json")]) == 2
    assert "belongs to the benchmark" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize("options", [[], ["score", "--data", "x"], ["score", "--data", "x", "--no"]])
def test_wrong_use_is_exit_2(options, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(options)
    assert exit_.value.code == 2
    assert "usage" in capsys.readouterr().err


def test_module_runs(data, answers):
    command = [sys.executable, "-m", "spatial_mllm_training.benchmark", "score", "--data", str(data)]
    done = subprocess.run(
        [*command, "--predictions", str(answers)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mean of the 26 subtasks" in done.stdout
    assert "torch" not in done.stderr
