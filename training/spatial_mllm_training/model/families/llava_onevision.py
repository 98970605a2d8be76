"""LLaVA-OneVision through its several-images path: one view per image, padded to a square.

That path exists in the stock class for prompts of two and more images and is used here for one image too:
the other one ("anyres") adds a base view, tiles and a newline per row of tokens. The image is centred on a
square of the mean colour, resampled to the tower's side (384 px) and gives 27x27 tokens of 14 px in raster
order; the last 6 px at the right and at the bottom are seen by no token. One newline token follows each
image. It and the tokens centred in the padding show no pixel.
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
from spatial_mllm_training.model.preprocess import Framing, Processing

name = "llava_onevision"
PLACEHOLDER = ("", "<image>", "")
#: Not in the paper; its Qwen2 decoder has the depth of Qwen2.5-7B.
PUBLISHED_TAPS = {28: (3, 10, 17, 24)}
PROCESSING = Processing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))

decoder, vision, projector = language_model, vision_tower, multi_modal_projector
prompt_inputs = no_prompt_inputs


def stock_class() -> type[nn.Module]:
    from transformers import LlavaOnevisionForConditionalGeneration

    return LlavaOnevisionForConditionalGeneration


def visual_token_id(config: Any) -> int:
    return config.image_token_id


def grid(hf: nn.Module, height: int, width: int) -> tuple[int, int]:
    return square_tokens(hf.config, 1, height, width)


def framing(config: Any, processing: Processing, width: int, height: int) -> Framing:
    check_size(width, height)
    side, tokens, pitch = square_grid(config, 1)
    square = max(width, height)
    return Framing(
        source_width=width,
        source_height=height,
        resized_width=side,
        resized_height=side,
        input_width=side,
        input_height=side,
        grid_width=tokens,
        grid_height=tokens,
        pitch_px=pitch,
        pad_left=(square - width) // 2,
        pad_top=(square - height) // 2,
        padded_width=square,
        padded_height=square,
        trailing_tokens=1,
    )


def pixel_inputs(config: Any, images_3HW: Sequence[Tensor]) -> dict[str, Tensor]:
    return _one_view_each(stacked(images_3HW))


def visual_tokens(hf: nn.Module, images_BCHW: Tensor) -> Tensor:
    views = _one_view_each(images_BCHW)
    packed = hf.model.get_image_features(**views, return_dict=True).pooler_output
    return torch.stack(list(packed))[:, :-1]  # without the newline


def _one_view_each(images_BCHW: Tensor) -> dict[str, Tensor]:
    # The stock class reads batch_num_images only to ask "more than one?"; a count of one would mean tiles.
    # It never reads the sizes of images that have no tiles.
    count = len(images_BCHW)
    sizes = torch.tensor([images_BCHW.shape[-2:]] * count, device=images_BCHW.device)
    return {
        "pixel_values": images_BCHW[:, None],
        "image_sizes": sizes,
        "batch_num_images": torch.tensor([max(2, count)], device=images_BCHW.device),
    }
