"""Compressed images: broken, huge and odd files of fault A16, depth files of fault A17, and fuzz."""

from __future__ import annotations

import base64
import re
import struct
import time
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images import decode_any, decode_compressed, decode_depth

# An 8x8 CMYK JPEG (Adobe, inverted) of pure red.
CMYK_RED = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwANCQoLCggNCwoLDg4NDxMgFRMSEhMnHB4XIC4pMTAuKS0sMzpKPjM2RjcsLUBXQUZMTlJT"
    "UjI+WmFaUGBKUVJP/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABQAAQAAAAAAAAAAAAAAAAAAAAf/xAAUEAEAAAAAAAAAAAAAAAAA"
    "AAAA/9oADgRDAE0AWQBLAAA/AE4YDAnP/9k="
)


def code_of(call, *args, **kwargs):
    with pytest.raises(SpatialError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def jpeg(rgb, *options):
    ok, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95, *options])
    assert ok
    return data.tobytes()


def png(pixels):
    ok, data = cv2.imencode(".png", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert ok
    return data.tobytes()


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width, height, bits=8, colour=2):
    body = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", body)


# ---- what must be read ------------------------------------------------------------------------


def test_jpeg_and_png_pixels(compressed, picture):
    near = decode_compressed(compressed(jpeg(picture)))
    assert np.abs(near.astype(int) - picture).max() <= 12
    np.testing.assert_array_equal(decode_any(compressed(png(picture), "png")), picture)


def test_progressive_jpeg_with_restart_markers(compressed, picture):
    options = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 1)
    plain = decode_compressed(compressed(jpeg(picture)))
    np.testing.assert_array_equal(decode_compressed(compressed(jpeg(picture, *options))), plain)


def test_alpha_palette_and_grey_png(compressed, picture):
    alpha = np.dstack([picture[..., ::-1], np.full(picture.shape[:2], 9, np.uint8)])
    ok, data = cv2.imencode(".png", alpha)
    assert ok
    np.testing.assert_array_equal(decode_compressed(compressed(data.tobytes())), picture)
    grey = decode_compressed(compressed(png(picture[..., 0])))
    np.testing.assert_array_equal(grey, np.dstack([picture[..., 0]] * 3))
    palette = (
        png_header(2, 1, 8, 3)
        + chunk(b"PLTE", bytes([255, 0, 0, 0, 0, 255]))
        + chunk(b"IDAT", zlib.compress(bytes([0, 1, 0])))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decode_compressed(compressed(palette)), [[[0, 0, 255], [255, 0, 0]]])


def test_a16_sixteen_bit_png_is_reduced(compressed):
    deep = np.arange(16 * 16 * 3, dtype=np.uint16).reshape(16, 16, 3) * 85
    out = decode_compressed(compressed(png(deep)))
    assert out.dtype == np.uint8
    assert np.abs(out.astype(float) - deep / 257.0).max() <= 1.0


def test_a16_cmyk_jpeg(compressed):
    out = decode_compressed(compressed(CMYK_RED))
    assert out.shape == (8, 8, 3)
    assert np.abs(out.astype(int) - [255, 0, 0]).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a16_exif_rotation_is_ignored(compressed, picture, orientation):
    """K belongs to the pixels as stored; turning them would put every answer in the wrong place."""
    plain = jpeg(picture)
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\x00\x00MM\x00*" + struct.pack(">IH", 8, 1) + entry + bytes(4)
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    if orientation >= 5:  # the check itself: OpenCV does turn it when it is not told otherwise
        assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape[:2] == (32, 24)
    np.testing.assert_array_equal(decode_compressed(compressed(turned)), decode_compressed(compressed(plain)))


@pytest.mark.parametrize(
    "text", ["", "png", "jpeg", "rgb8; png compressed bgr8", "webp", "\x00\n", "x" * 10_000]
)
def test_a16_a_wrong_format_text_does_not_matter(compressed, picture, text):
    data = jpeg(picture)
    np.testing.assert_array_equal(
        decode_compressed(compressed(data, text)), decode_compressed(compressed(data))
    )


def test_a16_a_mosaic_sent_compressed_is_demosaiced(compressed):
    mosaic = np.zeros((16, 16), np.uint8)
    mosaic[0::2, 0::2] = 200  # the red pixels of rggb
    out = decode_compressed(compressed(png(mosaic), "bayer_rggb8; png compressed "))
    assert np.abs(out[4:-4, 4:-4].astype(int) - [200, 0, 0]).max() <= 1


