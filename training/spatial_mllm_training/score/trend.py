"""Whether predicted displacements follow the true ones over an episode, asked as the reward asks.

The trend is Spearman's correlation of predicted against true distance since the reference frame, as
in the core's evaluation. Blind is a clock: the number of the frame. Knows no scenes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.evaluation.metrics import displacement_error, spearman
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.reward import RewardGoal, RewardTask
from spatial_mllm_core.reward.annotator import RewardAnnotator
from spatial_mllm_training.export.record import TREND, Measured
from spatial_mllm_training.score.episodes import Episode

CLOCK = "a clock"
_RESAMPLES = 1000


@dataclass(frozen=True)
class Trace:
    """One episode as it was judged.

    Attributes:
        true_m, predicted_m: distance since the reference in every later frame; NaN where not judged.
        trend: 0 where the prediction is constant, for it follows nothing; NaN where no frame was judged.
        clock: the trend of the frame's number.
        vector_error_m: mean error of the displacement vectors; NaN without one.
        fault: the last reason why a frame was not judged.
    """

    name: str
    true_m: tuple[float, ...]
    predicted_m: tuple[float, ...]
    trend: float
    clock: float
    vector_error_m: float
    fault: str = ""

    @property
    def judged(self) -> int:
        return int(np.isfinite(self.predicted_m).sum())


@dataclass
class TrendScore:
    """The traces of all episodes."""

    traces: list[Trace] = field(default_factory=list)

    @property
    def usable(self) -> list[Trace]:
        """By trend, the worst first."""
        return sorted((t for t in self.traces if math.isfinite(t.trend)), key=lambda t: t.trend)


def judge(model: SpatialModel, episodes: Iterable[Episode]) -> TrendScore:
    """Ask every frame of every episode."""
    shown = tqdm(episodes, unit="episode", disable=None, leave=False)
    return TrendScore([_trace(model, episode) for episode in shown])


def _trace(model: SpatialModel, episode: Episode) -> Trace:
    true_m = episode.distance_m[1:]
    task = RewardTask(
        "trend", episode.point_px, RewardGoal.MOVE_DISTANCE, distance_m=max(0.01, float(np.nanmax(true_m)))
    )
    clock = follows(np.arange(len(true_m)), true_m)
    try:
        annotator = RewardAnnotator(model, task, episode.frames[0])
    except SpatialError as fault:
        unjudged = (math.nan,) * len(true_m)
        return Trace(
            episode.name, tuple(true_m.tolist()), unjudged, math.nan, clock, math.nan, fault.sentence
        )
    rewards = [annotator.judge(frame)[0] for frame in episode.frames[1:]]
    predicted_m = np.array([r.distance_m for r in rewards])
    faults = [r.error_sentence for r in rewards if not r.valid]
    error = displacement_error([r.displacement_m for r in rewards], episode.moved_m[1:])
    return Trace(
        episode.name,
        tuple(true_m.tolist()),
        tuple(predicted_m.tolist()),
        follows(predicted_m, true_m),
        clock,
        math.nan if error is None else error.mean_m,
        faults[-1] if faults else "",
    )


def follows(predicted: ArrayLike, true: ArrayLike) -> float:
    """Spearman's correlation; 0 where the prediction is constant, NaN with fewer than two pairs."""
    predicted_m, true_m = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    both = np.isfinite(predicted_m) & np.isfinite(true_m)
    if both.sum() < 2:
        return math.nan
    rho = spearman(predicted_m, true_m)
    return rho if math.isfinite(rho) else 0.0


def figure(found: TrendScore, key: str, where: str, *, has_goal: bool) -> Measured:
    """The median over episodes, its error by drawing episodes anew, and the spread in the note."""
    usable = found.usable
    if not usable:
        why = next((t.fault for t in found.traces if t.fault), "no episode")
        return Measured(
            f"trend/{key}", "reward trend (Spearman)", where, math.nan,
            counted="episodes", goal=TREND if has_goal else None, note=why,
        )  # fmt: skip
    trends = np.array([t.trend for t in usable])
    error = math.nan
    if len(trends) > 1:
        drawn = np.random.default_rng(0).choice(trends, (_RESAMPLES, len(trends)))
        error = float(np.median(drawn, axis=1).std(ddof=1))
    return Measured(
        f"trend/{key}", "reward trend (Spearman)" + (", median" if len(trends) > 1 else ""), where,
        float(np.median(trends)), error, float(np.median([t.clock for t in usable])), CLOCK,
        len(usable), "episodes", len(usable), TREND if has_goal else None, note=_spread(found),
    )  # fmt: skip


def _spread(found: TrendScore) -> str:
    usable = found.usable
    trends = [t.trend for t in usable]
    frames = sum(len(t.true_m) for t in found.traces)
    judged = sum(t.judged for t in found.traces)
    low, high = np.percentile(trends, [25, 75])
    said = [f"{judged} of {frames} frames judged"]
    if len(trends) > 1:
        said.insert(0, f"quartiles {low:.2f} and {high:.2f}, from {trends[0]:.2f} to {trends[-1]:.2f}")
    errors = [t.vector_error_m for t in usable if math.isfinite(t.vector_error_m)]
    if errors:
        said.append(f"vector off by {100 * float(np.median(errors)):.1f} cm (median of the episodes' means)")
    constant = sum(len(set(t.predicted_m)) <= 1 for t in usable)
    if constant:
        said.append(f"{constant} with one and the same answer throughout, counted as 0")
    return "; ".join(said)
