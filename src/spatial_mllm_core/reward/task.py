"""What a reward is asked for and what comes back per frame; the arithmetic is in `potential`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class RewardGoal(str, Enum):
    """The four goals of a reward task (DESIGN 3.6)."""

    MOVE_DISTANCE = "move_distance"
    MOVE_TO = "move_to"
    MOVE_ALONG = "move_along"
    KEEP_STILL = "keep_still"


@dataclass(frozen=True)
class RewardTask:
    """A goal for one point seen in a reference frame.

    Attributes:
        task_id: the caller's name for it; returned with every reward.
        description: words for people; not read by the model.
        reference_stamp_ns: stamp of the reference frame; 0 means the newest kept frame.
        point_px: (u, v) raw pixel of the tracked object in the reference frame.
        goal: see `RewardGoal`.
        distance_m: goal length for MOVE_DISTANCE and MOVE_ALONG; allowed drift scale for KEEP_STILL.
        target_m: wanted displacement for MOVE_TO, in the reference frame's optical axes.
        direction: wanted direction for MOVE_ALONG, same axes; normalised on use.
        tolerance_m: success when the goal is met within this length.
        gamma: discount of the potential-based shaping, in (0, 1].
        camera_moves: whether the camera may move during the episode (chooses the question).
    """

    task_id: str
    point_px: tuple[float, float]
    goal: RewardGoal
    distance_m: float = 0.0
    target_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tolerance_m: float = 0.02
    gamma: float = 0.99
    reference_stamp_ns: int = 0
    camera_moves: bool = False
    description: str = ""


@dataclass(frozen=True)
class Reward:
    """The reward of one frame (one message on `reward`).

    Attributes:
        displacement_m: (x, y, z) of the tracked point since the reference frame, in the reference
            camera's optical frame.
        distance_m: length moved since the reference frame.
        progress: potential Phi in [0, 1].
        reward: gamma * Phi(t) - Phi(t-1) (potential-based shaping, Ng et al. 1999).
        valid: False when the frame could not be judged; then numbers are NaN and `error_code` says why.
        confidence: the smaller of the two answers' confidences, [0, 1].
    """

    stamp_ns: int
    frame_id: str
    reference_stamp_ns: int
    task_id: str
    displacement_m: tuple[float, float, float]
    distance_m: float
    progress: float
    reward: float
    success: bool
    valid: bool
    confidence: float
    latency_s: float
    model: str
    error_code: int = 0
    error_sentence: str = ""
