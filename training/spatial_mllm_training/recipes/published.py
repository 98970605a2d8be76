"""Recipes that adapt published checkpoints on MultiSPA rows and general conversations.

LoRA of rank 16 on the decoder at 4e-5, 2 % of general data (MultiSPA: 3M + 60K, facts 2.8); projector,
ray embedding and heads at 1e-5 (SpatialSV, facts 3.1); warm-up 3 % and cosine in both.
"""

from __future__ import annotations

from spatial_mllm_training.augment import AugmentConfig
from spatial_mllm_training.recipes.config import (
    MixConfig,
    PublishedConfig,
    RowsConfig,
    SpatialConfig,
    TrainConfig,
)


def qwen2_5_vl_3b_lora() -> TrainConfig:
    """Qwen2.5-VL-3B at native resolution."""
    return _lora("qwen2_5_vl_3b_lora", PublishedConfig("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"))


def qwen2_5_vl_7b_lora() -> TrainConfig:
    """Qwen2.5-VL-7B at native resolution; SpatialSV's larger one of the family."""
    return _lora("qwen2_5_vl_7b_lora", PublishedConfig("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl"))


def internvl3_1b_lora() -> TrainConfig:
    """InternVL3-1B, one 448 px view per image."""
    return _lora("internvl3_1b_lora", PublishedConfig("OpenGVLab/InternVL3-1B-hf", "internvl"))


def internvl3_8b_lora() -> TrainConfig:
    """InternVL3-8B, one 448 px view per image; MultiSPA trained an InternVL of this size."""
    return _lora("internvl3_8b_lora", PublishedConfig("OpenGVLab/InternVL3-8B-hf", "internvl"))


def _lora(name: str, published: PublishedConfig) -> TrainConfig:
    return TrainConfig(
        name=name,
        published=published,
        mix=MixConfig(pairs=0.0, rows=0.98, general=0.02),
        rows=RowsConfig(questions=6, max_tokens=4096, augment=AugmentConfig()),
        spatial=SpatialConfig(),
        steps=10_000,
        batch=4,
        accumulate=4,
        optimizer="adamw",
        learning_rate=1e-5,
        decoder_learning_rate=4e-5,
        final_share=0.0,
        weight_decay=0.0,
        model_camera_dropout=0.1,
        ema=0.0,
        checkpointing=True,
        log_steps=10,
        checkpoint_minutes=15.0,
        validate_minutes=30.0,
        workers=8,
    )
