"""A bag's frames are those the live nodes would build; recorded depth is found by stamp."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.bags import BagWriter, DepthTruth, FrameStream, choose, open_bag
from spatial_mllm_core.bags.framing import is_rectified
from spatial_mllm_core.errors import ErrorCode

from .conftest import FIRST_NS, PERIOD_NS, camera_info, raw_image, write_camera_bag

FIXTURES = Path(__file__).parents[2] / "fixtures/bags"


def test_frames_carry_pixels_stamp_and_camera(camera_bag: Path) -> None:
    with open_bag(camera_bag) as bag:
        stream = FrameStream(bag, choose(bag.topics()))
        frames = list(stream)
    assert [f.stamp_ns for f in frames] == [FIRST_NS + i * PERIOD_NS for i in range(5)]
    assert [int(f.image_rgb[3, 4, 1]) for f in frames] == [0, 1, 2, 3, 4]
    assert all(f.require_camera().fx == 30 for f in frames)
    assert stream.images == 5
    assert not stream.faults


def test_bag_without_camera_info_gives_frames_that_say_so(tmp_path: Path) -> None:
    path = write_camera_bag(tmp_path / "bare", 4, with_info=False)
    with open_bag(path) as bag:
        frames = list(FrameStream(bag, choose(bag.topics())))
    assert len(frames) == 4
    assert {f.camera_fault.code for f in frames if f.camera_fault} == {ErrorCode.NO_CALIBRATION}


def test_ros1_image_whose_camera_info_has_another_stamp() -> None:
    with open_bag(FIXTURES / "fiducials_aruco_marker.bag") as bag:
        (frame,) = FrameStream(bag, choose(bag.topics()))
    camera = frame.require_camera()
    assert (camera.width, camera.height) == (frame.width, frame.height)


def test_broken_image_is_counted_and_the_next_is_served(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "b") as writer:
        writer.add_topic("/camera/image_raw", "sensor_msgs/msg/Image")
        writer.add_topic("/camera/camera_info", "sensor_msgs/msg/CameraInfo")
        for i in range(3):
            image = raw_image(FIRST_NS + i, i)
            if i == 1:
                image.data = image.data[:100]  # type: ignore[attr-defined]
            writer.write("/camera/camera_info", camera_info(FIRST_NS + i), FIRST_NS + i)
            writer.write("/camera/image_raw", image, FIRST_NS + i)
    with open_bag(tmp_path / "b") as bag:
        stream = FrameStream(bag, choose(bag.topics()))
        assert [f.stamp_ns for f in stream] == [FIRST_NS, FIRST_NS + 2]
    assert stream.faults == {int(ErrorCode.TRUNCATED_IMAGE): 1}
    assert stream.images == 3


def test_depth_is_found_by_stamp(camera_bag: Path) -> None:
    topic = "/camera/depth/image_raw/compressedDepth"
    with DepthTruth(camera_bag, topic) as truth:
        for i in (0, 1, 3, 4):
            found = truth.at(FIRST_NS + i * PERIOD_NS + 1_000_000)
            assert found is not None
            depth_m, frame_id = found
            assert frame_id == "cam_optical"
            assert depth_m == pytest.approx(np.full((24, 32), 1 + i / 1000), abs=1e-6)
        assert truth.at(FIRST_NS + 4 * PERIOD_NS + 50_000_000) is None


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("/camera/image_raw", False),
        ("/camera/image_rect", True),
        ("/camera/image_rect_color/compressed", True),
        ("/direct/image_raw", False),
    ],
)
def test_rectified_topics_are_known_by_name(topic: str, expected: bool) -> None:
    assert is_rectified(topic) is expected
