"""Messages shaped like sensor_msgs/CameraInfo for the camera tests."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

K = (500.0, 0.0, 330.0, 0.0, 480.0, 235.0, 0.0, 0.0, 1.0)
P = (470.0, 0.0, 325.0, 0.0, 0.0, 470.0, 238.0, 0.0, 0.0, 0.0, 1.0, 0.0)
EYE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def camera_info():
    """Build a CameraInfo; keyword arguments replace fields, `roi` is (x, y, width, height)."""

    def build(*, roi=(0, 0, 0, 0), frame_id="camera_optical", **fields):
        x, y, w, h = roi
        values = {
            "header": SimpleNamespace(frame_id=frame_id, stamp=None),
            "width": 640,
            "height": 480,
            "distortion_model": "plumb_bob",
            "d": [-0.28, 0.07, 0.001, -0.0005, 0.01],
            "k": K,
            "r": EYE,
            "p": P,
            "binning_x": 0,
            "binning_y": 0,
            "roi": SimpleNamespace(x_offset=x, y_offset=y, width=w, height=h, do_rectify=False),
        }
        unknown = set(fields) - set(values)
        assert not unknown
        return SimpleNamespace(**{**values, **fields})

    return build
