"""Parts of the small convolutional networks beside the model."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8
"""Of the normalisation: channels are multiples of it."""


class ConvBlock(nn.Module):
    """Two convolutions beside the way through, the first one dilated."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm2 = nn.GroupNorm(GROUPS, channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        return x + self.conv2(F.silu(self.norm2(inner)))


def halving_stem(stride: int, between: int, channels: int) -> nn.Sequential:
    """Images (B, 3, H, W) -> (B, channels, H / stride, W / stride), with `between` channels before the last halving."""
    stem: list[nn.Module] = []
    before = 3
    for halving in range(int(math.log2(stride))):
        is_last = 2 ** (halving + 1) == stride
        after = channels if is_last else between
        first = halving == 0
        stem.append(nn.Conv2d(before, after, 5 if first else 3, stride=2, padding=2 if first else 1))
        stem += [] if is_last else [ConvBlock(after, 1)]
        before = after
    return nn.Sequential(*stem)
