"""Builds what a run needs from its configuration: model, tokens, sources; knows no step."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.data.drills import DrillSource
from spatial_mllm_training.data.general import GeneralSource
from spatial_mllm_training.data.packing import Format, Sample, Words
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.data.pictures import Viewer
from spatial_mllm_training.data.rows_stream import RowSource
from spatial_mllm_training.data.tokenizer import build_tokenizer
from spatial_mllm_training.model import attention
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.checkpoint import load
from spatial_mllm_training.model.families.qwen2_5_vl import use_batched_attention, use_linear_patch_embed
from spatial_mllm_training.model.heads import HeadsConfig
from spatial_mllm_training.recipes.config import PublishedConfig, TrainConfig
from spatial_mllm_training.scenes.split import scene_files, validation_files
from spatial_mllm_training.training_loop import adapting
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.pair_source import PairSource
from spatial_mllm_training.training_loop.sampling import SampleSource
from spatial_mllm_training.training_loop.small_model import build_model

CHATML_FAMILIES = ("qwen2_5_vl", "internvl")
"""Published families whose packed prompts are served: their layout of text and tokens is known here."""


@dataclass(frozen=True)
class DataPaths:
    """Where the data of a run lie; None where it uses none of a kind.

    Attributes:
        scenes: folder of `make_scenes`.  rows: folders of `make_multispa`.
        held_out_rows: likewise, for validation.
        depth: (kind, path) of the sources whose depth images are the truth of the rows' heads.
        general: JSON of LLaVA conversations.  general_images: the folder their images are named from.
        checkpoint: folder of a published model, instead of the recipe's name on the hub.
        teacher_weights: file, folder or name of a teacher's weights; "" = the published ones.
        teacher_cache: folder for what a teacher said, where a recipe changes no image.
        begin_with: folder of a run or bundle whose final weights a new run begins with.
    """

    scenes: Path | None = None
    rows: tuple[Path, ...] = ()
    depth: tuple[tuple[str, Path], ...] = ()
    held_out_rows: tuple[Path, ...] = ()
    general: Path | None = None
    general_images: Path | None = None
    checkpoint: Path | None = None
    teacher_weights: str = ""
    teacher_cache: Path | None = None
    begin_with: Path | None = None


@dataclass(frozen=True)
class Learner:
    """A model with its text format."""

    model: CameraAwareVLM
    form: Format
    tokenizer: Tokenizer
    pad_id: int


def build_learner(
    config: TrainConfig, checkpoint: Path | None = None, *, tokenizer: Tokenizer | None = None
) -> Learner:
    """The model of a recipe, ready to be trained.

    Args:
        tokenizer: of a small model that is already trained; None: as it is made today.

    Raises:
        SpatialError: of `model.checkpoint.load`; MODEL_SIGNATURE for a family that is not served.
    """
    torch.manual_seed(config.seed)
    if config.published is not None:
        return _published(config, config.published, checkpoint)
    tokenizer = tokenizer or build_tokenizer()
    model = build_model(config.model, tokenizer, heads=heads_of(config))
    model.camera_dropout.rate = config.model_camera_dropout
    model.frozen_vision = config.frozen_vision
    use_linear_patch_embed(model.hf)
    use_batched_attention(model.hf)
    model.hf.set_attn_implementation(attention.NAME)
    model.depth_head.to(memory_format=torch.channels_last)
    words = Words(
        number_digits=config.number_digits,
        digit_weights=config.digit_weights,
        named_letters=config.named_letters,
        choice_weight=config.choice_weight,
    )
    image_id = tokenizer.token_to_id("<|image_pad|>")
    form = Format(_encoder(tokenizer), image_id, words, points=config.model.pointers)
    return Learner(model, form, tokenizer, tokenizer.token_to_id("<|pad|>"))


def _published(config: TrainConfig, published: PublishedConfig, checkpoint: Path | None) -> Learner:
    place = checkpoint or published.checkpoint
    if published.family not in CHATML_FAMILIES:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"packed prompts are served for {', '.join(CHATML_FAMILIES)}, not for {published.family}",
        )
    model = load(
        place,
        family=published.family,
        heads=heads_of(config),
        camera_dropout=config.model_camera_dropout,
        dtype=torch.bfloat16 if config.precision == "bf16" else torch.float32,
    )
    adapting.adapt(model, published)
    if config.checkpointing:
        adapting.use_checkpointing(model)
    tokenizer = _tokenizer_of(place)
    before, _, after = model.family.PLACEHOLDER
    form = Format(
        _encoder(tokenizer),
        model.family.visual_token_id(model.hf.config),
        Words.chatml(before, after),
        rows_and_columns=published.family == "qwen2_5_vl",
    )
    pad = tokenizer.token_to_id("<|endoftext|>")
    return Learner(model, form, tokenizer, 0 if pad is None else pad)


def _tokenizer_of(place: str | Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(place).backend_tokenizer
    except (OSError, ValueError, AttributeError) as error:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"no fast tokenizer at '{place}': {str(error).splitlines()[0]}"
        ) from None


def _encoder(tokenizer: Tokenizer) -> Callable[[str], list[int]]:
    return lambda words: tokenizer.encode(words, add_special_tokens=False).ids


def heads_of(config: TrainConfig) -> HeadsConfig | None:
    """The heads of a recipe: the single depth head, and the 3D heads where it asks for them."""
    if config.spatial is None:
        return None
    return HeadsConfig(
        depth_features=config.model.head_features,
        tasks=config.spatial.tasks,
        size=config.spatial.size,
        shared_projector=config.spatial.shared_projector,
    )


def build_sources(
    config: TrainConfig, paths: DataPaths, learner: Learner
) -> tuple[dict[str, SampleSource], list[float], SampleSource | None]:
    """(training sources by name, their weights, a source of held-out samples or None).

    Raises:
        SpatialError: NO_FRAME when a source that the recipe mixes in is not named or is empty.
    """
    sources: dict[str, SampleSource] = {}
    weights: list[float] = []
    held_out: SampleSource | None = None
    if config.mix.pairs:
        sources["pairs"], held_out = _pairs(config, paths.scenes, learner)
        weights.append(config.mix.pairs)
    viewer = Viewer(learner.model.framing, learner.model.processing, config.rows.size)
    if config.mix.rows:
        depth = DepthTruth.of(paths.depth) if paths.depth else None
        rows = functools.partial(RowSource, form=learner.form, viewer=viewer, depth=depth)
        if not paths.rows:
            raise SpatialError(ErrorCode.NO_FRAME, f"recipe '{config.name}' needs MultiSPA rows: give --rows")
        sources["rows"] = rows(paths.rows, config=config.rows, seed=config.seed)
        weights.append(config.mix.rows)
        if paths.held_out_rows:
            plain = replace(config.rows, augment=None, answers_share=1.0)
            held_out = rows(paths.held_out_rows, config=plain, seed=1)
    if config.mix.general:
        if paths.general is None:
            raise SpatialError(
                ErrorCode.NO_FRAME, f"recipe '{config.name}' mixes in general conversations: give --general"
            )
        sources["general"] = GeneralSource(
            paths.general,
            paths.general_images or paths.general.parent,
            # numbers of a conversation are no measurements
            replace(learner.form, words=replace(learner.form.words, number_digits=0, digit_weights=())),
            viewer,
            config.seed,
            max_tokens=config.rows.max_tokens,
        )
        weights.append(config.mix.general)
    if config.mix.drills:
        sources["drills"] = DrillSource(
            learner.form,
            config.seed,
            served_words=config.data.served_template,
            movements=learner.model.matcher is not None,
        )
        weights.append(config.mix.drills)
    return sources, weights, held_out


def collated(samples: Sequence[Sample], config: TrainConfig, learner: Learner) -> Batch:
    """A batch with the truths that a recipe asks for."""
    matcher = config.model.matcher if config.match_weight else None
    return collate(
        samples,
        learner.pad_id,
        maps=config.spatial is not None,
        match_stride=matcher.stride if matcher else None,
    )


def pair_builder(config: TrainConfig, learner: Learner) -> functools.partial[PairBuilder]:
    """Builds pairs of scene files, given beside their `config`, with the truths that a recipe asks for."""
    return functools.partial(
        PairBuilder,
        tokenizer=learner.tokenizer,
        maps=config.spatial is not None,
        motion=config.spatial is not None and "motion" in config.spatial.tasks,
        match_grid=config.model.matcher.grid(config.data.height, config.data.width)
        if config.model.matcher and config.match_weight
        else None,
        form=learner.form,
    )


def _pairs(config: TrainConfig, scenes: Path | None, learner: Learner) -> tuple[SampleSource, SampleSource]:
    if config.published is not None:
        raise SpatialError(
            ErrorCode.NO_FRAME, "scene files are for the small models; a published one is trained on rows"
        )
    if scenes is None:
        raise SpatialError(ErrorCode.NO_FRAME, f"recipe '{config.name}' needs scene files: give --scenes")
    training = scene_files(scenes, held_out=False)
    held_out = validation_files(scenes)
    if not training or not held_out:
        raise SpatialError(
            ErrorCode.NO_FRAME,
            f"{scenes} holds {len(training)} training and {len(held_out)} held-out scenes; run make_scenes first",
        )
    builder = pair_builder(config, learner)
    fixed = replace(config.data, camera_dropout=0.0)
    return (
        PairSource(builder(training, config=config.data), config.seed),
        PairSource(builder(held_out, config=fixed, augment=False), 1),
    )
