"""Images as the vision tower of small models takes them, in a graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD


class Normalised(nn.Module):
    """(B, H, W, 3) uint8 -> (B, 3, H, W) as the vision tower takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(IMAGE_MEAN)[:, None, None] * 255.0, persistent=False)
        self.register_buffer(
            "scale", 1.0 / (torch.tensor(IMAGE_STD)[:, None, None] * 255.0), persistent=False
        )

    def forward(self, image: Tensor) -> Tensor:
        return (image.permute(0, 3, 1, 2).float() - self.mean) * self.scale
