"""Pixels of a sensor_msgs/Image as numpy arrays, without cv_bridge; knows neither ROS nor stamps.

The message may be rclpy's, rosbags' or anything with the same fields. No byte is copied where the
pixels already lie as wanted (rgb8, native 32FC1): such results are read-only views that keep the
message's buffer alive.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images.encodings import (
    MAX_PIXELS,
    Encoding,
    check_size,
    color_encoding,
    depth_encoding,
)


def decode_image(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the colours of a raw image.

    Args:
        msg: height, width, encoding, is_bigendian, step, data as in sensor_msgs/Image.
        max_pixels: larger images are refused before anything is allocated.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous; a read-only view of the message where it can be.

    Raises:
        SpatialError: EMPTY_IMAGE, IMAGE_TOO_LARGE, UNSUPPORTED_ENCODING, BAD_STEP,
            TRUNCATED_IMAGE, UNDECODABLE_IMAGE.
    """
    encoding = color_encoding(msg.encoding)
    width, height = int(msg.width), int(msg.height)
    check_size(width, height, max_pixels)
    if encoding.kind == "yuv420" and (width % 2 or height % 2):
        raise _odd(encoding, width, height)
    if encoding.kind == "yuv422" and width % 2:
        raise _odd(encoding, width, height)
    rows = height * 3 // 2 if encoding.kind == "yuv420" else height
    samples = _rows(msg, encoding, width, rows)
    channels = encoding.bytes_per_pixel // np.dtype(encoding.dtype).itemsize
    if encoding.dtype == "u2":
        samples = scaled_to_8_bit(_native(samples, encoding, msg))
    pixels = samples.reshape(rows, width, channels) if channels > 1 else samples
    return to_rgb(pixels, encoding)


def decode_raw_depth(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Return the z-depth of a raw depth image (REP-118): 32FC1 metres, 16UC1/mono16 millimetres.

    Returns:
        (H, W) float32 metres; NaN where there is no measurement (NaN, infinity, 0 or negative
        in the message). A read-only view of the message when nothing had to change.

    Raises:
        SpatialError: EMPTY_IMAGE, IMAGE_TOO_LARGE, UNSUPPORTED_ENCODING, BAD_STEP,
            TRUNCATED_IMAGE.
    """
    encoding = depth_encoding(msg.encoding)
    width, height = int(msg.width), int(msg.height)
    check_size(width, height, max_pixels)
    samples = _native(_rows(msg, encoding, width, height), encoding, msg)
    if encoding.dtype == "u2":
        return millimetres_to_depth(samples)
    return masked_depth(samples)


def decode_float(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Return the numbers of a 32FC1 image as they are: a confidence of 0 is a value, not a missing depth.

    Returns:
        (H, W) float32, a read-only view of the message where its byte order allows.

    Raises:
        SpatialError: as `decode_raw_depth`; UNSUPPORTED_ENCODING for anything but 32FC1.
    """
    encoding = depth_encoding(msg.encoding)
    if encoding.dtype != "f4":
        raise SpatialError(
            ErrorCode.UNSUPPORTED_ENCODING, f"expected the encoding 32FC1, found '{msg.encoding}'"
        )
    width, height = int(msg.width), int(msg.height)
    check_size(width, height, max_pixels)
    return _native(_rows(msg, encoding, width, height), encoding, msg)


def as_bytes(data: Any) -> NDArray[np.uint8]:
    """View any buffer (bytes, array.array, memoryview, ndarray) as flat uint8; never copies twice."""
    if isinstance(data, np.ndarray):
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    try:
        return np.frombuffer(data, dtype=np.uint8) if len(data) else np.zeros(0, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise SpatialError(
            ErrorCode.UNDECODABLE_IMAGE,
            f"image data of type {type(data).__name__} is not a flat buffer of bytes",
        ) from error


def to_rgb(pixels: NDArray[np.uint8], encoding: Encoding) -> NDArray[np.uint8]:
    """Convert 8-bit samples of `encoding` to contiguous (H, W, 3) RGB."""
    if not encoding.cv_conversion:
        return np.ascontiguousarray(pixels)
    if encoding.kind == "bayer" and min(pixels.shape[:2]) < 3:
        # OpenCV answers black, silently
        raise SpatialError(
            ErrorCode.UNDECODABLE_IMAGE,
            f"a mosaic of {pixels.shape[1]}x{pixels.shape[0]} px is too small to take colours from",
        )
    import cv2

    try:
        out = cv2.cvtColor(pixels, getattr(cv2, "COLOR_" + encoding.cv_conversion))
    except cv2.error as error:
        raise SpatialError(
            ErrorCode.UNDECODABLE_IMAGE,
            f"an image of {pixels.shape[1]}x{pixels.shape[0]} samples cannot be converted from "
            f"'{encoding.name}'",
        ) from error
    return np.asarray(out, dtype=np.uint8)


def scaled_to_8_bit(samples: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """Map 0..65535 onto 0..255 with rounding, as cv_bridge does for mono16."""
    import cv2

    return np.asarray(cv2.convertScaleAbs(samples, alpha=255.0 / 65535.0), dtype=np.uint8)


def millimetres_to_depth(samples: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn 16-bit millimetres into float32 metres, NaN where 0."""
    depth_m = samples.astype(np.float32)
    depth_m *= np.float32(0.001)
    depth_m[samples == 0] = np.nan
    return depth_m


def masked_depth(depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return depth with everything that is no positive finite number as NaN; copies only if needed."""
    with np.errstate(invalid="ignore"):
        measured = (depth_m > 0) & (depth_m < np.inf)
    if bool((measured | np.isnan(depth_m)).all()):
        return depth_m
    return np.where(measured, depth_m, np.float32(np.nan))


def _rows(msg: Any, encoding: Encoding, width: int, rows: int) -> NDArray[np.uint8]:
    """Return the (rows, width * bytes per pixel) bytes of the image without row padding."""
    data = as_bytes(msg.data)
    step, used = int(msg.step), width * encoding.bytes_per_pixel
    if step < used:
        raise SpatialError(
            ErrorCode.BAD_STEP,
            f"step is {step} bytes but a row of {width} px in '{encoding.name}' takes {used}",
        )
    if data.size < step * rows:
        raise SpatialError(
            ErrorCode.TRUNCATED_IMAGE,
            f"{data.size} bytes of data, expected {step * rows} ({rows} rows of {step} bytes)",
        )
    view = data[: step * rows].reshape(rows, step)[:, :used]
    view.setflags(write=False)
    return view


def _native(samples: NDArray[np.uint8], encoding: Encoding, msg: Any) -> NDArray[Any]:
    """Read rows of bytes as samples of the message's byte order, in the machine's byte order."""
    order = ">" if msg.is_bigendian else "<"
    typed = np.ascontiguousarray(samples).view(order + encoding.dtype)
    if (order == ">") == (sys.byteorder == "big"):
        return typed
    return typed.astype("=" + encoding.dtype)


def _odd(encoding: Encoding, width: int, height: int) -> SpatialError:
    return SpatialError(
        ErrorCode.UNDECODABLE_IMAGE,
        f"'{encoding.name}' shares colour between neighbours and needs even sides, found {width}x{height} px",
    )
