"""A whole score: truths give 100, mixed answers give hand-computed figures, every count is told."""

from __future__ import annotations

import json
import math
import re

import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import GROUPS, TaskValue
from spatial_mllm_training.benchmark import text_report
from spatial_mllm_training.benchmark.blind import fit_blind
from spatial_mllm_training.benchmark.data import Predictions
from spatial_mllm_training.benchmark.scoring import score


def test_the_truth_scores_100_in_both_extractions_for_all_26(every_row):
    rows = every_row(4)
    result = score(rows, Predictions("truth", {r.id: r.answer for r in rows}), None, data="d")
    assert len(result.subtasks) == 26
    for subtask in result.subtasks:
        assert (subtask.columns.robust.percent, subtask.columns.strict.percent) == (100, 100), subtask.name
        assert (subtask.unparsable, subtask.unparsable_strict, subtask.missing) == (0, 0, 0)
    assert result.group_mean.robust.percent == pytest.approx(100)
    assert result.task_mean.strict.percent == pytest.approx(100)
    assert result.group_mean.blind is None


@pytest.mark.parametrize("template", range(5))
def test_every_answer_wording_is_read(every_row, template):
    rows = every_row(2)
    texts = {}
    for row in rows:
        task = tasks.get(row.question_type)
        spatial = row.spatial
        texts[row.id] = task.answer_text(
            task.truth_of(row.gt_value),
            template=template,
            variant=spatial.variant,
            category=spatial.category,
        )
    result = score(rows, Predictions("truth", texts), None, data="d")
    assert result.task_mean.robust.percent == pytest.approx(100)
    assert result.task_mean.strict.percent == pytest.approx(100)


@pytest.fixture
def mixed(make_row):
    """Twelve rows of four subtasks in three scenes, with what a model said and what it is worth."""
    depth = [
        make_row("depth_estimation_coor", i, truth=TaskValue((1.0,)), scene=f"s{i % 3}") for i in range(4)
    ]
    left = [make_row("x_movement", i, truth=TaskValue(label="left"), scene=f"s{i % 3}") for i in range(4)]
    up = [make_row("y_movement", i, truth=TaskValue(label="up"), scene=f"s{i % 3}") for i in range(2)]
    yaw = [make_row("yaw_angle", i, truth=TaskValue((0.0,)), scene="s0") for i in range(2)]
    said = {
        depth[0].id: "`1100`",  # right
        depth[1].id: "1.1 m",  # right, but not for the strict extraction
        depth[2].id: "`1300`",  # wrong
        depth[3].id: "far away",  # nothing to read
        left[0].id: "`left`",
        left[1].id: "`left`",
        left[2].id: "`left`",
        left[3].id: "`right`",
        up[0].id: "`down`",  # and no answer to up[1]
        yaw[0].id: "`0`",
        yaw[1].id: "`3`",
    }
    return [*depth, *left, *up, *yaw], said


def test_hand_computed_table(mixed):
    rows, said = mixed
    result = score(rows, Predictions("m", said), None, data="d")
    depth = result.subtask("depth_estimation_coor")
    assert depth.columns.robust.percent == 50
    assert depth.columns.strict.percent == 25
    assert depth.columns.robust.standard_error == pytest.approx(100 * math.sqrt(0.5 * 0.5 / 4))
    assert (depth.unparsable, depth.unparsable_strict, depth.missing, depth.zero_truth) == (1, 2, 0, 0)
    assert result.subtask("x_movement").columns.robust.percent == 75
    assert result.subtask("y_movement").columns.robust.percent == 0
    assert result.subtask("y_movement").missing == 1
    assert result.subtask("yaw_angle").zero_truth == 2
    direction = result.groups["camera_translation_direction"].robust
    assert direction.percent == pytest.approx((75 + 0) / 2)
    assert direction.standard_error == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4 / 4))
    # groups: depth value 50, translation direction 37.5, orientation degree 50
    assert result.group_mean.robust.percent == pytest.approx((50 + 37.5 + 50) / 3)
    assert result.group_mean.strict.percent == pytest.approx((25 + 37.5 + 50) / 3)
    assert result.task_mean.robust.percent == pytest.approx((50 + 75 + 0 + 50) / 4)
    assert (result.group_count, result.task_count) == (3, 4)
    notes = " ".join(result.notes)
    assert "22 of the 26 subtasks have no row" in notes
    assert "Rows without an answer, counted as wrong: 1." in notes
    assert "counted as wrong: 1 (2 with the published extraction)" in notes
    assert "(20 % of nothing): 2." in notes


def test_group_mean_is_not_the_task_mean(every_row):
    rows = every_row(2)
    right_only = {r.id: r.answer for r in rows if r.question_type.startswith("tapvid3d")}
    result = score(rows, Predictions("movers", right_only), None, data="d")
    assert result.group_mean.robust.percent == pytest.approx(100 * 2 / 12)
    assert result.task_mean.robust.percent == pytest.approx(100 * 8 / 26)
    assert "mean of the 12 groups (headline)" in text_report.table(result)


def test_what_is_not_served_counts_as_wrong_and_is_named(every_row):
    rows = every_row(2)
    served = frozenset({"x_movement", "yaw_angle"})
    texts = {r.id: r.answer for r in rows if r.question_type in served}
    result = score(rows, Predictions("bundle", texts, served), None, data="d")
    assert result.task_mean.robust.percent == pytest.approx(100 * 2 / 26)
    assert result.served_mean.robust.percent == pytest.approx(100)
    assert not result.subtask("z_movement").is_served
    assert result.subtask("z_movement").missing == 0
    table = text_report.table(result)
    assert re.search(r"  z_movement .* not served", table)
    assert "mean of the 2 subtasks that are served" in table
    assert any("does not serve 24 subtasks" in note for note in result.notes)


def test_the_table_has_all_subtasks_and_groups_aligned(every_row):
    rows = every_row(2)
    blind = fit_blind(every_row(4, split="train"))
    result = score(rows, Predictions("m", {r.id: r.answer for r in rows}), blind, data="d")
    lines = text_report.table(result).splitlines()
    figures = [line for line in lines if line.rstrip().endswith("  2") or line.startswith("  ")]
    assert len([line for line in figures if line.split()[0] in tasks.names()]) == 26
    assert len({len(line) for line in lines if line.split()[-1:] and line.split()[-1].isdigit()}) == 1
    assert sum(line.startswith(("Depth", "Corr", "Camera", "Object")) for line in lines) == len(GROUPS)


def test_json_holds_everything_and_no_nan(every_row):
    rows = [r for r in every_row(2) if r.spatial.scene == "room0"]  # one scene: no error by scene
    result = score(rows, Predictions("m", {}), fit_blind(every_row(3, split="train")), data="d")
    record = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert record["group_mean"]["robust"]["scene_error"] is None
    assert len(record["subtasks"]) == 26
    assert set(record["groups"]) == set(GROUPS)
    assert record["task_mean"]["blind"]["percent"] >= 0


def test_training_rows_are_told(every_row):
    rows = every_row(2, split="train")
    notes = score(rows, Predictions("m", {}), None, data="d").notes
    assert any("Rows outside the benchmark split, which a model may have seen: 52." in note for note in notes)
