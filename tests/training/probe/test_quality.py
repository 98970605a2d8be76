"""Answers joined with lifted images: what is counted, what is left out, and files that are no such thing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.benchmark.data import Predictions
from spatial_mllm_training.benchmark.judging import judge
from spatial_mllm_training.multispa.rows import Row, Spatial
from spatial_mllm_training.probe.errors import ImageError
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.probe.quality import read_lifting, relate, table, write_lifting
from spatial_mllm_training.sources.posed_images import Place

DEPTH, DISTANCE = "depth_estimation_coor", "total_distance"


def row(number: int, subtask: str, frames: tuple[str, ...]) -> Row:
    task = tasks.get(subtask)
    truth = TaskValue((1.0 + number / 100,))
    count = len(frames)
    return Row(
        f"{subtask}-{number}",
        subtask,
        tuple(f"{f}.jpg" for f in frames),
        "asked",
        task.answer_text(truth),
        task.gt_value(truth),
        Spatial(
            scene=f"room{number % 5}",
            source="simulated",
            split="benchmark",
            frames=frames,
            source_image=(),
            k=(),
            size=((640, 480),) * count,
            distortion=(),
            d=(),
            world_from_camera=(),
            world_up=(),
            points=(),
            truth=truth.values,
            unit=task.unit,
            label="",
        ),
    )


@pytest.fixture
def asked():
    """40 rows over five rooms, answers that get worse with the error of frame a, and the lifting."""
    rows = [row(i, DEPTH, ("a",)) for i in range(20)] + [row(i, DISTANCE, ("a", "b")) for i in range(20)]
    lifting = {}
    for room in range(5):
        for frame, more in (("a", 0.0), ("b", 1.0)):
            error = 0.2 + 0.2 * room + more
            lifting[f"room{room}", frame] = {"rmse_m": error, "abs_rel": error / 4, "matched_rmse_m": 0.1}
    texts = {}
    for r in rows:
        good = int(r.spatial.scene[-1]) < 3
        texts[r.id] = r.answer if good else "It is `9999` mm."
    return rows, Predictions("model", texts), lifting


def test_questions_take_the_mean_error_of_their_images(asked):
    rows, predictions, lifting = asked
    found = relate(rows, predictions, lifting)
    assert found.questions == 40
    # the worst lifted are questions with a second image in room 4, the best have one image in room 0
    assert found.plain[0].error_high == pytest.approx(1.0 + 0.5)
    assert found.plain[-1].error_low == pytest.approx(0.2)
    assert found.plain[-1].accuracy.percent == 100
    right = sum(judge(r, predictions.texts[r.id]).is_right for r in rows)
    assert right == 24
    assert sum(q.accuracy.percent * q.accuracy.n for q in found.plain) == pytest.approx(100 * right)
    assert np.isnan(found.slope.per_unit)  # within a type, the rooms separate right from wrong
    assert "do not bound a slope" in table(found)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["slope"]["per_unit"] is None


def test_the_slope_is_printed_where_there_is_one(asked):
    rows, predictions, lifting = asked
    for r in rows[::7]:
        predictions.texts[r.id] = r.answer
    predictions.texts[rows[1].id] = "no idea"
    found = relate(rows, predictions, lifting, measure="abs_rel")
    assert found.slope.per_unit < 0
    words = table(found)
    assert "log odds of a right answer per unit of error" in words
    assert words.splitlines()[0].startswith("model: 40 questions by lifting error (abs_rel)")


def test_rows_without_lifting_or_answer_and_unserved_subtasks(asked):
    rows, predictions, lifting = asked
    del lifting["room0", "a"], lifting["room0", "b"]
    served = Predictions("model", dict(predictions.texts), frozenset([DEPTH]))
    del served.texts[rows[1].id]
    found = relate(rows, served, lifting)
    assert (found.questions, found.without_lifting, found.unserved) == (16, 4, 20)
    right = sum(q.accuracy.percent * q.accuracy.n / 100 for q in found.plain)
    assert right == pytest.approx(8 - 1)  # an answer that is missing is wrong
    assert "4 questions without a lifted image, 20 of subtasks" in table(found)
    with pytest.raises(ProbeProblem, match="only 0 of 40 questions have a lifted image"):
        relate(rows, predictions, {("elsewhere", "a"): lifting["room1", "a"]})


def test_lifting_comes_back_as_it_was_written(tmp_path):
    places = [Place("s", "f1", 0, "train"), Place("s", "f2", 1, "train")]
    errors = [ImageError(0.5, 0.2, 0.7, 0.8, 0.9, 10), ImageError(0.6, 0.3, 0.6, 0.7, 0.8, 11)]
    file = tmp_path / "images.jsonl"
    write_lifting(file, places, errors, errors[::-1])
    assert read_lifting(file) == {
        ("s", "f1"): {"rmse_m": 0.5, "abs_rel": 0.2, "matched_rmse_m": 0.6},
        ("s", "f2"): {"rmse_m": 0.6, "abs_rel": 0.3, "matched_rmse_m": 0.5},
    }


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "holds no lifted image"),
        ("{}\n", "line 1: not the record of a lifted image"),
        ("not json\n", "line 1: not the record of a lifted image"),
        (
            '{"scene": "s", "frame": "f", "rmse_m": NaN, "abs_rel": 1, "matched_rmse_m": 1}\n',
            "line 1: an error that is not finite",
        ),
        (
            '{"scene": "s", "frame": "f", "rmse_m": 1, "abs_rel": 1, "matched_rmse_m": 1}\n' * 2,
            "line 2: the image s/f",
        ),
    ],
)
def test_a_file_that_is_no_lifting_is_named_with_its_line(tmp_path, text, sentence):
    file = tmp_path / "images.jsonl"
    file.write_text(text)
    with pytest.raises(ProbeProblem, match=sentence):
        read_lifting(file)
    with pytest.raises(ProbeProblem, match="cannot read the lifted images"):
        read_lifting(tmp_path / "missing.jsonl")
