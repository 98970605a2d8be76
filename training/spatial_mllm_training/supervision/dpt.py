"""The DPT decoder: four token grids of one image in, one dense map out; knows no task and no language.

Ranftl et al. 2021, with the sizes of VGGT's head (papers.md 3.3). Resizing is half-pixel (a cell of
the output covers the same part of the image as in the targets), where VGGT aligns corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class DPTSize:
    """How large a decoder is.

    Attributes:
        channels: of the four levels at 4, 2, 1 and 1/2 cells per token and axis.
        features: channels of the fused map.
        upsampling: output cells per token and axis; 8 needs no last resize.
        position_embedding: add 0.1 times a sine embedding of the position at every level and before
            the output, as VGGT does; wants `channels` and `features` // 2 divisible by 4.

    Raises:
        ValueError: they are not, or a number is not positive.
    """

    channels: tuple[int, int, int, int]
    features: int
    upsampling: int = 8
    position_embedding: bool = True

    def __post_init__(self) -> None:
        if len(self.channels) != 4 or min(*self.channels, self.features // 2, self.upsampling) < 1:
            raise ValueError(f"a decoder has four levels and positive sizes, found {self}")
        if self.position_embedding and any(c % 4 for c in (*self.channels, self.features // 2)):
            raise ValueError(f"sine positions want channels and features // 2 divisible by 4, found {self}")


VGGT_SIZE = DPTSize(channels=(256, 512, 1024, 1024), features=256, upsampling=14)
SMALL_SIZE = DPTSize(channels=(64, 64, 64, 64), features=64)

_HIDDEN_OUT = 32


class ResidualUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Add a finer level, refine, bring to the next size."""

    def __init__(self, features: int, *, has_skip: bool) -> None:
        super().__init__()
        self.skip = ResidualUnit(features) if has_skip else None
        self.refine = ResidualUnit(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, x: Tensor, skip: Tensor | None, size: tuple[int, int]) -> Tensor:
        if self.skip is not None and skip is not None:
            x = x + self.skip(skip)
        return self.out(_resize(self.refine(x), size))


class DPTDecoder(nn.Module):
    """Four token grids (coarse in space, equal in size) -> (B, channels_out, up * h, up * w).

    Any grid works, 1 x 1 included; under export the grid is that of the example input.
    """

    def __init__(self, inputs: tuple[int, int, int, int], size: DPTSize, channels_out: int) -> None:
        super().__init__()
        c1, c2, c3, c4 = size.channels
        self.size = size
        self.reduce = nn.ModuleList(nn.Conv2d(i, c, 1) for i, c in zip(inputs, size.channels, strict=True))
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(c1, c1, 4, stride=4),
                nn.ConvTranspose2d(c2, c2, 2, stride=2),
                nn.Identity(),
                nn.Conv2d(c4, c4, 3, stride=2, padding=1),
            ]
        )
        self.adapt = nn.ModuleList(
            nn.Conv2d(c, size.features, 3, padding=1, bias=False) for c in (c1, c2, c3, c4)
        )
        self.fusions = nn.ModuleList(Fusion(size.features, has_skip=i < 3) for i in range(4))
        self.narrow = nn.Conv2d(size.features, size.features // 2, 3, padding=1)
        self.out = nn.Sequential(
            nn.Conv2d(size.features // 2, _HIDDEN_OUT, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_HIDDEN_OUT, channels_out, 1),
        )

    def forward(self, grids_BDhw: Sequence[Tensor]) -> Tensor:
        grid_h, grid_w = grids_BDhw[0].shape[-2:]
        levels = []
        for x, reduce, resize, adapt in zip(grids_BDhw, self.reduce, self.resize, self.adapt, strict=True):
            levels.append(adapt(resize(self._with_position(reduce(x)))))
        sizes = [(8 * grid_h, 8 * grid_w), *[tuple(level.shape[-2:]) for level in levels[:3]]]
        x = self.fusions[3](levels[3], None, sizes[3])
        for i in (2, 1, 0):
            x = self.fusions[i](x, levels[i], sizes[i])
        up = self.size.upsampling
        x = _resize(self.narrow(x), (up * grid_h, up * grid_w))
        return self.out(self._with_position(x))

    def _with_position(self, x: Tensor) -> Tensor:
        if not self.size.position_embedding:
            return x
        return x + 0.1 * position_embedding(x.shape[1], x.shape[2], x.shape[3]).to(x)


def position_embedding(channels: int, height: int, width: int) -> Tensor:
    """(channels, height, width) float32 sines of the cell centres, in units of the half diagonal.

    The longest wavelength is 100 times the shortest, as in VGGT. `channels` is divisible by 4.
    """
    diagonal = (height**2 + width**2) ** 0.5
    u = (2.0 * torch.arange(width) + 1.0 - width) / diagonal
    v = (2.0 * torch.arange(height) + 1.0 - height) / diagonal
    quarter = channels // 4
    frequencies = 100.0 ** (-torch.arange(quarter) / quarter)
    parts = []
    for axis, shape in ((u, (1, 1, width)), (v, (1, height, 1))):
        angle = frequencies[:, None, None] * axis.reshape(shape)
        parts += [wave(angle).expand(quarter, height, width) for wave in (torch.sin, torch.cos)]
    return torch.cat(parts)


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)
