"""Sharded training as it is shipped: accelerate's launcher, our file, two processes, a kill between them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.train import main
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.placing import accelerator_for

SHARDED = Path(__file__).parents[3] / "training" / "accelerate" / "fsdp.yaml"
DRIVER = """
import dataclasses, os, signal, sys, threading, time
from pathlib import Path
from spatial_mllm_training.recipes import RECIPES, TrainConfig
from spatial_mllm_training.train import main

RECIPES["micro"] = lambda: TrainConfig.from_json(Path(sys.argv[1]).read_text())
state = Path(sys.argv[2])

def kill():
    while not state.exists():
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

if not state.exists():  # the first of two starts
    threading.Thread(target=kill, daemon=True).start()
sys.exit(main(sys.argv[3:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(400)  # twenty seconds where nothing else runs
@pytest.mark.parametrize("published", ["qwen2_5_vl"], indirect=True)
def test_a_killed_sharded_run_goes_on_and_ends_where_an_unsharded_one_does(
    published, published_paths, tmp_path, monkeypatch
):
    recipe, base = published
    # the processes see groups of images of other numbers and sizes: two in one, one in the other
    recipe = dataclasses.replace(
        recipe,
        mix=dataclasses.replace(recipe.mix, general=0.0),
        precision="fp32",
        steps=4,
        batch=2,
        checkpoint_steps=2,
        learning_rate=1e-3,
        decoder_learning_rate=1e-3,
        model_camera_dropout=0.0,  # drawn by each process for itself
    )
    (rows,), ((kind, scenes),) = published_paths.rows, published_paths.depth
    arguments = f"--recipe micro --rows {rows} --held-out-rows {rows} --depth {kind} {scenes}".split()
    arguments += f"--checkpoint {base} --cpu --quiet --threads 1 --out".split()
    (tmp_path / "recipe.json").write_text(recipe.to_json())
    (tmp_path / "driver.py").write_text(DRIVER)
    out = tmp_path / "sharded"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SHARDED)]
    launcher += ["--num_processes", "2", "--main_process_port", "0"]
    driver = [tmp_path / "driver.py", tmp_path / "recipe.json", out / "checkpoints" / "step-00000002"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}

    def launch():
        return subprocess.run(
            [*launcher, *map(str, driver), *arguments, str(out)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )

    killed = launch()
    assert killed.returncode != 0 and "Signal 9 (SIGKILL)" in killed.stderr, killed.stderr[-3000:]
    assert checkpoints.latest(out).progress.step == 2 and not (out / "final.json").exists()
    resumed = launch()
    assert resumed.returncode == 0, resumed.stderr[-3000:]
    assert "resumed at step 2" in resumed.stdout + resumed.stderr

    monkeypatch.setitem(RECIPES, "micro", lambda: dataclasses.replace(recipe, accumulate=2))
    assert main([*arguments, str(tmp_path / "whole")]) == 0
    (sharded, whole) = (checkpoints.latest(x) for x in (out, tmp_path / "whole"))
    assert sharded.belongs_to == whole.belongs_to and sharded.progress.step == whole.progress.step == 4
    expected, found = whole.weights(), sharded.weights()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        if "lora_B" in name:  # zero at the start
            assert (found[name] - value).norm() < 0.01 * value.norm(), name
    held_out = [json.loads((x / "final.json").read_text())["held_out"] for x in (out, tmp_path / "whole")]
    assert held_out[0] == pytest.approx(held_out[1], rel=1e-3)
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in lines if "loss" in line)


def test_the_first_version_of_fsdp_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(SpatialError, match="set fsdp_version: 2 in the accelerate file"):
        accelerator_for(RECIPES["smoke"](), cpu=True)


@pytest.mark.parametrize("name", ["fsdp.yaml", "fsdp_multi_node.yaml"])
def test_the_shipped_files_are_read_by_accelerate(name):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(SHARDED.with_name(name)))
    assert config.distributed_type == "FSDP" and config.fsdp_config["fsdp_version"] == 2
    assert config.num_processes % config.num_machines == 0
