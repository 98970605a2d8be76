"""Trains a specialist on what a recipe shows its model, and measures it on held-out images.

The teacher so meets the images of its pupil, prepared in the same way; it is told K of every one of them,
and sees them through other cameras by random crops whether the recipe does so or not. Knows no arms.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.augment import AugmentConfig
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.supervision.targets import DenseTargets
from spatial_mllm_training.teachers.ray_grids import directions_on_grid, rays_on_grid
from spatial_mllm_training.teachers.specialist import FILE, Specialist, SpecialistConfig
from spatial_mllm_training.teachers.train_specialist import SpecialistBatch, train_specialist
from spatial_mllm_training.training_loop.batch import Batch, ImageGroup, collate
from spatial_mllm_training.training_loop.sampling import Mix, SampleSource, batches, digests
from spatial_mllm_training.training_loop.setup import DataPaths, Learner, build_learner, build_sources

RECORD = "specialist.json"
SMALLEST_CROP, ASPECT = 0.5, 1.15
"""Of the crops of scene pairs: f in pixels changes by up to 2."""

_PACE_STEPS = (3, 9)
_HELD_OUT_BATCHES, _HELD_OUT_SAMPLES = 8, 8


@dataclass(frozen=True)
class Lessons:
    """How long a specialist learns, and how large it is.

    Attributes:
        steps: of the optimiser; None: as many as fit into `minutes`.
        hidden, layers, features, tasks: of `SpecialistConfig`; its tokens are those of the pupil. Rays are what
            it is told, and points are depth on rays: with depth alone it makes more steps in the same time.
    """

    steps: int | None = None
    minutes: float = 6.0
    hidden: int = 192
    layers: int = 6
    features: int = 32
    tasks: tuple[str, ...] = ("depth",)
    learning_rate: float = 1.5e-3


def train_teacher(
    config: TrainConfig,
    paths: DataPaths,
    folder: Path,
    lessons: Lessons,
    *,
    device: str = "cpu",
    say: Callable[[str], None] = print,
) -> Path:
    """The folder with a specialist of this recipe, data and lessons, trained where it is not there yet.

    Raises:
        SpatialError: of `build_sources`; NO_FRAME where no image has both a camera and a depth.
    """
    config = _shown(config)
    learner = build_learner(config, paths.checkpoint)
    sources, weights, held_out = build_sources(config, paths, learner)
    what = {"lessons": asdict(lessons), "data": digests(sources), "recipe": json.loads(config.to_json())}
    if _known(folder / RECORD, what) and (folder / FILE).is_file():
        return folder
    school = _School(config, learner, Mix(list(sources.values()), weights, config.seed))
    torch.manual_seed(config.seed)
    model = Specialist(school.size(lessons))
    median_m = school.median_depth_m()
    model.expect(median_m)
    began = time.monotonic()
    steps = lessons.steps or school.steps_in(60.0 * lessons.minutes, model.config, device)
    say(f"a specialist of {sum(p.numel() for p in model.parameters()):,} parameters learns {steps} steps")
    train_specialist(
        model, school.lessons(model), steps=steps, learning_rate=lessons.learning_rate, device=device
    )
    figures = {} if held_out is None else _measured(model, school, held_out, median_m, device)
    if figures:
        say(
            f"its depth on held-out images: AbsRel {figures['abs_rel']:.3f}, of one constant "
            f"{figures['blind_abs_rel']:.3f}"
        )
    record = {**what, "steps": steps, "minutes": (time.monotonic() - began) / 60, "held_out": figures}
    model.save(folder / FILE)
    write_atomically(folder / RECORD, json.dumps(record, indent=2).encode(), replace=True)
    return folder


def held_out_figures(folder: Path) -> dict[str, float]:
    """What was measured when the specialist of a folder was trained; {} where nothing was."""
    try:
        return dict(json.loads((folder / RECORD).read_text())["held_out"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def lesson_of(group: ImageGroup, model: Specialist) -> SpecialistBatch | None:
    """The images of a group whose camera and depth are known, each in its own camera's frame; None without any.

    Rays and points have no truth where a lens bends the rays between the tokens of the group.
    """
    rows, columns = group.grid.tolist()
    rays, is_right = rays_on_grid(group.rays, (rows, columns), model.config.grid)
    told = group.has_camera & is_right & group.depth.isfinite().flatten(1).any(1)
    if not told.any():
        return None
    height, width = model.config.map_size
    directions = directions_on_grid(group.rays[told], (rows, columns), (height, width))
    depth = group.depth[told][:, _nearest(group.depth.shape[1], height)][
        :, :, _nearest(group.depth.shape[2], width)
    ]
    origins = torch.where(directions.isfinite(), 0.0, torch.nan)
    count = len(depth)
    return SpecialistBatch(
        images=group.pixels[told].permute(0, 3, 1, 2),
        rays=rays[told],
        has_camera=group.has_camera[told],
        targets=DenseTargets(
            depth=depth,
            rays=torch.cat([origins, directions], dim=-1),
            points=depth[..., None] * directions,
            row=torch.arange(count),
            is_metric=torch.ones(count, dtype=torch.bool),
        ),
    )


class _School:
    """Endless lessons from the samples of a recipe."""

    def __init__(self, config: TrainConfig, learner: Learner, mix: Mix) -> None:
        self.config, self.learner, self._mix = config, learner, mix

    def groups(self) -> Iterator[ImageGroup]:
        loader = batches(
            self._mix,
            self.collate,
            start=0,
            batch=self.config.batch * self.config.accumulate,
            workers=self.config.workers,
        )
        for drawn in loader:
            if not isinstance(drawn, Batch):
                raise SpatialError(
                    ErrorCode.NO_FRAME, f"no sample of a whole batch can be used, first: {drawn[0]}"
                )
            yield from drawn.groups

    def lessons(self, model: Specialist) -> Iterator[SpecialistBatch]:
        without = 0
        for group in self.groups():
            lesson = lesson_of(group, model)
            without = 0 if lesson else without + 1
            if without > 20:
                raise SpatialError(
                    ErrorCode.NO_FRAME,
                    "a specialist learns from images with K and depth, and 20 batches had none: give --depth",
                )
            if lesson is not None:
                yield lesson

    def size(self, lessons: Lessons) -> SpecialistConfig:
        """A specialist with the tokens of the first image."""
        rows, columns = next(self.groups()).grid.tolist()
        patch = SpecialistConfig.patch
        return SpecialistConfig(
            height=patch * rows,
            width=patch * columns,
            hidden=lessons.hidden,
            layers=lessons.layers,
            features=lessons.features,
            tasks=lessons.tasks,
        )

    def median_depth_m(self) -> float:
        """Of the first images; 1 where no depth is known."""
        known = [g.depth[g.depth.isfinite()] for g in itertools.islice(self.groups(), _HELD_OUT_BATCHES)]
        depths = torch.cat(known)[::97]
        return float(depths.median()) if len(depths) else 1.0

    def steps_in(self, seconds: float, size: SpecialistConfig, device: str) -> int:
        """Steps that a specialist of this size makes in a time, from a few that are thrown away."""
        first, last = _PACE_STEPS
        times: list[float] = []
        model = Specialist(size)
        train_specialist(
            model,
            self.lessons(model),
            steps=last,
            device=device,
            on_step=lambda _, __: times.append(time.monotonic()),
        )
        return max(1, round(seconds * (last - first) / max(times[last - 1] - times[first - 1], 1e-6)))

    def collate(self, samples: Any) -> Batch:
        return collate(samples, self.learner.pad_id)


def _shown(config: TrainConfig) -> TrainConfig:
    """The recipe as the teacher meets it: other cameras, every K told, as few questions as can be."""
    crops = {
        "smallest_crop": min(SMALLEST_CROP, config.data.smallest_crop),
        "aspect": max(ASPECT, config.data.aspect),
    }
    return replace(
        config,
        # two images of an unmoved camera teach little more about depth than one
        data=replace(
            config.data, **crops, still_camera=0.0, camera_dropout=0.0, single_questions=1, pair_questions=1
        ),
        rows=replace(
            config.rows,
            augment=config.rows.augment or AugmentConfig(output_size=config.rows.size),
            questions=1,
            require_camera=False,
        ),
        mix=replace(config.mix, general=0.0),
        spatial=None,
        distillation=None,
    )


@torch.no_grad()
def _measured(
    model: Specialist, school: _School, held_out: SampleSource, median_m: float, device: str
) -> dict[str, float]:
    """AbsRel and delta1 over the cells of held-out images, and the AbsRel of the median depth in training."""
    model.to(device).eval()
    ratios, blind = [], []
    for number in range(_HELD_OUT_BATCHES):
        first = number * _HELD_OUT_SAMPLES
        batch = school.collate([held_out.sample(first + i) for i in range(_HELD_OUT_SAMPLES)])
        for group in batch.groups:
            if (lesson := lesson_of(group, model)) is None:
                continue
            maps, _ = model(*(x.to(device) for x in (lesson.images, lesson.rays, lesson.has_camera)))
            true_m = lesson.targets.depth
            valid = true_m.isfinite()
            ratios.append(maps["depth"].value[..., 0].cpu()[valid] / true_m[valid])
            blind.append(median_m / true_m[valid])
    if not ratios:
        return {}
    ratio, constant = torch.cat(ratios), torch.cat(blind)
    figures = {
        "abs_rel": (ratio - 1).abs().mean(),
        "delta1": (torch.maximum(ratio, 1 / ratio) < 1.25).float().mean(),
        "blind_abs_rel": (constant - 1).abs().mean(),
    }
    return {name: float(value) for name, value in figures.items() if math.isfinite(value)}


def _nearest(there: int, wanted: int) -> torch.Tensor:
    """(wanted,) indices of the samples nearest to the cell centres; never a mean over a depth edge."""
    return ((torch.arange(wanted) + 0.5) * there / wanted).long()


def _known(file: Path, what: dict[str, Any]) -> bool:
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return False
    return {name: record.get(name) for name in what} == json.loads(json.dumps(what))
