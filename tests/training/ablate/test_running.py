"""An experiment from scene files to its table, kept when it is asked for again; faults in one sentence."""

from __future__ import annotations

import dataclasses
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.__main__ import compared, main, parse_arguments, planned
from spatial_mllm_training.ablate.arms import experiment, groups_of
from spatial_mllm_training.ablate.eval_sets import HELD_OUT, EvalSize
from spatial_mllm_training.ablate.running import Plan, subtasks_of
from spatial_mllm_training.export.write_bundle import load_run
from spatial_mllm_training.training_loop.beginning import record_of
from spatial_mllm_training.training_loop.setup import DataPaths
from spatial_mllm_training.training_loop.teaching import Lessons

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"
LESSONS = Lessons(steps=2, hidden=32, layers=4, features=16)
SIZE = EvalSize(samples=3, slope_images=2, points=5)


@pytest.fixture
def plan(scenes, tiny, tmp_path):
    found = experiment("camera")
    return Plan(
        experiment=found,
        arms=found.chosen(["rgb", "rays-augmentation"]),
        seeds=(0, 1),
        base=tiny,
        paths=DataPaths(scenes=scenes),
        out=tmp_path / "out",
        size=SIZE,
        cpu=True,
        quiet=True,
    )


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*.json") if p.name != "results.json"}


