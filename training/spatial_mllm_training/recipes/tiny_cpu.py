"""Recipes for two CPU cores."""

from __future__ import annotations

from spatial_mllm_training.recipes.config import ModelConfig, TrainConfig


def tiny_cpu() -> TrainConfig:
    """The recipe of the shipped first bundle: about 8M parameters, 90 minutes on two cores."""
    return TrainConfig(name="tiny_cpu")


def smoke() -> TrainConfig:
    """A few steps of a micro model, for tests."""
    return TrainConfig(
        name="smoke",
        model=ModelConfig(
            hidden=64,
            layers=6,
            heads=2,
            kv_heads=1,
            mlp=96,
            vision_hidden=48,
            vision_layers=2,
            vision_heads=2,
            vision_mlp=64,
            head_features=16,
            patch=8,
            merge=2,
        ),
        minutes=0.2,
        log_steps=1,
        batch=2,
        checkpoint_minutes=0.1,
        validate_minutes=0.1,
    )
