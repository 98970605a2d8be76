"""Collects outputs of a run beside the truth and turns them into an Evaluation.

It does not run a model: outputs come from an offline run or from a recording of the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import Answer
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.evaluation.metrics import depth_error, displacement_error, mean_depth_error, spearman
from spatial_mllm_core.evaluation.results import (
    Evaluation,
    FrameFigures,
    FramePictures,
    QuestionRow,
    RewardPoint,
)
from spatial_mllm_core.evaluation.run import Question
from spatial_mllm_core.evaluation.truth import BagTruth, depth_at, surface_point_m
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.reward.task import Reward, RewardTask
from spatial_mllm_core.tasks import TaskValue, camera_motion, object_motion
from spatial_mllm_core.tasks import depth as depth_tasks
from spatial_mllm_core.tasks.text import pixel_to_coordinate

_NBSP = "\u00a0"
Point = tuple[float, float]


@dataclass(frozen=True)
class _Seen:
    """What is kept of a frame that a question or the reward starts from."""

    frame_id: str
    camera: CameraModel | None
    width: int
    height: int
    depths_m: dict[Point, float | None]
    surface_m: dict[Point, NDArray[np.float64] | None]


class Scorer:
    """Feed it with frames in order of stamps (`see`), then with outputs; read `evaluation` at the end.

    Args:
        bag, model: names for the report.
        truth: what is true.
        questions: what will be asked, so that the truth is noted when their first frame passes.
        reward_task: the reward task with its reference stamp resolved, if any.
        picture_stamps_ns: frames whose pictures are kept.
    """

    def __init__(
        self,
        bag: str,
        model: str,
        truth: BagTruth,
        questions: Sequence[Question] = (),
        reward_task: RewardTask | None = None,
        picture_stamps_ns: Collection[int] = (),
    ) -> None:
        self.evaluation = Evaluation(bag=bag, model=model)
        self._truth = truth
        self._reward_task = reward_task
        self._pictures = frozenset(picture_stamps_ns)
        self._points: dict[int, set[Point]] = {}
        for question in questions:
            if question.stamps_ns:
                self._points.setdefault(question.stamps_ns[0], set()).update(question.points_px)
        if reward_task is not None:
            self._points.setdefault(reward_task.reference_stamp_ns, set()).add(reward_task.point_px)
        self._seen: dict[int, _Seen] = {}
        self._first_ns: int | None = None
        self._last_ns = 0
        self._predicted_vectors: list[tuple[float, float, float]] = []
        self._true_vectors: list[NDArray[np.float64]] = []

    def see(self, frame: Frame) -> NDArray[np.float32] | None:
        """Take notice of a frame of the bag; returns its true depth, (H, W) metres, or None."""
        stamp_ns = frame.stamp_ns
        if self._first_ns is None:
            self._first_ns = stamp_ns
        self._last_ns = max(self._last_ns, stamp_ns)
        self.evaluation.frames_refused += frame.camera is None
        true_m = self._truth.depth_m(frame)
        if stamp_ns in self._points:
            depths_m: dict[Point, float | None] = {}
            surface_m: dict[Point, NDArray[np.float64] | None] = {}
            for point in self._points[stamp_ns]:
                depths_m[point] = None if true_m is None else depth_at(true_m, point)
                surface_m[point] = None
                if true_m is not None and frame.camera is not None:
                    surface_m[point] = surface_point_m(frame.camera, true_m, point)
            self._seen[stamp_ns] = _Seen(
                frame.frame_id, frame.camera, frame.width, frame.height, depths_m, surface_m
            )
        return true_m

    def depth(
        self,
        frame: Frame,
        depth_m: NDArray[np.float32],
        confidence: NDArray[np.float32] | None,
        true_m: NDArray[np.float32] | None,
    ) -> None:
        """Judge a predicted depth image."""
        self.evaluation.frames_answered += 1
        error = aligned = None
        if true_m is not None and true_m.shape == depth_m.shape:
            error = depth_error(depth_m, true_m)
            aligned = depth_error(depth_m, true_m, align_scale=True)
        time_s = self._time_s(frame.stamp_ns)
        self.evaluation.frames.append(FrameFigures(frame.stamp_ns, time_s, error, aligned))
        if frame.stamp_ns in self._pictures:
            task = self._reward_task
            point = task.point_px if task is not None and task.reference_stamp_ns == frame.stamp_ns else None
            self.evaluation.pictures.append(
                FramePictures(frame.stamp_ns, time_s, frame.image_rgb, depth_m, true_m, confidence, point)
            )

    def reward(self, reward: Reward) -> None:
        """Put a reward beside the true displacement."""
        true = self._true_displacement(reward)
        time_s = self._time_s(reward.stamp_ns)
        true_m = math.nan if true is None else float(np.linalg.norm(true))
        self.evaluation.rewards.append(
            RewardPoint(reward.stamp_ns, time_s, reward.distance_m, true_m, reward.progress, reward.reward)
        )
        # the reference frame against itself is no prediction
        if true is not None and reward.valid and reward.stamp_ns != reward.reference_stamp_ns:
            self._predicted_vectors.append(reward.displacement_m)
            self._true_vectors.append(true)

    def asked(self, question: Question, answer: Answer | None, fault: SpatialError | None = None) -> None:
        """Judge an answer, or note the fault that came instead."""
        truth = self._question_truth(question)
        right: bool | None = None
        if truth is not None and question.task:
            right = False
            if answer is not None:
                task = tasks.get(question.task)
                right = task.is_correct(task.parse(answer.text), truth)
        seen = self._seen.get(question.stamps_ns[0]) if question.stamps_ns else None
        self.evaluation.questions.append(
            QuestionRow(
                stamp_ns=question.stamps_ns[0] if question.stamps_ns else 0,
                task=question.task,
                asked=words_of(question),
                answer="" if answer is None else format_answer(answer),
                truth="" if truth is None else _format_truth(question, truth, seen),
                is_correct=right,
                confidence=0.0 if answer is None else answer.confidence,
                latency_s=0.0 if answer is None else answer.latency_s,
                fault="" if fault is None else str(fault),
            )
        )

    def finish(self, frames_in: int) -> Evaluation:
        """Close the books: means, trend and notes."""
        e = self.evaluation
        e.frames_in = frames_in
        e.duration_s = 0.0 if self._first_ns is None else (self._last_ns - self._first_ns) / 1e9
        e.depth = mean_depth_error([f.depth for f in e.frames if f.depth is not None])
        e.aligned = mean_depth_error([f.aligned for f in e.frames if f.aligned is not None])
        if self._true_vectors:
            e.displacement = displacement_error(
                np.array(self._predicted_vectors), np.array(self._true_vectors)
            )
        reference = None if self._reward_task is None else self._reward_task.reference_stamp_ns
        points = [r for r in e.rewards if r.stamp_ns != reference]
        e.trend = spearman([r.predicted_m for r in points], [r.true_m for r in points])
        return e

    # -- truth ------------------------------------------------------------------------------------

    def _time_s(self, stamp_ns: int) -> float:
        return 0.0 if self._first_ns is None else (stamp_ns - self._first_ns) / 1e9

    def _true_displacement(self, reward: Reward) -> NDArray[np.float64] | None:
        task = self._reward_task
        if task is None or reward.reference_stamp_ns != task.reference_stamp_ns:
            return None
        return self._moved_m(task.reference_stamp_ns, reward.stamp_ns, task.point_px)

    def _moved_m(self, first_ns: int, second_ns: int, point_px: Point) -> NDArray[np.float64] | None:
        """True movement of the object's surface point; None unless the truth says that the point is on the object."""
        seen, file = self._seen.get(first_ns), self._truth.file
        if (
            seen is None
            or file is None
            or (file.point_px, file.reward_task.reference_stamp_ns) != (point_px, first_ns)
        ):
            return None
        surface_m = seen.surface_m.get(point_px)
        if surface_m is None:
            return None
        return self._truth.object_displacement_m(seen.frame_id, first_ns, second_ns, surface_m)

    def _question_truth(self, question: Question) -> TaskValue | None:
        seen = self._seen.get(question.stamps_ns[0]) if question.stamps_ns else None
        if seen is None:
            return None
        depths = [seen.depths_m.get(p) for p in question.points_px]
        if question.task == depth_tasks.DEPTH_VALUE.name and depths and depths[0] is not None:
            return depth_tasks.depth_truth(depths[0])
        if question.task == depth_tasks.DEPTH_COMPARISON.name and len(depths) == 2:
            one, other = depths
            if one is None or other is None:
                return None
            first, second = (pixel_to_coordinate(p, seen.width, seen.height) for p in question.points_px)
            return depth_tasks.comparison_truth((first, second), (one, other))
        if len(question.stamps_ns) != 2:
            return None
        first_ns, second_ns = question.stamps_ns
        if question.task in (camera_motion.CAMERA_DISTANCE.name, camera_motion.CAMERA_VECTOR.name):
            moved = self._truth.camera_displacement_m(seen.frame_id, first_ns, second_ns)
            is_length = question.task == camera_motion.CAMERA_DISTANCE.name
            if moved is None:
                return None
            return camera_motion.distance_truth(moved) if is_length else camera_motion.vector_truth(moved)
        if question.points_px and question.task in {
            t.name for d in (object_motion.OBJECT_DISTANCE, object_motion.OBJECT_VECTOR) for t in d.values()
        }:
            moved = self._moved_m(first_ns, second_ns, question.points_px[0])
            is_length = question.task in {t.name for t in object_motion.OBJECT_DISTANCE.values()}
            if moved is None:
                return None
            return object_motion.distance_truth(moved) if is_length else object_motion.vector_truth(moved)
        return None


