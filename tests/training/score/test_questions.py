"""The benchmark's own score read back, true answers give 100 per cent, errors by brute force."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_training.benchmark.__main__ import main as benchmark
from spatial_mllm_training.benchmark.data import BenchmarkProblem, Predictions, load_rows
from spatial_mllm_training.score import questions
from spatial_mllm_training.sources.object_motion import find_scenes

ROOT = Path(__file__).parents[3]
MINI = ROOT / "tests/fixtures/multispa_sim_mini"
BUNDLE = ROOT / "models/spatial-mllm-mini"


@pytest.fixture(scope="module")
def score_file(tmp_path_factory):
    """The benchmark's score of true answers to all but the last subtask."""
    folder = tmp_path_factory.mktemp("questions")
    rows = [r for r in load_rows(MINI) if r.question_type != tasks.names()[-1]]
    lines = [json.dumps({"id": r.id, "text": r.answer}) for r in rows]
    (folder / "answers.jsonl").write_text("\n".join(lines))
    file = folder / "score.json"
    words = ["score", "--data", str(MINI), "--predictions", str(folder / "answers.jsonl"), "--out", str(file)]
    assert benchmark(words) == 0
    return file


def test_a_score_that_is_there_is_read(score_file):
    result = json.loads(score_file.read_text())
    answers = questions.read_score(score_file, result["model"])
    (line,) = questions.headline(answers)
    # the last subtask is one of four of its group, and its six rows count as wrong
    assert line.value == pytest.approx((11 * 100 + 75) / 12)
    assert line.verdict == "met" and line.of_words == "156 questions, 5 scenes"
    assert line.blind == pytest.approx(result["group_mean"]["blind"]["percent"])
    assert line.standard_error == pytest.approx(result["group_mean"]["robust"]["scene_error"])
    table = answers.table()
    assert [name for name, row in table.items() if row["accuracy"] < 100] == [tasks.names()[-1]]
    assert all(row["n"] == 6 and 0 <= row["blind"] <= 100 for row in table.values())


@pytest.mark.parametrize(
    ("text", "words"), [("{}", "not a score"), ("[", "not a score"), (None, "cannot read the score")]
)
def test_a_file_that_is_no_score_is_named(tmp_path, text, words):
    file = tmp_path / "other.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BenchmarkProblem, match=words) as fault:
        questions.read_score(file, "m/1")
    assert "other.json" in str(fault.value)


def test_the_score_of_another_bundle_is_refused(score_file):
    with pytest.raises(BenchmarkProblem, match="not of m/1"):
        questions.read_score(score_file, "m/1")


def test_median_errors_are_those_of_the_numbers(score_file):
    rows = [
        r
        for r in load_rows(MINI)
        if r.question_type in ("total_distance", "displacement_vector", "yaw_angle")
    ]
    off = {"total_distance": [], "displacement_vector": []}
    texts = {}
    for number, row in enumerate(rows):
        if row.question_type == "yaw_angle":
            texts[row.id] = "`3`"
        elif row.question_type == "total_distance":
            texts[row.id] = f"about `{row.gt_value + 7 * number}` mm"
            off["total_distance"].append(7 * number)
        else:
            texts[row.id] = (
                f"`[{row.gt_value[0] + 3 * number}, {row.gt_value[1] + 4 * number}, {row.gt_value[2]}]`"
            )
            off["displacement_vector"].append(5 * number)
    unread = next(r for r in rows if r.question_type == "total_distance")
    texts[unread.id] = "no idea"
    off["total_distance"] = off["total_distance"][1:]
    found = questions.median_errors_mm(rows, Predictions("m", texts))
    assert found == pytest.approx({name: np.median(values) for name, values in off.items()})


@pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")
def test_rows_are_made_of_a_real_recording_and_asked(tmp_path):
    refs = find_scenes(ROOT / "tests/fixtures/dvrk")
    served = ("tapvid3d_total_distance_coord_pstudio", "depth_estimation_coor", "total_distance")
    blind = questions.blind_of(MINI)
    answers = questions.ask_scenes(BUNDLE, refs, 2, served, blind, tmp_path / "rows")
    table = answers.table()
    assert set(table) == set(served[:2]), "a still camera gives no distance of its own"
    assert all(line["n"] == 2 and line["blind"] is not None for line in table.values())
    first, second = questions.real_lines(answers, "dvrk", "real: balls")
    assert first.of_words == "4 questions, 1 scene" and np.isnan(first.standard_error)
    assert second.what == served[0] and second.goal is None
    assert second.note == f"median error {table[served[0]]['median_error_mm']:g} mm"
