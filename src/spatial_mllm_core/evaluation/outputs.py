"""The outputs of a run as a bag: topic names, writing, and reading back live or offline recordings.

The names are those of the nodes, so that a recording of the live topics reads the same. Knows no model.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.bags import BagReader, BagWriter, messages
from spatial_mllm_core.bags.message_types import make_header, make_message, stamp_ns_of
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.run import Asked, Question
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.pipeline import FrameResult
from spatial_mllm_core.reward.task import Reward, RewardTask

NAMESPACE = "/spatial_mllm"
DEPTH = "depth/image"
DEPTH_COMPRESSED = "depth/image/compressedDepth"
CAMERA_INFO = "depth/camera_info"
CONFIDENCE = "depth/confidence"
ANSWERS = "answers"
REWARD = "reward"
REWARD_VALUE = "reward/value"
REWARD_TASK = "reward_task"
QUESTIONS = "questions"

TYPES = {
    DEPTH: "sensor_msgs/msg/Image",
    DEPTH_COMPRESSED: "sensor_msgs/msg/CompressedImage",
    CAMERA_INFO: "sensor_msgs/msg/CameraInfo",
    CONFIDENCE: "sensor_msgs/msg/Image",
    ANSWERS: "spatial_mllm_msgs/msg/SpatialAnswer",
    REWARD: "spatial_mllm_msgs/msg/Reward",
    REWARD_VALUE: "std_msgs/msg/Float64",
    REWARD_TASK: "spatial_mllm_msgs/msg/RewardTask",
    QUESTIONS: "std_msgs/msg/String",
}
_NS = 1_000_000_000


def topic(name: str) -> str:
    """Full name of an output topic."""
    return f"{NAMESPACE}/{name}"


# -- what is read back ------------------------------------------------------------------------------


@dataclass(frozen=True)
class DepthOutput:
    """A recorded depth image, (H, W) metres; `is_millimetres` when it was stored as 16-bit millimetres."""

    stamp_ns: int
    frame_id: str
    depth_m: NDArray[np.float32]
    is_millimetres: bool


@dataclass(frozen=True)
class ConfidenceOutput:
    """A recorded confidence image, (H, W) in [0, 1]."""

    stamp_ns: int
    confidence: NDArray[np.float32]


@dataclass(frozen=True)
class AnswerOutput:
    """A recorded answer; with `error_code` not 0 only task, question and stamps mean anything."""

    answer: Answer
    error_code: int
    error_sentence: str


Output = DepthOutput | ConfidenceOutput | AnswerOutput | Reward | RewardTask | Question


def read_outputs(bag: BagReader) -> Iterator[Output]:
    """Iterate the outputs of a recording, whatever their namespace.

    Raises:
        SpatialError: BAG_UNREADABLE when the bag has none of our output topics.
    """
    kinds: dict[str, str] = {}
    for found in bag.topics():
        for name in sorted(TYPES, key=len, reverse=True):
            if found.name.endswith("/" + name) and found.type_name == TYPES[name]:
                kinds.setdefault(found.name, name)
                break
    if not {DEPTH, DEPTH_COMPRESSED, ANSWERS, REWARD} & set(kinds.values()):
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"'{bag.path}' holds no outputs of spatial_mllm (depth/image, answers, reward); "
            "record them, or make them with 'spatial-mllm annotate'",
        )
    for item in bag.messages(kinds):
        output = _read(kinds[item.topic], item.message)
        if output is not None:
            yield output


def _read(name: str, message: Any) -> Output | None:
    from spatial_mllm_core.images import decode_depth, decode_float

    if name == DEPTH:
        millimetres = message.encoding != "32FC1"
        return DepthOutput(stamp_ns_of(message), message.header.frame_id, decode_depth(message), millimetres)
    if name == DEPTH_COMPRESSED:
        return DepthOutput(stamp_ns_of(message), message.header.frame_id, decode_depth(message), True)
    if name == CONFIDENCE:
        return ConfidenceOutput(stamp_ns_of(message), decode_float(message))
    if name == ANSWERS:
        return _answer(message)
    if name == REWARD:
        return _reward(message)
    if name == REWARD_TASK:
        return messages.reward_task_of(message)
    if name == QUESTIONS:
        return question_of_text(message.data)
    return None


def _answer(m: Any) -> AnswerOutput:
    answer = Answer(
        task=m.task,
        question=m.question,
        text=m.text,
        kind=m.kind,
        values=tuple(float(v) for v in m.values),
        unit=m.unit,
        label=m.label,
        frame_id=m.header.frame_id,
        stamps_ns=tuple(s.sec * _NS + s.nanosec for s in m.stamps),
        confidence=m.confidence,
        latency_s=m.latency_s,
        model=m.model,
    )
    return AnswerOutput(answer, int(m.error_code), m.error_msg)


def _reward(m: Any) -> Reward:
    return Reward(
        stamp_ns=stamp_ns_of(m),
        frame_id=m.header.frame_id,
        reference_stamp_ns=m.reference_stamp.sec * _NS + m.reference_stamp.nanosec,
        task_id=m.task_id,
        displacement_m=(m.displacement_m.x, m.displacement_m.y, m.displacement_m.z),
        distance_m=m.distance_m,
        progress=m.progress,
        reward=m.reward,
        success=bool(m.success),
        valid=bool(m.valid),
        confidence=m.confidence,
        latency_s=m.latency_s,
        model=m.model,
        error_code=int(m.error_code),
        error_sentence=m.error_msg,
    )


def question_text(question: Question) -> str:
    """The JSON under which a question stands in a recording, so that a replay can ask it again."""
    return json.dumps(
        {
            "task": question.task,
            "question": question.question,
            "stamps_ns": list(question.stamps_ns),
            "points_px": [list(p) for p in question.points_px],
            "max_new_tokens": question.max_new_tokens,
        }
    )


def question_of_text(text: str) -> Question | None:
    """Inverse of `question_text`; None for a string that is something else."""
    try:
        plain = json.loads(text)
        return Question(
            task=str(plain["task"]),
            question=str(plain["question"]),
            stamps_ns=tuple(int(s) for s in plain["stamps_ns"]),
            points_px=tuple((float(u), float(v)) for u, v in plain["points_px"]),
            max_new_tokens=int(plain["max_new_tokens"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


# -- writing ----------------------------------------------------------------------------------------


class OutputWriter:
    """Writes what an offline run gives; log times are the stamps of the images, so equal runs give equal bytes.

    Args:
        path: bag to make, see `BagWriter`.
        with_confidence: also write the confidence images (32FC1).
        as_float: depth as 32FC1 instead of 16-bit millimetres in PNG; exact, and ten times larger.
    """

    def __init__(self, path: Path | str, *, with_confidence: bool = False, as_float: bool = False) -> None:
        self._bag = BagWriter(path)
        self._with_confidence = with_confidence
        self._as_float = as_float

    def __enter__(self) -> OutputWriter:
        self._bag.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bag.__exit__(kind, error, trace)

    def frame(self, frame: Frame, result: FrameResult) -> None:
        """Write depth, its CameraInfo, the reward and the reward's own answers."""
        stamp_ns = result.stamp_ns
        if result.depth_m is not None and frame.camera is not None:
            if self._as_float:
                self._write(DEPTH, _float_image(stamp_ns, result.frame_id, result.depth_m), stamp_ns)
            else:
                depth = messages.compressed_depth(stamp_ns, result.frame_id, result.depth_m)
                self._write(DEPTH_COMPRESSED, depth, stamp_ns)
            self._write(CAMERA_INFO, _camera_info(frame), stamp_ns)
            if self._with_confidence and result.confidence is not None:
                self._write(CONFIDENCE, _float_image(stamp_ns, result.frame_id, result.confidence), stamp_ns)
        for answer in result.answers:
            self._write(ANSWERS, messages.answer_message(_timeless(answer)), stamp_ns)
        if result.reward is not None:
            self._write(REWARD, messages.reward_message(_timeless_reward(result.reward)), stamp_ns)
            self._write(
                REWARD_VALUE, make_message(TYPES[REWARD_VALUE], data=float(result.reward.reward)), stamp_ns
            )

    def reward_task(self, task: RewardTask, log_time_ns: int) -> None:
        """Write a reward task as it is used (its reference stamp resolved)."""
        self._write(REWARD_TASK, messages.reward_task_message(task), log_time_ns)

    def asked(self, asked: Asked, log_time_ns: int) -> None:
        """Write a question and what came of it."""
        self._write(
            QUESTIONS, make_message(TYPES[QUESTIONS], data=question_text(asked.question)), log_time_ns
        )
        if asked.answer is not None:
            message = messages.answer_message(_timeless(asked.answer))
        else:
            message = messages.answer_message(_no_answer(asked.question))
            assert asked.fault is not None
            message.error_code = int(asked.fault.code)
            message.error_msg = asked.fault.sentence
        self._write(ANSWERS, message, log_time_ns)

    def _write(self, name: str, message: Any, log_time_ns: int) -> None:
        self._bag.add_topic(topic(name), TYPES[name])
        self._bag.write(topic(name), message, log_time_ns)


