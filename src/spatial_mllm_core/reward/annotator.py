"""RewardAnnotator: asks two displacement questions per frame and turns them into a reward."""

from __future__ import annotations

import math
import time
from dataclasses import replace

from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_core.reward.potential import check_task, is_success, potential
from spatial_mllm_core.reward.task import Reward, RewardTask
from spatial_mllm_core.tasks.object_motion import OBJECT_DISTANCE, OBJECT_VECTOR

MAX_ANSWER_TOKENS = 32


class RewardAnnotator:
    """The reward of every frame against one reference frame.

    Only one number is carried from frame to frame: the last valid potential.
    """

    def __init__(self, model: SpatialModel, task: RewardTask, reference: Frame) -> None:
        """Start an episode.

        Raises:
            SpatialError: BAD_NUMBER, PIXEL_OUTSIDE, or the reference frame's 2xx fault.
        """
        check_task(task)
        reference.require_camera()
        reference.require_pixel(task.point_px, "reference image")
        self.model = model
        self.task = replace(task, reference_stamp_ns=reference.stamp_ns)
        self.reference = reference
        self._last_potential: float | None = None

    def restart(self) -> None:
        """Forget the last potential: the next frame does not follow the last one (a bag that loops)."""
        self._last_potential = None

    def judge(self, frame: Frame) -> tuple[Reward, tuple[Answer, ...]]:
        """Reward of a frame, with the answers it rests on; a fault gives an invalid reward, never raises."""
        began = time.monotonic()
        try:
            displacement_m, distance_m, confidence, answers = self._displacement(frame)
        except SpatialError as fault:
            return self._invalid(frame, fault, time.monotonic() - began), ()
        phi = potential(self.task, displacement_m, distance_m)
        shaped = 0.0 if self._last_potential is None else self.task.gamma * phi - self._last_potential
        self._last_potential = phi
        reward = Reward(
            stamp_ns=frame.stamp_ns,
            frame_id=self.reference.frame_id,
            reference_stamp_ns=self.reference.stamp_ns,
            task_id=self.task.task_id,
            displacement_m=displacement_m,
            distance_m=distance_m,
            progress=phi,
            reward=shaped,
            success=is_success(self.task, displacement_m, distance_m),
            valid=True,
            confidence=confidence,
            latency_s=time.monotonic() - began,
            model=self.model.name,
        )
        return reward, answers

    def _displacement(
        self, frame: Frame
    ) -> tuple[tuple[float, float, float], float, float, tuple[Answer, ...]]:
        if frame.stamp_ns == self.reference.stamp_ns and frame.camera_name == self.reference.camera_name:
            return (0.0, 0.0, 0.0), 0.0, 1.0, ()
        moves = self.task.camera_moves
        length, vector = (
            self.model.ask(
                AskRequest(
                    task=question.name,
                    frames=(self.reference, frame),
                    points_px=(self.task.point_px,),
                    max_new_tokens=MAX_ANSWER_TOKENS,
                )
            )
            for question in (OBJECT_DISTANCE[moves], OBJECT_VECTOR[moves])
        )
        x, y, z = vector.values
        return (x, y, z), length.values[0], min(length.confidence, vector.confidence), (length, vector)

    def _invalid(self, frame: Frame, fault: SpatialError, latency_s: float) -> Reward:
        nan = math.nan
        return Reward(
            stamp_ns=frame.stamp_ns,
            frame_id=self.reference.frame_id,
            reference_stamp_ns=self.reference.stamp_ns,
            task_id=self.task.task_id,
            displacement_m=(nan, nan, nan),
            distance_m=nan,
            progress=nan,
            reward=nan,
            success=False,
            valid=False,
            confidence=0.0,
            latency_s=latency_s,
            model=self.model.name,
            error_code=int(fault.code),
            error_sentence=fault.sentence,
        )
