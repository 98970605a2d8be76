"""Train a depth probe on cached features and say how good it is; knows neither scenes nor models."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from spatial_mllm_training.probe.cache import FeatureCache
from spatial_mllm_training.probe.errors import ImageError, image_error, mean_error
from spatial_mllm_training.probe.head import DepthProbe, probe_loss, rate_share
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.sources.posed_images import Place


@dataclass(frozen=True)
class ProbeConfig:
    """How a probe is trained; the defaults are the public ones."""

    hidden: int = 512
    bins: int = 256
    min_depth_m: float = 0.001
    max_depth_m: float = 10.0
    epochs: int = 10
    warmup_epochs: float = 1.5
    batch: int = 8
    learning_rate: float = 5e-4
    seed: int = 0


@dataclass(frozen=True)
class ProbeFigures:
    """Errors on the held-out images, every image weighing the same.

    Attributes:
        probe, matched: as predicted, and after the best scale and shift of each image.
        blind: the mean depth of the training images everywhere.
        blind_by_place: the mean depth of the training images at the same cell.
        images: one error per image, in order of `places`.
    """

    probe: ImageError
    matched: ImageError
    blind: ImageError
    blind_by_place: ImageError
    places: tuple[Place, ...]
    images: tuple[ImageError, ...]
    matched_images: tuple[ImageError, ...]


def fit(
    cache: FeatureCache,
    training: NDArray[np.int64],
    config: ProbeConfig,
    checkpoint: Path,
    *,
    device: str = "cpu",
    quiet: bool = False,
    after_epoch: Callable[[int, float], None] | None = None,
) -> DepthProbe:
    """Train, or go on from the checkpoint of the same configuration and images.

    One seed gives one result on one kind of device, in one piece or in several.

    Args:
        training: positions of the images in the cache.
        checkpoint: written after every epoch.
        after_epoch: told the number of finished epochs and the mean loss.

    Raises:
        ProbeProblem: no training image, a torn or foreign checkpoint, or a loss that is not finite.
    """
    if not len(training):
        raise ProbeProblem("there is no usable image of the split 'train' to train the probe on")
    torch.manual_seed(config.seed)
    probe = DepthProbe(
        cache.taps.shape[-1],
        hidden=config.hidden,
        bins=config.bins,
        min_m=config.min_depth_m,
        max_m=config.max_depth_m,
    ).to(device)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=config.learning_rate)
    key = json.dumps({**asdict(config), "images": [asdict(cache.places[i]) for i in training]})
    done = _resume(checkpoint, key, probe, optimizer)
    per_epoch = -(-len(training) // config.batch)
    steps, warmup = config.epochs * per_epoch, config.warmup_epochs * per_epoch
    probe.train()
    for epoch in range(done, config.epochs):
        order = np.random.default_rng([config.seed, epoch]).permutation(training)
        losses = []
        for i in tqdm(range(per_epoch), desc=f"probe epoch {epoch + 1}/{config.epochs}", disable=quiet):
            rows = np.sort(order[i * config.batch : (i + 1) * config.batch])
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * rate_share(epoch * per_epoch + i, steps, warmup)
            loss = probe_loss(_predict(probe, cache, rows, device), _truth(cache, rows, device))
            if not torch.isfinite(loss):
                where = cache.places[rows[0]]
                raise ProbeProblem(
                    f"the probe's loss is {loss.item()} in epoch {epoch + 1}, in the batch of scene "
                    f"'{where.scene}', frame {where.frame}"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        state = {
            "key": key,
            "epoch": epoch + 1,
            "probe": probe.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        part = checkpoint.with_suffix(".part")
        torch.save(state, part)
        os.replace(part, checkpoint)
        if after_epoch is not None:
            after_epoch(epoch + 1, float(np.mean(losses)))
    return probe.eval()


@torch.no_grad()
def judge(
    probe: DepthProbe,
    cache: FeatureCache,
    training: NDArray[np.int64],
    held_out: NDArray[np.int64],
    *,
    device: str = "cpu",
    quiet: bool = False,
) -> ProbeFigures:
    """Compare the probe's depth of the held-out images with the truth at the cells.

    Raises:
        ProbeProblem: no held-out image.
    """
    if not len(held_out):
        raise ProbeProblem("there is no usable held-out image to judge the probe on")
    constant_m, by_place_m = _mean_truth(cache, training)
    everywhere_m = np.full_like(by_place_m, constant_m)
    errors: dict[str, list[ImageError]] = {
        name: [] for name in ("probe", "matched", "blind", "blind_by_place")
    }
    for i in tqdm(held_out, desc="held out", unit="image", disable=quiet):
        true_m = np.asarray(cache.cells_m[i])
        predicted_m = _predict(probe, cache, np.array([i]), device)[0].cpu().numpy()
        for name, depth_m in (
            ("probe", predicted_m),
            ("matched", predicted_m),
            ("blind", everywhere_m),
            ("blind_by_place", by_place_m),
        ):
            error = image_error(depth_m, true_m, matched=name == "matched")
            assert error is not None  # images without truth are not marked as used
            errors[name].append(error)
    means: dict[str, Any] = {name: mean_error(found) for name, found in errors.items()}
    return ProbeFigures(
        **means,
        places=tuple(cache.places[i] for i in held_out),
        images=tuple(errors["probe"]),
        matched_images=tuple(errors["matched"]),
    )


def _predict(probe: DepthProbe, cache: FeatureCache, rows: NDArray[np.int64], device: str) -> torch.Tensor:
    taps = torch.from_numpy(cache.taps[rows].astype(np.float32)).to(device)
    return probe(taps.transpose(0, 1), *cache.grid)


def _truth(cache: FeatureCache, rows: NDArray[np.int64], device: str) -> torch.Tensor:
    return torch.from_numpy(np.array(cache.cells_m[rows])).to(device)


def _mean_truth(cache: FeatureCache, rows: NDArray[np.int64]) -> tuple[float, NDArray[np.float32]]:
    """The mean over images and cells, and per cell; a cell that never has a truth takes the mean of all."""
    total, count = np.zeros(cache.cells_m.shape[1:]), np.zeros(cache.cells_m.shape[1:])
    for i in rows:
        total += cache.cells_m[i]
        count += cache.cells_m[i] > 0
    constant_m = float(total.sum() / count.sum())
    return constant_m, np.where(count > 0, total / np.maximum(count, 1), constant_m).astype(np.float32)


def _resume(checkpoint: Path, key: str, probe: DepthProbe, optimizer: torch.optim.Optimizer) -> int:
    if not checkpoint.exists():
        return 0
    try:
        state = torch.load(checkpoint, weights_only=True, map_location="cpu")
        found, epoch = state["key"], int(state["epoch"])
    except Exception as error:  # torch raises a dozen kinds for a torn file
        raise ProbeProblem(f"{checkpoint} is not a whole checkpoint of a probe: {error}") from None
    if found != key:
        raise ProbeProblem(
            f"{checkpoint} belongs to a probe of another configuration or other images; "
            "remove it or name another --out"
        )
    probe.load_state_dict(state["probe"])
    optimizer.load_state_dict(state["optimizer"])
    return epoch
