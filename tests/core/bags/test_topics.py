"""The main camera is found by its names, and a wish overrides it."""

from __future__ import annotations

import pytest

from spatial_mllm_core.bags.topics import CameraTopics, Topic, choose
from spatial_mllm_core.errors import ErrorCode, SpatialError

RAW, COMPRESSED, INFO = (f"sensor_msgs/msg/{n}" for n in ("Image", "CompressedImage", "CameraInfo"))


def topics(**kinds: str) -> list[Topic]:
    return [Topic(name, kind, 3) for name, kind in kinds.items()]


REALSENSE = topics(
    **{
        "/camera/aligned_depth_to_color/camera_info": INFO,
        "/camera/aligned_depth_to_color/image_raw": RAW,
        "/camera/color/camera_info": INFO,
        "/camera/color/image_raw": RAW,
        "/camera/depth/camera_info": INFO,
        "/camera/depth/image_rect_raw": RAW,
        "/camera/infra1/camera_info": INFO,
        "/camera/infra1/image_rect_raw": RAW,
        "/tf": "tf2_msgs/msg/TFMessage",
    }
)
SAMPLE = topics(
    **{
        "/camera/image_raw/compressed": COMPRESSED,
        "/camera/camera_info": INFO,
        "/camera/depth/image_raw/compressedDepth": COMPRESSED,
    }
)
ROS1_REALSENSE = topics(
    **{
        "/device_0/sensor_0/Depth_0/info/camera_info": INFO,
        "/device_0/sensor_1/Color_0/info/camera_info": INFO,
        "/device_0/sensor_0/Depth_0/image/data": RAW,
        "/device_0/sensor_1/Color_0/image/data": RAW,
    }
)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            REALSENSE,
            CameraTopics(
                "/camera/color/image_raw",
                "/camera/color/camera_info",
                "/camera/aligned_depth_to_color/image_raw",
            ),
        ),
        (
            SAMPLE,
            CameraTopics(
                "/camera/image_raw/compressed",
                "/camera/camera_info",
                "/camera/depth/image_raw/compressedDepth",
            ),
        ),
        (
            ROS1_REALSENSE,
            CameraTopics(
                "/device_0/sensor_1/Color_0/image/data",
                "/device_0/sensor_1/Color_0/info/camera_info",
                "/device_0/sensor_0/Depth_0/image/data",
            ),
        ),
        (topics(**{"/usb_cam/image_raw": RAW}), CameraTopics("/usb_cam/image_raw", None, None)),
        (
            topics(**{"/cam/image": RAW, "/cam/image/compressed": COMPRESSED, "/cam/camera_info": INFO}),
            CameraTopics("/cam/image", "/cam/camera_info", None),
        ),
        (
            [*topics(**{"/a/image": RAW, "/b/image": RAW, "/b/camera_info": INFO})],
            CameraTopics("/b/image", "/b/camera_info", None),
        ),
    ],
)
def test_choice(found: list[Topic], expected: CameraTopics) -> None:
    assert choose(found) == expected
    assert choose(list(reversed(found))) == expected


def test_wish_overrides() -> None:
    chosen = choose(REALSENSE, image="/camera/infra1/image_rect_raw")
    assert (
        chosen.image == "/camera/infra1/image_rect_raw" and chosen.camera_info == "/camera/infra1/camera_info"
    )


def test_camera_info_of_a_foreign_camera_is_not_taken() -> None:
    found = topics(**{"/left/image": RAW, "/right/camera_info": INFO})
    assert choose(found).camera_info is None


@pytest.mark.parametrize("image", ["/nope", "/tf", "/camera/color/camera_info"])
def test_wish_that_the_bag_lacks_names_what_there_is(image: str) -> None:
    with pytest.raises(SpatialError) as caught:
        choose(REALSENSE, image=image)
    assert (
        caught.value.code is ErrorCode.BAG_WITHOUT_IMAGES
        and "/camera/color/image_raw" in caught.value.sentence
    )


@pytest.mark.parametrize(
    "found", [[], topics(**{"/scan": "sensor_msgs/msg/LaserScan"}), [Topic("/i", RAW, 0)]]
)
def test_no_images(found: list[Topic]) -> None:
    with pytest.raises(SpatialError) as caught:
        choose(found)
    assert caught.value.code is ErrorCode.BAG_WITHOUT_IMAGES
