"""Bad input over real topics: each fault has its number, is counted, and the next good frame is served.

Numbers in names are those of the project's fault matrix (A image, B CameraInfo, C time).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import CameraInfo, Image
from spatial_mllm_msgs.action import Ask
from spatial_mllm_msgs.msg import Pixel

pytestmark = pytest.mark.timeout(120)

FRAME = "camera_optical_frame"


def stamp_ns(msg) -> int:
    return msg.header.stamp.sec * 10**9 + msg.header.stamp.nanosec


@pytest.fixture(scope="module")
def rig(start_once):
    rig = start_once(double=True, frame_queue=20, depth__always=True)
    rig.depth = rig.collect(Image, "depth/image")
    return rig


def expect_fault(rig, number: int, *messages) -> None:
    """Publish something bad; its number must be counted and the next good frame be served."""
    before = rig.fault_counts().get(number, 0)
    rig.publish(*messages)
    rig.wait(f"fault {number} on /diagnostics", lambda: rig.fault_counts().get(number, 0) == before + 1)
    expect_served(rig)


def expect_served(rig) -> None:
    at = rig.publish_good()
    rig.wait("depth of the next good frame", lambda: rig.depth and stamp_ns(rig.depth[-1]) == at)


def image_with(rig_module, at_ns: int, **fields) -> Image:
    msg = rig_module.make_image(at_ns)
    for name, value in fields.items():
        setattr(msg, name, value)
    return msg


IMAGE_FAULTS = {
    "A1 no width": (101, {"width": 0}),
    "A2 truncated": (102, {"data": bytes(100)}),
    "A4 step below a row": (103, {"step": 10}),
    "A6 enormous header": (104, {"width": 60_000, "height": 60_000, "step": 180_000}),
    "A7 unknown encoding": (105, {"encoding": "rgb9"}),
    "A8 empty encoding": (105, {"encoding": ""}),
    "A8 encoding of 10 kB": (105, {"encoding": "x" * 10_000}),
}


@pytest.mark.parametrize(("number", "fields"), IMAGE_FAULTS.values(), ids=IMAGE_FAULTS.keys())
def test_image_faults(rig, rig_messages, number, fields):
    at = rig.tick()
    expect_fault(rig, number, rig_messages.make_info(at), image_with(rig_messages, at, **fields))


NAN_K = [math.nan, 0.0, 31.5, 0.0, 57.6, 23.5, 0.0, 0.0, 1.0]
NEGATIVE_K = [-57.6, 0.0, 31.5, 0.0, 57.6, 23.5, 0.0, 0.0, 1.0]
INFO_FAULTS = {
    "B20 zero K": (202, {"k": [0.0] * 9}),
    "B21 NaN in K": (203, {"k": NAN_K}),
    "B21 negative focal length": (203, {"k": NEGATIVE_K}),
    "B23 other size": (204, {"width": 100, "height": 48}),
    "B25 unknown lens": (205, {"distortion_model": "banana", "d": [0.1, 0.0, 0.0, 0.0, 0.0]}),
    "B25 too few coefficients": (206, {"d": [0.1]}),
}


@pytest.mark.parametrize(("number", "fields"), INFO_FAULTS.values(), ids=INFO_FAULTS.keys())
def test_calibration_faults(rig, rig_messages, number, fields):
    at = rig.tick()
    info = rig_messages.make_info(at)
    for name, value in fields.items():
        setattr(info, name, value)
    expect_fault(rig, number, info, rig_messages.make_image(at))


def test_a14_frame_id_of_image_and_calibration_differ(rig, rig_messages):
    at = rig.tick()
    other = rig_messages.make_image(at, frame_id="another_optical_frame")
    expect_fault(rig, 207, rig_messages.make_info(at), other)


def test_c15_a_stamp_twice(rig, rig_messages):
    expect_served(rig)
    at = rig.now_ns
    expect_fault(rig, 304, rig_messages.make_info(at), rig_messages.make_image(at))


def test_c32_a_bag_that_loops_forgets_the_frames_and_goes_on(rig, rig_messages):
    last = rig.now_ns
    for _ in range(3):
        expect_served(rig)
    before = rig.fault_counts().get(303, 0)
    rig.now_ns = last - 3600 * 10**9
    expect_served(rig)
    rig.wait("the jump on /diagnostics", lambda: rig.fault_counts().get(303, 0) == before + 1)
    expect_served(rig)
    goal = Ask.Goal(question="count", max_new_tokens=1, stamps=[], deadline_s=5.0)
    assert rig.ask(goal).result.error_code == 0
    goal.stamps = [rig_messages.make_image(last).header.stamp]
    goal.deadline_s = 0.3  # the frame lies in the future of the loop now
    assert rig.ask(goal).result.error_code in (302, 305)


def test_a9_a_padded_big_endian_depth_like_image_is_read_right(rig, rig_messages):
    """mono16, big-endian, rows padded by 6 bytes: served, not refused."""
    at = rig.tick()
    msg = rig_messages.make_image(at)
    rows = np.full((msg.height, msg.width), 40_000, ">u2").view(np.uint8).reshape(msg.height, -1)
    padded = np.pad(rows, ((0, 0), (0, 6)), constant_values=255)
    msg.encoding, msg.is_bigendian, msg.step, msg.data = "mono16", 1, padded.shape[1], padded.tobytes()
    rig.publish(rig_messages.make_info(at), msg)
    rig.wait("its depth", lambda: rig.depth and stamp_ns(rig.depth[-1]) == at)
    assert (rig.depth[-1].width, rig.depth[-1].height) == (msg.width, msg.height)


def test_a12_the_resolution_changes_on_the_way(rig, rig_messages):
    for width, height in ((96, 32), (32, 96), (64, 48)):
        at = rig.tick()
        rig.publish(
            rig_messages.make_info(at, width=width, height=height),
            rig_messages.make_image(at, width=width, height=height),
        )
        rig.wait(f"depth of {width}x{height}", lambda at=at: rig.depth and stamp_ns(rig.depth[-1]) == at)
        assert (rig.depth[-1].width, rig.depth[-1].height) == (width, height)


def test_a_goal_with_a_bad_image_of_its_own(rig, rig_messages):
    at = rig.tick()
    goal = Ask.Goal(question="count", max_new_tokens=1, images=[image_with(rig_messages, at, data=bytes(3))])
    assert rig.ask(goal).result.error_code == 102
    good = Ask.Goal(question="count", max_new_tokens=1, images=[rig_messages.make_image(at)])
    done = rig.ask(good)
    assert done.result.error_code == 0
    assert stamp_ns(done.result.answer) == at


def test_the_category_of_an_object_and_the_variant_of_a_comparison_reach_the_model(rig, rig_messages):
    stamps = [rig.tick() for _ in range(5)]
    images = [rig_messages.make_image(at) for at in stamps]
    infos = [rig_messages.make_info(at) for at in stamps]
    size = {"task": "object_perception_height_estimation", "images": images, "camera_infos": infos}
    done = rig.ask(Ask.Goal(**size, category="toy car", max_new_tokens=1))
    assert done.result.error_code == 0, done.result.error_msg
    assert done.result.answer.question == "What is the height of the toy car in mm?"
    assert len(done.result.answer.stamps) == 5
    assert rig.ask(Ask.Goal(**size, max_new_tokens=1)).result.error_code == 401
    pair = {
        "task": "depth_comparison_coordinate",
        "images": images[:1],
        "camera_infos": infos[:1],
        "points_px": [Pixel(u=5.0, v=6.0), Pixel(u=30.0, v=20.0)],
        "max_new_tokens": 1,
    }
    assert "farther" in rig.ask(Ask.Goal(**pair, variant="farther")).result.answer.question
    assert "closer" in rig.ask(Ask.Goal(**pair)).result.answer.question
    assert rig.ask(Ask.Goal(**pair, variant="nearer")).result.error_code == 404


def test_d42_a_thousand_images_in_a_goal(rig, rig_messages):
    image = image_with(rig_messages, rig.tick(), width=1, height=1, step=3, data=bytes(3))
    done = rig.ask(Ask.Goal(question="count", images=[image] * 1000))
    assert done.result.error_code == 405


def test_every_fault_stands_in_the_log_at_most_once_per_five_seconds(rig, rig_messages):
    expect_served(rig)
    already = rig.bringup.output.count("E105")
    before = rig.fault_counts().get(105, 0)
    for _ in range(12):
        at = rig.tick()
        rig.publish(rig_messages.make_info(at), image_with(rig_messages, at, encoding="rgb9"))
        rig.spin(0.05)
    rig.wait("twelve counted", lambda: rig.fault_counts().get(105, 0) == before + 12)
    assert rig.bringup.output.count("E105") - already <= 1


def test_received_is_served_dropped_and_faulty(rig):
    """The counters add up, also after all of the above."""
    expect_served(rig)
    rig.spin(1.2)
    v = {k: int(x) for k, x in rig.values("perception: inference").items() if k.startswith("images ")}
    assert v["images received"] == (
        v["images served"] + v["images dropped for newer ones"] + v["images faulty"] + v["images waiting"]
    )
    assert v["images served"] > 10


def test_b18_no_camera_info_is_said_in_words_and_scale_free_questions_go_on(start, rig_messages):
    rig = start(double=True, watchdog_s=0.5, frame_queue=20)
    for _ in range(5):
        rig.publish(rig_messages.make_image(rig.tick()))
        rig.spin(0.1)
    rig.wait("fault 201", lambda: rig.fault_counts().get(201, 0) >= 3)
    words = rig.wait(
        "the watchdog",
        lambda: (s := rig.status("perception: input")) and "camera_info" in s.message and s.message,
    )
    assert f"no camera_info on {rig.infos.topic_name} for " in words
    assert rig.ask(Ask.Goal(question="count", max_new_tokens=1)).result.error_code == 0
    depth = rig.collect(Image, "depth/image")
    at = rig.publish_good()
    rig.wait("depth once there is a calibration", lambda: depth and stamp_ns(depth[-1]) == at)


def test_f66_a_publisher_with_another_reliability_is_said_in_words(start, rig_messages):
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    rig = start(double=True, image_qos="reliable", image_topic="/other/image", wait=False)
    best_effort = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    rig.node.create_publisher(Image, "/other/image", best_effort)
    rig.wait("the words", lambda: (s := rig.status("perception: input")) and "reliability" in s.message, 25.0)
    assert "image_qos" in rig.status("perception: input").message


def test_b23_a_smaller_image_of_the_same_shape_is_served_with_scaled_intrinsics(rig, rig_messages):
    infos = rig.collect(CameraInfo, "depth/camera_info")
    at = rig.tick()
    rig.publish(rig_messages.make_info(at, width=128, height=96), rig_messages.make_image(at))
    rig.wait("its calibration", lambda: infos and stamp_ns(infos[-1]) == at)
    assert (infos[-1].width, infos[-1].height) == (64, 48)
    assert infos[-1].k[0] == pytest.approx(0.9 * 64)
    assert infos[-1].header.frame_id == FRAME
