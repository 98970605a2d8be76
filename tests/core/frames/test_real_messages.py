"""The whole way from a message to a frame with the message classes users have: rclpy's and rosbags'."""

from __future__ import annotations

import array

import numpy as np
import pytest

from spatial_mllm_core.frames import build_frame
from spatial_mllm_core.images import decode_any, decode_depth, encode_depth_32fc1, encode_jpeg

K = [50.0, 0.0, 31.0, 0.0, 52.0, 23.0, 0.0, 0.0, 1.0]
D = [-0.1, 0.01, 0.0, 0.0, 0.0]
P = [48.0, 0.0, 31.0, 0.0, 0.0, 48.0, 23.0, 0.0, 0.0, 0.0, 1.0, 0.0]
R = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]


@pytest.fixture
def picture():
    v, u = np.mgrid[:48, :64]
    return np.stack([u * 4, v * 5, 255 - u * 2 - v * 2], axis=-1).astype(np.uint8)


def check(image, compressed, info, depth, picture):
    frame = build_frame(5, image.header.frame_id, decode_any(image), info)
    np.testing.assert_array_equal(frame.image_rgb, picture)
    camera = frame.require_camera()
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (50, 52, 31, 23)
    np.testing.assert_array_equal(camera.d, D)
    np.testing.assert_array_equal(camera.p.ravel(), P)
    assert camera.frame_id == "optical"
    assert np.abs(decode_any(compressed).astype(int) - picture).max() < 25
    np.testing.assert_array_equal(decode_depth(depth), np.full((48, 64), 1.5, np.float32))


def test_messages_of_rclpy(picture):
    msg = pytest.importorskip("sensor_msgs.msg", reason="needs the ROS 2 message packages")
    image = msg.Image(height=48, width=64, encoding="bgr8", step=192)
    image.header.frame_id = "optical"
    image.data = array.array("B", picture[..., ::-1].tobytes())
    fields = encode_jpeg(picture)
    compressed = msg.CompressedImage(format=fields.format)
    compressed.data = array.array("B", bytes(fields.data))
    info = msg.CameraInfo(width=64, height=48, distortion_model="plumb_bob", d=D, k=K, r=R, p=P)
    info.header.frame_id = "optical"
    raw = encode_depth_32fc1(np.full((48, 64), 1.5, np.float32))
    depth = msg.Image(height=48, width=64, encoding=raw.encoding, step=raw.step)
    data = array.array("B")
    data.frombytes(raw.data)
    depth.data = data
    check(image, compressed, info, depth, picture)
    # and back: the fields of the model are a CameraInfo rclpy accepts
    out = build_frame(5, "optical", picture, info).require_camera().resized(32, 24).camera_info_fields()
    small = msg.CameraInfo(**{name: getattr(out, name) for name in out.__dataclass_fields__})
    small.header.frame_id = "optical"
    again = build_frame(5, "optical", picture[::2, ::2], small).require_camera()
    assert again.cx == pytest.approx(31.5 / 2 - 0.5)


def test_messages_of_rosbags_through_their_serialisation(picture):
    typesys = pytest.importorskip("rosbags.typesys")
    store = typesys.get_typestore(typesys.Stores.ROS2_JAZZY)
    make = store.types
    header = make["std_msgs/msg/Header"](
        stamp=make["builtin_interfaces/msg/Time"](sec=1, nanosec=2), frame_id="optical"
    )

    def sent(name, **fields):
        kind = f"sensor_msgs/msg/{name}"
        message = make[kind](header=header, **fields)
        return store.deserialize_cdr(store.serialize_cdr(message, kind), kind)

    def raw(encoding, step, pixels):
        data = np.frombuffer(np.ascontiguousarray(pixels).tobytes(), np.uint8)
        return sent("Image", height=48, width=64, encoding=encoding, is_bigendian=0, step=step, data=data)

    fields = encode_jpeg(picture)
    roi = make["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = sent(
        "CameraInfo",
        height=48,
        width=64,
        distortion_model="plumb_bob",
        d=np.array(D),
        k=np.array(K),
        r=np.array(R),
        p=np.array(P),
        binning_x=0,
        binning_y=0,
        roi=roi,
    )
    check(
        raw("bgr8", 192, picture[..., ::-1]),
        sent("CompressedImage", format=fields.format, data=np.frombuffer(fields.data, np.uint8)),
        info,
        raw("32FC1", 256, np.full((48, 64), 1.5, np.float32)),
        picture,
    )
