"""Raw images: every encoding to the right pixels, every fault of the matrix to its number."""

from __future__ import annotations

import array
import time
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images import (
    COLOR_ENCODINGS,
    DEPTH_ENCODINGS,
    decode_any,
    decode_depth,
    decode_image,
)


def code_of(call, *args, **kwargs):
    with pytest.raises(SpatialError) as caught:
        call(*args, **kwargs)
    return caught.value.code


def mosaic(rgb, pattern):
    """Sample one colour per pixel as a Bayer sensor does; `pattern` names the first two rows."""
    out = np.empty(rgb.shape[:2], np.uint8)
    for k, colour in enumerate(pattern):
        i, j = divmod(k, 2)
        out[i::2, j::2] = rgb[i::2, j::2, "rgb".index(colour)]
    return out


def yuv_planes(rgb):
    """Full-resolution Y, U, V of studio-range BT.601, which the yuv encodings carry."""
    r, g, b = (rgb[..., c].astype(float) for c in range(3))
    y = 16 + 0.257 * r + 0.504 * g + 0.098 * b
    u = 128 - 0.148 * r - 0.291 * g + 0.439 * b
    v = 128 + 0.439 * r - 0.368 * g - 0.071 * b
    return (np.rint(p).astype(np.uint8) for p in (y, u, v))


# ---- A7: encodings ----------------------------------------------------------------------------


def test_a07_colour_orders(image, picture):
    alpha = np.full((24, 32, 1), 77, np.uint8)
    for encoding, pixels in (
        ("rgb8", picture),
        ("bgr8", picture[..., ::-1]),
        ("rgba8", np.concatenate([picture, alpha], -1)),
        ("bgra8", np.concatenate([picture[..., ::-1], alpha], -1)),
        ("8UC3", picture[..., ::-1]),
    ):
        out = decode_image(image(pixels, encoding))
        assert out.dtype == np.uint8, encoding
        np.testing.assert_array_equal(out, picture, err_msg=encoding)


@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_a07_grey(image, picture, encoding):
    grey = picture[..., 0]
    np.testing.assert_array_equal(decode_image(image(grey, encoding)), np.dstack([grey] * 3))


def test_a07_mono16_is_scaled_over_its_full_range(image):
    grey = np.array([[0, 128, 129, 257], [32768, 65278, 65407, 65535]], np.uint16)
    out = decode_image(image(grey, "mono16"))
    np.testing.assert_array_equal(out[..., 0], np.rint(grey / 257.0))
    np.testing.assert_array_equal(out[..., 0], out[..., 2])


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_a07_bayer(image, picture, pattern):
    out = decode_image(image(mosaic(picture, pattern), f"bayer_{pattern}8"))
    # the picture is linear, so interpolation inside is exact up to rounding
    inside = np.abs(out.astype(int) - picture)[2:-2, 2:-2]
    assert inside.max() <= 2


