"""Up and down: transitions, autostart, exit status, signals, parameters."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType
from rcl_interfaces.srv import DescribeParameters, GetParameters, ListParameters, SetParameters
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from spatial_mllm_msgs.msg import Reward
from spatial_mllm_msgs.srv import SetRewardTask
from std_srvs.srv import Trigger

pytestmark = pytest.mark.timeout(120)


def test_without_autostart_the_transitions_bring_it_up_and_down_again(start):
    rig = start(double=True, autostart=False, wait=False)
    nodes = ("perception", "reward_annotator")
    assert {rig.state(n) for n in nodes} == {"unconfigured"}
    response = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", SetRewardTask.Request())
    assert (response.success, response.error_code) == (False, 608)
    for _ in range(2):
        # perception owns the model
        assert not rig.change(Transition.TRANSITION_CONFIGURE, "reward_annotator")
        for node in nodes:
            assert rig.change(Transition.TRANSITION_CONFIGURE, node)
            assert rig.state(node) == "inactive"
        for node in nodes:
            assert rig.change(Transition.TRANSITION_ACTIVATE, node)
        rig.wait_active()
        depth = rig.collect(Image, "depth/image")
        rig.publish_good()
        rig.wait("depth", lambda depth=depth: depth)
        for node in reversed(nodes):
            assert rig.change(Transition.TRANSITION_DEACTIVATE, node)
            assert rig.change(Transition.TRANSITION_CLEANUP, node)
            assert rig.state(node) == "unconfigured"
    assert rig.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert rig.state() == "finalized"
    status, output, _ = rig.bringup.stop()
    assert status == 0
    assert "Traceback" not in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_clean_within_five_seconds(start, number):
    rig = start(double=True)
    rig.publish_good()
    status, output, seconds = rig.bringup.stop(number)
    assert status == 0, output
    assert seconds < 5.0
    assert "Traceback" not in output


def test_a_signal_during_start_ends_it_too(start):
    rig = start(double=True, wait=False)
    rig.spin(0.4)
    status, output, seconds = rig.bringup.stop()
    assert status in (0, -signal.SIGINT), output  # before our handler is in place, Python's default one
    assert seconds < 5.0


def test_a_missing_model_ends_it_with_one_sentence(start):
    rig = start(double=True, wait=False, model="missing")
    status, output = rig.bringup.wait()
    assert status == 1
    assert "E501 MODEL_MISSING" in output
    assert "Traceback" not in output


def test_without_autostart_a_missing_model_fails_the_transition_and_can_be_tried_again(start):
    rig = start(double=True, wait=False, autostart=False, model="missing")
    for _ in range(2):
        assert not rig.change(Transition.TRANSITION_CONFIGURE)
        assert rig.state() == "unconfigured"
    assert rig.bringup.output.count("E501 MODEL_MISSING") == 2


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"image_transport": "theora"}, "expected one of raw, compressed"),
        ({"frame_queue": 0}, "expected int from 1 to 1000"),
        ({"watchdog_s": "soon"}, "'watchdog_s'"),
        ({"depth__encoding": "8UC1"}, "expected one of 32FC1, 16UC1"),
        ({"model": 7}, "'model'"),
    ],
)
def test_a_parameter_that_cannot_be_used_ends_it_with_one_sentence(start, parameters, words):
    rig = start(double=True, wait=False, **parameters)
    status, output = rig.bringup.wait()
    assert status == 2
    assert words in output
    assert "Traceback" not in output


def test_every_parameter_says_what_it_does(start):
    rig = start(double=True)
    for node in ("perception", "reward_annotator"):
        base = f"{rig.namespace}/{node}"
        names = rig.call(ListParameters, f"{base}/list_parameters", ListParameters.Request()).result.names
        ours = [n for n in names if n not in ("use_sim_time", "start_type_description_service")]
        ours = [n for n in ours if not n.startswith("qos_overrides.")]
        described = rig.call(
            DescribeParameters, f"{base}/describe_parameters", DescribeParameters.Request(names=ours)
        )
        assert [d.name for d in described.descriptors if not d.description] == []
    assert {"depth.encoding", "ask.deadline_s", "image_topic", "autostart"} <= set(
        rig.call(
            ListParameters, f"{rig.namespace}/perception/list_parameters", ListParameters.Request()
        ).result.names
    )


def test_live_parameters_take_effect_and_others_are_refused(start):
    rig = start(double=True)
    base = f"{rig.namespace}/perception"

    def set_one(name, value):
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return rig.call(SetParameters, f"{base}/set_parameters", request).results[0]

    depth = rig.collect(Image, "depth/image")
    assert set_one("depth.encoding", "16UC1").successful
    rig.publish_good()
    rig.wait("16-bit depth", lambda: depth and depth[-1].encoding == "16UC1")
    refused = set_one("depth.encoding", "jpeg")
    assert not refused.successful
    assert "expected one of" in refused.reason
    assert not set_one("image_topic", "/elsewhere").successful
    assert not set_one("depth.enabled", "yes").successful
    now = rig.call(GetParameters, f"{base}/get_parameters", GetParameters.Request(names=["depth.encoding"]))
    assert now.values[0].type == ParameterType.PARAMETER_STRING
    assert now.values[0].string_value == "16UC1"


def test_reward_services_answer_with_numbers_before_there_is_a_frame(start):
    rig = start(double=True)
    rewards = rig.collect(Reward, "reward")
    request = SetRewardTask.Request()
    request.task.goal = "dance"
    response = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request)
    assert (response.success, response.error_code) == (False, 404)
    request.task.goal, request.task.distance_m = "move_distance", 0.2
    response = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request)
    assert response.error_code == 306
    response = rig.call(Trigger, f"{rig.namespace}/reset_reference", Trigger.Request())
    assert not response.success
    assert response.message.startswith("E410 NO_REWARD_TASK")
    assert not rewards


@pytest.mark.parametrize(
    ("breaking", "number"),
    [
        ("hash", "E502 HASH_MISMATCH"),
        ("manifest", "E507 BAD_MANIFEST"),
        ("missing file", "E501 MODEL_MISSING"),
    ],
)
def test_a_corrupt_bundle_ends_it_with_one_sentence(start, bundle, tmp_path, breaking, number):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    if breaking == "hash":
        with (copy / "decoder.onnx").open("r+b") as file:
            file.seek(1000)
            byte = file.read(1)
            file.seek(1000)
            file.write(bytes([byte[0] ^ 0xFF]))
    elif breaking == "manifest":
        (copy / "manifest.json").write_text(json.dumps({"name": "x"}))
    else:
        (copy / "vision.onnx").unlink()
    rig = start(wait=False, model=str(copy))
    status, output = rig.bringup.wait(60.0)
    assert status == 1
    assert number in output
    assert "Traceback" not in output
