"""Runs: the same curve after a kill, torn checkpoints, NaN, parts of the objective, two processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import pytest
import torch
from safetensors import safe_open

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.export.write_bundle import load_run
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.loop import StoppedError, run
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.setup import build_learner, build_sources

DRIVER = """
import sys
from pathlib import Path
import torch
from spatial_mllm_training.recipes import TrainConfig
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.setup import DataPaths
torch.set_num_threads(1)
config = TrainConfig.from_json(Path(sys.argv[1]).read_text())
run(config, DataPaths(scenes=Path(sys.argv[2])), Path(sys.argv[3]), cpu=True, quiet=True)
"""


def curve(out):
    """What was logged, but for the clock."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("minutes", "data_wait")} for line in lines]


def start(config, scenes, out, *launcher):
    file = out.parent / "config.json"
    file.write_text(config.to_json())
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    script = out.parent / "driver.py"
    script.write_text(DRIVER)
    command = [sys.executable, *launcher, str(script), str(file), str(scenes.scenes), str(out)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.slow
def test_after_a_kill_the_curve_is_the_uninterrupted_one(scenes, micro, tmp_path):
    """Killed between two checkpoints and in the middle of a log window, with other workers each time."""
    config = micro(steps=40, checkpoint_steps=2, log_steps=3, validate_steps=4, model_camera_dropout=0.5)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(dataclasses.replace(config, workers=2), scenes, cut)
    until = time.monotonic() + 90
    while process.poll() is None and time.monotonic() < until:
        if checkpoints.latest(cut, lambda _: None) is not None and len(curve(cut)) >= 2:
            break
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    at = checkpoints.latest(cut).progress.step
    assert 0 < at < 40
    again = run(config, scenes, cut, cpu=True, quiet=True)
    once = run(config, scenes, whole, cpu=True, quiet=True)
    assert curve(cut) == curve(whole)
    assert again["held_out"] == once["held_out"] and again["samples"] == once["samples"] == 80
    one, other = checkpoints.latest(whole), checkpoints.latest(cut)
    for name, value in one.weights().items():
        assert torch.equal(value, other.weights()[name]), name


def test_a_torn_checkpoint_is_said_and_the_one_before_it_used(scenes, micro, tmp_path, capsys):
    out = tmp_path / "run"
    run(micro(), scenes, out, cpu=True, quiet=True)
    newest = out / "checkpoints" / "step-00000004" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    capsys.readouterr()
    assert checkpoints.latest(out).progress.step == 2
    said = capsys.readouterr().out
    assert "step-00000004" in said and "weights.safetensors" in said and "torn" in said
    (out / "checkpoints" / "step-00000002" / "state.json").write_text('{"progress": ')
    with pytest.raises(SpatialError, match="none of the 2 checkpoint"):
        run(micro(), scenes, out, cpu=True, quiet=True)


def test_a_checkpoint_of_another_model_is_refused(scenes, micro, tmp_path):
    out = tmp_path / "run"
    run(micro(steps=1), scenes, out, cpu=True, quiet=True)
    with pytest.raises(SpatialError, match="trained tensors"):
        run(micro(spatial=SpatialConfig(tasks=("depth",))), scenes, out, cpu=True, quiet=True)
    state = out / "checkpoints" / "step-00000001" / "state.json"
    state.write_text(state.read_text().replace("qwen2_5_vl", "internvl"))
    with pytest.raises(SpatialError, match="family internvl, but the recipe gives qwen2_5_vl"):
        run(micro(), scenes, out, cpu=True, quiet=True)


def test_a_checkpoint_that_spells_numbers_differently_is_refused(scenes, micro, tmp_path):
    run(micro(steps=1), scenes, tmp_path / "run", cpu=True, quiet=True)
    with pytest.raises(SpatialError, match="number digits 0, but the recipe gives 5"):
        run(micro(steps=2, number_digits=5), scenes, tmp_path / "run", cpu=True, quiet=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"named_letters": True}, "named points"),
        ({"clips": True}, "prompts"),
        ({"pointers": True}, "prompts"),
    ],
)
def test_a_checkpoint_that_reads_prompts_otherwise_is_refused(scenes, micro, tmp_path, changes, said):
    """Of the same shapes: nothing but the record tells them apart."""
    config = micro(steps=1)
    run(config, scenes, tmp_path / "run", cpu=True, quiet=True)
    if not changes.get("named_letters"):
        changes = {"model": dataclasses.replace(config.model, **changes)}
    with pytest.raises(SpatialError, match=said):
        run(micro(steps=2, **changes), scenes, tmp_path / "run", cpu=True, quiet=True)


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(scenes, micro, tmp_path):
    out = tmp_path / "run"
    config = micro(
        steps=20, learning_rate=1e30, matrix_learning_rate=1e30, precision="fp32", warmup_share=1e-9
    )
    with pytest.raises(StoppedError, match=r"the loss is (nan|inf) at step \d+; the batch \(pair"):
        run(config, scenes, out, cpu=True, quiet=True)
    (file,) = out.glob("bad_batch_*.safetensors")
    with safe_open(str(file), "pt") as opened:
        step = int(opened.metadata()["step"])
    learner = build_learner(config)
    sources, _, _ = build_sources(config, scenes, learner)
    expected = collate([sources["pairs"].sample(2 * step + i) for i in range(2)], learner.pad_id)
    kept = Batch.read(file)
    assert torch.equal(kept.ids, expected.ids) and torch.equal(kept.mask, expected.mask)
    assert torch.equal(kept.groups[0].pixels, expected.groups[0].pixels)