# -- words ------------------------------------------------------------------------------------------


def words_of(question: Question) -> str:
    """A question in words for a person, with raw pixels."""
    if not question.task:
        return question.question
    points = [f"({u:g},{_NBSP}{v:g})" for u, v in question.points_px]
    if question.task == depth_tasks.DEPTH_VALUE.name and points:
        return f"How deep is the point {points[0]}?"
    if question.task == depth_tasks.DEPTH_COMPARISON.name and len(points) == 2:
        return f"Which point is nearer, {points[0]} or {points[1]}?"
    if question.task in {t.name for t in object_motion.OBJECT_DISTANCE.values()} and points:
        return f"How far did the thing at {points[0]} move between the two images?"
    if question.task in {t.name for t in object_motion.OBJECT_VECTOR.values()} and points:
        return f"Along which vector did the thing at {points[0]} move between the two images?"
    if question.task == camera_motion.CAMERA_DISTANCE.name:
        return "How far did the camera move between the two images?"
    if question.task == camera_motion.CAMERA_VECTOR.name:
        return "Along which vector did the camera move between the two images?"
    return f"{question.task} {' '.join(points)}".strip()


def format_answer(answer: Answer) -> str:
    """An answer for a person."""
    if answer.unit == "rad":
        return f"{math.degrees(answer.values[0]):.1f}°"
    if answer.kind == "scalar":
        return f"{_metres(answer.values[0])}{_NBSP}{answer.unit}"
    if answer.kind == "vector":
        return f"({f',{_NBSP}'.join(_metres(v) for v in answer.values)}){_NBSP}{answer.unit}"
    if answer.kind == "pixel":
        return f"({f',{_NBSP}'.join(f'{v:.0f}' for v in answer.values)})"
    return answer.label or answer.text


def _metres(value: float) -> str:
    """Millimetres are the grammar's last digit; a model's nonsense must not fill a line with zeros."""
    return f"{value:.3f}" if abs(value) < 1e5 else f"{value:.3g}"


def _format_truth(question: Question, truth: TaskValue, seen: _Seen | None) -> str:
    kind = tasks.get(question.task).kind
    if kind == "scalar":
        return f"{_metres(truth.values[0])}{_NBSP}m"
    if kind == "vector":
        return f"({f',{_NBSP}'.join(_metres(v) for v in truth.values)}){_NBSP}m"
    if kind == "coordinate" and seen is not None:
        named = {pixel_to_coordinate(p, seen.width, seen.height): p for p in question.points_px}
        point = named.get((round(truth.values[0]), round(truth.values[1])))
        return "" if point is None else f"({point[0]:g},{_NBSP}{point[1]:g})"
    return truth.label
