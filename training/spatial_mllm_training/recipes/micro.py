"""The micro recipe of the experiments: so small that a CPU trains many of it. Sizes are arguments."""

from __future__ import annotations

from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.recipes.config import NUMBERS, ModelConfig, RowsConfig, SpatialConfig, TrainConfig
from spatial_mllm_training.supervision.dpt import DPTSize


def micro(
    *,
    width: int = 128,
    height: int = 96,
    hidden: int = 96,
    layers: int = 5,
    mlp: int = 256,
    batch: int = 8,
    steps: int = 1500,
    questions: int = 3,
) -> TrainConfig:
    """About 1.5M parameters and 48 visual tokens an image; the budget is counted in steps.

    Args:
        width, height: model input, px, multiples of 16.
        hidden: of decoder and vision tower, four heads each.
        mlp: width of their gated layers.
        layers: of the decoder, at least 5, so that four of them can be tapped.
        questions: of one sample, about its first image and about both, each.
    """
    return TrainConfig(
        name="micro",
        model=ModelConfig(
            hidden=hidden,
            layers=layers,
            heads=4,
            kv_heads=2,
            mlp=mlp,
            vision_hidden=hidden,
            vision_layers=3,
            vision_heads=4,
            vision_mlp=mlp,
            tap_layers=(layers - 4, layers - 3, layers - 2, layers - 1),
            head_features=32,
            coordinate_code=2.0,
            clips=True,
            pointers=True,
        ),
        data=PairConfig(width=width, height=height, single_questions=questions, pair_questions=questions),
        rows=RowsConfig(questions=questions, max_tokens=1024, size=(width, height)),
        spatial=SpatialConfig(size=DPTSize(channels=(16, 16, 32, 32), features=16)),
        steps=steps,
        batch=batch,
        precision="bf16",
        ema=0.99,
        log_steps=50,
        checkpoint_minutes=1.0,
        validate_steps=10**9,
        validate_batches=1,
        keep_checkpoints=1,
        **NUMBERS,
    )
