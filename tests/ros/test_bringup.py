"""The shipped model behind real topics: depth, answers and rewards, equal to the offline ones bit for bit."""

from __future__ import annotations

import dataclasses
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from spatial_mllm_msgs.action import Ask
from spatial_mllm_msgs.msg import Pixel, Reward, SpatialAnswer
from spatial_mllm_msgs.srv import SetRewardTask
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from spatial_mllm import conversions as convert
from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.bags import choose, open_bag
from spatial_mllm_core.bags.framing import FrameStream
from spatial_mllm_core.images import decode_depth
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_core.pipeline import SpatialPipeline
from spatial_mllm_core.reward.task import Reward as RewardOfCore
from spatial_mllm_core.reward.task import RewardGoal, RewardTask

pytestmark = pytest.mark.timeout(180)

BAG = Path(__file__).resolve().parents[2] / "sample_bags/table_push"
FRAMES = 6
POINT_PX = (395.0, 227.0)
DEPTH_TASK = "depth_estimation_coor"


@pytest.fixture(scope="module")
def messages():
    """The first images of the sample bag with their calibration, as rclpy messages, by stamp."""
    found: dict[int, dict[str, object]] = {}
    with open_bag(BAG) as bag:
        topics = choose(bag.topics())
        for m in bag.messages([topics.image, topics.camera_info]):
            kind = CompressedImage if m.topic == topics.image else CameraInfo
            msg = deserialize_message(bytes(m.raw), kind)
            found.setdefault(convert.to_ns(msg.header.stamp), {})[kind.__name__] = msg
            if len(found) > FRAMES:
                break
    return [(s, found[s]) for s in sorted(found)][:FRAMES]


@pytest.fixture(scope="module")
def rig(start_once, bundle):
    rig = start_once(model=str(bundle), threads=2, image_transport="compressed", frame_queue=50)
    rig.depth = rig.collect(Image, "depth/image")
    rig.confidence = rig.collect(Image, "depth/confidence")
    rig.depth_infos = rig.collect(CameraInfo, "depth/camera_info")
    rig.answers = rig.collect(SpatialAnswer, "answers")
    rig.rewards = rig.collect(Reward, "reward")
    rig.values_only = rig.collect(Float64, "reward/value")
    return rig


def play(rig, entry) -> int:
    at, pair = entry
    rig.publish(pair["CameraInfo"])
    rig.images.publish(pair["CompressedImage"])
    return at


def at_stamp(messages, at):
    return next((m for m in messages if convert.to_ns(m.header.stamp) == at), None)


@pytest.fixture(scope="module")
def live(rig, messages):
    """One session: first frame, reward task, the other frames, questions; what came back."""
    first = play(rig, messages[0])
    rig.wait("depth of the first frame", lambda: at_stamp(rig.depth, first), 30.0)
    request = SetRewardTask.Request()
    request.task.task_id, request.task.goal, request.task.distance_m = "push", "move_distance", 0.36
    request.task.point_px = Pixel(u=POINT_PX[0], v=POINT_PX[1])
    response = rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request)
    for entry in messages[1:]:
        at = play(rig, entry)
        rig.wait("the reward", lambda at=at: at_stamp(rig.rewards, at), 30.0)
    # topics are not ordered among each other: a large image may come seconds after the small reward
    for at, _ in messages:
        for outputs in (rig.depth, rig.confidence, rig.depth_infos):
            rig.wait("depth, confidence and calibration", lambda a=at, o=outputs: at_stamp(o, a), 30.0)
    rig.wait("all values", lambda: len(rig.values_only) == len(rig.rewards), 30.0)
    last = messages[-1][0]
    # an action client of rclpy forgets the feedback of a goal once its result is there; the topic does not
    feedback = rig.collect(Ask.Impl.FeedbackMessage, "ask/_action/feedback")
    depth = rig.ask(
        Ask.Goal(task=DEPTH_TASK, points_px=[Pixel(u=POINT_PX[0], v=POINT_PX[1])], stamps=[to_time(first)])
    )
    free = rig.ask(Ask.Goal(question="How far is it?", max_new_tokens=12))
    motion = rig.ask(Ask.Goal(task="total_distance"))
    return {
        "response": response,
        "depth": depth,
        "free": free,
        "motion": motion,
        "feedback": [m.feedback for m in feedback if m.goal_id == feedback[0].goal_id],
        "first": first,
        "last": last,
    }


