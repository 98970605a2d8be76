"""Model families: one file each, behind the `ModelFamily` protocol."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn


class ModelFamily(Protocol):
    """What the wrapper needs to know about a transformers vision-language model."""

    name: str

    def decoder(self, hf: nn.Module) -> nn.Module:
        """The language model that takes `inputs_embeds`."""

    def visual_tokens(self, hf: nn.Module, images_BCHW: Tensor) -> Tensor:
        """(B, N, D) projected visual tokens in raster order of normalised images of one size."""

    def grid(self, hf: nn.Module, height: int, width: int) -> tuple[int, int]:
        """(grid_h, grid_w) of visual tokens for an image size."""
