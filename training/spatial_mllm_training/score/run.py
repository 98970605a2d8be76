"""From a bundle and scenes to the record: every part in order; knows no command line and no card."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.evaluation.evaluate import evaluate_bag
from spatial_mllm_core.evaluation.source import look_around
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.pipeline import SpatialPipeline
from spatial_mllm_training.export.record import Measured
from spatial_mllm_training.score import depth, episodes, images, questions, real, slope, trend
from spatial_mllm_training.score.page import Plots
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.rosbag import find_scenes as find_bags

KNOWN, OTHER = "training_cameras", "held_out_cameras"
_WORDS = {KNOWN: "held-out scenes, training cameras", OTHER: "held-out scenes, held-out cameras"}


@dataclass(frozen=True)
class Plan:
    """What is measured on what; a number of 0 leaves that part out.

    Attributes:
        seeds: of the test scenes.
        images: of each set of cameras.  slope_images: of which the focal slope is taken.
        blind_images: training images that the blind depth is learnt on.
        benchmark: data set to ask.  benchmark_score: what `benchmark score` said already, instead.
        episodes: drawn pushes; with 0 no episode of any kind is followed.
        episode_folder: where they are kept; None: they are drawn anew.
        episode_domain: of `make_scenes`, for look and cameras of the pushes.
        real_images, real_rows: images of each recording, rows of each subtask.
        bags: recordings with a truth.json, judged as `spatial-mllm evaluate` does.
    """

    bundle: Path
    scenes: tuple[Path, ...]
    seeds: range
    images: int
    slope_images: int
    blind_images: int
    benchmark: Path | None
    benchmark_score: Path | None
    episodes: int
    episode_folder: Path | None
    episode_domain: str
    recordings: tuple[real.Recording, ...]
    real_images: int
    real_rows: int
    bags: tuple[Path, ...]
    seed: int


@dataclass
class Record:
    """What was found, for the manifest and the card."""

    model: str
    split: str
    data: str
    lines: list[Measured] = field(default_factory=list)
    tasks: questions.Table = field(default_factory=dict)
    real_tasks: dict[str, questions.Table] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "split": self.split,
            "data": self.data,
            "figures": [line.to_json() for line in self.lines],
            "tasks": self.tasks,
            "real_tasks": self.real_tasks,
            "notes": self.notes,
        }


def measure(plan: Plan, plots: Plots) -> Record:
    """Measure all parts; what the page draws goes into `plots`.

    Raises:
        SpatialError, SceneProblem, BenchmarkProblem: the first thing that is missing or broken.
    """
    model = SpatialModel.load(plan.bundle)
    sets = images.scene_sets(plan.scenes, plan.seeds)
    tested = sorted(r.seed or 0 for r in (*sets.known_cameras, *sets.other_cameras))
    record = Record(
        model.name,
        f"{len(tested)} held-out scenes ({len(sets.other_cameras)} of them with held-out cameras), "
        f"seeds {tested[0]} to {tested[-1]}, seed {plan.seed} of every choice",
        f"{len(sets.training)} simulated training scenes",
    )
    # first, since a wrong file should not cost minutes
    answers = _questions(plan, model)
    blind_depth = depth.BlindDepth.fit(
        images.posed(images.draw(sets.training, plan.blind_images, plan.seed), record.notes)
    )
    if blind_depth is not None:
        record.data += f", {blind_depth.domain.words}"
    predict = depth.predictor(model)
    for key, refs in ((KNOWN, sets.known_cameras), (OTHER, sets.other_cameras)):
        where = _WORDS[key]
        if not refs:
            record.notes.append(f"No scene for: {where}.")
            continue
        if plan.images:
            picked = images.draw(refs, plan.images, plan.seed)
            found = depth.judge(images.posed(picked, record.notes), predict, blind_depth, seed=plan.seed)
            record.lines += depth.figures(found, key, where, has_goal=True)
            record.notes += found.notes[:1]
            plots.pairs[where] = found.pairs
        if plan.slope_images:
            # too narrow ones are passed over, so there are more than are needed
            picked = images.draw(refs, 4 * plan.slope_images, plan.seed)
            tilted = slope.judge(
                images.posed(images.in_turn(picked), record.notes), predict,
                None if blind_depth is None else blind_depth.predict,
                size=(model.manifest.width, model.manifest.height), limit=plan.slope_images, seed=plan.seed,
            )  # fmt: skip
            record.lines.append(slope.figure(tilted, key, where))
            plots.slopes[where] = tilted.curves
    if answers is None:
        record.notes.append("No MultiSPA questions were asked; give --benchmark.")
    else:
        record.lines += questions.headline(answers)
        record.tasks = answers.table()
    blind = None if plan.benchmark is None else questions.blind_of(plan.benchmark)
    if plan.episodes:
        _episodes(plan, model, record, plots)
    for bag in plan.bags:
        _bag(bag, plan, model, record, blind_depth)
    for recording in plan.recordings:
        found_real = real.measure(
            model, plan.bundle, recording, blind_depth=blind_depth, blind=blind,
            image_count=plan.real_images, rows=plan.real_rows, episode_count=plan.episodes, seed=plan.seed,
        )  # fmt: skip
        record.lines += found_real.lines
        record.real_tasks[recording.name] = found_real.table
        record.notes += found_real.notes
        if found_real.traces.usable:
            plots.trends[recording.name] = found_real.traces
    return record


def _questions(plan: Plan, model: SpatialModel) -> questions.Answers | None:
    """Read the benchmark's score, or ask the benchmark."""
    if plan.benchmark_score is not None:
        return questions.read_score(plan.benchmark_score, model.name)
    if plan.benchmark is not None:
        return questions.ask_benchmark(plan.bundle, plan.benchmark, questions.blind_of(plan.benchmark))
    return None


def _episodes(plan: Plan, model: SpatialModel, record: Record, plots: Plots) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = plan.episode_folder or Path(temporary)
        refs = episodes.make_pushes(folder, plan.episodes, domain=plan.episode_domain)
        found = trend.judge(model, episodes.each(refs))
    where = f"simulated pushes forth and back, domain '{plan.episode_domain}'"
    record.lines.append(trend.figure(found, "pushes", where, has_goal=True))
    plots.trends[where] = found


def _bag(
    bag: Path, plan: Plan, model: SpatialModel, record: Record, blind_depth: depth.BlindDepth | None
) -> None:
    """A simulated recording: its depth, and the trend as users see it in their report."""
    try:
        if plan.real_images:
            picked = images.draw(find_bags(bag), plan.real_images, plan.seed)
            shown = images.posed(picked, record.notes)
            found = depth.judge(shown, depth.predictor(model), blind_depth, seed=plan.seed)
            record.lines += depth.figures(found, f"bag_{bag.name}", f"bag {bag.name}", has_goal=False)
        if not plan.episodes:
            return
        rewards = evaluate_bag(look_around(bag), SpatialPipeline(model)).rewards
    except (SpatialError, SceneProblem) as fault:
        record.notes.append(f"'{bag}': {fault}")
        return
    after = [r for r in rewards if math.isfinite(r.true_m)][1:]
    true_m = [r.true_m for r in after]
    record.lines.append(
        Measured(
            f"trend/bag_{bag.name}", "reward trend (Spearman)", f"bag {bag.name}",
            trend.follows([r.predicted_m for r in after], true_m),
            blind=trend.follows(list(range(len(after))), true_m), blind_name=trend.CLOCK,
            count=len(after), counted="frames", scenes=1,
        )
    )  # fmt: skip
