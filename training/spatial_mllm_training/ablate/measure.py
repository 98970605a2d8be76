"""Figures of one trained run on the test sets: answers, depth, focal slope. Knows neither arms nor files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.evaluation.metrics import depth_error, mean_depth_error
from spatial_mllm_training.ablate.decode import answers
from spatial_mllm_training.ablate.eval_sets import EvalSet
from spatial_mllm_training.ablate.focal import depths_at_points, image_slope, mean_slope
from spatial_mllm_training.ablate.questions import Item, parts, true_depths
from spatial_mllm_training.ablate.surprise import loss_figures
from spatial_mllm_training.benchmark.means import group_weights, headline_weights, weighted
from spatial_mllm_training.data.packing import Sample, pack
from spatial_mllm_training.data.pictures import Viewer
from spatial_mllm_training.model.dpt import DPTHead
from spatial_mllm_training.model.heads import served_depth
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.supervision.heads import SpatialHeads
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.prompts import decoder_positions, embedded
from spatial_mllm_training.training_loop.setup import Learner

Figures = dict[str, float]


def measure(
    learner: Learner,
    config: TrainConfig,
    tests: Sequence[EvalSet],
    *,
    rays: bool,
    group: str | None = None,
    device: str = "cpu",
) -> Figures:
    """Figures by "<test set>/<what>"; what cannot be measured is left out.

    "answers" and "blind" are means over the groups of subtasks that are asked, in per cent, "group:<g>" and
    "blind:<g>" are those of one group; "loss" and its like are of `surprise.loss_figures`; "abs_rel", "delta1"
    and "blind_abs_rel" are of dense depth;
    "slope", "slope_error" (over images) and "slope_images" of log depth against log focal scale.

    Args:
        rays: K is told; else the null embedding stands at every image.
        group: only items that ask about this group of subtasks, and no depth.
    """
    learner.model.to(device).eval()
    head = None if group else trained_head(learner, config)
    found: Figures = {}
    for test in tests:
        items = [
            item if rays else item.without_camera()
            for item in test.items
            if group is None or any(tasks.get(q.subtask).group == group for q in item.questions)
        ]
        figures = question_figures(learner, items, device) | loss_figures(learner, items, device)
        if head is not None:
            figures |= _depth_figures(learner, head, items, test.blind_depth_m, device)
            figures |= _slope_figures(learner, head, test, rays, device)
        found |= {f"{test.name}/{key}": value for key, value in figures.items()}
    return found


def trained_head(learner: Learner, config: TrainConfig) -> DPTHead | SpatialHeads | None:
    """The head whose depth was trained, or None."""
    if config.depth_weight:
        return learner.model.depth_head
    heads = learner.model.spatial_heads if config.spatial is not None else None
    return heads if heads is not None and "depth" in heads.decoders else None


def question_figures(learner: Learner, items: Sequence[Item], device: str = "cpu") -> Figures:
    """Accuracies of the answers and of the blind baseline on the same questions, per cent."""
    right: dict[str, list[bool]] = defaultdict(list)
    blind: dict[str, list[bool]] = defaultdict(list)
    asked = [item for item in items if item.questions]
    for part in parts(asked):
        samples = [item.sample for item in part]
        choices = [[question.choices for question in item.questions] for item in part]
        told = answers(learner, samples, choices=choices, device=device)
        for item, texts in zip(part, told, strict=True):
            for question, text in zip(item.questions, texts, strict=True):
                right[question.subtask].append(question.is_right(text))
                blind[question.subtask].append(question.blind_is_right)
    if not right:
        return {}
    found: Figures = {"questions": sum(map(len, right.values()))}
    for name, verdicts in (("answers", right), ("blind", blind)):
        shares = {subtask: 100.0 * float(np.mean(v)) for subtask, v in verdicts.items()}
        found[name] = weighted(shares, headline_weights(shares))
        prefix = "group" if name == "answers" else "blind"
        for group in {tasks.get(subtask).group for subtask in shares}:
            found[f"{prefix}:{group}"] = weighted(shares, group_weights(group, shares))
    return found


@torch.no_grad()
def depths_m(
    learner: Learner, head: DPTHead | SpatialHeads, samples: Sequence[Sample], device: str = "cpu"
) -> Iterator[list[NDArray[np.float32]]]:
    """Per sample the (h, w) z-depth of each of its images."""
    model = learner.model
    for part in parts(samples):
        batch = collate(part, learner.pad_id).to(device)
        _, taps = model.decode(
            embedded(model, batch).embeds, decoder_positions(model, batch.positions), batch.mask
        )
        images = [image for s in part for image in s.images]
        counts = [image.grid[0] * image.grid[1] for image in images]
        mask = model.image_mask(batch.ids)
        split = [tap[mask].split(counts) for tap in taps]
        maps: dict[int, NDArray[np.float32]] = {}
        for group in batch.groups:
            places = group.place.tolist()
            shown = [torch.stack([tap[i] for i in places]) for tap in split]
            found, _ = served_depth(head, shown, *group.grid.tolist())
            maps |= dict(zip(places, found.cpu().numpy(), strict=True))
        ordered = iter([maps[i] for i in range(len(images))])
        for s in part:
            yield [next(ordered) for _ in s.images]


def _depth_figures(
    learner: Learner, head: DPTHead | SpatialHeads, items: Sequence[Item], blind_m: float, device: str
) -> Figures:
    told = [item for item in items if item.sample.targets]
    errors, blind = [], []
    for item, found in zip(
        told, depths_m(learner, head, [_bare(item.sample, learner) for item in told], device), strict=True
    ):
        for depth_m, true_m in zip(found, true_depths(item), strict=True):
            errors.append(depth_error(depth_m, true_m))
            if math.isfinite(blind_m):
                blind.append(depth_error(np.full_like(true_m, blind_m), true_m))
    mean, constant = (mean_depth_error([e for e in part if e is not None]) for part in (errors, blind))
    figures = {} if mean is None else {"abs_rel": mean.abs_rel, "delta1": 100.0 * mean.delta1}
    if constant is not None:
        figures |= {"blind_abs_rel": constant.abs_rel, "blind_delta1": 100.0 * constant.delta1}
    return figures


def _slope_figures(
    learner: Learner,
    head: DPTHead | SpatialHeads,
    test: EvalSet,
    rays: bool,
    device: str,
) -> Figures:
    if not test.views:
        return {}
    viewer = Viewer(learner.model.framing, learner.model.processing)
    flat = [view for views in test.views for view in views]
    samples = [
        pack("focal view", [viewer.show(v.image, v.camera if rays else None)], [], learner.form) for v in flat
    ]
    told = (maps[0] for maps in depths_m(learner, head, samples, device))
    slopes = [
        image_slope([v.scale for v in views], depths_at_points(views, list(islice(told, len(views)))))
        for views in test.views
    ]
    slope = mean_slope(slopes)
    return {"slope": slope.mean, "slope_error": slope.standard_error, "slope_images": slope.images}


def _bare(full: Sample, learner: Learner) -> Sample:
    """The images of a sample without questions: what follows them changes nothing in their tokens."""
    return pack(full.name, full.images, [], learner.form)
