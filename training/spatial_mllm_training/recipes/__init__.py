"""Recipes: plain functions that return a complete training configuration."""

from __future__ import annotations

from collections.abc import Callable

from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.recipes.micro import micro
from spatial_mllm_training.recipes.published import (
    internvl3_1b_lora,
    internvl3_8b_lora,
    qwen2_5_vl_3b_lora,
    qwen2_5_vl_7b_lora,
)
from spatial_mllm_training.recipes.small_gpu import small_gpu
from spatial_mllm_training.recipes.tiny_cpu import (
    smoke,
    tiny_cpu,
    tiny_cpu_answers,
    tiny_cpu_drills,
    tiny_cpu_images,
    tiny_cpu_longer,
    tiny_cpu_matches,
    tiny_cpu_words,
)

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        tiny_cpu,
        tiny_cpu_words,
        tiny_cpu_longer,
        tiny_cpu_answers,
        tiny_cpu_matches,
        tiny_cpu_drills,
        tiny_cpu_images,
        smoke,
        small_gpu,
        qwen2_5_vl_3b_lora,
        qwen2_5_vl_7b_lora,
        internvl3_1b_lora,
        internvl3_8b_lora,
    )
}

EXPERIMENT_RECIPES = {"micro": micro, **RECIPES}
"""With the one that is made for many short runs."""

__all__ = ["EXPERIMENT_RECIPES", "RECIPES", "TrainConfig"]
