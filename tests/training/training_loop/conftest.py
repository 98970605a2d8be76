"""Micro runs on scene files that no renderer had to draw."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.setup import DataPaths


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def scenes(tmp_path, write_scene):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for seed in (1, 2, 100_000):
        write_scene(folder / f"scene_{seed:08d}.npz", seed)
    return DataPaths(scenes=folder)


@pytest.fixture
def micro():
    """A function (**changes) -> the smoke recipe at 96x64 px, counted in steps, in this process only."""

    def make(**changes):
        base = {
            "data": PairConfig(width=96, height=64, single_questions=2, pair_questions=2),
            "steps": 4,
            "checkpoint_steps": 2,
            "validate_steps": 1000,
            "validate_batches": 1,
            "log_steps": 1,
            "workers": 0,
        }
        return dataclasses.replace(RECIPES["smoke"](), **{**base, **changes})

    return make
