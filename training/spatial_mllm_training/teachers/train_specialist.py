"""Train a specialist on views with depth; knows neither scenes nor files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_mllm_training.supervision.losses import LossConfig, dense_losses
from spatial_mllm_training.supervision.targets import DenseTargets, row_targets, stack_rows
from spatial_mllm_training.teachers.base import View
from spatial_mllm_training.teachers.specialist import Specialist


@dataclass(frozen=True)
class SpecialistBatch:
    """Images (B, 3, H, W) uint8, rays (B, N, 4), has_camera (B,) and the truth of each image alone."""

    images: Tensor
    rays: Tensor
    has_camera: Tensor
    targets: DenseTargets


def specialist_batch(model: Specialist, views: Sequence[View]) -> SpecialistBatch:
    """One batch; every view is its own row, in its own camera's frame, in metres."""
    grid_h, grid_w = model.config.map_size
    rows = [row_targets([v.depth_m], [v.camera], None, grid_h=grid_h, grid_w=grid_w) for v in views]
    return SpecialistBatch(*model.inputs(views), stack_rows(rows))


def train_specialist(
    model: Specialist,
    batches: Iterable[SpecialistBatch],
    *,
    steps: int,
    learning_rate: float = 1e-3,
    loss: LossConfig | None = None,
    device: str = "cpu",
    on_step: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> None:
    """AdamW with 3 % warm-up and cosine decay, in bfloat16 autocast; stops early when `batches` end.

    `on_step` gets the step and the losses by name ("total", "depth", "depth/l2", ...).

    Raises:
        FloatingPointError: the loss is not finite.
    """
    config = loss or LossConfig(valid_range=None, depth="log")
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    warmup = max(1, round(0.03 * steps))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda i: min((i + 1) / warmup, 0.51 + 0.49 * math.cos(math.pi * min(1.0, i / max(1, steps)))),
    )
    for step, batch in zip(range(steps), batches, strict=False):
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            maps, _ = model(*(x.to(device) for x in (batch.images, batch.rays, batch.has_camera)))
        losses = dense_losses(maps, batch.targets.to(device), config)
        figures = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(figures["total"]):
            raise FloatingPointError(f"the specialist's loss is {figures['total']} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step(step, figures)
    model.eval()