@pytest.mark.slow
def test_two_processes_learn_as_one_with_twice_the_batch(scenes, micro, tmp_path):
    """Gradients are averaged over gloo, and no sample is seen twice."""
    alone = run(micro(batch=4, steps=3, precision="fp32"), scenes, tmp_path / "alone", cpu=True, quiet=True)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(micro(batch=2, steps=3, precision="fp32"), scenes, tmp_path / "both", *launcher)
    said, _ = process.communicate(timeout=110)
    assert process.returncode == 0, said
    both = checkpoints.latest(tmp_path / "both")
    assert both.progress.samples == alone["samples"] == 12
    before = build_learner(micro()).model.state_dict()
    one, other = checkpoints.latest(tmp_path / "alone").weights(), both.weights()
    # the heads' weights see the depth loss alone, whose mean over the two halves is the mean over the whole
    for name in [n for n in one if n.startswith("depth_head")][:8]:
        assert float((one[name] - other[name]).norm()) < 0.2 * float((one[name] - before[name]).norm()), name


def test_accumulated_passes_count_as_one_step(scenes, micro, tmp_path):
    final = run(micro(batch=1, accumulate=2, steps=2), scenes, tmp_path / "run", cpu=True, quiet=True)
    assert (final["step"], final["samples"]) == (2, 4)


def test_the_run_folder_says_what_was_done(scenes, micro, tmp_path):
    out = tmp_path / "run"
    spatial = SpatialConfig(weight=0.5)
    run(micro(steps=2, spatial=spatial, checkpointing=True), scenes, out, cpu=True, quiet=True)
    record = json.loads((out / "run.json").read_text())
    assert len(record["data"]["pairs"]) == 64 and record["versions"]["torch"] == version("torch")
    line = curve(out)[0]
    assert {
        "step",
        "loss",
        "answer_loss",
        "depth_loss",
        "spatial/depth",
        "spatial/rays",
        "spatial/points",
    } <= set(line)
    total = line["answer_loss"] + line["depth_loss"] + 0.5 * line["spatial/total"]
    assert line["loss"] == pytest.approx(total, rel=2e-2)
    assert list((out / "tensorboard").glob("events.*"))


def test_held_out_depth_is_of_the_3d_heads_where_these_alone_are_trained(scenes, micro, tmp_path):
    config = micro(steps=1, depth_weight=0.0, spatial=SpatialConfig(tasks=("depth",)))
    found = run(config, scenes, tmp_path / "run", cpu=True, quiet=True)["held_out"]
    model, config, *_ = load_run(tmp_path / "run")
    learner = dataclasses.replace(build_learner(config), model=model)
    _, _, held_out = build_sources(config, scenes, learner)
    batch = collate([held_out.sample(i) for i in range(8)], learner.pad_id, maps=True)
    objective = Objective.of(config, model)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        taps = objective.predict(batch).taps
        depth_m = model.spatial_heads(taps[0], *batch.groups[0].grid.tolist())["depth"].value[..., 0]
    truth_m = batch.groups[0].depth
    known = torch.isfinite(truth_m) & (truth_m > 0)
    expected = ((depth_m - truth_m).abs() / truth_m)[known].mean()
    assert found["abs_rel"] == pytest.approx(float(expected), rel=1e-3)

    heads_for_rays = micro(steps=1, depth_weight=0.0, spatial=SpatialConfig(tasks=("rays",)))
    assert "abs_rel" not in run(heads_for_rays, scenes, tmp_path / "rays", cpu=True, quiet=True)["held_out"]


def test_what_is_shown_is_learnt(scenes, micro, tmp_path):
    """Gradients of both losses reach what they should: depth falls by half, answers by a tenth."""
    out = tmp_path / "run"
    run(micro(steps=30, checkpoint_steps=1000), scenes, out, cpu=True, quiet=True)
    found = curve(out)
    assert found[-1]["depth_loss"] < 0.5 * found[0]["depth_loss"]
    assert found[-1]["answer_loss"] < 0.9 * found[0]["answer_loss"]
