"""The seam between the wrapper and a transformers vision-language model; knows no family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.preprocess import Framing, Processing

Taps = tuple[int, int, int, int]


class ModelFamily(Protocol):
    """What the wrapper needs to know about a family; a module of this package is one.

    `hf` is the stock model, `config` its configuration. A family whose patches hold two frames has
    `visual_tokens_of_clips` beside `visual_tokens`.

    Attributes:
        name: `model_type` of the configuration.
        PLACEHOLDER: (before, token, after) texts of an image in a prompt; `token` is repeated
            `Framing.token_count` times.
        PUBLISHED_TAPS: decoder depth -> tapped indices into `hidden_states` (SpatialSV, facts 3.1).
        PROCESSING: what the published checkpoints' processors do to pixels.
    """

    name: str
    PLACEHOLDER: tuple[str, str, str]
    PUBLISHED_TAPS: Mapping[int, Taps]
    PROCESSING: Processing

    def stock_class(self) -> type[nn.Module]:
        """transformers' own class."""

    def decoder(self, hf: nn.Module) -> nn.Module:
        """The language model that takes `inputs_embeds`."""

    def vision(self, hf: nn.Module) -> nn.Module:
        """The vision tower; the projector may be a part of it."""

    def projector(self, hf: nn.Module) -> nn.Module:
        """What maps vision features to the decoder's width."""

    def visual_token_id(self, config: Any) -> int:
        """The id that stands for a visual token in a prompt."""

    def framing(self, config: Any, processing: Processing, width: int, height: int) -> Framing:
        """What happens to a source image of a size; one view of the whole image, no tiles."""

    def pixel_inputs(self, config: Any, images_3HW: Sequence[Tensor]) -> dict[str, Tensor]:
        """Stock keyword arguments for normalised images of input size, in prompt order of the batch."""

    def prompt_inputs(self, config: Any, ids_BS: Tensor) -> dict[str, Tensor]:
        """Further stock keyword arguments that follow from the prompt's ids."""

    def visual_tokens(self, hf: nn.Module, images_BCHW: Tensor) -> Tensor:
        """(B, N, D) projected visual tokens in raster order of normalised images of one size."""

    def grid(self, hf: nn.Module, height: int, width: int) -> tuple[int, int]:
        """(grid_h, grid_w) of visual tokens for an input size."""


def tap_layers(family: ModelFamily, layers: int) -> Taps:
    """The paper's taps for a decoder of this depth, scaled from the nearest published depth.

    Raises:
        ValueError: fewer than five layers have no four hidden states between embeddings and final norm.
    """
    if layers < 5:
        raise ValueError(f"four taps need a decoder of at least 5 layers, this one has {layers}")
    depth = min(family.PUBLISHED_TAPS, key=lambda d: abs(d - layers))
    taps = [tap * layers // depth for tap in family.PUBLISHED_TAPS[depth]]
    for i in range(4):  # distinct, and before the final norm, in shallow decoders too
        low = taps[i - 1] + 1 if i else 1
        taps[i] = min(max(taps[i], low), layers - 4 + i)
    return taps[0], taps[1], taps[2], taps[3]


def square_grid(config: Any, patches_per_token: int) -> tuple[int, int, int]:
    """(side of the input px, tokens per side, token pitch px) of a tower with a square input.

    A convolution without padding leaves the rest of side / patch unseen (SigLIP: 378 of 384 px).
    """
    side, patch = (_scalar(config.vision_config.image_size), _scalar(config.vision_config.patch_size))
    return side, side // patch // patches_per_token, patch * patches_per_token


def check_square(config: Any, height: int, width: int) -> None:
    """Raise a ValueError unless an input has the one size the tower takes."""
    side = _scalar(config.vision_config.image_size)
    if (height, width) != (side, side):
        raise ValueError(f"this vision tower takes {side}x{side} px, found {width}x{height}")


def square_tokens(config: Any, patches_per_token: int, height: int, width: int) -> tuple[int, int]:
    """(grid_h, grid_w) of a tower with a square input; a ValueError for another input size."""
    check_square(config, height, width)
    tokens = square_grid(config, patches_per_token)[1]
    return tokens, tokens


def language_model(hf: nn.Module) -> nn.Module:
    return hf.model.language_model


def vision_tower(hf: nn.Module) -> nn.Module:
    return hf.model.vision_tower


def multi_modal_projector(hf: nn.Module) -> nn.Module:
    return hf.model.multi_modal_projector


def no_prompt_inputs(config: Any, ids_BS: Tensor) -> dict[str, Tensor]:
    return {}


def stacked(images_3HW: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(images_3HW))


def check_size(width: int, height: int) -> None:
    """Raise SIZE_MISMATCH for a source image without pixels."""
    if width < 1 or height < 1:
        raise SpatialError(ErrorCode.SIZE_MISMATCH, f"an image of {width}x{height} px has no pixels")


def _scalar(value: Any) -> int:
    return int(value[0]) if isinstance(value, (tuple, list)) else int(value)
