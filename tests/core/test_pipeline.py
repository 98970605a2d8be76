"""The pipeline: a frame gives depth and reward, faults stay with their frame, episodes can restart."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.pipeline import SpatialPipeline
from spatial_mllm_core.reward import RewardGoal, RewardTask

CAMERA = CameraModel.from_fov(320, 240, hfov_rad=1.2)


def frame(stamp_ns: int, camera: CameraModel | None = CAMERA) -> Frame:
    coarse = np.random.default_rng(stamp_ns).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Frame(stamp_ns, "optical", np.kron(coarse, np.ones((40, 40, 1), np.uint8)), camera)


def move(**changes) -> RewardTask:
    settings = {"distance_m": 0.3, **changes}
    return RewardTask("push", (160.0, 120.0), RewardGoal.MOVE_DISTANCE, **settings)


@pytest.fixture
def pipeline(model) -> SpatialPipeline:
    return SpatialPipeline(model, memory_capacity=4)


def test_a_frame_gives_depth_and_no_reward_until_a_task_is_set(pipeline):
    result = pipeline.process(frame(1))
    assert result.depth_m is not None
    assert result.depth_m.shape == (240, 320)
    assert result.reward is None
    assert pipeline.process(frame(2), want_depth=False).depth_m is None


def test_rewards_are_shaped_from_consecutive_potentials(pipeline):
    pipeline.process(frame(1))
    task = pipeline.set_reward_task(move(gamma=0.9))
    assert task.reference_stamp_ns == 1
    rewards = [pipeline.process(frame(s), want_depth=False).reward for s in (2, 3, 4)]
    assert all(r is not None and r.valid for r in rewards)
    assert rewards[0].reward == 0.0
    for previous, current in itertools.pairwise(rewards):
        assert current.reward == pytest.approx(0.9 * current.progress - previous.progress)
        assert current.reference_stamp_ns == 1
        assert 0.0 <= current.progress <= 1.0


def test_the_reference_frame_outlives_the_memory(pipeline):
    pipeline.process(frame(1))
    pipeline.set_reward_task(move())
    for stamp in range(2, 12):
        pipeline.process(frame(stamp), want_depth=False, want_reward=False)
    assert pipeline.frame_at(1).stamp_ns == 1
    reward = pipeline.process(frame(20), want_depth=False).reward
    assert reward.valid
    pipeline.clear_reward_task()
    pipeline.process(frame(21), want_depth=False)
    with pytest.raises(SpatialError) as fault:
        pipeline.frame_at(1)
    assert fault.value.code is ErrorCode.FRAME_EXPIRED


def test_a_frame_without_camera_gets_a_code_and_the_next_one_is_served(pipeline):
    pipeline.process(frame(1))
    pipeline.set_reward_task(move())
    bad = pipeline.process(frame(2, camera=None))
    assert bad.depth_m is None
    assert bad.depth_error.code is ErrorCode.NO_CALIBRATION
    assert not bad.reward.valid
    assert bad.reward.error_code == ErrorCode.NO_CALIBRATION
    assert math.isnan(bad.reward.reward)
    good = pipeline.process(frame(3))
    assert good.depth_error is None
    assert good.reward.valid


def test_reset_reference_starts_the_episode_anew(pipeline):
    with pytest.raises(SpatialError) as fault:
        pipeline.reset_reference()
    assert fault.value.code is ErrorCode.NO_REWARD_TASK
    pipeline.process(frame(1))
    pipeline.set_reward_task(move())
    pipeline.process(frame(2))
    assert pipeline.reset_reference().reference_stamp_ns == 2
    assert pipeline.process(frame(3), want_depth=False).reward.reference_stamp_ns == 2


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (move(distance_m=-1.0), ErrorCode.BAD_NUMBER),
        (RewardTask("t", (400.0, 1.0), RewardGoal.KEEP_STILL, distance_m=0.1), ErrorCode.PIXEL_OUTSIDE),
        (move(reference_stamp_ns=77), ErrorCode.FRAME_NOT_YET),
    ],
)
def test_a_refused_task_leaves_the_running_one(pipeline, task, code):
    pipeline.process(frame(1))
    running = pipeline.set_reward_task(move())
    with pytest.raises(SpatialError) as fault:
        pipeline.set_reward_task(task)
    assert fault.value.code is code
    assert pipeline.reward_task == running


def test_no_frame_yet(pipeline):
    with pytest.raises(SpatialError) as fault:
        pipeline.frame_at(0)
    assert fault.value.code is ErrorCode.NO_FRAME