def _timeless(answer: Answer) -> Answer:
    """The answer without its wall time, which would make equal runs differ."""
    from dataclasses import replace

    return replace(answer, latency_s=0.0)


def _timeless_reward(reward: Reward) -> Reward:
    from dataclasses import replace

    return replace(reward, latency_s=0.0)


def _no_answer(question: Question) -> Answer:
    return Answer(
        task=question.task,
        question=question.question,
        text="",
        kind="",
        values=(),
        unit="",
        label="",
        frame_id="",
        stamps_ns=question.stamps_ns,
        confidence=0.0,
        latency_s=0.0,
        model="",
    )


def _float_image(stamp_ns: int, frame_id: str, values: NDArray[np.float32]) -> Any:
    from spatial_mllm_core.images import encode_depth_32fc1

    fields = encode_depth_32fc1(values)
    return make_message(
        TYPES[DEPTH],
        header=make_header(stamp_ns, frame_id),
        height=fields.height,
        width=fields.width,
        encoding=fields.encoding,
        is_bigendian=fields.is_bigendian,
        step=fields.step,
        data=np.frombuffer(fields.data, np.uint8),
    )


def _camera_info(frame: Frame) -> Any:
    fields = frame.require_camera().camera_info_fields()
    return messages.camera_info(
        frame.stamp_ns,
        frame.frame_id,
        width=fields.width,
        height=fields.height,
        distortion_model=fields.distortion_model,
        d=np.asarray(fields.d, np.float64),
        k=np.asarray(fields.k, np.float64),
        r=np.asarray(fields.r, np.float64),
        p=np.asarray(fields.p, np.float64),
    )
