"""DPT depth head on four tapped decoder layers (SpatialSV; VGGT's head at a small size).

Knows token grids, not language: it receives hidden states of the visual tokens of one image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_mllm_training.supervision.dpt import ResidualUnit

NEVER_USED = "depth_head.fusions.3.skip."
"""Begins the names of tensors that earlier files hold: the coarsest level has no level to add."""


class Fusion(nn.Module):
    """Add a skip, refine, bring to the next size."""

    def __init__(self, channels: int, *, has_skip: bool) -> None:
        super().__init__()
        self.skip = ResidualUnit(channels) if has_skip else None
        self.refine = ResidualUnit(channels)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        if self.skip is not None and skip is not None:
            x = x + self.skip(skip)
        return F.interpolate(self.refine(x), size=size, mode="bilinear", align_corners=False)


class DPTHead(nn.Module):
    """Four taps -> two-layer projectors -> pyramid -> log z-depth and confidence logits.

    Shapes: B images, N = grid_h * grid_w visual tokens, D decoder hidden size.
    The output is 8 cells per token and axis.
    """

    UPSAMPLING = 8

    def __init__(
        self, hidden_size: int, *, features: int = 64, projection: int = 128, channels_out: int = 2
    ) -> None:
        super().__init__()
        self.projectors = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(hidden_size),
                nn.Linear(hidden_size, hidden_size),
                nn.GELU(),
                nn.Linear(hidden_size, projection),
            )
            for _ in range(4)
        )
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(projection, features, 4, stride=4),
                nn.ConvTranspose2d(projection, features, 2, stride=2),
                nn.Conv2d(projection, features, 1),
                nn.Conv2d(projection, features, 3, stride=2, padding=1),
            ]
        )
        self.fusions = nn.ModuleList(Fusion(features, has_skip=i < 3) for i in range(4))
        self.out = nn.Sequential(
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features // 2, channels_out, 1),
        )

    def forward(self, taps_BND: list[Tensor], grid_h: int, grid_w: int) -> Tensor:
        """Return (B, channels_out, 8 grid_h, 8 grid_w)."""
        levels = []
        for tap, projector, resize in zip(taps_BND, self.projectors, self.resize, strict=True):
            x = projector(tap)
            x = x.transpose(1, 2).reshape(x.shape[0], -1, grid_h, grid_w)
            levels.append(resize(x))
        sizes = [(8 * grid_h, 8 * grid_w), *[tuple(level.shape[-2:]) for level in levels[:3]]]
        x = self.fusions[3](levels[3], None, sizes[3])
        for i in (2, 1, 0):
            x = self.fusions[i](x, levels[i], sizes[i])
        return self.out(x)


def depth_from_logits(logits_B2HW: Tensor) -> tuple[Tensor, Tensor]:
    """(log z-depth (B, H, W), confidence c = 1 + e^x (B, H, W)) of a head's output, float32."""
    log_depth, raw = logits_B2HW.float().unbind(1)
    return log_depth, 1.0 + torch.exp(raw.clamp(max=8.0))