# ---- what must be refused -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)])
def test_a16_truncated_jpeg_at_every_length(compressed, picture, options):
    """OpenCV fills the missing part with grey and says nothing."""
    data = jpeg(picture, *options)
    for length in range(1, len(data)):
        code = code_of(decode_compressed, compressed(data[:length]))
        expected = ErrorCode.UNSUPPORTED_ENCODING if length < 3 else ErrorCode.UNDECODABLE_IMAGE
        assert code == expected, length


def test_a16_a_thumbnails_end_marker_does_not_hide_a_cut(compressed, picture):
    plain = jpeg(picture)
    thumbnail = b"Exif\x00\x00" + jpeg(picture[:8, :8])
    whole = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + plain[2:]
    assert decode_compressed(compressed(whole)).shape == (24, 32, 3)
    assert code_of(decode_compressed, compressed(whole[:-40])) == ErrorCode.UNDECODABLE_IMAGE


def test_a16_bytes_after_the_end_marker_are_ignored(compressed, picture):
    data = jpeg(picture)
    np.testing.assert_array_equal(
        decode_compressed(compressed(data + bytes(512))), decode_compressed(compressed(data))
    )


def test_a16_truncated_png_at_every_length(compressed, picture):
    data = png(picture)
    for length in range(8, len(data)):
        assert code_of(decode_compressed, compressed(data[:length])) == ErrorCode.UNDECODABLE_IMAGE


def test_a16_a_flipped_bit_anywhere_in_the_pixels_of_a_png_is_noticed(compressed, picture):
    data = png(picture)
    start = data.index(b"IDAT") + 4
    (length,) = struct.unpack(">I", data[start - 8 : start - 4])
    for at in range(start, start + length + 4):
        broken = bytearray(data)
        broken[at] ^= 4
        assert code_of(decode_compressed, compressed(bytes(broken))) == ErrorCode.UNDECODABLE_IMAGE


def test_a16_png_with_too_few_pixels_inside(compressed):
    short = png_header(64, 64) + chunk(b"IDAT", zlib.compress(bytes(500))) + chunk(b"IEND", b"")
    assert code_of(decode_compressed, compressed(short)) == ErrorCode.UNDECODABLE_IMAGE


@pytest.mark.parametrize("side", [30_000, 2**31 - 1])
def test_a16_png_bomb_is_refused_by_its_header(compressed, side):
    bomb = png_header(side, side) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    began = time.perf_counter()
    assert code_of(decode_compressed, compressed(bomb)) == ErrorCode.IMAGE_TOO_LARGE
    assert time.perf_counter() - began < 0.05


def test_a16_jpeg_that_claims_a_huge_size(compressed, picture):
    data = bytearray(jpeg(picture))
    frame = re.search(rb"\xff\xc0", data).start()
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65_500, 65_500)
    assert code_of(decode_compressed, compressed(bytes(data))) == ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "data",
    [
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        b"RIFF\x24\x00\x00\x00WEBPVP8 ",
        b"BM" + bytes(60),
        b"II*\x00" + bytes(60),
        b"<svg/>",
        b"\x00",
    ],
)
def test_a16_other_containers_are_refused(compressed, data):
    assert code_of(decode_compressed, compressed(data)) == ErrorCode.UNSUPPORTED_ENCODING


def test_a16_no_data(compressed):
    assert code_of(decode_compressed, compressed(b"")) == ErrorCode.EMPTY_IMAGE


def test_a16_png_of_no_pixels(compressed):
    assert (
        code_of(decode_compressed, compressed(png_header(0, 5) + chunk(b"IEND", b"")))
        == ErrorCode.EMPTY_IMAGE
    )


@pytest.mark.parametrize("text", ["16UC1; png compressed ", "32FC1; compressedDepth png"])
def test_a16_compressed_depth_is_no_picture(compressed, text):
    data = png(np.ones((8, 8), np.uint16))
    assert code_of(decode_compressed, compressed(data, text)) == ErrorCode.UNSUPPORTED_ENCODING


# ---- A17: compressedDepth -----------------------------------------------------------------------


def compressed_depth_message(depth_m, *, depth_max=10.0, quantisation=100.0):
    """What compressed_depth_image_transport publishes for a 32FC1 image, by its formulas."""
    a = np.float32(quantisation) * (np.float32(quantisation) + 1)
    b = np.float32(1) - a / np.float32(depth_max)
    with np.errstate(invalid="ignore", divide="ignore"):
        stored = np.where(depth_m < depth_max, a / depth_m + b, 0).astype(np.uint16)
    data = struct.pack("<iff", 0, a, b) + png(stored)
    return SimpleNamespace(format="32FC1; compressedDepth png", data=data)


