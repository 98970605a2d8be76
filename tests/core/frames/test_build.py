"""build_frame: a calibration fault stays in the frame and scale-free work goes on (A14, B18 to B27)."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import build_frame

RGB = np.zeros((48, 64, 3), np.uint8)


def info(frame_id="optical", **fields):
    values = {
        "width": 64,
        "height": 48,
        "distortion_model": "plumb_bob",
        "d": [-0.1, 0.0, 0.0, 0.0, 0.0],
        "k": [50.0, 0, 31, 0, 50, 23, 0, 0, 1],
        "r": [1.0, 0, 0, 0, 1, 0, 0, 0, 1],
        "p": [48.0, 0, 31, 0, 0, 48, 23, 0, 0, 0, 1, 0],
        "binning_x": 0,
        "binning_y": 0,
        "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
    }
    return SimpleNamespace(header=SimpleNamespace(frame_id=frame_id), **{**values, **fields})


def test_a_good_pair_makes_a_calibrated_frame():
    frame = build_frame(123, "optical", RGB, info(), "left")
    assert (frame.stamp_ns, frame.frame_id, frame.camera_name) == (123, "optical", "left")
    assert (frame.width, frame.height) == (64, 48)
    assert frame.camera_fault is None
    assert frame.require_camera().fx == 50
    assert frame.image_rgb is RGB


def test_a_rectified_image_uses_p():
    camera = build_frame(1, "optical", RGB, info(), rectified=True).require_camera()
    assert (camera.fx, camera.d.size) == (48, 0)


@pytest.mark.parametrize(
    ("frame_id", "calibration", "code"),
    [
        pytest.param("optical", None, ErrorCode.NO_CALIBRATION, id="b18 none came"),
        pytest.param("optical", info("other"), ErrorCode.FRAME_MISMATCH, id="a14 other frame"),
        pytest.param("", info(""), ErrorCode.FRAME_MISMATCH, id="a14 empty frame_id"),
        pytest.param("optical", info(""), ErrorCode.FRAME_MISMATCH, id="a14 info without frame_id"),
        pytest.param("optical", info(k=[0.0] * 9), ErrorCode.UNCALIBRATED, id="b20 zero K"),
        pytest.param("optical", info(k=[math.nan] * 9), ErrorCode.BAD_INTRINSICS, id="b21 NaN K"),
        pytest.param("optical", info(width=65), ErrorCode.SIZE_MISMATCH, id="b23 other size"),
        pytest.param("optical", info(d=[1.0, 2.0]), ErrorCode.BAD_DISTORTION, id="b25 short D"),
        pytest.param(
            "optical", info(distortion_model="?"), ErrorCode.UNKNOWN_DISTORTION_MODEL, id="b25 model"
        ),
        pytest.param(
            "optical",
            info(roi=SimpleNamespace(x_offset=60, y_offset=0, width=9, height=9)),
            ErrorCode.BAD_ROI,
            id="b24 region outside",
        ),
    ],
)
def test_a_fault_is_kept_and_raised_only_where_intrinsics_are_needed(frame_id, calibration, code):
    frame = build_frame(7, frame_id, RGB, calibration)
    assert frame.camera is None
    assert frame.camera_fault.code == code
    with pytest.raises(SpatialError) as caught:
        frame.require_camera()
    assert caught.value is frame.camera_fault
    assert frame.width == 64


def test_a14_the_sentence_names_both_frames():
    fault = build_frame(7, "left_optical", RGB, info("right_optical")).camera_fault
    assert "left_optical" in fault.sentence
    assert "right_optical" in fault.sentence


def test_a14_a_leading_slash_of_ros1_is_the_same_frame():
    assert build_frame(7, "/optical", RGB, info("optical")).camera is not None


def test_b23_an_image_of_exact_ratio_is_scaled():
    camera = build_frame(7, "optical", np.zeros((24, 32, 3), np.uint8), info()).require_camera()
    assert (camera.fx, camera.cx) == (25.0, 15.25)


def test_h93_a_hostile_frame_id_cannot_forge_a_log_line():
    fault = build_frame(7, "a\n[ERROR] fake\x1b[2J", RGB, info("b" * 10_000)).camera_fault
    assert fault.sentence.isprintable()
    assert len(fault.sentence) <= 400
