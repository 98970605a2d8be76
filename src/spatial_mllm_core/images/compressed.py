"""Pixels of a sensor_msgs/CompressedImage: JPEG, PNG and compressedDepth; knows neither ROS nor stamps.

The content decides, not the `format` text, which drivers get wrong. Header and length are read
before OpenCV sees the data, because OpenCV allocates what a PNG header asks for and fills the
missing part of a cut JPEG with grey without a word.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images.encodings import COLOR_ENCODINGS, MAX_PIXELS, check_size
from spatial_mllm_core.images.raw import (
    as_bytes,
    masked_depth,
    millimetres_to_depth,
    to_rgb,
)

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # colour type to channels; a palette is colour
_JPEG_START = b"\xff\xd8\xff"
_JPEG_END = 0xD9
_JPEG_SCAN = 0xDA
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
# the next marker that is not a stuffed 0xFF, a restart or a fill byte
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)
#: compressed_depth_image_transport's ConfigHeader: an enum and two floats.
_DEPTH_HEADER = struct.Struct("<iff")


@dataclass(frozen=True)
class _Header:
    """What the file says about itself before it is decoded."""

    container: str
    width: int
    height: int
    channels: int
    bits: int


def decode_compressed(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return the colours of a JPEG or PNG message.

    EXIF orientation is ignored, since K belongs to the stored pixels; 16-bit PNG is reduced to 8
    bits, alpha is dropped, CMYK is converted, and a mosaic sent as "bayer_*; ..." is demosaiced.

    Args:
        msg: format, data as in sensor_msgs/CompressedImage.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        (H, W, 3) uint8 RGB, C-contiguous.

    Raises:
        SpatialError: EMPTY_IMAGE, IMAGE_TOO_LARGE, UNSUPPORTED_ENCODING, UNDECODABLE_IMAGE.
    """
    original = _original_encoding(msg)
    if original in ("16UC1", "32FC1"):
        raise SpatialError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"a compressed '{original}' is a depth image; expected a colour image on this topic",
        )
    data = as_bytes(msg.data)
    header = _read_header(data, max_pixels)
    import cv2

    bayer = COLOR_ENCODINGS.get(original)
    if bayer is not None and bayer.kind == "bayer" and header.channels == 1:
        return to_rgb(_imdecode(data, cv2.IMREAD_GRAYSCALE, header), bayer)
    direct = getattr(cv2, "IMREAD_COLOR_RGB", None)  # OpenCV 4.11 and later
    if direct is not None:
        return _imdecode(data, direct, header)
    bgr = _imdecode(data, cv2.IMREAD_COLOR, header)
    return to_rgb(bgr, COLOR_ENCODINGS["bgr8"])


def decode_compressed_depth(msg: Any, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.float32]:
    """Return the z-depth of a compressedDepth message or of a 16-bit PNG in millimetres.

    32FC1 is stored by compressed_depth_image_transport as quantised inverse depth: behind a
    12-byte header with the numbers a and b stands a 16-bit PNG q, and z = a / (q - b).

    Returns:
        (H, W) float32 metres, NaN where there is no measurement.

    Raises:
        SpatialError: UNDECODABLE_IMAGE, IMAGE_TOO_LARGE, UNSUPPORTED_ENCODING, BAD_DEPTH.
    """
    data = as_bytes(msg.data)
    text = str(msg.format)
    original = _original_encoding(msg)
    quantisation = None
    if "compressedDepth" in text:
        if "rvl" in text.split("compressedDepth", 1)[1]:
            raise SpatialError(
                ErrorCode.UNSUPPORTED_ENCODING,
                "compressedDepth rvl is not supported; set the publisher's format to png",
            )
        if data.size <= _DEPTH_HEADER.size:
            raise SpatialError(
                ErrorCode.UNDECODABLE_IMAGE,
                f"a compressedDepth message of {data.size} bytes has no image behind its header",
            )
        _, a, b = _DEPTH_HEADER.unpack(data[: _DEPTH_HEADER.size].tobytes())
        quantisation = (float(a), float(b))
        data = data[_DEPTH_HEADER.size :]
    header = _read_header(data, max_pixels)
    if header.container != "png" or header.channels != 1 or header.bits != 16:
        raise SpatialError(
            ErrorCode.BAD_DEPTH,
            f"depth must be a 16-bit one-channel PNG, found {header.container} with "
            f"{header.channels} channels of {header.bits} bits",
        )
    import cv2

    stored = _imdecode(data, cv2.IMREAD_UNCHANGED, header, dtype=np.uint16)
    if original != "32FC1":
        return millimetres_to_depth(stored)
    if quantisation is None:
        raise SpatialError(
            ErrorCode.BAD_DEPTH,
            "a 32FC1 depth in a PNG needs the quantisation header of compressedDepth",
        )
    a, b = quantisation
    if not (np.isfinite(a) and np.isfinite(b) and a > 0):
        raise SpatialError(ErrorCode.BAD_DEPTH, f"the compressedDepth header says a = {a:g}, b = {b:g}")
    with np.errstate(divide="ignore", over="ignore"):
        depth_m = np.float32(a) / (stored.astype(np.float32) - np.float32(b))
    depth_m[stored == 0] = np.nan
    return masked_depth(depth_m)


