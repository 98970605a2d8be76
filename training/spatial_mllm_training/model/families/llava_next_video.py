"""LLaVA-NeXT-Video through its video path: every image is a video of one frame.

The image path of the stock class cannot do without tiles; the video path gives one view per image. The
shorter side is resampled to the tower's side (336 px) and the middle of the longer one is kept: what lies
outside this square is NOT seen. 24x24 patches are pooled 2x2 to 12x12 tokens of 28 px in raster order,
without newline. The prompt holds the video token, not the image token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spatial_mllm_training.model.families.base import (
    check_size,
    language_model,
    multi_modal_projector,
    no_prompt_inputs,
    square_grid,
    square_tokens,
    stacked,
    vision_tower,
)
from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD
from spatial_mllm_training.model.preprocess import Framing, Processing

name = "llava_next_video"
PLACEHOLDER = ("", "<video>", "")
PUBLISHED_TAPS = {32: (4, 11, 18, 25)}
PROCESSING = Processing(IMAGE_MEAN, IMAGE_STD)  # both are CLIP's

decoder, vision, projector = language_model, vision_tower, multi_modal_projector
prompt_inputs = no_prompt_inputs


def stock_class() -> type[nn.Module]:
    from transformers import LlavaNextVideoForConditionalGeneration

    return LlavaNextVideoForConditionalGeneration


def visual_token_id(config: Any) -> int:
    return config.video_token_id


def grid(hf: nn.Module, height: int, width: int) -> tuple[int, int]:
    return square_tokens(hf.config, hf.config.spatial_pool_stride, height, width)


def framing(config: Any, processing: Processing, width: int, height: int) -> Framing:
    check_size(width, height)
    side, tokens, pitch = square_grid(config, config.spatial_pool_stride)
    short, long = min(width, height), max(width, height)
    new_long = int(side * long / short)
    new_width, new_height = (side, new_long) if width <= height else (new_long, side)
    return Framing(
        source_width=width,
        source_height=height,
        resized_width=new_width,
        resized_height=new_height,
        input_width=side,
        input_height=side,
        grid_width=tokens,
        grid_height=tokens,
        pitch_px=pitch,
        crop_left=(new_width - side) // 2,
        crop_top=(new_height - side) // 2,
    )


def pixel_inputs(config: Any, images_3HW: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"pixel_values_videos": stacked(images_3HW)[:, None]}


def visual_tokens(hf: nn.Module, images_BCHW: Tensor) -> Tensor:
    features = hf.model.get_video_features(images_BCHW[:, None], return_dict=True).pooler_output
    return torch.stack(list(features)).flatten(1, -2)  # before transformers 5.23 a tuple of (frames, N, D)
