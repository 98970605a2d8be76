"""How surprised a model is by the true answers: finer than counting right ones, which rare luck decides early.

Beside it the same with the images of other items: what a model loses by that is what it has seen. Knows no files.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.nn import functional

from spatial_mllm_core import tasks
from spatial_mllm_training.ablate.questions import Item, parts
from spatial_mllm_training.data.packing import IGNORE
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.setup import Learner

Losses = dict[str, list[float]]


def loss_figures(learner: Learner, items: Sequence[Item], device: str = "cpu") -> dict[str, float]:
    """Mean cross entropy of the tokens of the true answers, nats: "loss" and, by group of subtasks, "loss:<g>".

    "blind_loss" and "blind_loss:<g>" are those after the images of another item of as many images of one size;
    they are left out where an item has no such other.
    """
    asked = [item for item in items if item.questions]
    found = _means("loss", _losses(learner, asked, device))
    return found | _means("blind_loss", _losses(learner, exchanged(asked), device))


def exchanged(items: Sequence[Item]) -> list[Item]:
    """Every item with the images of another, far from it in the list: neighbours may show the same ones."""
    alike: dict[tuple[tuple[int, ...], ...], list[Item]] = defaultdict(list)
    for item in items:
        alike[tuple(image.pixels.shape for image in item.told.images)].append(item)
    found = []
    for members in alike.values():
        if (count := len(members)) < 2:
            continue
        for i, item in enumerate(members):
            other = members[(i + count // 2) % count]
            found.append(replace(item, told=replace(item.told, images=other.told.images)))
    return found


@torch.no_grad()
def _losses(learner: Learner, items: Sequence[Item], device: str) -> Losses:
    """Per group of subtasks the losses of all tokens."""
    objective = Objective(learner.model, depth_weight=0.0).eval()
    found: Losses = defaultdict(list)
    for part in parts(items):
        out = objective.predict(collate([item.told for item in part], learner.pad_id).to(device))
        losses = functional.cross_entropy(out.logits.float(), out.targets, reduction="none").tolist()
        each = iter(losses)
        for item in part:
            images = len(item.told.images)
            for owner in item.told.owner[item.told.labels != IGNORE]:
                subtask = item.questions[int(owner) - images - 1].subtask
                found[tasks.get(subtask).group].append(next(each))
    return found


def _means(name: str, losses: Losses) -> dict[str, float]:
    if not losses:
        return {}
    every = [value for values in losses.values() for value in values]
    by_group = {f"{name}:{group}": float(np.mean(values)) for group, values in losses.items()}
    return {name: float(np.mean(every)), **by_group}
