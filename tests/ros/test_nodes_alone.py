"""Each node as an executable of its own, with its own model and subscriptions."""

from __future__ import annotations

import pytest
from sensor_msgs.msg import Image
from spatial_mllm_msgs.action import Ask
from spatial_mllm_msgs.msg import Pixel, Reward
from spatial_mllm_msgs.srv import SetRewardTask

pytestmark = pytest.mark.timeout(90)


def active(rig, node: str) -> None:
    rig.wait(f"{node} to be active", lambda: rig.state(node) == "active", 30.0)
    rig.wait("the camera subscriptions", rig._is_matched)


def test_perception_alone(start, bundle):
    rig = start(executable="perception", model=str(bundle), wait=False)
    active(rig, "perception")
    depth = rig.collect(Image, "depth/image")
    at = rig.publish_good()
    rig.wait("depth", lambda: depth)
    assert depth[0].header.stamp.sec == at // 10**9
    rig.wait("the ask action", rig.asker.server_is_ready)
    assert rig.ask(Ask.Goal(question="What is there?", max_new_tokens=3)).result.error_code == 0
    assert rig.bringup.stop()[0] == 0


def test_reward_annotator_alone(start, bundle):
    rig = start(executable="reward_annotator", model=str(bundle), wait=False)
    active(rig, "reward_annotator")
    rewards = rig.collect(Reward, "reward")
    at = rig.publish_good()
    served = "reward_annotator: inference"
    rig.wait("the first frame", lambda: rig.values(served).get("images served") == "1")
    request = SetRewardTask.Request()
    request.task.goal, request.task.distance_m, request.task.task_id = "keep_still", 0.1, "still"
    request.task.point_px = Pixel(u=20.0, v=20.0)
    response = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request)
    assert response.success, response.error_msg
    assert response.task.reference_stamp.sec == at // 10**9
    rig.publish_good()
    rig.wait("a reward", lambda: rewards)
    assert (rewards[0].task_id, rewards[0].header.stamp.sec) == ("still", rig.now_ns // 10**9)
    clear = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", SetRewardTask.Request(clear=True))
    assert clear.success
    rig.publish_good()
    rig.wait("the third frame", lambda: rig.values(served).get("images served") == "3")
    assert len(rewards) == 1
    assert rig.bringup.stop()[0] == 0
