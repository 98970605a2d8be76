"""Recipes: plain functions that return a complete training configuration."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.recipes.tiny_cpu import smoke, tiny_cpu

RECIPES: dict[str, Callable[[], TrainConfig]] = {"tiny_cpu": tiny_cpu, "smoke": smoke}

__all__ = ["RECIPES", "TrainConfig"]
