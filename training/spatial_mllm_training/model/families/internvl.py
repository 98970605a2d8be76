"""InternVL 2.5 / 3 (the `-hf` checkpoints): one tile, the whole image stretched to the tower's square.

The stock processor can cut an image into up to twelve tiles and a thumbnail; `crop_to_patches=False` gives
this single view. Pixel shuffle joins 2x2 patches, so that one of the 16x16 tokens shows 28 px of 448; it
keeps raster order. The stretch is not uniform: fx and fy follow each their own axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
from spatial_mllm_training.model.preprocess import Framing, Processing

name = "internvl"
PLACEHOLDER = ("<img>", "<IMG_CONTEXT>", "</img>")
PUBLISHED_TAPS = {24: (3, 9, 15, 21), 28: (3, 9, 15, 21)}
PROCESSING = Processing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

decoder, vision, projector = language_model, vision_tower, multi_modal_projector
prompt_inputs = no_prompt_inputs


def stock_class() -> type[nn.Module]:
    from transformers import InternVLForConditionalGeneration

    return InternVLForConditionalGeneration


def visual_token_id(config: Any) -> int:
    return config.image_token_id


def grid(hf: nn.Module, height: int, width: int) -> tuple[int, int]:
    return square_tokens(hf.config, _patches_per_token(hf.config), height, width)


def framing(config: Any, processing: Processing, width: int, height: int) -> Framing:
    check_size(width, height)
    side, tokens, pitch = square_grid(config, _patches_per_token(config))
    return Framing(width, height, side, side, side, side, tokens, tokens, pitch)


def pixel_inputs(config: Any, images_3HW: Sequence[Tensor]) -> dict[str, Tensor]:
    return {"pixel_values": stacked(images_3HW)}


def visual_tokens(hf: nn.Module, images_BCHW: Tensor) -> Tensor:
    return hf.model.get_image_features(pixel_values=images_BCHW, return_dict=True).pooler_output


def _patches_per_token(config: Any) -> int:
    return round(1 / config.downsample_ratio)
