"""SpatialPipeline: one camera's way from frame to depth, answers and rewards.

The live nodes and the offline evaluation both call exactly this, so a replay equals the live
run bit for bit. Not thread-safe: one inference thread calls it. Knows neither topics nor files.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Added, Frame, FrameMemory
from spatial_mllm_core.model.engine import Float32
from spatial_mllm_core.model.spatial_model import OnText, ShouldStop, SpatialModel
from spatial_mllm_core.reward.annotator import RewardAnnotator
from spatial_mllm_core.reward.task import Reward, RewardTask


@dataclass(frozen=True)
class FrameResult:
    """What one frame gave.

    Attributes:
        depth_m, confidence: (H, W) float32 at the frame's size, None when not wanted or impossible.
        depth_error: why there is no depth.
        reward: None when no reward task is set.
        answers: the answers the reward rests on.
    """

    stamp_ns: int
    frame_id: str
    camera: CameraModel | None
    depth_m: Float32 | None
    confidence: Float32 | None
    depth_error: SpatialError | None
    reward: Reward | None
    answers: tuple[Answer, ...]
    latency_s: float


class SpatialPipeline:
    """A model, the kept frames and the running reward task."""

    def __init__(self, model: SpatialModel, memory_capacity: int = 32, memory_bytes: int = 128 << 20) -> None:
        self.model = model
        self.memory = FrameMemory(capacity=memory_capacity, max_bytes=memory_bytes)
        self._annotator: RewardAnnotator | None = None

    @property
    def reward_task(self) -> RewardTask | None:
        """The running task, its reference stamp resolved."""
        return None if self._annotator is None else self._annotator.task

    def process(self, frame: Frame, *, want_depth: bool = True, want_reward: bool = True) -> FrameResult:
        """Keep a frame and compute what is wanted of it; never raises for a fault of the frame."""
        began = time.monotonic()
        if self.memory.add(frame) is Added.JUMP and self._annotator is not None:
            self._annotator.restart()
        depth_m = confidence = None
        depth_error = None
        if want_depth:
            try:
                seen = self.model.perceive(frame)
                depth_m, confidence = seen.depth_m, seen.confidence
            except SpatialError as fault:
                depth_error = fault
        reward = None
        answers: tuple[Answer, ...] = ()
        if want_reward and self._annotator is not None:
            reward, answers = self._annotator.judge(frame)
        return FrameResult(
            stamp_ns=frame.stamp_ns,
            frame_id=frame.frame_id,
            camera=frame.camera,
            depth_m=depth_m,
            confidence=confidence,
            depth_error=depth_error,
            reward=reward,
            answers=answers,
            latency_s=time.monotonic() - began,
        )

    def frame_at(self, stamp_ns: int, camera_name: str | None = None, tolerance_ns: int = 0) -> Frame:
        """A kept frame by stamp; 0 means the newest.

        Raises:
            SpatialError: NO_FRAME, FRAME_EXPIRED or FRAME_NOT_YET.
        """
        if stamp_ns == 0:
            return self.memory.latest(camera_name)
        return self.memory.at(stamp_ns, camera_name, tolerance_ns=tolerance_ns)

    def ask(
        self, request: AskRequest, on_text: OnText | None = None, should_stop: ShouldStop | None = None
    ) -> Answer:
        """Answer a question about given frames; see `SpatialModel.ask`."""
        return self.model.ask(request, on_text, should_stop)

    def set_reward_task(self, task: RewardTask) -> RewardTask:
        """Start an episode; its reference frame stays kept until the next task.

        Returns:
            The task with its reference stamp resolved.

        Raises:
            SpatialError: BAD_NUMBER, PIXEL_OUTSIDE, a 2xx fault of the frame, or a 3xx when it is not kept.
        """
        annotator = RewardAnnotator(self.model, task, self.frame_at(task.reference_stamp_ns))
        self.clear_reward_task()
        self._annotator = annotator
        self.memory.pin(annotator.reference.stamp_ns)
        return annotator.task

    def clear_reward_task(self) -> None:
        """End the episode."""
        if self._annotator is not None:
            self.memory.unpin(self._annotator.reference.stamp_ns)
        self._annotator = None

    def reset_reference(self, stamp_ns: int = 0) -> RewardTask:
        """Start the running task anew from another reference frame (0 = the newest).

        Raises:
            SpatialError: NO_REWARD_TASK, or as `set_reward_task`.
        """
        if self._annotator is None:
            raise SpatialError(
                ErrorCode.NO_REWARD_TASK, "there is no reward task whose reference could be reset"
            )
        task = self._annotator.task
        return self.set_reward_task(replace(task, reference_stamp_ns=stamp_ns))
