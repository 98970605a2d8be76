"""What is asked of a bag when nobody says: one reward task and three questions, the same in the demo and offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from spatial_mllm_core.evaluation.run import Plan, Question
from spatial_mllm_core.evaluation.truth import BagTruth
from spatial_mllm_core.reward.task import RewardGoal, RewardTask
from spatial_mllm_core.tasks import camera_motion, object_motion
from spatial_mllm_core.tasks import depth as depth_tasks

if TYPE_CHECKING:
    from spatial_mllm_core.evaluation.source import Source

DEFAULT_DISTANCE_M = 0.3
PICTURES = 3


def standard_plan(source: Source, truth: BagTruth, *, limit: int | None = None) -> Plan:
    """Reward and questions about the object that truth.json names, else about the middle of the image.

    truth.json's own task and questions come first. Without it the point is the middle of the first
    image, and the third question is about the camera's movement when the bag knows that it moves.
    """
    first = source.first
    stamps_ns = sorted(s for s in source.stamps_ns[:limit] if s >= first.stamp_ns)
    known = truth.file
    if known is not None and known.reward_task.reference_stamp_ns in stamps_ns:
        asked = tuple(q for q in known.questions if all(s in stamps_ns for s in q.stamps_ns))
        return Plan((known.reward_task,), asked)
    reference_ns = first.stamp_ns
    middle = (float((first.width - 1) // 2), float((first.height - 1) // 2))
    lower = (middle[0], float(round(0.9 * first.height)))
    later = [s for s in stamps_ns if s > reference_ns]
    moves = bool(later) and truth.camera_moves(first.frame_id, reference_ns, later[-1])
    questions = [
        Question(depth_tasks.DEPTH_VALUE.name, (reference_ns,), (middle,)),
        Question(depth_tasks.DEPTH_COMPARISON.name, (reference_ns,), (middle, lower)),
    ]
    if moves:
        # frames about a second apart still see the same things
        near = min(later, key=lambda s: abs(s - reference_ns - 1_000_000_000))
        questions.append(Question(camera_motion.CAMERA_DISTANCE.name, (reference_ns, near)))
    elif later:
        questions.append(
            Question(object_motion.OBJECT_DISTANCE[False].name, (reference_ns, later[-1]), (middle,))
        )
    task = RewardTask(
        task_id="middle",
        point_px=middle,
        goal=RewardGoal.MOVE_DISTANCE,
        distance_m=DEFAULT_DISTANCE_M,
        reference_stamp_ns=reference_ns,
        camera_moves=moves,
        description=f"the thing in the middle of the first image moves {DEFAULT_DISTANCE_M:g} m",
    )
    return Plan((task,), tuple(questions))


def picture_stamps(source: Source, stamps_ns: Sequence[int], count: int = PICTURES) -> tuple[int, ...]:
    """`count` of the stamps, spread evenly from first to last, of frames with recorded depth where there are such."""
    recorded = set(source.depth_stamps_ns)
    chosen = [s for s in stamps_ns if s in recorded] or list(stamps_ns)
    if len(chosen) <= count:
        return tuple(chosen)
    return tuple(chosen[round(i * (len(chosen) - 1) / (count - 1))] for i in range(count))