def _imdecode(data: NDArray[np.uint8], flags: int, header: _Header, dtype: type = np.uint8) -> NDArray[Any]:
    import cv2

    try:
        out = cv2.imdecode(data, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        out = None
    if out is None or out.shape[:2] != (header.height, header.width) or out.dtype != dtype:
        raise SpatialError(
            ErrorCode.UNDECODABLE_IMAGE,
            f"OpenCV cannot decode this {header.container} of {header.width}x{header.height} px "
            f"({data.size} bytes)",
        )
    return np.asarray(out)


def _original_encoding(msg: Any) -> str:
    """image_transport writes "<encoding>; jpeg compressed bgr8"; other drivers only "jpeg"."""
    text = str(msg.format)
    return text.split(";", 1)[0].strip() if len(text) <= 200 else ""


def _read_header(data: NDArray[np.uint8], max_pixels: int) -> _Header:
    raw = np.ascontiguousarray(data).data
    if data.size == 0:
        raise SpatialError(ErrorCode.EMPTY_IMAGE, "the compressed image has no data")
    start = bytes(raw[:8])
    if start == _PNG_SIGNATURE:
        header = _png_header(raw, max_pixels)
    elif start.startswith(_JPEG_START):
        header = _jpeg_header(raw, max_pixels)
    else:
        raise SpatialError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"compressed data begins with {start.hex(' ')}, which is neither JPEG nor PNG",
        )
    return header


def _png_header(raw: memoryview, max_pixels: int) -> _Header:
    """Read size and type, then walk the chunks to see that the file is whole (OpenCV checks their sums)."""
    if len(raw) < 33 or bytes(raw[12:16]) != b"IHDR":
        raise _broken("PNG", "it ends inside its header")
    width, height, bits, color = struct.unpack(">IIBB", raw[16:26])
    check_size(width, height, max_pixels)
    if color not in _PNG_CHANNELS:
        raise _broken("PNG", f"colour type {color} does not exist")
    at, kind = 8, b""
    while kind != b"IEND":
        if at + 12 > len(raw):
            raise _broken("PNG", f"it ends after {len(raw)} bytes, before its last chunk")
        (length,) = struct.unpack(">I", raw[at : at + 4])
        kind = bytes(raw[at + 4 : at + 8])
        end = at + 12 + length
        if end > len(raw):
            raise _broken("PNG", f"it ends after {len(raw)} bytes, inside a chunk")
        at = end
    return _Header("png", width, height, _PNG_CHANNELS[color], bits)


def _jpeg_header(raw: memoryview, max_pixels: int) -> _Header:
    """Walk the markers for the size, then for the end of image that a cut file lacks."""
    at = 2
    header: _Header | None = None
    while True:
        if at + 2 > len(raw):
            raise _broken("JPEG", f"it ends after {len(raw)} bytes without an end marker")
        if raw[at] != 0xFF:
            raise _broken("JPEG", f"no marker at byte {at}")
        marker = raw[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == _JPEG_END:
            if header is None:
                raise _broken("JPEG", "it holds no picture")
            return header
        if marker in _JPEG_BARE:
            at += 2
            continue
        if at + 4 > len(raw):
            raise _broken("JPEG", "it ends inside a header")
        (length,) = struct.unpack(">H", raw[at + 2 : at + 4])
        if length < 2 or at + 2 + length > len(raw):
            raise _broken("JPEG", "it ends inside a header")
        if marker in _JPEG_FRAMES and header is None:
            if length < 8:
                raise _broken("JPEG", "its frame header is too short")
            bits, height, width, channels = struct.unpack(">BHHB", raw[at + 4 : at + 10])
            check_size(width, height, max_pixels)
            header = _Header("jpeg", width, height, channels, bits)
        at += 2 + length
        if marker == _JPEG_SCAN:
            found = _NEXT_MARKER.search(raw, at)
            if found is None:
                raise _broken("JPEG", f"it ends after {len(raw)} bytes without an end marker")
            at = found.start()


def _broken(container: str, why: str) -> SpatialError:
    return SpatialError(ErrorCode.UNDECODABLE_IMAGE, f"the {container} is broken: {why}")
