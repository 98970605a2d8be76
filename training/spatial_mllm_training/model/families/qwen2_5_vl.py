"""Qwen2.5-VL: patches in merge-block order, visual tokens in raster order after the merger."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

name = "qwen2_5_vl"

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


def decoder(hf: nn.Module) -> nn.Module:
    return hf.model.language_model


def grid(hf: nn.Module, height: int, width: int) -> tuple[int, int]:
    vision = hf.config.vision_config
    pitch = vision.patch_size * vision.spatial_merge_size
    if height % pitch or width % pitch:
        raise ValueError(f"image size {width}x{height} is not a multiple of the token pitch {pitch}")
    return height // pitch, width // pitch


def use_linear_patch_embed(hf: nn.Module) -> None:
    """Compute the patch embedding as the matrix product that it is.

    Its Conv3d covers one patch exactly; on a CPU the convolution's backward pass costs more than the
    rest of a small model's step. Weights and results stay the same.
    """
    embed = hf.model.visual.patch_embed

    def forward(patches: Tensor) -> Tensor:
        return functional.linear(patches.to(embed.proj.weight.dtype), embed.proj.weight.flatten(1))

    embed.forward = forward


def patchify(images_BCHW: Tensor, *, patch: int, merge: int, temporal: int) -> Tensor:
    """(B * patches, C * temporal * patch * patch) in the processor's order; stills are repeated in time."""
    batch, channels, height, width = images_BCHW.shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    x = images_BCHW.reshape(batch, channels, rows, merge, patch, columns, merge, patch)
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, temporal, -1, -1)
    return x.reshape(batch * rows * columns * merge * merge, channels * temporal * patch * patch)


def visual_tokens(hf: nn.Module, images_BCHW: Tensor) -> Tensor:
    vision = hf.config.vision_config
    batch, _, height, width = images_BCHW.shape
    grid_h, grid_w = grid(hf, height, width)
    patches = patchify(
        images_BCHW,
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        temporal=vision.temporal_patch_size,
    )
    thw = torch.tensor(
        [[1, height // vision.patch_size, width // vision.patch_size]] * batch, device=images_BCHW.device
    )
    tokens = hf.model.visual(patches.to(hf.model.visual.dtype), grid_thw=thw).pooler_output
    return tokens.reshape(batch, grid_h * grid_w, -1)
