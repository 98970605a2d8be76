"""The learner of a recipe has the heads that the recipe asks for, and its additions say so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from spatial_mllm_training.model.checkpoint import load
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.training_loop.setup import build_learner


@pytest.mark.parametrize("tasks", [None, ("depth", "points")])
def test_saved_additions_load_with_the_heads_of_the_recipe(
    tmp_path: Path, tasks: tuple[str, ...] | None
) -> None:
    spatial = None if tasks is None else SpatialConfig(tasks=tasks, shared_projector=True)
    model = build_learner(dataclasses.replace(RECIPES["smoke"](), spatial=spatial)).model
    model.hf.save_pretrained(tmp_path / "stock")
    model.save_additions(tmp_path / "additions.safetensors")
    again = load(tmp_path / "stock", additions=tmp_path / "additions.safetensors")
    assert again.heads == model.heads and again.heads.tasks == (tasks or ())
    mine, yours = model.additions(), again.additions()
    assert mine.keys() == yours.keys() and any(k.startswith("spatial_heads") for k in mine) == bool(tasks)
    assert all(torch.equal(mine[k], yours[k]) for k in mine)
