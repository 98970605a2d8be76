"""Evaluate a bag: an offline run, or the recorded outputs of a live one, against what is true in the bag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from spatial_mllm_core.bags import DepthTruth, FrameStream, open_bag
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.outputs import OutputWriter
from spatial_mllm_core.evaluation.plan import picture_stamps, standard_plan
from spatial_mllm_core.evaluation.replay import compare, read_recording
from spatial_mllm_core.evaluation.results import Evaluation
from spatial_mllm_core.evaluation.run import Asked, Plan, run, unasked
from spatial_mllm_core.evaluation.scorer import Scorer
from spatial_mllm_core.evaluation.source import Source
from spatial_mllm_core.evaluation.truth import BagTruth
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.pipeline import SpatialPipeline

T = TypeVar("T")
Progress = Callable[[int, int], object]


def annotate(
    source: Source,
    pipeline: SpatialPipeline,
    plan: Plan,
    writer: OutputWriter | None,
    scorer: Scorer | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Run a bag through the pipeline; write the outputs and feed the scorer, whichever is given.

    Returns:
        Sentences about what went wrong: an incomplete bag, unusable images, refused questions.
    """
    notes: list[str] = []
    asked: list[Asked] = []
    task_written = False
    total = len(source.stamps_ns) if limit is None else min(limit, len(source.stamps_ns))
    with open_bag(source.path) as bag:
        stream = FrameStream(bag, source.topics)
        frames: Iterable[Frame] = stream if limit is None else _first(stream, limit)
        for done, step in enumerate(run(frames, pipeline, plan), start=1):
            frame, result = step.frame, step.result
            true_m = None if scorer is None else scorer.see(frame)
            if result is not None:
                if writer is not None:
                    writer.frame(frame, result)
                if scorer is not None and result.depth_m is not None:
                    scorer.depth(frame, result.depth_m, result.confidence, true_m)
                if scorer is not None and result.reward is not None:
                    scorer.reward(result.reward)
                if result.depth_error is not None:
                    _note(notes, f"no depth: {result.depth_error.sentence}", result.depth_error)
            for fault in step.reward_faults:
                _note(notes, f"no reward: {fault.sentence}", fault)
            if writer is not None and not task_written and pipeline.reward_task is not None:
                writer.reward_task(pipeline.reward_task, frame.stamp_ns)
                task_written = True
            for one in step.asked:
                asked.append(one)
                _tell(one, writer, scorer, frame.stamp_ns)
            if progress is not None:
                progress(done, total)
        for one in unasked(plan.questions, asked):
            _tell(one, None, scorer, 0)
        if stream.faults:
            number = sum(stream.faults.values())
            assert stream.last_fault is not None
            notes.append(
                f"{number} of {stream.images} images could not be used; the last one: {stream.last_fault}"
            )
        if not bag.verdict.is_complete:
            notes.append(bag.verdict.sentence)
    return notes


def evaluate_bag(
    source: Source,
    pipeline: SpatialPipeline,
    *,
    plan: Plan | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """An offline run over a bag, judged against the bag's own truth."""
    with BagTruth(source.path, source.topics) as truth:
        if plan is None:
            plan = standard_plan(source, truth, limit=limit)
        stamps_ns = source.stamps_ns[:limit]
        task = plan.reward_tasks[0] if plan.reward_tasks else None
        scorer = Scorer(
            _name(source.path),
            pipeline.model.name,
            truth,
            plan.questions,
            task,
            picture_stamps(source, stamps_ns),
        )
        notes = annotate(source, pipeline, plan, None, scorer, limit=limit, progress=progress)
        evaluation = scorer.finish(len(stamps_ns))
    evaluation.notes.extend(notes)
    _explain_absent_truth(evaluation, source)
    return evaluation


def evaluate_recording(
    source: Source,
    output_path: Path | str,
    pipeline: SpatialPipeline | None,
    *,
    progress: Progress | None = None,
) -> Evaluation:
    """The outputs that a live (or offline) run left in a bag, judged against the truth of its source bag.

    Args:
        pipeline: a fresh one, for the comparison bit for bit; None leaves it out.
    """
    recording = read_recording(output_path)
    task = recording.reward_tasks[0] if recording.reward_tasks else None
    with BagTruth(source.path, source.topics) as truth:
        scorer = Scorer(
            _name(source.path),
            recording.model,
            truth,
            recording.questions,
            task,
            picture_stamps(source, recording.depth_stamps_ns),
        )
        notes = _score_images(source, output_path, scorer, recording.depth_topic, recording.confidence_topic)
        for reward in recording.rewards:
            scorer.reward(reward)
        answers = list(recording.answers)
        for question in recording.questions:
            match = next(
                (
                    a
                    for a in answers
                    if (a.answer.task, a.answer.stamps_ns) == (question.task, question.stamps_ns)
                ),
                None,
            )
            if match is None:
                continue
            answers.remove(match)
            if match.error_code:
                scorer.asked(question, None, SpatialError(ErrorCode(match.error_code), match.error_sentence))
            else:
                scorer.asked(question, match.answer)
        evaluation = scorer.finish(len(source.stamps_ns))
    evaluation.notes.extend(notes)
    _explain_absent_truth(evaluation, source)
    if pipeline is not None:
        total, done = len(recording.depth_stamps_ns), 0

        def on_frame() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(min(done, total), total)

        evaluation.replay = compare(source.path, source.topics, output_path, pipeline, on_frame)
        evaluation.model = evaluation.model or pipeline.model.name
    return evaluation


def _score_images(
    source: Source, output_path: Path | str, scorer: Scorer, depth_topic: str, confidence_topic: str
) -> list[str]:
    notes: list[str] = []
    depths = DepthTruth(output_path, depth_topic) if depth_topic else None
    sureness = DepthTruth(output_path, confidence_topic, is_depth=False) if confidence_topic else None
    try:
        with open_bag(source.path) as bag:
            for frame in FrameStream(bag, source.topics):
                true_m = scorer.see(frame)
                found = None if depths is None else depths.at(frame.stamp_ns, 0)
                if found is not None:
                    sure = None if sureness is None else sureness.at(frame.stamp_ns, 0)
                    scorer.depth(frame, found[0], None if sure is None else sure[0], true_m)
            if not bag.verdict.is_complete:
                notes.append(bag.verdict.sentence)
    finally:
        for walker in (depths, sureness):
            if walker is not None:
                walker.__exit__()
    return notes


def _tell(one: Asked, writer: OutputWriter | None, scorer: Scorer | None, log_time_ns: int) -> None:
    if writer is not None:
        writer.asked(one, log_time_ns)
    if scorer is not None:
        scorer.asked(one.question, one.answer, one.fault)


def _note(notes: list[str], words: str, fault: SpatialError) -> None:
    """Keep one note per error number; a fault of every frame is one note, not a thousand."""
    words = f"E{int(fault.code)} {words}"
    if not any(n.startswith(f"E{int(fault.code)} ") for n in notes):
        notes.append(words)


def _explain_absent_truth(evaluation: Evaluation, source: Source) -> None:
    if source.topics.depth is None:
        evaluation.notes.append("The bag has no depth topic, so the depth is shown but not judged.")
    elif evaluation.frames and evaluation.depth is None:
        evaluation.notes.append(
            f"The depth of {source.topics.depth} does not fit the image (other size, or other stamps), "
            "so the predicted depth is shown but not judged."
        )


def _first(items: Iterable[T], limit: int) -> Iterator[T]:
    for number, item in enumerate(items, start=1):
        yield item
        if number >= limit:
            return


def _name(path: Path) -> str:
    return path.absolute().stem if path.is_file() else path.absolute().name
