"""Features of an image's cells by which another image of the scene is matched; knows no language.

A small convolutional network of its own, because a vision tower that must learn to match by attention needs far more
pairs than this one: see docs/experiments.md. What is done with matches is the core's (`two_view`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spatial_mllm_training.model.conv_block import GROUPS, ConvBlock

_FIRST_SHARPNESS = 15.0


@dataclass(frozen=True)
class MatcherSize:
    """How large it is.

    Attributes:
        stride: pixels per cell and axis, a power of 2.
        stem: channels before the last halving.
        channels: of the blocks.
        dilations: of each block's first convolution: how far it looks, in cells.
        features: of a cell.
    """

    stride: int = 4
    stem: int = 32
    channels: int = 96
    dilations: tuple[int, ...] = (1, 2, 4, 8, 2)
    features: int = 64

    def __post_init__(self) -> None:
        if self.stride < 2 or self.stride & (self.stride - 1):
            raise ValueError(f"the stride of a matcher is a power of 2, found {self.stride}")
        if self.stem % GROUPS or self.channels % GROUPS:
            raise ValueError(f"channels are multiples of {GROUPS}, found {self.stem} and {self.channels}")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(rows, columns) of cells of an image."""
        return height // self.stride, width // self.stride


class Matcher(nn.Module):
    """Normalised images (B, 3, H, W) -> (B, cells, features), raster order.

    The softmax over inner products with the cells of another image says where a cell is there.
    """

    def __init__(self, size: MatcherSize) -> None:
        super().__init__()
        self.size = size
        stem: list[nn.Module] = []
        before = 3
        for halving in range(int(math.log2(size.stride))):
            is_last = 2 ** (halving + 1) == size.stride
            after = size.channels if is_last else size.stem
            first = halving == 0
            stem.append(nn.Conv2d(before, after, 5 if first else 3, stride=2, padding=2 if first else 1))
            stem += [] if is_last else [ConvBlock(after, 1)]
            before = after
        self.stem = nn.Sequential(*stem)
        self.blocks = nn.Sequential(*(ConvBlock(size.channels, d) for d in size.dilations))
        self.out = nn.Conv2d(size.channels, size.features, 1)
        self.log_sharpness = nn.Parameter(torch.tensor(math.log(_FIRST_SHARPNESS)))

    def forward(self, images_B3HW: Tensor) -> Tensor:
        x = self.out(self.blocks(self.stem(images_B3HW))).float()
        unit = F.normalize(x.flatten(2), dim=1).transpose(1, 2)
        return unit * torch.exp(self.log_sharpness / 2)


MOVED_WEIGHT = 5.0
"""In the loss, of what moved: things cover few cells, and what stands still is found with less."""


def matching_loss(first_BNC: Tensor, later_BNC: Tensor, matches_BN3: Tensor, grid: tuple[int, int]) -> Tensor:
    """Cross-entropy of the later image's cells where each cell of the first one lies, and of the way back.

    -sum_i w_i [ log softmax_j(f_i . g_j) at j = c(i) + 1/2 log softmax_k(f_k . g_c(i)) at k = i ] / sum_i w_i, over the
    cells i that are seen again, in the cell c(i); w_i is `MOVED_WEIGHT` for what moved, else 1.

    Args:
        matches_BN3: where the cells of the first images are in the later ones, in shares of width and height, NaN for
            those that are not seen there, and whether they moved.
        grid: (rows, columns) of the later images.
    """
    seen = matches_BN3.isfinite().all(-1)
    logits = first_BNC @ later_BNC.transpose(1, 2)
    if not seen.any():
        return logits.sum() * 0.0
    image, cell = seen.nonzero(as_tuple=True)
    x, y, moved = matches_BN3[seen].unbind(-1)
    target = cell_of(x, y, *grid)
    weights = 1.0 + (MOVED_WEIGHT - 1.0) * moved
    forth = F.cross_entropy(logits[image, cell], target, reduction="none")
    back = F.cross_entropy(logits[image, :, target], cell, reduction="none")
    return (weights * (forth + 0.5 * back)).sum() / weights.sum()


def cell_of(x: Tensor, y: Tensor, rows: int, columns: int) -> Tensor:
    """Raster index of the cell that each place, in shares of width and height, lies in."""
    return (y * rows).long().clamp(0, rows - 1) * columns + (x * columns).long().clamp(0, columns - 1)
