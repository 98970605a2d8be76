"""Projectors and decoupled heads: hidden states of visual tokens -> depth, ray map, point map.

Knows token grids, not language: which layers are tapped is the model's affair. SpatialSV eq. 3
and 4; activations as in VGGT (papers.md 3.3).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spatial_mllm_training.supervision.dpt import SMALL_SIZE, DPTDecoder, DPTSize

TASKS = {"depth": 1, "rays": 6, "points": 3, "motion": 3}
"""Tasks and their channels. Rays are [origin, direction] (SpatialSV; DA3 has the other order)."""
PUBLISHED_TASKS = ("depth", "rays", "points")
"""SpatialSV's. Motion is ours: how far what the row's first image sees has moved in a later one, in the cells of
the first image, for a model that must learn to compare images. Its confidence says whether anything moved."""

_LARGEST_EXPONENT = 10.0
_LARGEST_CONFIDENCE_EXPONENT = 8.0


class DenseMap(NamedTuple):
    """What a head says: values (B, H, W, C) and confidence 1 + e^x (B, H, W), both float32."""

    value: Tensor
    confidence: Tensor


class Projectors(nn.Module):
    """phi of eq. 3: a two-layer MLP per tapped layer, (B, N, D) -> (B, N, lifted).

    `shared` uses one MLP for all four layers (the paper's ablation, 1.6 points worse).
    """

    def __init__(self, hidden_size: int, lifted: int, *, shared: bool = False) -> None:
        super().__init__()
        self.mlps = nn.ModuleList(
            two_layers(hidden_size, hidden_size, lifted) for _ in range(1 if shared else 4)
        )

    def forward(self, taps_BND: Sequence[Tensor]) -> list[Tensor]:
        mlps = list(self.mlps) * (4 // len(self.mlps))
        return [mlp(tap) for mlp, tap in zip(mlps, taps_BND, strict=True)]


class SpatialHeads(nn.Module):
    """Four tapped layers of the visual tokens of images of one grid -> one dense map per task.

    Args:
        hidden_size: of the decoder.
        tasks: which of `TASKS` to build; each has its own DPT decoder and confidence.
        lifted: width of the shared 3D features; None = the coarsest level's channels.
        shared_projector: one projector for all layers.
        point_activation: "inv_log" (VGGT) or "linear".
        depth_activation: "exp" (VGGT) or "linear".
    """

    def __init__(
        self,
        hidden_size: int,
        *,
        tasks: Sequence[str] = PUBLISHED_TASKS,
        size: DPTSize = SMALL_SIZE,
        lifted: int | None = None,
        shared_projector: bool = False,
        point_activation: str = "inv_log",
        depth_activation: str = "exp",
    ) -> None:
        super().__init__()
        check_heads(tasks, point_activation, depth_activation)
        lifted = size.channels[3] if lifted is None else lifted
        self.projectors = Projectors(hidden_size, lifted, shared=shared_projector)
        self.decoders = nn.ModuleDict({t: DPTDecoder((lifted,) * 4, size, TASKS[t] + 1) for t in tasks})
        self.activations: dict[str, Callable[[Tensor], Tensor]] = {
            "depth": exp_activation if depth_activation == "exp" else nn.Identity(),
            "rays": nn.Identity(),
            "points": inv_log if point_activation == "inv_log" else nn.Identity(),
            "motion": nn.Identity(),
        }

    def forward(
        self, taps_BND: Sequence[Tensor], grid_h: int, grid_w: int, *, tasks: Sequence[str] | None = None
    ) -> dict[str, DenseMap]:
        """Maps of H = upsampling * grid_h, W = upsampling * grid_w; `tasks` leaves heads out.

        Tokens are in raster order. Activations are computed in float32 under autocast too.
        """
        grids = [x.transpose(1, 2).reshape(x.shape[0], -1, grid_h, grid_w) for x in self.projectors(taps_BND)]
        return {
            task: activate(self.decoders[task](grids), self.activations[task])
            for task in (self.decoders if tasks is None else tasks)
        }


class FeatureProjector(nn.Module):
    """phi of the feature distillation: last-layer visual tokens (B, N, D) -> teacher's width.

    Linear, GELU, Linear through twice the width (3DRS, papers.md 3.5).
    """

    def __init__(self, hidden_size: int, teacher_width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(hidden_size, 2 * hidden_size), nn.GELU(), nn.Linear(2 * hidden_size, teacher_width)
        )

    def forward(self, tokens_BND: Tensor) -> Tensor:
        return self.mlp(tokens_BND)


def check_heads(tasks: Sequence[str], point_activation: str, depth_activation: str) -> None:
    """Raise a ValueError that names the first thing that no head can be."""
    for i, task in enumerate(tasks):
        if task not in TASKS:
            raise ValueError(f"unknown 3D task {task!r}; known are {', '.join(TASKS)}")
        if task in tasks[:i]:
            raise ValueError(f"the 3D task {task!r} is named twice")
    if point_activation not in ("inv_log", "linear"):
        raise ValueError(f"point_activation must be 'inv_log' or 'linear', got {point_activation!r}")
    if depth_activation not in ("exp", "linear"):
        raise ValueError(f"depth_activation must be 'exp' or 'linear', got {depth_activation!r}")


def two_layers(width_in: int, width: int, width_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width_in), nn.Linear(width_in, width), nn.GELU(), nn.Linear(width, width_out)
    )


def activate(raw_BCHW: Tensor, activation: Callable[[Tensor], Tensor]) -> DenseMap:
    """Raw output of a decoder, confidence in its last channel, as values and confidence."""
    raw = raw_BCHW.float().permute(0, 2, 3, 1)
    confidence = 1.0 + torch.exp(raw[..., -1].clamp(max=_LARGEST_CONFIDENCE_EXPONENT))
    return DenseMap(activation(raw[..., :-1]), confidence)


def exp_activation(x: Tensor) -> Tensor:
    """e^x; held below e^10, so that no step can make an infinite loss."""
    return torch.exp(x.clamp(max=_LARGEST_EXPONENT))


def inv_log(y: Tensor) -> Tensor:
    """sign(y) (e^|y| - 1), held below e^10; its slope at 0 is 1, where sign(y) would have none."""
    y = y.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    return torch.where(y >= 0, torch.expm1(y), -torch.expm1(-y))
