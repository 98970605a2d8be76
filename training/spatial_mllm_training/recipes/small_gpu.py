"""The recipe for one GPU."""

from __future__ import annotations

from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.model.matcher import MatcherSize
from spatial_mllm_training.recipes.config import (
    NUMBERS,
    MixConfig,
    ModelConfig,
    SpatialConfig,
    TrainConfig,
    rows_beside_pairs,
)
from spatial_mllm_training.supervision.heads import PUBLISHED_TASKS


def small_gpu() -> TrainConfig:
    """About 30M parameters at 256x192, with the three 3D heads and that of motion; all 26 subtasks.

    bf16, one hour on one large GPU.
    """
    size = (256, 192)
    return TrainConfig(
        name="small_gpu",
        model=ModelConfig(
            hidden=384,
            layers=10,
            heads=6,
            kv_heads=2,
            mlp=1152,
            vision_hidden=384,
            vision_layers=4,
            vision_heads=6,
            vision_mlp=1152,
            tap_layers=(3, 5, 7, 9),
            coordinate_code=2.0,
            clips=True,
            pointers=True,
            deep_pointers=True,
            matcher=MatcherSize(stride=8),
            told_digits=True,
            copied_digits=True,
        ),
        # images of one camera: their pixels can be compared
        data=PairConfig(
            width=size[0],
            height=size[1],
            still_camera=0.6,
            own_crops=0.1,
            same_time=0.05,
            far=0.5,
            correspondences=4,
            whole_camera=True,
            told_questions=6,
            size_questions=3,
            dotted=0.5,
        ),
        rows=rows_beside_pairs(size, max_tokens=1536),
        mix=MixConfig(pairs=0.6, rows=0.2, drills=0.2),
        spatial=SpatialConfig(tasks=(*PUBLISHED_TASKS, "motion"), weight=0.3),
        match_weight=1.0,
        match_pairs=16,
        minutes=60.0,
        batch=64,
        learning_rate=6e-4,
        matrix_learning_rate=2e-3,
        ema=0.9995,
        checkpoint_minutes=5.0,
        validate_minutes=5.0,
        workers=14,
        named_letters=True,
        choice_weight=4.0,
        **NUMBERS,
    )
