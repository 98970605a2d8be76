"""The image codec: message fields to arrays and back, without cv_bridge."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.images.compressed import decode_compressed, decode_compressed_depth
from spatial_mllm_core.images.encode import (
    CompressedFields,
    ImageFields,
    depth_to_millimetres,
    encode_compressed_depth,
    encode_depth_16uc1,
    encode_depth_32fc1,
    encode_jpeg,
    encode_png16,
    encode_rgb8,
)
from spatial_mllm_core.images.encodings import COLOR_ENCODINGS, DEPTH_ENCODINGS, MAX_PIXELS
from spatial_mllm_core.images.raw import decode_float, decode_image, decode_raw_depth

__all__ = [
    "COLOR_ENCODINGS",
    "DEPTH_ENCODINGS",
    "MAX_PIXELS",
    "CompressedFields",
    "ImageFields",
    "decode_any",
    "decode_compressed",
    "decode_depth",
    "decode_float",
    "decode_image",
    "depth_to_millimetres",
    "encode_compressed_depth",
    "encode_depth_16uc1",
    "encode_depth_32fc1",
    "encode_jpeg",
    "encode_png16",
    "encode_rgb8",
]


def decode_any(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return (H, W, 3) uint8 RGB of a raw or a compressed image message."""
    if _is_compressed(msg):
        return decode_compressed(msg, max_pixels=max_pixels)
    return decode_image(msg, max_pixels=max_pixels)


def decode_depth(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Return (H, W) float32 z-depth in metres, NaN for none, of a raw or compressed message."""
    if _is_compressed(msg):
        return decode_compressed_depth(msg, max_pixels=max_pixels)
    return decode_raw_depth(msg, max_pixels=max_pixels)


def _is_compressed(msg: Any) -> bool:
    return hasattr(msg, "format") and not hasattr(msg, "encoding")
