"""Scene files of all splits that no renderer had to draw, and a small data set of rows."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.multispa.run import make_dataset
from spatial_mllm_training.recipes.micro import micro
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_files
from spatial_mllm_training.sources.simulated import find_scenes
from spatial_mllm_training.training_loop.setup import build_learner

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"
SUBTASKS = ("depth_estimation_coor", "total_distance", "tapvid3d_total_distance_coord_adt")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory, write_scene):
    folder = tmp_path_factory.mktemp("ablate") / "scenes"
    folder.mkdir()
    for seed in (1, 2, 100_000, 100_100, 100_101):
        file = folder / f"scene_{seed:08d}.npz"
        write_scene(file, seed)
        if seed < FIRST_TEST_SEED:  # the conftest's camera sees 63 degrees, which no training image may
            with np.load(file) as scene:
                k = scene["k"] * np.array([[0.8], [0.8], [1.0]]) + np.array(
                    [[0, 0, 26], [0, 0, 18], [0, 0, 0]]
                )
                np.savez(file, **{**scene, "k": k})
    return folder


def _rows(scenes: Path, out: Path) -> Path:
    make_dataset(find_scenes(scenes), out, dict.fromkeys(SUBTASKS, 8), split=None, quiet=True)
    return out


@pytest.fixture(scope="session")
def rows(tmp_path_factory) -> Path:
    """Training rows: of the same pictures as those of the test, under seeds of the training."""
    folder = tmp_path_factory.mktemp("ablate-rows")
    scenes = folder / "scenes"
    scenes.mkdir()
    for seed, file in enumerate(sorted(FIXTURES.glob("scene_*.npz"))):
        with np.load(file) as scene:
            np.savez(scenes / f"scene_{seed:08d}.npz", **{**scene, "seed": np.int64(seed)})
    return _rows(scenes, folder / "data")


@pytest.fixture(scope="session")
def held_out_rows(tmp_path_factory) -> Path:
    return _rows(FIXTURES, tmp_path_factory.mktemp("ablate-test-rows") / "data")


@pytest.fixture
def speaking(scenes, tiny):
    """(learner, builder) of a model that says all kinds of things: one at initialisation repeats one token."""
    learner = build_learner(tiny)
    model = learner.model.eval().float()
    torch.manual_seed(1)
    for parameter in model.hf.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    files = scene_files(scenes, held_out=False)
    return learner, PairBuilder(files, learner.tokenizer, tiny.data, augment=False, form=learner.form)


@pytest.fixture
def tiny():
    """The micro recipe, smaller still, in this process only."""
    return dataclasses.replace(
        micro(width=64, height=48, hidden=32, mlp=48, batch=2, steps=3, questions=2), workers=0, log_steps=1
    )
