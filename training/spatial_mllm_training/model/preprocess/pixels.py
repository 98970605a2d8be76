"""Pixels of an image as a model's processor makes them, on tensors; knows neither cameras nor models.

Resampling is torch's antialiased bicubic filter on uint8: the same call as transformers' torchvision
processors make, and within 3 of 255 levels (0.2 on average) of their Pillow twins, which round their
fixed-point weights otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.preprocess.framing import Framing

_BICUBIC = 3


@dataclass(frozen=True)
class Processing:
    """What a checkpoint's preprocessor_config.json decides.

    Attributes:
        image_mean, image_std: per channel RGB, of images in [0, 1].
        min_pixels, max_pixels: area of the input at native resolution; families with an input of fixed
            size do not look at them.
    """

    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280

    def updated(self, saved: Mapping[str, Any]) -> Processing:
        """With the values of a preprocessor_config.json where it gives them.

        Raises:
            SpatialError: MODEL_SIGNATURE for a filter other than bicubic.
        """
        if saved.get("resample", _BICUBIC) != _BICUBIC:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"the checkpoint's processor resamples with filter {saved['resample']}; only bicubic "
                f"({_BICUBIC}) is served",
            )
        size = saved.get("size") or {}
        area = size if {"shortest_edge", "longest_edge"} <= set(size) else {}
        return Processing(
            image_mean=tuple(saved.get("image_mean") or self.image_mean),
            image_std=tuple(saved.get("image_std") or self.image_std),
            min_pixels=int(saved.get("min_pixels") or area.get("shortest_edge") or self.min_pixels),
            max_pixels=int(saved.get("max_pixels") or area.get("longest_edge") or self.max_pixels),
        )


def reframed(framing: Framing, processing: Processing, image_HW3: Tensor) -> Tensor:
    """(3, input_height, input_width) uint8: padded with the mean colour, resampled, cropped.

    Args:
        image_HW3: uint8 RGB of the source size.

    Raises:
        SpatialError: SIZE_MISMATCH when the image is not the one that was framed.
    """
    if tuple(image_HW3.shape) != (framing.source_height, framing.source_width, 3):
        raise SpatialError(
            ErrorCode.SIZE_MISMATCH,
            f"expected an RGB image of {framing.source_width}x{framing.source_height} px, found an array of "
            f"shape {tuple(image_HW3.shape)}",
        )
    x = image_HW3.permute(2, 0, 1)
    if (framing.padded_width, framing.padded_height) != (framing.source_width, framing.source_height):
        colour = torch.tensor([int(mean * 255) for mean in processing.image_mean], dtype=torch.uint8)
        canvas = colour[:, None, None].repeat(1, framing.padded_height, framing.padded_width)
        bottom, right = framing.pad_top + framing.source_height, framing.pad_left + framing.source_width
        canvas[:, framing.pad_top : bottom, framing.pad_left : right] = x
        x = canvas
    size = (framing.resized_height, framing.resized_width)
    if tuple(x.shape[1:]) != size:
        x = F.interpolate(x[None], size, mode="bicubic", antialias=True)[0]
    bottom, right = framing.crop_top + framing.input_height, framing.crop_left + framing.input_width
    return x[:, framing.crop_top : bottom, framing.crop_left : right].contiguous()


def normalised(processing: Processing, images_3HW: Tensor) -> Tensor:
    """float32 images of zero mean and unit variance from uint8 ones (..., 3, H, W)."""
    mean = torch.tensor(processing.image_mean, device=images_3HW.device)[:, None, None]
    std = torch.tensor(processing.image_std, device=images_3HW.device)[:, None, None]
    return (images_3HW.float() / 255.0 - mean) / std
