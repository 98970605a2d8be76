"""Small bags made on the spot: a camera with image, CameraInfo and depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.bags import BagWriter, messages
from spatial_mllm_core.bags.message_types import make_header, make_message

PERIOD_NS = 100_000_000
FIRST_NS = 1_700_000_000 * 10**9
WIDTH, HEIGHT = 32, 24


def raw_image(stamp_ns: int, value: int, frame_id: str = "cam_optical") -> object:
    data = np.full(WIDTH * HEIGHT * 3, value, np.uint8)
    return make_message(
        "sensor_msgs/msg/Image",
        header=make_header(stamp_ns, frame_id),
        height=HEIGHT,
        width=WIDTH,
        encoding="rgb8",
        is_bigendian=0,
        step=WIDTH * 3,
        data=data,
    )


def camera_info(stamp_ns: int, frame_id: str = "cam_optical") -> object:
    k = np.array([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]])
    return messages.camera_info(
        stamp_ns,
        frame_id,
        width=WIDTH,
        height=HEIGHT,
        distortion_model="plumb_bob",
        d=np.zeros(5),
        k=k,
        r=np.eye(3),
        p=np.hstack([k, np.zeros((3, 1))]),
    )


def depth_image(stamp_ns: int, depth_mm: int, frame_id: str = "cam_optical") -> object:
    return messages.compressed_depth(stamp_ns, frame_id, np.full((HEIGHT, WIDTH), depth_mm / 1000))


def write_camera_bag(path: Path, count: int = 5, *, with_info: bool = True, image_bytes: int = 0) -> Path:
    """A bag of `count` frames; frame i is grey level i and lies at 1000 + i mm."""
    with BagWriter(path) as bag:
        bag.add_topic("/camera/image_raw", "sensor_msgs/msg/Image")
        bag.add_topic("/camera/camera_info", "sensor_msgs/msg/CameraInfo")
        bag.add_topic("/camera/depth/image_raw/compressedDepth", "sensor_msgs/msg/CompressedImage")
        for i in range(count):
            stamp_ns = FIRST_NS + i * PERIOD_NS
            if with_info:
                bag.write("/camera/camera_info", camera_info(stamp_ns), stamp_ns)
            bag.write("/camera/image_raw", raw_image(stamp_ns, i % 256), stamp_ns)
            bag.write("/camera/depth/image_raw/compressedDepth", depth_image(stamp_ns, 1000 + i), stamp_ns)
    return path


@pytest.fixture
def camera_bag(tmp_path: Path) -> Path:
    return write_camera_bag(tmp_path / "camera")