class Tags(HTMLParser):
    """Every tag that is opened is closed in order."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_two_arms_and_two_seeds_become_a_table(plan, capsys):
    first = compared(plan)
    record = json.loads((plan.folder / "results.json").read_text())
    panels = {(p["test"], p["column"]["key"]): p["cells"] for p in record["panels"]}
    # the conftest's camera sees 63 degrees, which is held out
    assert set(panels) == {(HELD_OUT, key) for key in ("answers", "loss", "abs_rel", "delta1", "slope")}
    for (_, key), cells in panels.items():
        assert [c["arm"] for c in cells] == ["rgb", "rays-augmentation"]
        for cell in cells:
            assert len(cell["mean"]["values"]) == 2 and cell["error"] is not None
            assert (cell["blind"] is None) == (key == "slope")
        assert cells[0]["against_first"] is None
        a, b = (c["mean"]["values"] for c in cells)
        assert cells[1]["against_first"]["mean"] == pytest.approx(sum(b) / 2 - sum(a) / 2)
    assert {json.loads(p.read_text())["steps"] for p in plan.folder.glob("*/*/config.json")} == {3}
    assert {json.loads(p.read_text())["samples"] for p in plan.folder.glob("*/*/final.json")} == {6}
    table = (plan.folder / "table.txt").read_text()
    assert "less rgb" in table and "note: 2 seed(s)" in table and "published: CA-MLLM" in table
    tags = Tags()
    tags.feed((plan.folder / "report.html").read_text())
    assert tags.open == []
    before = times(plan.folder)
    assert compared(plan) == first  # nothing is trained or measured again
    assert times(plan.folder) == before
    assert "kept" in capsys.readouterr().out
    other = dataclasses.replace(plan, base=dataclasses.replace(plan.base, batch=3))
    with pytest.raises(
        SpatialError, match=r"rgb/seed-0' holds a run with other settings; name another --out"
    ):
        compared(other)


def test_every_arm_begins_with_the_weights_that_are_named(plan, scenes):
    """Before a step is made with them, all arms of a seed are the model they begin with."""
    still = dataclasses.replace(
        plan.base, learning_rate=0.0, matrix_learning_rate=0.0, weight_decay=0.0, ema=0.0, steps=1
    )
    compared(dataclasses.replace(plan, arms=plan.arms[1:], seeds=(0,), out=plan.out / "before"))
    before = plan.out / "before" / "camera" / "rays-augmentation" / "seed-0"
    begun = dataclasses.replace(
        plan,
        base=still,
        seeds=(0,),
        paths=dataclasses.replace(plan.paths, begin_with=before),
        begins=record_of(before),
    )
    found = compared(begun)
    assert any("begins with the weights of one of 3 steps" in note for note in found.notes)
    theirs = load_run(before)[0].state_dict()
    for arm in begun.arms:
        ours = load_run(begun.run_folder(arm, 0))[0].state_dict()
        assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    with pytest.raises(SpatialError, match="holds a run that began with other weights"):
        compared(dataclasses.replace(begun, paths=plan.paths, begins={}))
    (
        begun.run_folder(begun.arms[0], 0) / "final.json"
    ).unlink()  # nor does one that was cut short go on with others
    with pytest.raises(SpatialError, match="holds a run that began with other weights"):
        compared(dataclasses.replace(begun, paths=plan.paths, begins={}))
    asked = ["camera", "--scenes", str(scenes), "--out", "o", "--begin-with", str(before)]
    assert planned(parse_arguments(asked)).begins == record_of(before)
    assert record_of(before)["steps"] == 3


def test_one_camera_and_many_are_tested_on_both(plan):
    arms = plan.experiment.chosen(["rgb-mixed"])
    found = compared(dataclasses.replace(plan, arms=arms, seeds=(0,)))
    assert {p.test for p in found.panels} == {"the one camera", "many cameras"}
    assert any("1 seed(s)" in note for note in found.notes)


def test_minutes_become_equal_steps(plan):
    timed = dataclasses.replace(plan, arms=plan.arms[:1], seeds=(0,), minutes=0.004)
    compared(timed)
    steps = json.loads((plan.folder / "pace.json").read_text())["steps"]
    assert json.loads((plan.folder / "rgb" / "seed-0" / "final.json").read_text())["step"] == steps >= 1
    compared(timed)
    assert json.loads((plan.folder / "pace.json").read_text())["steps"] == steps


def test_rows_with_half_of_their_answers(plan, rows, held_out_rows):
    found = experiment("semi", from_rows=True)
    other = dataclasses.replace(
        plan,
        experiment=found,
        arms=found.chosen(["half", "full"]),
        seeds=(0,),
        paths=DataPaths(rows=(rows,), depth=(("simulated", rows.parent / "scenes"), ("simulated", FIXTURES))),
        test_rows=(held_out_rows,),
    )
    panels = compared(other).panels
    assert {p.column.key for p in panels} == {"answers", "loss"}
    assert [c.arm for c in panels[0].cells] == ["half", "full"]
    assert all(c.blind is not None and c.blind > 0 for c in panels[0].cells)


def test_rows_are_measured_by_group_and_by_depth(plan, rows, held_out_rows):
    found = experiment("tasks", from_rows=True, groups=groups_of(subtasks_of([rows])))
    assert found.arms[0].name == "multi" and len(found.arms) == 4
    other = dataclasses.replace(
        plan,
        experiment=found,
        arms=found.chosen(["multi", "depth_value"]),
        seeds=(0,),
        paths=DataPaths(rows=(rows,), depth=(("simulated", rows.parent / "scenes"), ("simulated", FIXTURES))),
        test_rows=(held_out_rows,),
        size=dataclasses.replace(SIZE, least_view_deg=20.0),
    )
    panels = {p.column.key: [c.arm for c in p.cells] for p in compared(other).panels}
    assert panels["answers"] == ["multi"] and panels["group:depth_value"] == ["multi", "depth_value"]
    assert panels["loss"] == ["multi"] and panels["loss:depth_value"] == ["multi", "depth_value"]
    assert panels["group:object_movement_distance"] == panels["loss:object_movement_distance"] == ["multi"]
    # what one group's arm was not asked is not measured either
    assert panels["abs_rel"] == panels["slope"] == ["multi"]
    asked = {
        arm: json.loads((other.run_folder(other.experiment.chosen([arm])[0], 0) / "figures.json").read_text())
        for arm in ("multi", "depth_value")
    }
    questions = {
        arm: sum(value for key, value in record["figures"].items() if key.endswith("/questions"))
        for arm, record in asked.items()
    }
    assert 0 < questions["depth_value"] < questions["multi"]


def test_distilled_arms_learn_from_one_teacher_that_is_trained_once(plan, capsys):
    taught = dataclasses.replace(plan, arms=plan.experiment.chosen(["rgb", "prior", "all"]), lessons=LESSONS)
    found = compared(taught)
    arms = {c.arm for p in found.panels for c in p.cells}
    assert arms == {"rgb", "prior", "all"}
    (teacher,) = (plan.out / "teacher").glob("*/specialist.safetensors")
    written = teacher.stat().st_mtime_ns
    (note,) = (n for n in found.notes if "teacher" in n)
    figures = json.loads(teacher.with_name("specialist.json").read_text())["held_out"]
    assert f"AbsRel {figures['abs_rel']:.3f}" in note and "told K" in note
    line = json.loads((plan.folder / "prior/seed-0/metrics.jsonl").read_text().splitlines()[0])
    assert "distillation_loss" in line
    said = capsys.readouterr().out
    assert said.count("a specialist of") == 1
    supervised = experiment("supervision")
    other = dataclasses.replace(
        taught, experiment=supervised, arms=supervised.chosen(["distillation", "all"]), seeds=(0,)
    )
    compared(other)  # another experiment has the same teacher
    assert teacher.stat().st_mtime_ns == written and "a specialist of" not in capsys.readouterr().out
    compared(
        dataclasses.replace(
            other, paths=dataclasses.replace(other.paths, teacher_weights=str(teacher.parent))
        )
    )
    weights = dict(load_file(teacher))
    weights["patches.bias"] += 1.0
    with safe_open(str(teacher), "pt") as file:
        save_file(weights, str(plan.out / "other.safetensors"), metadata=file.metadata())
    different = dataclasses.replace(other.paths, teacher_weights=str(plan.out / "other.safetensors"))
    with pytest.raises(SpatialError, match="holds a run that follows another teacher"):
        compared(dataclasses.replace(other, paths=different))


def test_a_teacher_learns_from_rows_as_well(plan, rows, held_out_rows):
    found = experiment("supervision", from_rows=True)
    other = dataclasses.replace(
        plan,
        experiment=found,
        arms=found.chosen(["all"]),
        seeds=(0,),
        paths=DataPaths(rows=(rows,), depth=(("simulated", rows.parent / "scenes"), ("simulated", FIXTURES))),
        test_rows=(held_out_rows,),
        lessons=LESSONS,
    )
    compared(other)
    (record,) = (plan.out / "teacher").glob("*/specialist.json")
    assert json.loads(record.read_text())["held_out"]["abs_rel"] > 0
    line = json.loads((other.folder / "all/seed-0/metrics.jsonl").read_text().splitlines()[0])
    assert {"distillation_loss", "spatial/depth"} <= line.keys()


def test_a_teacher_learns_as_long_as_its_pupils_unless_told_otherwise(scenes, tmp_path):
    command = ["camera", "--scenes", str(scenes), "--out", str(tmp_path)]
    assert planned(parse_arguments([*command, "--steps", "70"])).lessons == Lessons(steps=70)
    assert planned(parse_arguments([*command, "--minutes", "4"])).lessons == Lessons(minutes=4.0)
    both = parse_arguments([*command, "--minutes", "4", "--teacher-minutes", "9"])
    assert planned(both).lessons == Lessons(minutes=9.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["camera", "--arms", "rag"], "has no arm 'rag'"),
        (["camera", "--arms", "prior", "--teacher", "{empty}"], "there is no specialist at"),
        (["semi"], "give --rows"),
        (["camera", "--arms", "rgb", "--test-scenes", "{empty}"], "holds no scene of a test seed"),
    ],
)
def test_faults_are_one_sentence(arguments, sentence, scenes, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    command = [a.replace("{empty}", str(tmp_path / "empty")) for a in arguments]
    status = main(
        [*command, "--scenes", str(scenes), "--out", str(tmp_path / "o"), "--steps", "1", "--cpu", "--quiet"]
    )
    said = capsys.readouterr().err
    assert status == 2 and sentence in said and len(said.strip().splitlines()) == 1
