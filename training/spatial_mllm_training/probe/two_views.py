"""How well a bundle's two-view geometry is: the numbers that questions are told, against the truth of scene files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.tasks import camera_motion
from spatial_mllm_core.tasks.base import COORDINATE_TOLERANCE
from spatial_mllm_core.two_view.view_pair import ViewPair
from spatial_mllm_training.data.matches import match_map
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.view_pairs import ViewPairs
from spatial_mllm_training.export.record import over_scenes

_UP = np.array([0.0, 0.0, 1.0])
"""Of the worlds of `make_scenes`."""
MATCHES = "cells matched within 5 %"
MOVED = "of these, on what moved"

Figures = dict[str, dict[str, list[float]]]
"""Name -> scene -> what was found, 1 where it is right."""


@dataclass
class TwoViewScore:
    """What was found.

    Attributes:
        right, blind: of the model, and of the answer that is right most often.
        offset_errors_m: of each pair.  offsets_m: lengths of the true movements.
        pairs, without_pose: how many there were, and of how many nothing is said.
    """

    right: Figures
    blind: dict[str, float]
    offset_errors_m: list[float] = field(default_factory=list)
    offsets_m: list[float] = field(default_factory=list)
    pairs: int = 0
    without_pose: int = 0

    def rows(self) -> Iterator[tuple[str, float | None, float | None, float | None]]:
        """(name, right in percent, its standard error over scenes, blind in percent) of each figure."""
        for name, scenes in self.right.items():
            value, error = over_scenes(scenes)
            blind = self.blind.get(name)
            yield name, _percent(value), _percent(error), _percent(blind)


def judge(
    model: SpatialModel, scenes: Sequence[Path], *, pairs: int, far: bool = False, seed: int = 0
) -> TwoViewScore:
    """Pairs of images of different cameras, whole and unchanged, mostly of different times.

    Args:
        far: that see as little of each other as pairs of MultiSPA, where a scene has such.

    Raises:
        SpatialError: of `SpatialModel.compare`; NOT_READY for a file that is no whole scene.
    """
    config = PairConfig(model.manifest.width, model.manifest.height, still_camera=0.0, far=float(far))
    drawn = ViewPairs(list(scenes), config, augment=False)
    right: Figures = defaultdict(lambda: defaultdict(list))
    truths: dict[str, list[tasks.TaskValue]] = defaultdict(list)
    score = TwoViewScore(right, {})
    for number in range(pairs):
        rng = np.random.default_rng([seed, number])
        views, cameras = drawn.draw(rng)
        frames = [
            Frame(10 * number + n, "optical", image, camera)
            for n, (image, camera) in enumerate(zip(drawn.images(rng, views), cameras, strict=True))
        ]
        pair = model.compare(*frames)
        scene = str(id(views[0].scene))
        _matches(right, scene, views, pair)
        _camera(score, truths, scene, views, pair)
        score.pairs += 1
    score.blind = {name: _best_constant(tasks.get(name), found) for name, found in truths.items()}
    return score


def _matches(right: Figures, scene: str, views: tuple[SceneView, SceneView], pair: ViewPair) -> None:
    rows, columns = pair.first.features.shape[:2]
    truth = match_map(*views, rows, columns).reshape(-1, 3)
    seen = np.isfinite(truth).all(axis=1)
    is_right = np.linalg.norm(pair.found.places - truth[:, :2], axis=1) <= COORDINATE_TOLERANCE
    for name, which in ((MATCHES, seen), (MOVED, seen & (truth[:, 2] > 0))):
        right[name][scene] += is_right[which].astype(float).tolist()


def _camera(
    score: TwoViewScore,
    truths: dict[str, list[tasks.TaskValue]],
    scene: str,
    views: tuple[SceneView, SceneView],
    pair: ViewPair,
) -> None:
    poses = [view.world_from_camera for view in views]
    offset_m = camera_motion.camera_displacement_m(*poses)
    expected = camera_motion.all_truths(offset_m, camera_motion.camera_turn_deg(*poses, _UP))
    movement = pair.movement
    told = {} if movement is None else camera_motion.all_truths(movement.offset_m, movement.turn_deg)
    for name, truth in expected.items():
        truths[name].append(truth)
        task = tasks.get(name)
        score.right[name][scene].append(float(name in told and task.is_correct(told[name], truth)))
    score.offsets_m.append(float(np.linalg.norm(offset_m)))
    if movement is None:
        score.without_pose += 1
    else:
        score.offset_errors_m.append(float(np.linalg.norm(movement.offset_m - offset_m)))


def _best_constant(task: tasks.Task, truths: Sequence[tasks.TaskValue]) -> float:
    """Share that one answer, of those that were right once, has right."""
    return max(np.mean([task.is_correct(constant, truth) for truth in truths]) for constant in truths)


def _percent(share: float | None) -> float | None:
    return None if share is None or math.isnan(share) else 100.0 * share


def table(score: TwoViewScore) -> str:
    """For people."""
    lines = [f"{'':<28} {'right':>14} {'one answer':>11}"]
    for name, value, error, blind in score.rows():
        told = "" if value is None else f"{value:.1f}" + ("" if error is None else f" ± {error:.1f}")
        lines.append(f"{name:<28} {told:>14} {'' if blind is None else f'{blind:.1f}':>11}")
    errors = np.array(score.offset_errors_m)
    median = f"{100 * np.median(errors):.1f} cm" if len(errors) else "none"
    lines.append(
        f"{score.pairs} pairs, {score.without_pose} without a pose; position off by {median} in the median, "
        f"where the camera moved by {100 * np.median(score.offsets_m):.0f} cm"
    )
    return "\n".join(lines)