@pytest.fixture(scope="module")
def offline(bundle):
    """The same session without ROS."""
    pipeline = SpatialPipeline(SpatialModel.load(str(bundle), threads=2))
    with open_bag(BAG) as bag:
        frames = list(islice(FrameStream(bag, choose(bag.topics())), FRAMES))
    results = [pipeline.process(frames[0])]
    task = RewardTask("push", POINT_PX, RewardGoal.MOVE_DISTANCE, distance_m=0.36)
    pipeline.set_reward_task(task)
    results += [pipeline.process(f) for f in frames[1:]]

    def ask(**fields):
        return pipeline.ask(AskRequest(**{"task": "", **fields}))

    answers = {
        "depth": ask(task=DEPTH_TASK, frames=(frames[0],), points_px=(POINT_PX,)),
        "free": ask(question="How far is it?", frames=(frames[-1],), max_new_tokens=12),
        "motion": ask(task="total_distance", frames=(frames[0], frames[-1])),
    }
    return results, answers


def to_time(at_ns: int) -> Time:
    return Time(sec=at_ns // 10**9, nanosec=at_ns % 10**9)


def test_depth_calibration_and_confidence_belong_together(rig, live, messages):
    for at, pair in messages:
        depth, confidence, info = (at_stamp(m, at) for m in (rig.depth, rig.confidence, rig.depth_infos))
        assert depth.header == confidence.header == info.header
        assert depth.header.frame_id == pair["CompressedImage"].header.frame_id
        assert (
            (depth.width, depth.height) == (confidence.width, confidence.height) == (info.width, info.height)
        )
        assert (depth.encoding, confidence.encoding) == ("32FC1", "32FC1")
        np.testing.assert_allclose(info.k, pair["CameraInfo"].k)


def test_no_frame_is_lost(rig, live, messages):
    assert [convert.to_ns(m.header.stamp) for m in rig.depth] == [at for at, _ in messages]
    assert [convert.to_ns(m.header.stamp) for m in rig.rewards] == [at for at, _ in messages[1:]]
    assert len(rig.values_only) == len(rig.rewards)


def test_depth_is_that_of_the_offline_run_bit_for_bit(rig, live, offline):
    results, _ = offline
    for result in results:
        msg = at_stamp(rig.depth, result.stamp_ns)
        np.testing.assert_array_equal(decode_depth(msg), result.depth_m)
        confidence = at_stamp(rig.confidence, result.stamp_ns)
        np.testing.assert_array_equal(
            np.frombuffer(confidence.data, np.float32).reshape(result.confidence.shape), result.confidence
        )


# all but the latency
REWARD_FIELDS = [f.name for f in dataclasses.fields(RewardOfCore) if f.name != "latency_s"]
ANSWER_FIELDS = [f.name for f in dataclasses.fields(Answer) if f.name != "latency_s"]


def same(one, other, fields) -> None:
    for name in fields:
        a, b = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_rewards_are_those_of_the_offline_run_bit_for_bit(rig, live, offline):
    results, _ = offline
    for result in results[1:]:
        msg = at_stamp(rig.rewards, result.stamp_ns)
        same(convert.reward_from_msg(msg), result.reward, REWARD_FIELDS)
    np.testing.assert_array_equal([v.data for v in rig.values_only], [m.reward for m in rig.rewards])


@pytest.mark.parametrize("name", ["depth", "free", "motion"])
def test_answers_are_those_of_the_offline_run_bit_for_bit(live, offline, name):
    wrapped = live[name]
    assert wrapped.result.error_code == 0, wrapped.result.error_msg
    same(convert.answer_from_msg(wrapped.result.answer), offline[1][name], ANSWER_FIELDS)


def test_the_reward_task_comes_back_with_its_reference_frame(live):
    assert live["response"].success
    assert live["response"].error_code == 0
    assert convert.to_ns(live["response"].task.reference_stamp) == live["first"]


def test_feedback_grows_to_the_answer(live):
    texts = [f.text for f in live["feedback"]]
    assert len(texts) > 1
    # the last one may lose the zeros before a number
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts[:-1]))
    assert live["depth"].result.answer.text == texts[-1].strip()
    assert [f.tokens for f in live["feedback"]] == list(range(1, len(texts) + 1))


def test_a_question_about_two_frames_without_stamps_means_reference_and_newest(live):
    stamps = [convert.to_ns(s) for s in live["motion"].result.answer.stamps]
    assert stamps == [live["first"], live["last"]]


def test_an_answer_in_metres_says_unit_and_frame(live):
    answer = live["depth"].result.answer
    assert (answer.kind, answer.unit, len(answer.values)) == ("scalar", "m", 1)
    assert answer.header.frame_id.endswith("optical_frame")
    assert convert.to_ns(answer.header.stamp) == live["first"]
    assert answer.model.startswith("spatial-mllm-mini/")


