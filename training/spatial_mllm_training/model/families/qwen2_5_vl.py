"""Qwen2.5-VL at native resolution: patches in merge-block order, visual tokens in raster order after the merger.

One token shows `patch_size * spatial_merge_size` (28) px of the resampled image in each axis; nothing is
cut, nothing is added.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    apply_rotary_pos_emb_vision,
    eager_attention_forward,
)
from transformers.utils.generic import is_flash_attention_requested

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.families.base import check_size, language_model
from spatial_mllm_training.model.preprocess import Framing, Processing

name = "qwen2_5_vl"
PLACEHOLDER = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
PUBLISHED_TAPS = {36: (4, 12, 20, 28), 28: (3, 10, 17, 24)}

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
PROCESSING = Processing(IMAGE_MEAN, IMAGE_STD)

#: Longer images are refused by the stock processor.
MAX_ASPECT = 200

decoder = language_model


def stock_class() -> type[nn.Module]:
    from transformers import Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration


def vision(hf: nn.Module) -> nn.Module:
    return hf.model.visual


def projector(hf: nn.Module) -> nn.Module:
    return hf.model.visual.merger


def visual_token_id(config: Any) -> int:
    return config.image_token_id


def grid(hf: nn.Module, height: int, width: int) -> tuple[int, int]:
    pitch = _pitch(hf.config)
    if height % pitch or width % pitch:
        raise ValueError(f"image size {width}x{height} is not a multiple of the token pitch {pitch}")
    return height // pitch, width // pitch


def framing(config: Any, processing: Processing, width: int, height: int) -> Framing:
    """Resampled to multiples of the pitch within the processor's bounds of area (its `smart_resize`)."""
    check_size(width, height)
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise SpatialError(
            ErrorCode.SIZE_MISMATCH,
            f"Qwen2.5-VL takes images up to {MAX_ASPECT} times longer than wide, found {width}x{height} px",
        )
    pitch = _pitch(config)
    new_width, new_height = round(width / pitch) * pitch, round(height / pitch) * pitch
    if new_width * new_height > processing.max_pixels:
        shrink = math.sqrt((height * width) / processing.max_pixels)
        new_width = max(pitch, math.floor(width / shrink / pitch) * pitch)
        new_height = max(pitch, math.floor(height / shrink / pitch) * pitch)
    elif new_width * new_height < processing.min_pixels:
        grow = math.sqrt(processing.min_pixels / (height * width))
        new_width = math.ceil(width * grow / pitch) * pitch
        new_height = math.ceil(height * grow / pitch) * pitch
    return Framing(
        source_width=width,
        source_height=height,
        resized_width=new_width,
        resized_height=new_height,
        input_width=new_width,
        input_height=new_height,
        grid_width=new_width // pitch,
        grid_height=new_height // pitch,
        pitch_px=pitch,
    )


