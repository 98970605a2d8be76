"""Optimisers of a recipe and the course of their learning rates; knows no loop."""

from __future__ import annotations

import math

import torch
from torch import nn

from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import TrainConfig


def build_optimizers(model: CameraAwareVLM, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Optimisers of all trainable parameters; every group keeps its highest rate as "peak_lr".

    "muon": Muon for the matrices inside the network, AdamW for embeddings, convolutions and vectors.
    "adamw": one AdamW with a group for the decoder and one for everything else.
    """
    trained = {id(p): p for p in model.parameters() if p.requires_grad}
    if config.optimizer == "muon":
        return _with_muon(model, list(trained.values()), config)
    rate = config.decoder_learning_rate or config.learning_rate
    of_decoder = {id(p) for p in model.family.decoder(model.hf).parameters()}
    groups = [
        _group([p for i, p in trained.items() if i in of_decoder], rate),
        _group([p for i, p in trained.items() if i not in of_decoder], config.learning_rate),
    ]
    return [
        torch.optim.AdamW(
            [g for g in groups if g["params"]],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
    ]


def _with_muon(
    model: CameraAwareVLM, trained: list[nn.Parameter], config: TrainConfig
) -> list[torch.optim.Optimizer]:
    tables = {id(model.hf.get_input_embeddings().weight), id(model.hf.get_output_embeddings().weight)}
    matrices = [p for p in trained if p.ndim == 2 and id(p) not in tables]
    others = [p for p in trained if p.ndim != 2 or id(p) in tables]
    return [
        torch.optim.Muon(
            [_group(matrices, config.matrix_learning_rate)],
            lr=config.matrix_learning_rate,
            momentum=0.95,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(
            [_group(others, config.learning_rate)],
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]


def _group(params: list[nn.Parameter], peak_lr: float) -> dict[str, object]:
    return {"params": params, "peak_lr": peak_lr}


def schedule(config: TrainConfig, share: float) -> float:
    """Linear warm-up, then cosine to `final_share`, over the share of the budget that has passed."""
    if share < config.warmup_share:
        return share / config.warmup_share
    done = min(1.0, (share - config.warmup_share) / (1.0 - config.warmup_share))
    return config.final_share + (1.0 - config.final_share) * 0.5 * (1.0 + math.cos(math.pi * done))


def set_rates(optimizers: list[torch.optim.Optimizer], scale: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = scale * group["peak_lr"]
