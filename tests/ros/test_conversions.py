"""Dataclass to message and back loses nothing; buffers arrive bit for bit."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from spatial_mllm_msgs.msg import Reward as RewardMsg
from spatial_mllm_msgs.msg import RewardTask as RewardTaskMsg
from spatial_mllm_msgs.msg import SpatialAnswer
from spatial_mllm_msgs.srv import SetRewardTask

from spatial_mllm import conversions as convert
from spatial_mllm_core.answers import Answer
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images import decode_depth, encode_depth_32fc1
from spatial_mllm_core.reward.task import Reward, RewardGoal, RewardTask

INTERFACES = Path(__file__).resolve().parents[2] / "ros2_ws/src/spatial_mllm_msgs"

STAMPS = st.integers(0, 2**31 * 10**9 - 1)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
TRIPLES = st.tuples(NUMBERS, NUMBERS, NUMBERS)
WORDS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=30)


def through_the_wire(msg):
    return deserialize_message(serialize_message(msg), type(msg))


@given(STAMPS)
def test_stamps(stamp_ns):
    assert convert.to_ns(convert.to_time(stamp_ns)) == stamp_ns


@given(
    st.builds(
        Answer,
        task=WORDS,
        question=WORDS,
        text=WORDS,
        kind=st.sampled_from(["scalar", "vector", "label", "pixel", "text"]),
        values=st.lists(NUMBERS, max_size=3).map(tuple),
        unit=st.sampled_from(["m", "rad", "px", ""]),
        label=WORDS,
        frame_id=WORDS,
        stamps_ns=st.lists(STAMPS, min_size=1, max_size=4).map(tuple),
        confidence=st.floats(0, 1),
        latency_s=st.floats(0, 100),
        model=WORDS,
    )
)
def test_answer(answer):
    msg = through_the_wire(convert.answer_to_msg(answer))
    assert convert.answer_from_msg(msg) == answer
    assert convert.to_ns(msg.header.stamp) == answer.stamps_ns[0]


def test_an_answer_that_failed_raises_its_fault_again():
    fault = SpatialError(ErrorCode.PIXEL_OUTSIDE, "the pixel (900, 3) lies outside")
    msg = through_the_wire(
        convert.failed_answer_to_msg(fault, task="depth_estimation_dot", question="", stamps_ns=(5, 7))
    )
    assert list(msg.values) == []
    assert [convert.to_ns(s) for s in msg.stamps] == [5, 7]
    with pytest.raises(SpatialError, match="E403 PIXEL_OUTSIDE: the pixel") as caught:
        convert.answer_from_msg(msg)
    assert caught.value.code is ErrorCode.PIXEL_OUTSIDE


@given(
    st.builds(
        RewardTask,
        task_id=WORDS,
        point_px=st.tuples(NUMBERS, NUMBERS),
        goal=st.sampled_from(list(RewardGoal)),
        distance_m=NUMBERS,
        target_m=TRIPLES,
        direction=TRIPLES,
        tolerance_m=NUMBERS,
        gamma=NUMBERS,
        reference_stamp_ns=STAMPS,
        camera_moves=st.booleans(),
        description=WORDS,
    )
)
def test_reward_task(task):
    assert convert.task_from_msg(through_the_wire(convert.task_to_msg(task))) == task


def test_an_unknown_goal_is_named_with_those_there_are():
    with pytest.raises(SpatialError, match=r"E404 .*'dance'.*move_distance, move_to, move_along, keep_still"):
        convert.task_from_msg(RewardTaskMsg(goal="dance"))


@given(
    st.builds(
        Reward,
        stamp_ns=STAMPS,
        frame_id=WORDS,
        reference_stamp_ns=STAMPS,
        task_id=WORDS,
        displacement_m=TRIPLES,
        distance_m=NUMBERS,
        progress=NUMBERS,
        reward=NUMBERS,
        success=st.booleans(),
        valid=st.booleans(),
        confidence=NUMBERS,
        latency_s=NUMBERS,
        model=WORDS,
        error_code=st.sampled_from([int(c) for c in ErrorCode]),
        error_sentence=WORDS,
    )
)
def test_reward(reward):
    assert convert.reward_from_msg(through_the_wire(convert.reward_to_msg(reward))) == reward


def test_an_invalid_reward_keeps_its_nan():
    nan = math.nan
    reward = Reward(
        1, "f", 0, "t", (nan, nan, nan), nan, nan, nan, False, False, 0.0, 0.0, "m", 505, "no number"
    )
    msg = through_the_wire(convert.reward_to_msg(reward))
    assert math.isnan(msg.reward)
    assert math.isnan(msg.displacement_m.x)
    assert (msg.valid, msg.error_code) == (False, 505)


def test_depth_arrives_bit_for_bit_with_nan():
    depth_m = np.linspace(0.1, 9.0, 48 * 64, dtype=np.float32).reshape(48, 64)
    depth_m[3, 5] = np.nan
    msg = convert.image_to_msg(encode_depth_32fc1(depth_m), convert.to_header(12_345_678_901, "optical"))
    back = through_the_wire(msg)
    assert isinstance(back, Image)
    assert (back.encoding, back.step, back.is_bigendian) == ("32FC1", 256, 0)
    assert convert.to_ns(back.header.stamp) == 12_345_678_901
    np.testing.assert_array_equal(decode_depth(back), depth_m)


def test_camera_info_gives_the_same_camera_back():
    camera = CameraModel.from_k([[500.0, 0, 310], [0, 505.0, 250], [0, 0, 1]], 640, 480, frame_id="optical")
    msg = convert.camera_info_to_msg(camera.camera_info_fields(), convert.to_header(7, "optical"))
    back = CameraModel.from_camera_info(through_the_wire(msg), image_size=(640, 480))
    assert isinstance(msg, CameraInfo)
    assert back == camera


def test_cloud_has_the_points_and_colours_where_the_pixels_are():
    points_m = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    points_m[1, 2] = np.nan
    image = np.array([[[1, 2, 3]] * 3, [[250, 128, 7]] * 3], np.uint8)
    msg = through_the_wire(convert.cloud_to_msg(points_m, image, convert.to_header(7, "optical")))
    assert isinstance(msg, PointCloud2)
    assert (msg.height, msg.width, msg.point_step, msg.row_step, msg.is_dense) == (2, 3, 16, 48, False)
    raw = np.frombuffer(msg.data, np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(raw[..., :3], points_m)
    colours = raw[..., 3].copy().view(np.uint32)
    assert colours[0, 0] == 0x010203
    assert colours[1, 1] == 0xFA8007


@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf, 1e6])
def test_a_length_of_time_that_is_none(seconds):
    with pytest.raises(SpatialError, match="E408 BAD_NUMBER: stamp_tolerance_s"):
        convert.seconds_to_ns(seconds, "stamp_tolerance_s")


def test_messages_mirror_the_dataclasses():
    """A field added on one side and forgotten on the other would get lost silently."""
    fields = SpatialAnswer.get_fields_and_field_types()
    mirrored = {"frame_id": "header", "stamps_ns": "stamps"}
    for name in Answer.__dataclass_fields__:
        assert mirrored.get(name, name) in fields
    fields = RewardMsg.get_fields_and_field_types()
    mirrored = {
        "stamp_ns": "header",
        "frame_id": "header",
        "reference_stamp_ns": "reference_stamp",
        "error_sentence": "error_msg",
    }
    for name in Reward.__dataclass_fields__:
        assert mirrored.get(name, name) in fields
    fields = RewardTaskMsg.get_fields_and_field_types()
    for name in RewardTask.__dataclass_fields__:
        assert {"reference_stamp_ns": "reference_stamp"}.get(name, name) in fields


def test_defaults_of_a_task_are_those_of_the_dataclass():
    msg, task = SetRewardTask.Request().task, RewardTask("", (0.0, 0.0), RewardGoal.MOVE_TO)
    assert (msg.tolerance_m, msg.gamma, msg.camera_moves) == (task.tolerance_m, task.gamma, task.camera_moves)
    assert msg.reference_stamp == Time()


def test_goal_constants_are_the_goals():
    for goal in RewardGoal:
        assert getattr(RewardTaskMsg, f"GOAL_{goal.name}") == goal.value


def test_every_field_of_every_interface_is_documented():
    """A comment stands on the line before each field, and says the unit of each number in metres or seconds."""
    files = sorted(p for kind in ("msg", "srv", "action") for p in (INTERFACES / kind).iterdir())
    assert len(files) == 6
    for path in files:
        documented = False
        for line in path.read_text().splitlines():
            if line.startswith("#"):
                documented = True
            elif line and line != "---":
                assert documented, f"{path.name}: {line}"
            elif not line:
                documented = False
