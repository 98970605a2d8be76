"""Is a replay the same as live? A recording's outputs against a fresh offline run, bit for bit.

The run judges exactly the frames that the recording judged, in its order, because a reward depends
on the frame judged before it. Wall times are the only fields left out.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.bags import CameraTopics, DepthTruth, FrameStream, open_bag
from spatial_mllm_core.evaluation import outputs
from spatial_mllm_core.evaluation.results import ReplayVerdict
from spatial_mllm_core.evaluation.run import Asked, Plan, Question, Wanted, run
from spatial_mllm_core.pipeline import SpatialPipeline
from spatial_mllm_core.reward.task import Reward, RewardTask

_WALL_TIMES = ("latency_s",)


@dataclass
class Recording:
    """What a recording holds, without the images.

    Attributes:
        depth_topic, confidence_topic: where the images are; "" when there are none.
        depth_stamps_ns: stamps of the depth images, in order.
        is_millimetres: depth was stored as 16-bit millimetres.
    """

    depth_topic: str = ""
    confidence_topic: str = ""
    is_millimetres: bool = False
    depth_stamps_ns: list[int] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)
    answers: list[outputs.AnswerOutput] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    reward_tasks: list[RewardTask] = field(default_factory=list)
    model: str = ""


def read_recording(path: Path | str) -> Recording:
    """Read a recording of outputs; only what is small is kept.

    Raises:
        SpatialError: BAG_MISSING, BAG_UNREADABLE.
    """
    recording = Recording()
    with open_bag(path) as bag:
        for topic in bag.topics():
            for name in (outputs.DEPTH, outputs.DEPTH_COMPRESSED):
                if topic.name.endswith("/" + name) and topic.count:
                    recording.depth_topic = topic.name
            if topic.name.endswith("/" + outputs.CONFIDENCE) and topic.count:
                recording.confidence_topic = topic.name
        for output in outputs.read_outputs(bag):
            if isinstance(output, outputs.DepthOutput):
                recording.depth_stamps_ns.append(output.stamp_ns)
                recording.is_millimetres = output.is_millimetres
            elif isinstance(output, Reward):
                recording.rewards.append(output)
            elif isinstance(output, outputs.AnswerOutput):
                recording.answers.append(output)
            elif isinstance(output, Question):
                recording.questions.append(output)
            elif isinstance(output, RewardTask):
                recording.reward_tasks.append(output)
    models = [r.model for r in recording.rewards] + [a.answer.model for a in recording.answers]
    recording.model = next((m for m in models if m), "")
    return recording


def compare(
    bag_path: Path | str,
    topics: CameraTopics,
    output_path: Path | str,
    pipeline: SpatialPipeline,
    on_frame: Callable[[], object] | None = None,
) -> ReplayVerdict:
    """Run the recording's frames, questions and reward task again and compare every output.

    Args:
        on_frame: called after each frame, for a progress bar.

    Raises:
        SpatialError: a bag cannot be read.
    """
    recording = read_recording(output_path)
    skipped: list[str] = []
    tasks = recording.reward_tasks[:1]
    rewards = _rewards_to_replay(recording, tasks, skipped)
    wanted = {
        stamp: Wanted(depth=stamp in depths, reward=stamp in rewards)
        for depths in [set(recording.depth_stamps_ns)]
        for stamp in depths | set(rewards)
    }
    plan = Plan(tuple(tasks), tuple(recording.questions), wanted)
    fresh_asked: list[Asked] = []
    fresh_reward_answers: list[Answer] = []
    depths = 0
    compared_rewards = 0
    with open_bag(bag_path) as bag, _Depths(output_path, recording) as recorded:
        for step in run(FrameStream(bag, topics), pipeline, plan):
            if on_frame is not None:
                on_frame()
            fresh_asked.extend(step.asked)
            if step.result is None:
                continue
            stamp_ns = step.frame.stamp_ns
            fresh_reward_answers.extend(step.result.answers)
            if wanted[stamp_ns].depth:
                depths += 1
                words = recorded.difference(stamp_ns, step.result.depth_m, step.result.confidence)
                if words:
                    return ReplayVerdict(depths, 0, compared_rewards, tuple(skipped), words)
            if stamp_ns in rewards:
                compared_rewards += 1
                words = _difference(rewards[stamp_ns], step.result.reward)
                if words:
                    words = f"the reward at {stamp_ns} ns differs in {words}"
                    return ReplayVerdict(depths, 0, compared_rewards, tuple(skipped), words)
            del wanted[stamp_ns]
    answers, words = _compare_answers(recording, fresh_asked, fresh_reward_answers, skipped)
    if not words and wanted:
        words = f"the bag has no frame at {min(wanted)} ns, of which the recording has outputs"
    return ReplayVerdict(depths, answers, compared_rewards, tuple(skipped), words)


def _rewards_to_replay(
    recording: Recording, tasks: list[RewardTask], skipped: list[str]
) -> dict[int, Reward]:
    """Rewards by stamp that belong to the recorded task."""
    rewards: dict[int, Reward] = {}
    for reward in recording.rewards:
        if not tasks:
            skipped.append("a reward without its reward task in the recording")
        elif (reward.task_id, reward.reference_stamp_ns) != (tasks[0].task_id, tasks[0].reference_stamp_ns):
            skipped.append("a reward of a later reward task; only the first is replayed")
        elif reward.stamp_ns in rewards:
            skipped.append("a second reward of the same frame")
        else:
            rewards[reward.stamp_ns] = reward
    return rewards


class _Depths:
    """The recording's depth and confidence images, walked along with rising stamps."""

    def __init__(self, path: Path | str, recording: Recording) -> None:
        self._millimetres = recording.is_millimetres
        self._depth = DepthTruth(path, recording.depth_topic) if recording.depth_topic else None
        self._confidence = (
            DepthTruth(path, recording.confidence_topic, is_depth=False)
            if recording.confidence_topic
            else None
        )

    def __enter__(self) -> _Depths:
        return self

    def __exit__(self, *_: object) -> None:
        for walker in (self._depth, self._confidence):
            if walker is not None:
                walker.__exit__()

    def difference(
        self, stamp_ns: int, depth_m: NDArray[np.float32] | None, confidence: NDArray[np.float32] | None
    ) -> str:
        """Words for the first difference at a stamp; "" when there is none."""
        found = None if self._depth is None else self._depth.at(stamp_ns, 0)
        if found is None or depth_m is None:
            return "" if (found is None) == (depth_m is None) else f"only one run gave depth at {stamp_ns} ns"
        words = _image_difference(found[0], depth_m, millimetres=self._millimetres)
        if words:
            return f"the depth at {stamp_ns} ns differs in {words}"
        sure = None if self._confidence is None else self._confidence.at(stamp_ns, 0)
        if sure is not None and confidence is not None:
            words = _image_difference(sure[0], confidence, millimetres=False)
            if words:
                return f"the confidence at {stamp_ns} ns differs in {words}"
        return ""


