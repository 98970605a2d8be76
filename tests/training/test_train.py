"""The training verb: learns, saves, resumes, exports; split by seed; refuses what it cannot use."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
import torch

from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.export.write_bundle import claimed_subtasks, load_run, write_bundle
from spatial_mllm_training.model.losses import CONFIDENCE_ALPHA, depth_loss
from spatial_mllm_training.recipes import RECIPES, TrainConfig
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_files
from spatial_mllm_training.train import main
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.optimizers import schedule
from spatial_mllm_training.training_loop.setup import DataPaths


@pytest.fixture
def scenes(tmp_path, write_scene):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for seed in (1, 2, 100_000):
        write_scene(folder / f"scene_{seed:08d}.npz", seed)
    return folder


def test_seeds_split_training_from_held_out(scenes):
    assert [f.stem for f in scene_files(scenes, held_out=False)] == ["scene_00000001", "scene_00000002"]
    assert [f.stem for f in scene_files(scenes, held_out=True)] == ["scene_00100000"]
    assert FIRST_TEST_SEED > 100_000


@pytest.mark.slow
def test_a_run_saves_resumes_and_becomes_a_bundle_that_answers(scenes, tmp_path):
    out = tmp_path / "run"
    config = dataclasses.replace(RECIPES["smoke"](), steps=2, validate_batches=1, workers=0)
    run(config, DataPaths(scenes=scenes), out, cpu=True, quiet=True)
    first = json.loads((out / "final.json").read_text())
    assert first["step"] > 0
    longer = dataclasses.replace(config, steps=3)
    run(longer, DataPaths(scenes=scenes), out, cpu=True, quiet=True)
    assert json.loads((out / "final.json").read_text())["step"] > first["step"]
    assert TrainConfig.from_json((out / "config.json").read_text()).steps == 3
    model, config, tokenizer, progress = load_run(out)
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    write_bundle(
        model,
        config,
        tokenizer,
        bundle,
        name="b",
        version="1",
        subtasks=claimed_subtasks(out),
        progress=progress,
        metrics={},
    )
    assert SpatialModel.load(bundle).manifest.training["steps"] == progress["steps"]


def test_without_scenes_it_says_what_to_run(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert (
        main(["--recipe", "smoke", "--scenes", str(tmp_path / "empty"), "--out", str(tmp_path / "run")]) == 2
    )
    assert "make_scenes" in capsys.readouterr().err


def test_the_recipe_comes_back_from_its_file():
    config = RECIPES["tiny_cpu"]()
    assert TrainConfig.from_json(config.to_json()) == config


def test_the_learning_rate_warms_up_and_falls():
    config = RECIPES["tiny_cpu"]()
    values = [schedule(config, s / 100) for s in range(101)]
    assert values[0] == 0
    assert max(values) == pytest.approx(1.0, abs=0.01)
    assert values[-1] == pytest.approx(0.02, abs=1e-6)


def test_depth_loss_equals_a_slow_reference():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.randn(2, 6, 5, generator=generator)
    confidence = 1 + torch.rand(2, 6, 5, generator=generator)
    truth = torch.rand(2, 6, 5, generator=generator) + 0.5
    truth[0, :2] = 0
    data, valid = 0.0, 0
    for b in range(2):
        for y in range(6):
            for x in range(5):
                if truth[b, y, x] > 0:
                    error = abs(float(prediction[b, y, x] - truth[b, y, x].log()))
                    c = float(confidence[b, y, x])
                    data += c * error - CONFIDENCE_ALPHA * float(torch.tensor(c).log())
                    valid += 1
    expected = data / valid
    for stride in (1, 2, 4):
        ys, xs = list(range(0, 6, stride)), list(range(0, 5, stride))
        for steps in (
            [((a, x), (b, x)) for a, b in itertools.pairwise(ys) for x in xs],
            [((y, a), (y, b)) for y in ys for a, b in itertools.pairwise(xs)],
        ):
            total, count = 0.0, 0
            for image in range(2):
                for one, two in steps:
                    p, q = truth[(image, *one)], truth[(image, *two)]
                    if p > 0 and q > 0:
                        difference = (prediction[(image, *two)] - q.log()) - (
                            prediction[(image, *one)] - p.log()
                        )
                        total, count = total + abs(float(difference)), count + 1
            expected += 0.25 * total / max(count, 1)
    assert float(depth_loss(prediction, confidence, truth)) == pytest.approx(expected, rel=1e-5)
    prediction.requires_grad_()
    depth_loss(prediction, confidence, truth).backward()
    assert torch.isfinite(prediction.grad).all()
    assert (prediction.grad[0, 0] == 0).all()
