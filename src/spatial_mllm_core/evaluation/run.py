"""The offline run: frames of a bag through the same SpatialPipeline that the nodes call.

Knows neither files nor topics. A `Plan` says which reward task runs and what is asked about which
frames; a replay narrows it to the frames that a live run judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.pipeline import FrameResult, SpatialPipeline
from spatial_mllm_core.reward.task import RewardTask


@dataclass(frozen=True)
class Question:
    """A question about frames by stamp; the fields are those of `AskRequest`.

    Attributes:
        stamps_ns: the frames in the order the question speaks of them.
    """

    task: str
    stamps_ns: tuple[int, ...]
    points_px: tuple[tuple[float, float], ...] = ()
    question: str = ""
    max_new_tokens: int = 48


@dataclass(frozen=True)
class Asked:
    """A question with its answer, or with the fault that came instead."""

    question: Question
    answer: Answer | None
    fault: SpatialError | None = None


@dataclass(frozen=True)
class Wanted:
    """What is wanted of one frame."""

    depth: bool = True
    reward: bool = True


@dataclass(frozen=True)
class Plan:
    """What to do in a run.

    Attributes:
        reward_tasks: each starts as soon as its reference frame has been seen (reference stamp 0:
            the first frame), replacing the one before.
        questions: each is asked as soon as its last frame has been seen.
        wanted: by stamp, what to compute; a frame that is not named is passed over unless a question
            or a reward task needs it. None = everything of every frame.
    """

    reward_tasks: tuple[RewardTask, ...] = ()
    questions: tuple[Question, ...] = ()
    wanted: Mapping[int, Wanted] | None = None


@dataclass(frozen=True)
class Step:
    """One frame of a run: what the pipeline gave, and what was asked now that the frame is known.

    `result` is None for a frame that was only kept for a later question.
    """

    frame: Frame
    result: FrameResult | None
    asked: tuple[Asked, ...]
    reward_faults: tuple[SpatialError, ...] = ()


def run(frames: Iterable[Frame], pipeline: SpatialPipeline, plan: Plan) -> Iterator[Step]:
    """Yield one step per frame that anything is wanted of, in the order of the frames.

    Questions whose frames never come are not asked; see `unasked`.
    """
    pending = list(plan.questions)
    tasks = list(plan.reward_tasks)
    # stamps whose frames a question names; held here so that the bounded memory cannot lose them
    held: dict[int, Frame] = {}
    for frame in frames:
        stamp_ns = frame.stamp_ns
        wanted = Wanted() if plan.wanted is None else plan.wanted.get(stamp_ns)
        is_asked = any(stamp_ns in q.stamps_ns for q in pending)
        is_reference = any(t.reference_stamp_ns in (0, stamp_ns) for t in tasks)
        if wanted is None and not is_asked and not is_reference:
            continue
        result = None
        if wanted is None:
            pipeline.memory.add(frame)
        else:
            result = pipeline.process(frame, want_depth=wanted.depth, want_reward=wanted.reward)
        reward_faults = []
        for task in [t for t in tasks if t.reference_stamp_ns in (0, stamp_ns)]:
            tasks.remove(task)
            try:
                pipeline.set_reward_task(task)
            except SpatialError as fault:
                reward_faults.append(fault)
        if is_asked:
            held[stamp_ns] = frame
        ready = [q for q in pending if all(s in held for s in q.stamps_ns)]
        asked = tuple(_ask(pipeline, q, held) for q in ready)
        pending = [q for q in pending if q not in ready]
        for stamp in [s for s in held if not any(s in q.stamps_ns for q in pending)]:
            del held[stamp]
        yield Step(frame, result, asked, tuple(reward_faults))


def _ask(pipeline: SpatialPipeline, question: Question, held: Mapping[int, Frame]) -> Asked:
    request = AskRequest(
        task=question.task,
        frames=tuple(held[s] for s in question.stamps_ns),
        points_px=question.points_px,
        question=question.question,
        max_new_tokens=question.max_new_tokens,
    )
    try:
        return Asked(question, pipeline.ask(request))
    except SpatialError as fault:
        return Asked(question, None, fault)


def unasked(questions: Iterable[Question], asked: Iterable[Asked]) -> list[Asked]:
    """The questions that were not asked because a frame was missing, each with that fault."""
    done = [a.question for a in asked]
    return [
        Asked(
            q,
            None,
            SpatialError(ErrorCode.NO_FRAME, f"the bag has no frame for one of {list(q.stamps_ns)} ns"),
        )
        for q in questions
        if q not in done
    ]
