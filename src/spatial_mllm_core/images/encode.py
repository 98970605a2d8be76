"""Arrays as the fields of sensor_msgs/Image and CompressedImage; knows neither ROS nor stamps.

`data` is a flat buffer over the array itself, so that `array.array("B").frombytes(fields.data)`
is the only copy between a result and a message. Assigning bytes or a list to a ROS message's
`data` instead checks every element in Python and costs some fifty times more.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError

_BIG_ENDIAN_HOST = sys.byteorder == "big"
_MAX_MM = 65_535


@dataclass(frozen=True)
class ImageFields:
    """The fields of a sensor_msgs/Image, without its header."""

    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: memoryview


@dataclass(frozen=True)
class CompressedFields:
    """The fields of a sensor_msgs/CompressedImage, without its header."""

    format: str
    data: memoryview


def encode_depth_32fc1(depth_m: NDArray[np.floating[Any]]) -> ImageFields:
    """(H, W) metres, NaN for none, as the canonical depth image of REP-118."""
    return _fields(np.ascontiguousarray(_plane(depth_m), dtype=np.float32), "32FC1")


def encode_depth_16uc1(depth_m: NDArray[np.floating[Any]]) -> ImageFields:
    """(H, W) metres as 16-bit millimetres: 0 for none, saturating at 65.535 m."""
    return _fields(depth_to_millimetres(depth_m), "16UC1")


def encode_rgb8(image_rgb: NDArray[np.uint8]) -> ImageFields:
    """(H, W, 3) uint8 RGB as rgb8."""
    return _fields(np.ascontiguousarray(_colors(image_rgb)), "rgb8")


def encode_jpeg(image_rgb: NDArray[np.uint8], *, quality: int = 90) -> CompressedFields:
    """(H, W, 3) uint8 RGB as JPEG, with the format text of compressed_image_transport."""
    import cv2

    if not 1 <= quality <= 100:
        raise SpatialError(ErrorCode.BAD_NUMBER, f"JPEG quality lies in 1 to 100, found {quality}")
    bgr = cv2.cvtColor(_colors(image_rgb), cv2.COLOR_RGB2BGR)
    buffer = _imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])
    return CompressedFields("rgb8; jpeg compressed bgr8", buffer.data)


def encode_png16(depth_m: NDArray[np.floating[Any]]) -> CompressedFields:
    """(H, W) metres as a 16-bit PNG in millimetres (0 for none, saturating at 65.535 m)."""
    buffer = _imencode(".png", depth_to_millimetres(depth_m), [])
    return CompressedFields("16UC1; png compressed ", buffer.data)


def encode_compressed_depth(depth_m: NDArray[np.floating[Any]]) -> CompressedFields:
    """As `encode_png16`, in the form that image_transport's compressedDepth plugin reads."""
    buffer = _imencode(".png", depth_to_millimetres(depth_m), [])
    header = np.frombuffer(struct.pack("<iff", 0, 0.0, 0.0), dtype=np.uint8)
    whole = np.concatenate([header, buffer])
    return CompressedFields("16UC1; compressedDepth png", whole.data)


def depth_to_millimetres(depth_m: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    """(H, W) metres to (H, W) uint16 millimetres, rounded; 0 where there is no depth.

    A depth below half a millimetre becomes 0, that is none: the encoding cannot say it.
    """
    with np.errstate(invalid="ignore"):
        depth_mm = np.rint(_plane(depth_m) * 1000.0)
        depth_mm = np.where(depth_mm > 0, np.minimum(depth_mm, _MAX_MM), 0.0)
    return depth_mm.astype(np.uint16)


def _fields(pixels: NDArray[Any], encoding: str) -> ImageFields:
    height, width = pixels.shape[:2]
    wide = pixels.dtype.itemsize > 1
    return ImageFields(
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(wide and _BIG_ENDIAN_HOST),
        step=pixels.strides[0],
        data=pixels.data.cast("B"),
    )


def _imencode(extension: str, pixels: NDArray[Any], options: list[int]) -> NDArray[np.uint8]:
    import cv2

    try:
        done, buffer = cv2.imencode(extension, pixels, options)
    except cv2.error as error:
        raise SpatialError(
            ErrorCode.IMAGE_TOO_LARGE, f"OpenCV cannot write {pixels.shape} as {extension}"
        ) from error
    if not done:
        raise SpatialError(ErrorCode.IMAGE_TOO_LARGE, f"cannot write {pixels.shape} {extension}")
    return np.asarray(buffer, dtype=np.uint8).reshape(-1)


def _plane(depth_m: NDArray[Any]) -> NDArray[Any]:
    if depth_m.ndim != 2 or not depth_m.size or not np.issubdtype(depth_m.dtype, np.floating):
        raise SpatialError(
            ErrorCode.BAD_DEPTH,
            f"depth must be a non-empty (H, W) array of floats in metres, found {depth_m.shape} "
            f"of {depth_m.dtype}",
        )
    return depth_m


def _colors(image_rgb: NDArray[Any]) -> NDArray[np.uint8]:
    if image_rgb.ndim != 3 or image_rgb.shape[2] != 3 or image_rgb.dtype != np.uint8:
        raise SpatialError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"expected an (H, W, 3) uint8 RGB image, found {image_rgb.shape} of {image_rgb.dtype}",
        )
    if not image_rgb.size:
        raise SpatialError(ErrorCode.EMPTY_IMAGE, f"the image has shape {image_rgb.shape}")
    return image_rgb
