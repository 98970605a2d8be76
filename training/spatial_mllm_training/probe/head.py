"""The DPT probe with bin depth, its loss and its learning rate; knows tokens and depths, no model.

After probe3d (El Banani et al. 2024, MIT) and SpatialSV section 2.2: four 1x1 convolutions, residual
fusion from the last tap to the first, 256 bins from 0.001 to 10 m with linear normalisation. Written
anew; two things differ from the public code and are said where they stand.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_FLOOR = 0.1
_EPSILON_M = 0.001
_SIG_WEIGHT, _GRADIENT_WEIGHT, _SCALE_INVARIANCE = 10.0, 0.5, 0.85
_STRIDES = (1, 2, 4, 6)


class _Unit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.conv2(F.relu(self.conv1(x))))


class DepthProbe(nn.Module):
    """Four taps (B, N, D) -> z-depth in metres (B, 8 grid_h, 8 grid_w).

    The public code doubles its result once more by repetition; it is compared at this size here, as
    that adds nothing.
    """

    def __init__(
        self, tap_width: int, *, hidden: int = 512, bins: int = 256, min_m: float = 0.001, max_m: float = 10.0
    ) -> None:
        super().__init__()
        self.enter = nn.ModuleList(nn.Conv2d(tap_width, hidden, 1) for _ in range(4))
        self.before = nn.ModuleList(_Unit(hidden) for _ in range(3))
        self.after = nn.ModuleList(_Unit(hidden) for _ in range(4))
        self.out = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, bins, 3, padding=1)
        )
        self.register_buffer("bins_m", torch.linspace(min_m, max_m, bins), persistent=False)

    def forward(self, taps_4BND: Tensor, grid_h: int, grid_w: int) -> Tensor:
        levels = [
            F.interpolate(enter(tap.transpose(1, 2).unflatten(2, (grid_h, grid_w))), scale_factor=2)
            for enter, tap in zip(self.enter, taps_4BND, strict=True)
        ]
        x = self.after[3](levels[3])
        for i in (2, 1, 0):
            x = self.after[i](self.before[i](x) + levels[i])
        share = F.relu(self.out(F.interpolate(x, scale_factor=4))) + _FLOOR
        return torch.einsum("bkhw,k->bhw", share / share.sum(1, keepdim=True), self.bins_m)


def probe_loss(predicted_m: Tensor, true_m: Tensor) -> Tensor:
    """10 times the scale-invariant log loss plus half the gradient loss, of (B, H, W) depths, 0 = no truth.

    Public code takes the gradient loss's differences over the first two axes, batch and channel; here
    they are taken along rows and columns, as in MegaDepth, where the loss comes from.
    """
    valid = true_m > 0
    difference = torch.log(predicted_m + _EPSILON_M) - torch.log(true_m + _EPSILON_M)
    g = difference[valid]
    sig = torch.sqrt((g.square().mean() - _SCALE_INVARIANCE * g.mean().square()).clamp(min=1e-12))
    gradient = predicted_m.new_zeros(())
    for stride in _STRIDES:
        d, ok = difference[:, ::stride, ::stride], valid[:, ::stride, ::stride]
        across = (d[:, :, :-2] - d[:, :, 2:]).abs()[ok[:, :, :-2] & ok[:, :, 2:]].sum()
        down = (d[:, :-2] - d[:, 2:]).abs()[ok[:, :-2] & ok[:, 2:]].sum()
        gradient = gradient + (across + down) / ok.sum().clamp(min=1)
    return _SIG_WEIGHT * sig + _GRADIENT_WEIGHT * gradient


def rate_share(step: int, steps: int, warmup_steps: float) -> float:
    """Share of the peak learning rate: linear warm-up, then a cosine to zero."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    return 0.5 * (1.0 + math.cos(math.pi * (step - warmup_steps) / max(1.0, steps - warmup_steps)))
