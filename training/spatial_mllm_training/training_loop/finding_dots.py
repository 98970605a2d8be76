"""Trains a finder of dots on the scenes of the training split, and measures it on others."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spatial_mllm_training.data.drawn_dots import DrawnDotsSource
from spatial_mllm_training.model.dot_finder import COLUMNS, NOWHERE, DotFinder, finding_loss, found_cells

_HELD_OUT_BATCHES = 16
_NEAR_CELLS = 1.5
"""A dot is found where the likeliest cell is its own one or a neighbour."""


@dataclass(frozen=True)
class Finding:
    """How long a finder learns.

    Attributes:
        steps: of the optimiser; None: as many as there are in `minutes`.
    """

    steps: int | None = None
    minutes: float = 12.0
    batch: int = 32
    learning_rate: float = 3e-3
    seed: int = 0


def train_dot_finder(
    scenes: Path, lessons: Finding, *, workers: int = 1, say: Callable[[str], None] = print
) -> tuple[DotFinder, dict[str, Any]]:
    """A finder, and the record of its training: what was asked, how long it took, and what was `measured`.

    Raises:
        ValueError: there are no scenes.
        FloatingPointError: the loss is not finite.
    """
    source = DrawnDotsSource(scenes, lessons.seed, validation=False)
    held_out = DrawnDotsSource(scenes, lessons.seed, validation=True)
    torch.manual_seed(lessons.seed)
    model = DotFinder().train()
    say(f"a finder of {sum(p.numel() for p in model.parameters()):,} parameters")
    optimizer = torch.optim.AdamW(model.parameters(), lr=lessons.learning_rate, weight_decay=0.01)
    began = time.monotonic()
    step = 0
    for images, cells in _batches(source, lessons.batch, workers):
        done = (
            step / lessons.steps if lessons.steps else (time.monotonic() - began) / (60.0 * lessons.minutes)
        )
        if done >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = lessons.learning_rate * min((step + 1) / 50, 0.51 + 0.49 * math.cos(math.pi * done))
        with torch.autocast("cpu", torch.bfloat16):
            scores = model(images)
        loss = finding_loss(scores, cells)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"the finder's loss is {float(loss)} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            say(
                f"step {step}, {(time.monotonic() - began) / 60:.1f} minutes, loss {float(loss.detach()):.3f}"
            )
    return model.eval(), {
        "lessons": asdict(lessons),
        "data": source.digest(),
        "steps": step,
        "minutes": (time.monotonic() - began) / 60,
        "held_out": measured(model, held_out, lessons.batch),
    }


@torch.no_grad()
def measured(model: DotFinder, held_out: DrawnDotsSource, batch: int) -> dict[str, float]:
    """Shares of the plain and of the lettered dots that are found, and of those found that are not there."""
    near: dict[bool, list[Tensor]] = {True: [], False: []}
    invented = []
    for number in range(_HELD_OUT_BATCHES):
        images, cells = _stacked(held_out, range(number * batch, (number + 1) * batch))
        best = found_cells(model(images))
        there, found = cells < NOWHERE, best < NOWHERE
        apart = torch.stack(
            [best % COLUMNS - cells % COLUMNS, best // COLUMNS - cells // COLUMNS], -1
        ).float()
        right = found & (apart.norm(dim=-1) < _NEAR_CELLS)
        near[False].append(right[:, :1][there[:, :1]])
        near[True].append(right[:, 1:][there[:, 1:]])
        invented.append(found[~there])
    return {
        "plain_found": float(torch.cat(near[False]).float().mean()),
        "lettered_found": float(torch.cat(near[True]).float().mean()),
        "invented": float(torch.cat(invented).float().mean()),
    }


class _Endless(Dataset[tuple[Tensor, Tensor]]):
    def __init__(self, source: DrawnDotsSource, batch: int) -> None:
        self._source, self._batch = source, batch

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        return _stacked(self._source, range(number * self._batch, (number + 1) * self._batch))


def _batches(source: DrawnDotsSource, batch: int, workers: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from DataLoader(_Endless(source, batch), batch_size=None, num_workers=workers)


def _stacked(source: DrawnDotsSource, numbers: range) -> tuple[Tensor, Tensor]:
    samples = [source.sample(number) for number in numbers]
    return (
        torch.from_numpy(np.stack([sample.image for sample in samples])),
        torch.from_numpy(np.stack([sample.cells for sample in samples])),
    )
