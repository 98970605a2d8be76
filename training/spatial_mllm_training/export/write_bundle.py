"""Collect a run's weights, export them and write the bundle's manifest."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.numpy import save_file
from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model import embedding
from spatial_mllm_core.model.bundle import DOTS, MANIFEST, Manifest, file_sha256, open_bundle
from spatial_mllm_core.model.prompt import PromptFormat
from spatial_mllm_core.tasks.dots import SISTERS
from spatial_mllm_core.tasks.object_size import MAX_IMAGES
from spatial_mllm_training.data.pair_questions import TASKS
from spatial_mllm_training.export.card import write_card
from spatial_mllm_training.export.onnx_files import export_graphs
from spatial_mllm_training.model.bundle_weights import PRECISION, small_table
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.dot_finder import HEIGHT, WIDTH
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.run_folder import (
    TOKENIZER,
    began_with,
    kept_tokenizer,
    taught_subtasks,
)
from spatial_mllm_training.training_loop.setup import build_learner

CONTEXT_STEP = 1024
QUESTION_AND_ANSWER = 256
"""Tokens; the longest published turn has 129, an answer 48 unless more are asked for."""


def claimed_subtasks(run: Path) -> tuple[str, ...]:
    """What a bundle of a run may claim: the subtasks that its data taught.

    Runs from before this was recorded were trained on pairs.

    Raises:
        SpatialError: MODEL_SIGNATURE when the record of the run is torn.
    """
    taught = taught_subtasks(run)
    return TASKS if taught is None else taught


def with_dots(subtasks: Sequence[str]) -> tuple[str, ...]:
    """What is claimed by a bundle that finds dots, which it asks about by coordinates."""
    claimed = {*subtasks, *(dotted for dotted, sister in SISTERS.items() if sister in subtasks)}
    return tuple(name for name in tasks.names() if name in claimed)


def context_for(tokenizer: Tokenizer, prompt: PromptFormat, tokens_per_image: int) -> int:
    """Tokens that hold the most images a subtask speaks of, a question and its answer."""
    around = prompt.frame_prefix.format(index=MAX_IMAGES) + prompt.frame_suffix
    each = tokens_per_image + len(tokenizer.encode(around, add_special_tokens=False).ids)
    return -(-(MAX_IMAGES * each + QUESTION_AND_ANSWER) // CONTEXT_STEP) * CONTEXT_STEP


def load_run(run: Path) -> tuple[CameraAwareVLM, TrainConfig, Tokenizer, dict[str, Any]]:
    """The averaged weights of a run, its configuration, tokenizer and progress.

    Raises:
        SpatialError: MODEL_MISSING without a checkpoint, MODEL_SIGNATURE when none is whole or none fits.
    """
    found = checkpoints.latest(run)
    if found is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' holds no checkpoint; train first")
    config = TrainConfig.from_json((run / "config.json").read_text())
    tokenizer = kept_tokenizer(run)
    if tokenizer is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' has lost its {TOKENIZER}")
    learner = build_learner(config, tokenizer=tokenizer)
    weights = found.final_weights(dict(learner.model.named_parameters()))
    learner.model.load_state_dict(weights, strict=False)  # what is missing is tied to what is there
    progress = found.progress.spent
    if before := began_with(run):
        progress["began_with"] = before
    return learner.model.eval().float(), config, tokenizer, progress


def _is_served(model: CameraAwareVLM, name: str) -> bool:
    """Whether a parameter is exported; heads beside the one that serves depth are for the training."""
    beside = "spatial_heads." if model.depth_head is not None else "depth_head."
    return not name.startswith(("feature_projector.", beside))


def write_bundle(
    model: CameraAwareVLM,
    config: TrainConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    version: str,
    subtasks: Sequence[str],
    progress: dict[str, Any],
    metrics: dict[str, Any],
    notes: str = "",
    small: bool = True,
    dots: Path | None = None,
) -> None:
    """Write a bundle into an empty folder and verify it by opening it.

    Args:
        subtasks: what the manifest claims, see `claimed_subtasks`.
        small: weights are stored with few bits, see `bundle_weights`; else as they are.
        dots: graph of a finder of dots that the bundle gets, too.

    Raises:
        SpatialError: MODEL_MISSING when there is no such graph; of `open_bundle`.
    """
    data, decoder = config.data, model.decoder_config
    export_graphs(model, folder, height=data.height, width=data.width, small=small)
    table = model.hf.get_input_embeddings().weight.detach().numpy()
    stored = small_table(table) if small else {embedding.TENSOR: table}
    save_file(stored, str(folder / "embedding.safetensors"))
    tokenizer.save(str(folder / "tokenizer.json"))
    if dots is not None:
        if not dots.is_file():
            raise SpatialError(ErrorCode.MODEL_MISSING, f"there is no '{dots}'; `train_dots` writes one")
        shutil.copyfile(dots, folder / DOTS)
    for file in folder.iterdir():
        file.chmod(0o644)
    prompt = PromptFormat(number_digits=config.number_digits, named_letters=config.named_letters)
    grid_h, grid_w = data.grid
    files = {
        f.name: (file_sha256(f), f.stat().st_size) for f in sorted(folder.iterdir()) if f.suffix != ".md"
    }
    manifest = Manifest(
        name=name,
        version=version,
        family=config.model.family,
        precision=PRECISION if small else "float32",
        width=data.width,
        height=data.height,
        clips=model.clips,
        pointers=model.pointers,
        deep_pointers=model.deep_pointers,
        matching=model.matcher is not None,
        told_digits=model.told_digits,
        copied_digits=model.copy_gate is not None,
        dots_w=WIDTH if dots else 0,
        dots_h=HEIGHT if dots else 0,
        grid_w=grid_w,
        grid_h=grid_h,
        depth_w=grid_w * model.heads.upsampling,
        depth_h=grid_h * model.heads.upsampling,
        hidden=decoder.hidden_size,
        layers=decoder.num_hidden_layers,
        kv_heads=decoder.num_key_value_heads,
        head_dim=decoder.hidden_size // decoder.num_attention_heads,
        vocabulary=table.shape[0],
        context=context_for(tokenizer, prompt, grid_h * grid_w),
        tap_layers=model.tap_layers,
        special_ids={
            "image": tokenizer.token_to_id("<|image_pad|>"),
            "stop": tokenizer.token_to_id(prompt.stop),
        },
        prompt=prompt,
        tasks=tuple(subtasks),
        files=files,
        training={
            "recipe": config.name,
            "parameters": sum(p.numel() for name, p in model.named_parameters() if _is_served(model, name)),
            **progress,
        },
        metrics=metrics,
    )
    (folder / MANIFEST).write_text(manifest.to_json() + "\n")
    (folder / "MODEL_CARD.md").write_text(write_card(manifest, notes))
    open_bundle(folder)