@pytest.mark.parametrize(
    ("encoding", "order"), [("yuv422", "uyvy"), ("uyvy", "uyvy"), ("yuv422_yuy2", "yuyv"), ("yuyv", "yuyv")]
)
def test_a07_yuv422(image, encoding, order):
    colours = np.array([[200, 30, 60], [20, 180, 40], [90, 90, 220], [128, 128, 128]], np.uint8)
    rgb = np.repeat(colours[None], 4, axis=0).repeat(2, axis=1)  # pairs of equal pixels
    y, u, v = yuv_planes(rgb)
    packed = np.empty((4, 8, 2), np.uint8)
    if order == "uyvy":
        packed[..., 1], packed[:, 0::2, 0], packed[:, 1::2, 0] = y, u[:, 0::2], v[:, 0::2]
    else:
        packed[..., 0], packed[:, 0::2, 1], packed[:, 1::2, 1] = y, u[:, 0::2], v[:, 0::2]
    out = decode_image(image(packed, encoding))
    assert np.abs(out.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("encoding", ["nv12", "nv21"])
@pytest.mark.parametrize("padding", [0, 5])
def test_a07_nv12_and_nv21(image, encoding, padding):
    colours = np.array([[200, 30, 60], [20, 180, 40], [90, 90, 220]], np.uint8)
    rgb = colours[None].repeat(2, axis=1).repeat(4, axis=0)
    y, u, v = yuv_planes(rgb)
    pair = (u, v) if encoding == "nv12" else (v, u)
    chroma = np.stack([p[::2, ::2] for p in pair], -1).reshape(2, 6)
    msg = image(np.concatenate([y, chroma]), encoding, height=4, width=6, padding=padding)
    out = decode_image(msg)
    assert out.shape == (4, 6, 3)
    assert np.abs(out.astype(int) - rgb).max() <= 3


@pytest.mark.parametrize("encoding", ["nv12", "yuv422", "yuv422_yuy2"])
def test_a07_shared_colour_needs_even_sides(image, encoding):
    msg = image(np.zeros((6, 10), np.uint8), encoding, width=5, height=4)
    assert code_of(decode_image, msg) == ErrorCode.UNDECODABLE_IMAGE


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_a07_a_depth_image_is_no_picture(image, encoding):
    with pytest.raises(SpatialError, match="depth") as caught:
        decode_image(image(np.zeros((4, 4), np.float32), encoding))
    assert caught.value.code == ErrorCode.UNSUPPORTED_ENCODING


@pytest.mark.parametrize("encoding", ["rgb16", "64FC1", "bayer_rggb16", "nv24", "8SC1", "32FC2"])
def test_a07_other_encodings_are_refused_with_the_list(image, encoding):
    with pytest.raises(SpatialError) as caught:
        decode_image(image(np.zeros((4, 4), np.uint8), encoding))
    assert caught.value.code == ErrorCode.UNSUPPORTED_ENCODING
    assert all(name in caught.value.sentence for name in COLOR_ENCODINGS)


def test_a07_cv_bridge_agrees_where_it_is_installed(image):
    cv_bridge = pytest.importorskip("cv_bridge", reason="cv_bridge comes with an apt ROS")
    messages = pytest.importorskip("sensor_msgs.msg")
    bytes_per_pixel = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "mono16": 2}
    bytes_per_pixel |= {"yuv422": 2, "yuv422_yuy2": 2}
    bytes_per_pixel |= {f"bayer_{pattern}8": 1 for pattern in ("rggb", "bggr", "gbrg", "grbg")}
    for encoding, n in bytes_per_pixel.items():
        samples = np.random.default_rng(0).integers(0, 255, (24, 32, n), dtype=np.uint8)
        ours = image(samples, encoding)
        theirs = messages.Image(height=24, width=32, encoding=encoding, step=ours.step)
        theirs.data = array.array("B", ours.data)
        expected = cv_bridge.CvBridge().imgmsg_to_cv2(theirs, "rgb8")
        difference = np.abs(decode_image(ours).astype(int) - expected).max()
        assert difference <= 1, encoding


# ---- A1 to A9: shape, size, names, byte order ------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0), (0, 0), (-1, 4)])
def test_a01_empty(image, width, height):
    msg = image(np.zeros((4, 4), np.uint8), "mono8", width=width, height=height)
    assert code_of(decode_image, msg) == ErrorCode.EMPTY_IMAGE
    msg.encoding = "32FC1"
    assert code_of(decode_depth, msg) == ErrorCode.EMPTY_IMAGE


@pytest.mark.parametrize("encoding", sorted(COLOR_ENCODINGS))
@pytest.mark.parametrize("cut", [1, 40, None])
def test_a02_truncated(encoding, cut):
    step = 8 * 4
    whole = bytes(step * 12)
    data = b"" if cut is None else whole[: step * 8 - cut]
    msg = SimpleNamespace(width=8, height=8, encoding=encoding, is_bigendian=0, step=step, data=data)
    assert code_of(decode_image, msg) == ErrorCode.TRUNCATED_IMAGE


def test_a02_truncated_depth(image):
    msg = image(np.ones((4, 4), np.float32), "32FC1")
    msg.data = msg.data[:-1]
    with pytest.raises(SpatialError) as caught:
        decode_depth(msg)
    assert caught.value.code == ErrorCode.TRUNCATED_IMAGE
    assert "63" in caught.value.sentence
    assert "64" in caught.value.sentence