def _image_difference(recorded: NDArray[np.float32], fresh: NDArray[np.float32], *, millimetres: bool) -> str:
    from spatial_mllm_core.images import depth_to_millimetres

    if recorded.shape != fresh.shape:
        return f"size: {recorded.shape} recorded, {fresh.shape} now"
    if millimetres:
        different = depth_to_millimetres(recorded) != depth_to_millimetres(fresh)
    else:
        one, other = (np.ascontiguousarray(a, np.float32).view(np.uint32) for a in (recorded, fresh))
        different = one != other
    if not different.any():
        return ""
    row, column = (int(i) for i in np.argwhere(different)[0])
    return (
        f"{int(different.sum())} pixels, first at ({column}, {row}): "
        f"{float(recorded[row, column])!r} recorded, {float(fresh[row, column])!r} now"
    )


def _compare_answers(
    recording: Recording, asked: list[Asked], reward_answers: list[Answer], skipped: list[str]
) -> tuple[int, str]:
    """Compare recorded answers with those to the same questions; returns how many, and the first difference."""
    questions = list(recording.questions)
    fresh_by_question: list[Asked] = list(asked)
    of_rewards: dict[tuple[str, str, tuple[int, ...]], Answer] = {
        (a.task, a.question, a.stamps_ns): a for a in reward_answers
    }
    compared = 0
    for recorded in recording.answers:
        old = recorded.answer
        question = next((q for q in questions if (q.task, q.stamps_ns) == (old.task, old.stamps_ns)), None)
        if question is None:
            fresh = of_rewards.get((old.task, old.question, old.stamps_ns))
            if fresh is None:
                skipped.append("an answer whose question is not in the recording")
                continue
            compared += 1
            words = _difference(old, fresh)
        else:
            questions.remove(question)
            again = next((a for a in fresh_by_question if a.question == question), None)
            if again is None:
                skipped.append(
                    f"the question '{question.task or question.question}' speaks of frames the bag lacks"
                )
                continue
            fresh_by_question.remove(again)
            compared += 1
            code = 0 if again.fault is None else int(again.fault.code)
            if code != recorded.error_code:
                words = f"error_code: {recorded.error_code} recorded, {code} now"
            else:
                words = "" if again.answer is None else _difference(old, again.answer)
        if words:
            return compared, f"the answer to '{old.question or old.task}' differs in {words}"
    return compared, ""


def _difference(recorded: Answer | Reward, fresh: Answer | Reward | None) -> str:
    """Name and values of the first field that differs in any bit; "" when none does."""
    if fresh is None:
        return "that there is none now"
    one, other = asdict(recorded), asdict(fresh)
    for name in one:
        if name not in _WALL_TIMES and _bits(one[name]) != _bits(other[name]):
            return f"{name}: {one[name]!r} recorded, {other[name]!r} now"
    return ""


def _bits(value: Any) -> Any:
    """A value in a form whose equality is equality of bits (NaN equals itself, 0.0 is not -0.0)."""
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, (tuple, list)):
        return tuple(_bits(v) for v in value)
    return value
