"""The benchmark of training steps: a few steps of a micro model print the ratios."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("accelerate", reason="training needs the 'training' extra")

from spatial_mllm_training.recipes import RECIPES

ROOT = Path(__file__).parents[2]


def test_every_small_recipe_can_be_without_what_is_added() -> None:
    spec = importlib.util.spec_from_file_location("train_step", ROOT / "benchmarks" / "train_step.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    for recipe in RECIPES.values():
        if recipe().published is None:
            assert not benchmark.without_additions(recipe()).model.deep_pointers


@pytest.mark.slow
def test_a_few_steps_print_the_ratios() -> None:
    command = [
        sys.executable,
        "benchmarks/train_step.py",
        "--recipe",
        "smoke",
        "--steps",
        "2",
        "--rounds",
        "1",
    ]
    environment = {"PYTHONPATH": "training:src", "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["speed_over_trainer"] > 0 and found["cost_of_depth_and_3d"] > 1
    assert 0 <= found["data_wait_share"] < 1
    # the same prompts in both: the loss at the first step is the same but for bf16
    assert found["first_answer_loss"]["trainer"] == pytest.approx(
        found["first_answer_loss"]["answers"], rel=0.01
    )


def test_a_folder_without_scenes_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/train_step.py", "--recipe", "smoke", "--scenes", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    assert "holds no scene_" in done.stderr and "Traceback" not in done.stderr
