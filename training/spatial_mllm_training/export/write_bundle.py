"""Collect a run's weights, export them and write the bundle's manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.bundle import MANIFEST, Manifest, file_sha256, open_bundle
from spatial_mllm_core.model.prompt import PromptFormat
from spatial_mllm_training.data.pairs import TASKS
from spatial_mllm_training.export.card import write_card
from spatial_mllm_training.export.onnx_files import export_graphs
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.setup import build_learner

CONTEXT = 1024


def load_run(run: Path) -> tuple[CameraAwareVLM, TrainConfig, Tokenizer, dict[str, Any]]:
    """The averaged weights of a run, its configuration, tokenizer and progress.

    Raises:
        SpatialError: MODEL_MISSING without a checkpoint, MODEL_SIGNATURE when none is whole or none fits.
    """
    found = checkpoints.latest(run)
    if found is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' holds no checkpoint; train first")
    config = TrainConfig.from_json((run / "config.json").read_text())
    learner = build_learner(config)
    weights = {**found.weights(), **found.average()}
    known = dict(learner.model.named_parameters())
    if weights.keys() != known.keys():
        other = sorted(weights.keys() ^ known.keys())[0]
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{found.folder}' is not of the model in config.json: see {other}"
        )
    learner.model.load_state_dict(weights, strict=False)  # what is missing is tied to what is there
    progress = {
        "steps": found.progress.step,
        "minutes": round(found.progress.elapsed_s / 60.0, 1),
    }
    tokenizer = Tokenizer.from_file(str(run / "tokenizer.json"))
    return learner.model.eval().float(), config, tokenizer, progress


def write_bundle(
    model: CameraAwareVLM,
    config: TrainConfig,
    tokenizer: Tokenizer,
    folder: Path,
    *,
    name: str,
    version: str,
    progress: dict[str, Any],
    metrics: dict[str, Any],
    notes: str = "",
) -> None:
    """Write a bundle into an empty folder and verify it by opening it."""
    data, decoder = config.data, model.decoder_config
    export_graphs(model, folder, height=data.height, width=data.width)
    table = model.hf.get_input_embeddings().weight.detach().numpy().astype(np.float16)
    save_file({"embedding": table}, str(folder / "embedding.safetensors"))
    tokenizer.save(str(folder / "tokenizer.json"))
    for file in folder.iterdir():
        file.chmod(0o644)
    prompt = PromptFormat()
    grid_h, grid_w = data.grid
    files = {
        f.name: (file_sha256(f), f.stat().st_size) for f in sorted(folder.iterdir()) if f.suffix != ".md"
    }
    manifest = Manifest(
        name=name,
        version=version,
        family=config.model.family,
        precision="fp32 compute, fp16 storage",
        width=data.width,
        height=data.height,
        grid_w=grid_w,
        grid_h=grid_h,
        depth_w=grid_w * model.heads.upsampling,
        depth_h=grid_h * model.heads.upsampling,
        hidden=decoder.hidden_size,
        layers=decoder.num_hidden_layers,
        kv_heads=decoder.num_key_value_heads,
        head_dim=decoder.hidden_size // decoder.num_attention_heads,
        vocabulary=table.shape[0],
        context=CONTEXT,
        tap_layers=model.tap_layers,
        special_ids={
            "image": tokenizer.token_to_id("<|image_pad|>"),
            "stop": tokenizer.token_to_id(prompt.stop),
        },
        prompt=prompt,
        tasks=TASKS,
        files=files,
        training={
            "recipe": config.name,
            "parameters": sum(p.numel() for p in model.parameters()),
            **progress,
        },
        metrics=metrics,
    )
    (folder / MANIFEST).write_text(manifest.to_json() + "\n")
    (folder / "MODEL_CARD.md").write_text(write_card(manifest, notes))
    open_bundle(folder)