def test_a03_a_longer_tail_is_ignored(image, picture):
    msg = image(picture, "rgb8")
    msg.data += b"trailing bytes of a driver's buffer"
    np.testing.assert_array_equal(decode_image(msg), picture)


@pytest.mark.parametrize("step", [0, 1, 95, -96])
def test_a04_step_shorter_than_a_row(image, picture, step):
    assert code_of(decode_image, image(picture, "rgb8", step=step)) == ErrorCode.BAD_STEP


@pytest.mark.parametrize("padding", [1, 3, 32])
def test_a05_padded_rows(image, picture, padding):
    np.testing.assert_array_equal(decode_image(image(picture, "rgb8", padding=padding)), picture)
    out = decode_image(image(picture[..., ::-1], "bgr8", padding=padding))
    np.testing.assert_array_equal(out, picture)
    depth_m = np.random.default_rng(0).uniform(1, 2, (6, 7)).astype(np.float32)
    np.testing.assert_array_equal(decode_depth(image(depth_m, "32FC1", padding=padding)), depth_m)


def test_a05_the_result_is_contiguous_whatever_the_rows(image, picture):
    assert decode_image(image(picture, "rgb8", padding=4)).flags.c_contiguous


@pytest.mark.parametrize("encoding", ["rgb8", "nv12", "mono16"])
@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (2**32 - 2, 2**32 - 2)])
def test_a06_huge_header_is_refused_before_any_allocation(encoding, width, height):
    step = (width * 3) % 2**32  # as an overflowing uint32 would say
    msg = SimpleNamespace(
        width=width, height=height, encoding=encoding, is_bigendian=0, step=step, data=bytes(10)
    )
    began = time.perf_counter()
    assert code_of(decode_image, msg) == ErrorCode.IMAGE_TOO_LARGE
    assert time.perf_counter() - began < 0.05


def test_a06_the_limit_is_the_callers(image, picture):
    msg = image(picture, "rgb8")
    assert decode_any(msg, max_pixels=24 * 32).shape == (24, 32, 3)
    assert code_of(decode_any, msg, max_pixels=24 * 32 - 1) == ErrorCode.IMAGE_TOO_LARGE


@pytest.mark.parametrize(
    "encoding",
    ["", "RGB8", "Rgb8", " rgb8", "rgb8 ", "rgb8\x00", "x" * 10_000, "a\nERROR fake", "\x1b[31m", None, 8],
)
def test_a08_hostile_encoding_names(image, picture, encoding):
    for decode in (decode_image, decode_depth):
        with pytest.raises(SpatialError) as caught:
            decode(image(picture, encoding))
        assert caught.value.code == ErrorCode.UNSUPPORTED_ENCODING
        assert caught.value.sentence.isprintable()
        assert len(caught.value.sentence) <= 400


def test_a09_big_endian(image):
    grey = np.array([[0, 1, 256, 65535], [513, 32768, 257, 4660]], np.uint16)
    big = image(grey.astype(">u2"), "mono16", big=1)
    little = image(grey.astype("<u2"), "mono16", big=0)
    np.testing.assert_array_equal(decode_image(big), decode_image(little))
    big.encoding = "16UC1"
    expected = np.where(grey > 0, grey.astype(np.float32) / 1000, np.nan)
    np.testing.assert_allclose(decode_depth(big), expected, rtol=1e-6)


def test_a09_big_endian_float_depth(image):
    depth_m = np.array([[0.5, 1.25], [np.nan, 3.0]], np.float32)
    out = decode_depth(image(depth_m.astype(">f4"), "32FC1", big=1, padding=3))
    np.testing.assert_array_equal(out, depth_m)
    assert out.dtype.isnative


# ---- A10 to A13 -------------------------------------------------------------------------------


def test_a10_depth_that_is_no_positive_number_is_nan(image):
    depth_m = np.array([[np.nan, np.inf, -np.inf], [0.0, -1.0, 2.5]], np.float32)
    out = decode_depth(image(depth_m, "32FC1"))
    np.testing.assert_array_equal(np.isfinite(out), [[False] * 3, [False, False, True]])
    assert out[1, 2] == 2.5