def pixel_inputs(config: Any, images_3HW: Sequence[Tensor]) -> dict[str, Tensor]:
    patches = [
        patchify(
            [image[None]] * config.vision_config.temporal_patch_size,
            patch=config.vision_config.patch_size,
            merge=config.vision_config.spatial_merge_size,
        )
        for image in images_3HW
    ]
    patch = config.vision_config.patch_size
    grids = [[1, image.shape[1] // patch, image.shape[2] // patch] for image in images_3HW]
    return {"pixel_values": torch.cat(patches), "image_grid_thw": torch.tensor(grids)}


def prompt_inputs(config: Any, ids_BS: Tensor) -> dict[str, Tensor]:
    # without them the stock model silently falls back to positions without rows and columns
    return {"mm_token_type_ids": (ids_BS == config.image_token_id).int()}


def use_linear_patch_embed(hf: nn.Module) -> None:
    """Compute the patch embedding as the matrix product that it is.

    Its Conv3d covers one patch exactly; on a CPU the convolution's backward pass costs more than the
    rest of a small model's step. Weights and results stay the same.
    """
    embed = hf.model.visual.patch_embed

    def forward(patches: Tensor) -> Tensor:
        return functional.linear(patches.to(embed.proj.weight.dtype), embed.proj.weight.flatten(1))

    embed.forward = forward


def use_batched_attention(hf: nn.Module) -> None:
    """Let the vision tower attend within all images of one size at once.

    The stock layers cut the batch into images and call their attention on one after the other. Images or
    windows of several lengths still go that way; weights and results stay the same.
    """
    for block in hf.model.visual.blocks:
        block.attn.forward = functools.partial(_attend, block.attn, block.attn.forward)


def _attend(
    attention: nn.Module,
    stock: Callable[..., Tensor],
    hidden_states: Tensor,
    cu_seqlens: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    **kwargs: Any,
) -> Tensor:
    lengths = (cu_seqlens[1:] - cu_seqlens[:-1]).tolist()
    if len(set(lengths)) != 1 or is_flash_attention_requested(attention.config):
        return stock(hidden_states, cu_seqlens, position_embeddings=position_embeddings, **kwargs)
    total = hidden_states.shape[0]
    shape = (total, 3, attention.num_heads, -1)
    query, key, value = attention.qkv(hidden_states).reshape(shape).permute(1, 0, 2, 3).unbind(0)
    query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
    interface = ALL_ATTENTION_FUNCTIONS.get_interface(
        attention.config._attn_implementation, eager_attention_forward
    )
    per_image = (len(lengths), lengths[0], attention.num_heads, -1)
    out, _ = interface(
        attention,
        *(x.to(value.dtype).reshape(per_image).transpose(1, 2) for x in (query, key, value)),
        attention_mask=None,
        scaling=attention.scaling,
        dropout=attention.attention_dropout if attention.training else 0.0,
        is_causal=False,
    )
    return attention.proj(out.reshape(total, -1))


def patchify(frames: Sequence[Tensor], *, patch: int, merge: int) -> Tensor:
    """(B * patches, C * T * patch * patch) in the processor's order, of T frames (B, C, H, W) of one moment each.

    A still is a clip of the same frame over and over.
    """
    batch, channels, height, width = frames[0].shape
    rows, columns = height // (patch * merge), width // (patch * merge)
    x = torch.stack(tuple(frames), dim=2)
    x = x.reshape(batch, channels, len(frames), rows, merge, patch, columns, merge, patch)
    x = x.permute(0, 3, 6, 4, 7, 1, 2, 5, 8)
    return x.reshape(batch * rows * columns * merge * merge, channels * len(frames) * patch * patch)


def visual_tokens(hf: nn.Module, images_BCHW: Tensor) -> Tensor:
    return visual_tokens_of_clips(hf, images_BCHW, images_BCHW)


def visual_tokens_of_clips(hf: nn.Module, before_BCHW: Tensor, images_BCHW: Tensor) -> Tensor:
    """(B, N, D) projected visual tokens of clips of two frames, as the stock model reads a video of them."""
    vision = hf.config.vision_config
    batch, _, height, width = images_BCHW.shape
    grid_h, grid_w = grid(hf, height, width)
    patches = patchify(
        clip(before_BCHW, images_BCHW, vision.temporal_patch_size),
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
    )
    thw = torch.tensor(
        [[1, height // vision.patch_size, width // vision.patch_size]] * batch, device=images_BCHW.device
    )
    tokens = hf.model.visual(patches.to(hf.model.visual.dtype), grid_thw=thw).pooler_output
    return tokens.reshape(batch, grid_h * grid_w, -1)


def clip(before: Tensor, image: Tensor, frames: int) -> list[Tensor]:
    """As many frames as a patch has moments: the earlier ones are of before."""
    return [before] * (frames // 2) + [image] * (frames - frames // 2)


def _pitch(config: Any) -> int:
    return config.vision_config.patch_size * config.vision_config.spatial_merge_size
