"""Our message types have one source, and every reader and writer of them agrees."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.bags import message_types, messages
from spatial_mllm_core.reward.task import Reward, RewardGoal, RewardTask

REPOSITORY = Path(__file__).parents[3]
SOURCE = REPOSITORY / "ros2_ws/src/spatial_mllm_msgs/msg"


def test_definitions_are_those_the_ros_package_generates_from() -> None:
    theirs = {f"spatial_mllm_msgs/msg/{f.stem}": f.read_text() for f in SOURCE.glob("*.msg")}
    assert theirs
    assert message_types.our_definitions() == theirs


def test_typestore_knows_every_message_of_ours() -> None:
    store = message_types.typestore()
    for name in message_types.our_definitions():
        assert name in store.types


def test_type_hashes_equal_those_of_the_generated_ros_package() -> None:
    share = Path(sys.prefix) / "share/spatial_mllm_msgs/msg"
    if not share.is_dir():
        pytest.skip("spatial_mllm_msgs is not built in this environment")
    for name in message_types.our_definitions():
        told = json.loads((share / f"{name.rpartition('/')[2]}.json").read_text())["type_hashes"]
        expected = next(h["hash_string"] for h in told if h["type_name"] == name)
        assert message_types.typestore().hash_rihs01(name) == expected


def test_answer_and_reward_survive_serialisation() -> None:
    answer = Answer(
        task="depth_estimation_coor", question="How deep?", text="`1234`", kind="scalar", values=(1.234,), unit="m",
        label="", frame_id="cam", stamps_ns=(1_700_000_000_123_456_789,), confidence=0.5, latency_s=0.25, model="m/1",
    )  # fmt: skip
    reward = Reward(
        stamp_ns=5, frame_id="cam", reference_stamp_ns=3, task_id="t", displacement_m=(0.1, -0.2, 0.3), distance_m=0.4,
        progress=0.5, reward=0.05, success=False, valid=True, confidence=0.75, latency_s=0.01, model="m/1",
    )  # fmt: skip
    store = message_types.typestore()
    for message, type_name in (
        (messages.answer_message(answer), "spatial_mllm_msgs/msg/SpatialAnswer"),
        (messages.reward_message(reward), "spatial_mllm_msgs/msg/Reward"),
    ):
        back = store.deserialize_cdr(bytes(store.serialize_cdr(message, type_name)), type_name)
        if hasattr(back, "values"):
            assert back.values.tolist() == [1.234]
            assert message_types.stamp_ns_of(back) == 1_700_000_000_123_456_789
        else:
            assert (back.displacement_m.x, back.reward, back.reference_stamp.nanosec) == (0.1, 0.05, 3)


def test_reward_task_round_trip() -> None:
    task = RewardTask(
        task_id="push", point_px=(12.0, 34.5), goal=RewardGoal.MOVE_TO, target_m=(0.1, 0.0, -0.2), tolerance_m=0.03,
        gamma=0.9, reference_stamp_ns=1_700_000_000_000_000_001, camera_moves=True, description="push it",
    )  # fmt: skip
    assert messages.reward_task_of(messages.reward_task_message(task)) == task


def test_quaternions_invert() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        q = rng.normal(size=4)
        rotation = messages.rotation_of(*q)
        assert np.allclose(rotation @ rotation.T, np.eye(3)) and np.isclose(np.linalg.det(rotation), 1)
        assert np.allclose(messages.rotation_of(*messages.quaternion_xyzw(rotation)), rotation, atol=1e-12)


def test_half_turns_have_a_quaternion() -> None:
    for axis in np.eye(3):
        rotation = 2 * np.outer(axis, axis) - np.eye(3)
        assert np.allclose(messages.quaternion_xyzw(rotation), (*axis, 0))
