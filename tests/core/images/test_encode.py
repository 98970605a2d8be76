"""Encoders: what we write is what our decoder, OpenCV and a rclpy message read back."""

from __future__ import annotations

import array
import dataclasses

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images import (
    decode_any,
    decode_depth,
    decode_float,
    decode_image,
    encode_compressed_depth,
    encode_depth_16uc1,
    encode_depth_32fc1,
    encode_jpeg,
    encode_png16,
    encode_rgb8,
)


@pytest.fixture
def depth_m():
    depth = np.random.default_rng(0).uniform(0.2, 8, (24, 32)).astype(np.float32)
    depth[0, 0] = np.nan
    return depth


def test_float_depth_round_trip_is_exact(depth_m):
    fields = encode_depth_32fc1(depth_m)
    assert (fields.encoding, fields.step, fields.height, fields.width) == ("32FC1", 128, 24, 32)
    np.testing.assert_array_equal(decode_depth(fields), depth_m)


def test_rgb_round_trip_is_exact(picture):
    fields = encode_rgb8(picture)
    assert (fields.encoding, fields.step, fields.is_bigendian) == ("rgb8", 96, 0)
    np.testing.assert_array_equal(decode_image(fields), picture)


@pytest.mark.parametrize("encode", [encode_depth_16uc1, encode_png16, encode_compressed_depth])
def test_millimetre_depth_round_trip_is_within_half_a_millimetre(depth_m, encode):
    out = decode_depth(encode(depth_m))
    np.testing.assert_array_equal(np.isnan(out), np.isnan(depth_m))
    assert np.nanmax(np.abs(out - depth_m)) <= 0.0005 + 1e-6


def test_millimetres_saturate_and_invalid_depth_is_zero():
    depth_m = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 0.0004, 65.6, 1e9, 1.2344]])
    stored = np.frombuffer(encode_depth_16uc1(depth_m).data, np.uint16)
    np.testing.assert_array_equal(stored, [0, 65535, 0, 0, 0, 0, 65535, 65535, 1234])


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.floats(width=32))
)
def test_any_float_depth_survives_its_encoding(depth_m):
    expected = np.where((depth_m > 0) & (depth_m < np.inf), depth_m, np.nan)
    np.testing.assert_array_equal(decode_depth(encode_depth_32fc1(depth_m)), expected)


def test_the_data_goes_into_a_message_without_another_copy(depth_m, picture):
    for source, fields in ((depth_m, encode_depth_32fc1(depth_m)), (picture, encode_rgb8(picture))):
        assert np.shares_memory(np.frombuffer(fields.data, np.uint8), source)
        data = array.array("B")
        data.frombytes(fields.data)  # what the nodes do
        assert len(data) == fields.step * fields.height
        assert data.tobytes() == source.tobytes()


@pytest.mark.parametrize("encode", [encode_jpeg, lambda rgb: encode_png16(rgb[..., 0].astype(np.float32))])
def test_compressed_data_goes_into_a_message_too(picture, encode):
    data = array.array("B")
    data.frombytes(encode(picture).data)
    assert len(data) > 50


def test_strided_views_are_encoded_right(depth_m, picture):
    np.testing.assert_array_equal(decode_depth(encode_depth_32fc1(depth_m[::2, ::3])), depth_m[::2, ::3])
    np.testing.assert_array_equal(decode_image(encode_rgb8(picture[::-1, ::2])), picture[::-1, ::2])


def test_double_depth_is_narrowed(depth_m):
    np.testing.assert_array_equal(decode_depth(encode_depth_32fc1(depth_m.astype(np.float64))), depth_m)


def test_jpeg_keeps_the_colours_in_order():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 250
    fields = encode_jpeg(red, quality=95)
    assert fields.format == "rgb8; jpeg compressed bgr8"
    bgr = cv2.imdecode(np.frombuffer(fields.data, np.uint8), cv2.IMREAD_COLOR)
    assert bgr[8, 8, 2] > 240
    assert np.abs(decode_any(fields).astype(int) - red).max() <= 4


def test_jpeg_quality_trades_size(picture):
    noisy = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    assert len(encode_jpeg(noisy, quality=30).data) < len(encode_jpeg(noisy, quality=95).data)


@pytest.mark.parametrize("quality", [0, 101, -3])
def test_jpeg_quality_out_of_range(picture, quality):
    with pytest.raises(SpatialError) as caught:
        encode_jpeg(picture, quality=quality)
    assert caught.value.code == ErrorCode.BAD_NUMBER


def test_png16_is_a_plain_png_of_millimetres(depth_m):
    fields = encode_png16(depth_m)
    stored = cv2.imdecode(np.frombuffer(fields.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, np.rint(np.nan_to_num(depth_m) * 1000.0))


def test_compressed_depth_has_the_twelve_byte_header(depth_m):
    fields = encode_compressed_depth(depth_m)
    assert fields.format == "16UC1; compressedDepth png"
    assert bytes(fields.data[:12]) == bytes(12)
    assert bytes(fields.data[12:20]) == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 1), np.float32), np.zeros((4, 4), np.uint16), np.zeros((0, 4), np.float32)]
)
@pytest.mark.parametrize("encode", [encode_depth_32fc1, encode_depth_16uc1, encode_png16])
def test_what_is_no_depth_is_refused(wrong, encode):
    with pytest.raises(SpatialError) as caught:
        encode(wrong)
    assert caught.value.code == ErrorCode.BAD_DEPTH


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
@pytest.mark.parametrize("encode", [encode_rgb8, encode_jpeg])
def test_what_is_no_picture_is_refused(wrong, encode):
    with pytest.raises(SpatialError) as caught:
        encode(wrong)
    assert caught.value.code == ErrorCode.UNSUPPORTED_ENCODING


def test_a_confidence_of_zero_is_a_number_and_comes_back_as_it_was():
    """A depth of 0 means none; a confidence of 0 means 0, and a replay compares it bit for bit."""
    confidence = np.array([[0.0, 0.25], [1.0, np.nan]], np.float32)
    fields = encode_depth_32fc1(confidence)
    np.testing.assert_array_equal(decode_float(fields), confidence)
    assert np.isnan(decode_depth(fields)[0, 0])
    for encoding in ("16UC1", "rgb8"):
        with pytest.raises(SpatialError) as caught:
            decode_float(dataclasses.replace(fields, encoding=encoding))
        assert caught.value.code is ErrorCode.UNSUPPORTED_ENCODING