@pytest.mark.parametrize(
    ("number", "goal"),
    [
        (403, Ask.Goal(task=DEPTH_TASK, points_px=[Pixel(u=640.0, v=10.0)])),
        (403, Ask.Goal(task=DEPTH_TASK, points_px=[Pixel(u=-1.0, v=10.0)])),
        (408, Ask.Goal(task=DEPTH_TASK, points_px=[Pixel(u=float("nan"), v=10.0)])),
        (411, Ask.Goal(task=DEPTH_TASK)),
        (404, Ask.Goal(task="telepathy")),
        (401, Ask.Goal(question=" \n")),
        (402, Ask.Goal(question="far " * 100_000)),
        (408, Ask.Goal(question="far?", max_new_tokens=0)),
        (408, Ask.Goal(question="far?", max_new_tokens=-(2**31))),
        (301, Ask.Goal(question="far?", stamps=[Time(sec=1)])),
        (405, Ask.Goal(task="total_distance", stamps=[Time(sec=1_700_000_000)])),
        (406, Ask.Goal(task="total_distance", stamps=[Time(sec=1_700_000_000)] * 2)),
    ],
    ids=lambda v: str(v) if isinstance(v, int) else "goal",
)
def test_requests_that_cannot_be_answered_have_their_number(rig, live, number, goal):
    before = rig.fault_counts().get(number, 0)
    done = rig.ask(goal)
    assert done.result.error_code == number, done.result.error_msg
    assert done.result.error_msg
    assert done.result.answer.error_code == number
    assert list(done.result.answer.values) == []
    rig.wait("the count", lambda: rig.fault_counts().get(number, 0) == before + 1)
    assert rig.ask(Ask.Goal(question="far?", max_new_tokens=1)).result.error_code == 0


def test_an_image_in_the_goal_is_answered_as_a_kept_one(rig, live, offline, messages):
    pair = messages[0][1]
    done = rig.ask(
        Ask.Goal(
            task=DEPTH_TASK,
            points_px=[Pixel(u=POINT_PX[0], v=POINT_PX[1])],
            compressed_images=[pair["CompressedImage"]],
            camera_infos=[pair["CameraInfo"]],
        )
    )
    same(convert.answer_from_msg(done.result.answer), offline[1]["depth"], ANSWER_FIELDS)


def test_an_image_in_the_goal_without_calibration_is_refused_for_metres(rig, live, messages):
    goal = Ask.Goal(
        task=DEPTH_TASK,
        points_px=[Pixel(u=1.0, v=1.0)],
        compressed_images=[messages[0][1]["CompressedImage"]],
    )
    assert rig.ask(goal).result.error_code == 201


def test_reset_reference_starts_anew_from_the_newest_frame(rig, live):
    response = rig.call(Trigger, f"{rig.namespace}/reset_reference", Trigger.Request())
    assert response.success
    assert str(live["last"]) in response.message


def test_reward_tasks_that_make_no_sense_have_their_number(rig, live):
    request = SetRewardTask.Request()
    request.task.goal, request.task.distance_m = "move_distance", 0.2
    request.task.point_px = Pixel(u=9999.0, v=0.0)
    assert rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request).error_code == 403
    request.task.point_px, request.task.tolerance_m = Pixel(u=3.0, v=3.0), -1.0
    assert rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request).error_code == 408
    request.task.tolerance_m, request.task.reference_stamp = 0.02, Time(sec=5)
    assert rig.call(SetRewardTask, f"{rig.namespace}/set_reward_task", request).error_code == 301


def test_points_are_the_depth_seen_from_the_camera(start, bundle, messages):
    rig = start(model=str(bundle), threads=2, image_transport="compressed", points__enabled=True)
    clouds = rig.collect(PointCloud2, "points")
    depth = rig.collect(Image, "depth/image")
    at = play(rig, messages[0])
    rig.wait("cloud and depth", lambda: at_stamp(clouds, at) and at_stamp(depth, at), 30.0)
    cloud = at_stamp(clouds, at)
    points = np.frombuffer(cloud.data, np.float32).reshape(cloud.height, cloud.width, 4)
    np.testing.assert_array_equal(points[..., 2], decode_depth(at_stamp(depth, at)))
    k = np.reshape(messages[0][1]["CameraInfo"].k, (3, 3))
    u = points[100, 200, 0] / points[100, 200, 2] * k[0, 0] + k[0, 2]
    assert u == pytest.approx(200, abs=0.5)


def test_c32_a_bag_that_loops_starts_the_shaping_anew(rig, live, messages):
    """The jump from the end to the beginning is no movement that could be rewarded or punished."""
    rewards = []
    for _, pair in messages[1:3]:
        for msg in pair.values():
            msg.header.stamp.sec -= 100
        at = convert.to_ns(pair["CameraInfo"].header.stamp)
        play(rig, (at, pair))
        rig.wait("the reward after the loop", lambda at=at: at_stamp(rig.rewards, at), 30.0)
        rewards.append(at_stamp(rig.rewards, at))
    assert rewards[0].reward == 0.0
    assert rewards[1].reward == pytest.approx(0.99 * rewards[1].progress - rewards[0].progress)
    rig.wait("the jump on /diagnostics", lambda: rig.fault_counts().get(303, 0) == 1)
