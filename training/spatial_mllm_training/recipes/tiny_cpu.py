"""Recipes for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

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
from spatial_mllm_training.supervision.dpt import DPTSize


def tiny_cpu() -> TrainConfig:
    """The recipe of the shipped bundle: about 10M parameters, all 26 subtasks; a CPU learns it in stages.

    It compares images: later ones are read together with the first one of their prompt, and a head of
    the training tells what moved. It need not search for what a coordinate means: the coordinate carries what is
    seen there, and how far that is. Without either no answer about movement was learnt in an hour. Nor for how
    the camera moved: questions are told. Begins best with the weights of `tiny_cpu_words` and then `tiny_cpu_matches`.
    """
    config = tiny_cpu_words()
    return replace(
        config,
        name="tiny_cpu",
        model=replace(
            config.model,
            clips=True,
            pointers=True,
            deep_pointers=True,
            matcher=MatcherSize(),
            told_digits=True,
            copied_digits=True,
        ),
        # images of one camera: their pixels can be compared
        data=replace(
            config.data,
            still_camera=0.6,
            own_crops=0.1,
            same_time=0.05,
            pair_questions=5,
            correspondences=4,
            whole_camera=True,
            told_questions=6,
            size_questions=3,
            dotted=0.5,
        ),
        mix=MixConfig(pairs=0.6, rows=0.2, drills=0.2),
        spatial=SpatialConfig(
            tasks=("motion",), weight=0.5, size=DPTSize(channels=(32, 32, 64, 64), features=32)
        ),
        match_weight=1.0,
        match_pairs=2,
        minutes=70.0,
        named_letters=True,
        choice_weight=4.0,
        **NUMBERS,
    )


def tiny_cpu_longer() -> TrainConfig:
    """More of `tiny_cpu` at half its rates, which forget less of what the weights that it begins with know."""
    config = tiny_cpu()
    return replace(
        config,
        name="tiny_cpu_longer",
        learning_rate=config.learning_rate / 2,
        matrix_learning_rate=config.matrix_learning_rate / 2,
        minutes=80.0,
    )


def tiny_cpu_answers() -> TrainConfig:
    """`tiny_cpu` with the vision tower as it is, more rows and moved cameras, and no dots: those are found.

    At 0.7 of its rates. Begins with the weights of `tiny_cpu_matches`, after drills.
    """
    config = tiny_cpu()
    return replace(
        config,
        name="tiny_cpu_answers",
        learning_rate=0.7 * config.learning_rate,
        matrix_learning_rate=0.7 * config.matrix_learning_rate,
        data=replace(config.data, still_camera=0.45, far=0.5, dotted=0.0),
        mix=MixConfig(pairs=0.5, rows=0.3, drills=0.2),
        frozen_vision=True,
        minutes=60.0,
    )


def tiny_cpu_matches() -> TrainConfig:
    """The matcher of `tiny_cpu` alone: everything else keeps the weights that it begins with.

    A pair costs a fifth of one that is read and answered.
    """
    config = tiny_cpu()
    quiet = {
        "single_questions": 0,
        "pair_questions": 0,
        "correspondences": 0,
        "told_questions": 0,
        "size_questions": 0,
        "dotted": 0.0,
    }
    return replace(
        config,
        name="tiny_cpu_matches",
        data=replace(config.data, **quiet, still_camera=0.3, far=0.5),
        mix=MixConfig(pairs=1.0),
        text_weight=0.0,
        depth_weight=0.0,
        spatial=replace(config.spatial, weight=0.0),
        match_pairs=None,
        batch=16,
        learning_rate=2.0e-3,
        ema=0.99,
        minutes=25.0,
    )


def tiny_cpu_drills() -> TrainConfig:
    """What to do with what is told, at the rates of `tiny_cpu`: mostly drills, which cost a tenth of images.

    After it two points are compared; in the mixture of `tiny_cpu` alone, not after an hour. The vision tower stays.
    """
    return replace(
        tiny_cpu(),
        name="tiny_cpu_drills",
        mix=MixConfig(pairs=0.07, rows=0.03, drills=0.9),
        frozen_vision=True,
        minutes=20.0,
    )


def tiny_cpu_words() -> TrainConfig:
    """The second stage: questions and answers. 48 visual tokens an image.

    What a CPU can learn in an hour is limited by the number of images that it sees. Begins best with the
    weights of `tiny_cpu_images`.
    """
    size = (128, 96)
    return TrainConfig(
        name="tiny_cpu_words",
        model=ModelConfig(vision_hidden=192, vision_mlp=576, patch=8, merge=2, coordinate_code=2.0),
        data=PairConfig(
            width=size[0], height=size[1], single_questions=3, pair_questions=6, smallest_crop=0.5
        ),
        rows=rows_beside_pairs(size, max_tokens=640),
        mix=MixConfig(pairs=0.7, rows=0.3),
        minutes=42.0,
        batch=8,
        ema=0.998,
        learning_rate=7.0e-4,
        matrix_learning_rate=2.0e-3,
        number_digits=5,
    )


def tiny_cpu_images() -> TrainConfig:
    """The first stage: depth of single images, without a word, which costs a quarter an image."""
    config = tiny_cpu_words()
    return replace(
        config,
        name="tiny_cpu_images",
        model=replace(config.model, coordinate_code=0.0),  # depth is asked of every token alike
        data=replace(config.data, single_questions=0, pair_questions=0, apart=True),
        mix=MixConfig(pairs=1.0),
        minutes=40.0,
        batch=16,
        learning_rate=1.0e-3,
        matrix_learning_rate=3.0e-3,
        ema=0.995,
    )


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