def test_a17_quantised_float_depth():
    depth_m = np.random.default_rng(0).uniform(0.5, 9.5, (40, 50)).astype(np.float32)
    depth_m[0, :4] = [np.nan, 10.0, 25.0, np.inf]
    out = decode_depth(compressed_depth_message(depth_m))
    assert np.isnan(out[0, :4]).all()
    # one quantisation step of inverse depth: dz = z^2 / a, a = 100 * 101
    near = np.isfinite(out)
    assert near.sum() == 40 * 50 - 4
    assert (np.abs(out - depth_m)[near] <= depth_m[near] ** 2 / 10_100 * 1.05 + 1e-6).all()


@pytest.mark.parametrize("text", ["16UC1; compressedDepth png", "16UC1; compressedDepth"])
def test_a17_millimetres_behind_the_header(text):
    stored = np.array([[0, 1500], [400, 65535]], np.uint16)
    out = decode_depth(SimpleNamespace(format=text, data=bytes(12) + png(stored)))
    np.testing.assert_allclose(out, [[np.nan, 1.5], [0.4, 65.535]], rtol=1e-6)


def test_a17_plain_sixteen_bit_png_is_millimetres():
    out = decode_depth(
        SimpleNamespace(format="16UC1; png compressed ", data=png(np.full((3, 4), 250, np.uint16)))
    )
    np.testing.assert_allclose(out, 0.25)


@pytest.mark.parametrize("a", [np.nan, np.inf, 0.0, -5.0])
def test_a17_impossible_quantisation(a):
    msg = compressed_depth_message(np.ones((4, 4), np.float32))
    msg.data = struct.pack("<iff", 0, a, 1.0) + msg.data[12:]
    assert code_of(decode_depth, msg) == ErrorCode.BAD_DEPTH


def test_a17_float_depth_without_its_header():
    msg = SimpleNamespace(format="32FC1; png compressed ", data=png(np.ones((4, 4), np.uint16)))
    assert code_of(decode_depth, msg) == ErrorCode.BAD_DEPTH


@pytest.mark.parametrize("pixels", [np.ones((4, 4), np.uint8), np.ones((4, 4, 3), np.uint16)])
def test_a17_depth_of_the_wrong_kind(pixels):
    msg = SimpleNamespace(format="16UC1; compressedDepth png", data=bytes(12) + png(pixels))
    assert code_of(decode_depth, msg) == ErrorCode.BAD_DEPTH


@pytest.mark.parametrize("length", [0, 5, 12])
def test_a17_nothing_behind_the_header(length):
    msg = SimpleNamespace(format="32FC1; compressedDepth png", data=bytes(length))
    assert code_of(decode_depth, msg) == ErrorCode.UNDECODABLE_IMAGE


def test_a17_rvl_is_named_as_unsupported():
    msg = SimpleNamespace(format="16UC1; compressedDepth rvl", data=bytes(100))
    with pytest.raises(SpatialError, match="rvl") as caught:
        decode_depth(msg)
    assert caught.value.code == ErrorCode.UNSUPPORTED_ENCODING


# ---- fuzz -------------------------------------------------------------------------------------

_RAMP = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
SEEDS = [
    jpeg(_RAMP),
    jpeg(_RAMP, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    png(_RAMP),
    png(_RAMP[..., 0].astype(np.uint16) * 200),
    bytes(12) + png(_RAMP[..., 0].astype(np.uint16)),
    compressed_depth_message(np.ones((8, 8), np.float32)).data,
    CMYK_RED,
]
FORMATS = [
    "jpeg",
    "png",
    "",
    "32FC1; compressedDepth png",
    "16UC1; compressedDepth",
    "bayer_rggb8; jpeg compressed ",
]


@st.composite
def damaged(draw):
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xD9, 0xDA, 0xFF, draw(st.integers(0, 255))]))
    cut = draw(st.integers(0, len(data)))
    return bytes(data[: draw(st.sampled_from([len(data), cut]))])


@settings(max_examples=600, deadline=None)
@given(data=damaged(), text=st.sampled_from(FORMATS), decode=st.sampled_from([decode_any, decode_depth]))
def test_fuzz_only_pixels_or_a_spatial_error(data, text, decode):
    try:
        out = decode(SimpleNamespace(format=text, data=data), max_pixels=10**6)
    except SpatialError:
        return
    assert out.ndim == (2 if decode is decode_depth else 3)
    assert out.shape[0] * out.shape[1] <= 10**6