def test_a10_millimetres_and_their_zero(image):
    out = decode_depth(image(np.array([[0, 1, 1500, 65535]], np.uint16), "16UC1"))
    np.testing.assert_allclose(out, [[np.nan, 0.001, 1.5, 65.535]], rtol=1e-6)
    assert out.dtype == np.float32


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a11_constant_images_are_images(image, value):
    pixels = np.full((8, 8, 3), value, np.uint8)
    np.testing.assert_array_equal(decode_image(image(pixels, "bgr8")), pixels)


def test_a12_sizes_may_change_from_message_to_message(image, picture):
    for pixels in (picture, picture.transpose(1, 0, 2), picture[:1], picture[:, :1]):
        out = decode_image(image(np.ascontiguousarray(pixels), "rgb8"))
        np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("shape", [(1, 100), (100, 1), (3, 300)])
def test_a13_extreme_shapes(image, shape):
    pixels = np.full(shape, 90, np.uint8)
    assert (decode_image(image(pixels, "mono8")) == 90).all()
    if min(shape) >= 3:
        assert (decode_image(image(pixels, "bayer_rggb8")) == 90).all()
    else:  # no neighbours to take colours from, and OpenCV would say black
        assert code_of(decode_image, image(pixels, "bayer_rggb8")) == ErrorCode.UNDECODABLE_IMAGE


# ---- buffers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    [bytes, bytearray, memoryview, lambda b: array.array("B", b), lambda b: np.frombuffer(b, np.uint8)],
    ids=["bytes", "bytearray", "memoryview", "array (rclpy)", "ndarray (rosbags)"],
)
def test_any_buffer_will_do(image, picture, kind):
    msg = image(picture, "rgb8")
    msg.data = kind(msg.data)
    np.testing.assert_array_equal(decode_image(msg), picture)


@pytest.mark.parametrize("data", [None, "text", [1, 2, 3], 7])
def test_data_that_is_no_buffer_is_refused(image, picture, data):
    msg = image(picture, "rgb8")
    msg.data = data
    assert code_of(decode_image, msg) == ErrorCode.UNDECODABLE_IMAGE


def test_rgb8_and_float_depth_are_views_not_copies(image, picture):
    msg = image(picture, "rgb8")
    msg.data = array.array("B", msg.data)
    out = decode_image(msg)
    assert np.shares_memory(out, np.frombuffer(msg.data, np.uint8))
    assert not out.flags.writeable
    depth = image(np.ones((4, 5), np.float32), "32FC1")
    assert np.shares_memory(decode_depth(depth), np.frombuffer(depth.data, np.uint8))


def test_decoding_leaves_the_message_alone(image):
    msg = image(np.array([[0.0, np.inf]], np.float32), "32FC1")
    msg.data = bytearray(msg.data)
    before = bytes(msg.data)
    decode_depth(msg)
    assert bytes(msg.data) == before


# ---- fuzz -------------------------------------------------------------------------------------

sizes = st.one_of(st.integers(-2, 12), st.integers(-(2**31), 2**32))


@settings(max_examples=600, deadline=None)
@given(
    width=sizes,
    height=sizes,
    step=sizes,
    encoding=st.one_of(st.sampled_from(sorted({*COLOR_ENCODINGS, *DEPTH_ENCODINGS})), st.text(max_size=12)),
    big=st.integers(0, 255),
    data=st.binary(max_size=700),
    decode=st.sampled_from([decode_image, decode_depth, decode_any]),
)
def test_fuzz_only_pixels_or_a_spatial_error(width, height, step, encoding, big, data, decode):
    msg = SimpleNamespace(
        width=width, height=height, step=step, encoding=encoding, is_bigendian=big, data=data
    )
    try:
        out = decode(msg)
    except SpatialError:
        return
    assert out.shape[:2] == (height, width)
    if decode is decode_depth:
        measured = out[~np.isnan(out)]
        assert (measured > 0).all()
        assert np.isfinite(measured).all()


def test_the_conversion_table_names_conversions_opencv_has():
    for encoding in COLOR_ENCODINGS.values():
        assert not encoding.cv_conversion or hasattr(cv2, "COLOR_" + encoding.cv_conversion)
