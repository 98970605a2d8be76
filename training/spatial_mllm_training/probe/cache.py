"""Frozen features and true depths on disk, each image looked at once; knows no probe.

A folder of an index and three flat files of fixed shape. An image counts when its mark is set, which
happens after its data is on disk; a run that was cut short goes on with the images without a mark.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.model.preprocess import Framing
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.probe.tapped import TappedModel, fitted
from spatial_mllm_training.sources import SceneRef
from spatial_mllm_training.sources.posed_images import Place, PosedImage, nearest, read

#: Depth cells per visual token and axis, as the DPT probe predicts them.
CELLS = 8
PENDING, USED, UNREADABLE, WITHOUT_TRUTH = range(4)


class FeatureCache:
    """Taps and depth cells of a list of images.

    Attributes:
        places: which images.
        grid: (grid_h, grid_w) visual tokens.
        taps: (images, 4, N, D) float16, every token scaled to mean 0 and variance 1.
        cells_m: (images, 8 grid_h, 8 grid_w) float32 true depth at the cells' centres, 0 = none.
        marks: (images,) uint8.
    """

    def __init__(self, folder: Path, places: list[Place], grid: tuple[int, int], width: int) -> None:
        self.places, self.grid = places, grid
        count, tokens = len(places), grid[0] * grid[1]
        self.taps = _mapped(folder / "taps.f16", np.float16, (count, 4, tokens, width))
        self.cells_m = _mapped(folder / "cells.f32", np.float32, (count, CELLS * grid[0], CELLS * grid[1]))
        self.marks = _mapped(folder / "marks.u8", np.uint8, (count,))

    def of_split(self, split: str) -> NDArray[np.int64]:
        """Positions of the usable images of a split."""
        return np.array(
            [i for i, p in enumerate(self.places) if p.split == split and self.marks[i] == USED], np.int64
        )


def fill(
    folder: Path,
    model: TappedModel,
    picked: Sequence[tuple[SceneRef, list[Place]]],
    *,
    batch: int = 4,
    max_depth_m: float,
    quiet: bool = False,
) -> tuple[FeatureCache, list[str]]:
    """Look at every image that has no mark yet; return the cache and sentences on images left out.

    Args:
        max_depth_m: truth beyond it is none. The public code sets such truth to zero in its loss, in
            place, so that its metric does not see it either.

    Raises:
        ProbeProblem: the folder holds features of other images or of another model, or the model
            gives features that are not finite.
    """
    places = [place for _, group in picked for place in group]
    framing = model.framing
    grid = (framing.grid_height, framing.grid_width)
    cache = _open(folder, model, places, grid, max_depth_m)
    problems: list[str] = []
    pending: list[tuple[int, PosedImage]] = []
    number = {place: i for i, place in enumerate(places)}
    left = [(ref, [p for p in group if cache.marks[number[p]] == PENDING]) for ref, group in picked]
    left = [(ref, group) for ref, group in left if group]
    bar = tqdm(
        read(left, problems),
        total=len(places),
        initial=len(places) - sum(len(group) for _, group in left),
        desc="features",
        unit="image",
        disable=quiet,
    )
    for place, image in bar:
        if image is None:
            cache.marks[number[place]] = UNREADABLE
            continue
        cells_m = true_cells_m(framing, image.true_m, max_depth_m)
        if not (cells_m > 0).any():
            problems.append(
                f"scene '{place.scene}', frame {place.frame}: no depth between 0 and {max_depth_m:g} m"
            )
            cache.marks[number[place]] = WITHOUT_TRUTH
            continue
        cache.cells_m[number[place]] = cells_m
        pending.append((number[place], image))
        if len(pending) == batch:
            _store(cache, model, pending)
            pending.clear()
    if pending:
        _store(cache, model, pending)
    return cache, problems


def true_cells_m(framing: Framing, true_m: NDArray[np.float32], max_depth_m: float) -> NDArray[np.float32]:
    """(8 grid_h, 8 grid_w) the nearest true depth at the cells' centres; 0 beyond `max_depth_m` and in padding.

    Args:
        framing: of the image at the model's size.
        true_m: (H, W) of any size that shows the same image.
    """
    step = framing.pitch_px / CELLS
    u = (np.arange(CELLS * framing.grid_width) + 0.5) * step + framing.crop_left
    v = (np.arange(CELLS * framing.grid_height) + 0.5) * step + framing.crop_top
    # edges of pixels at whole numbers from here on, so that sizes are plain ratios
    u = (u / framing.scale_x - framing.pad_left) * true_m.shape[1] / framing.source_width
    v = (v / framing.scale_y - framing.pad_top) * true_m.shape[0] / framing.source_height
    sampled = nearest(true_m, *(axis - 0.5 for axis in np.meshgrid(u, v)))
    return np.where(sampled <= max_depth_m, sampled, 0).astype(np.float32)


def _store(cache: FeatureCache, model: TappedModel, pending: list[tuple[int, PosedImage]]) -> None:
    inputs = [fitted(image.image_rgb, image.camera, model.width, model.height) for _, image in pending]
    where = pending[0][1].place
    try:
        taps = model.taps([image for image, _ in inputs], [camera for _, camera in inputs])
    except SpatialError as error:
        raise ProbeProblem(f"scene '{where.scene}', frame {where.frame}: {error.sentence}") from None
    if not torch.isfinite(taps).all():
        raise ProbeProblem(
            f"{model.name} gives features that are not finite, near scene '{where.scene}', frame {where.frame}"
        )
    # hidden states of large models exceed half precision in a few channels; every layer that reads
    # them normalises each token first, and so does the probe
    normal = F.layer_norm(taps.float(), taps.shape[-1:]).transpose(0, 1).numpy().astype(np.float16)
    for (position, _), tap in zip(pending, normal, strict=True):
        cache.taps[position] = tap
    cache.taps.flush()
    cache.cells_m.flush()
    for position, _ in pending:
        cache.marks[position] = USED
    cache.marks.flush()


def _open(
    folder: Path, model: TappedModel, places: list[Place], grid: tuple[int, int], max_depth_m: float
) -> FeatureCache:
    """The cache of a folder, made when there is none."""
    blank = np.zeros((model.height, model.width, 3), np.uint8)
    width = model.taps([blank], [None]).shape[-1]
    index = {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "grid": list(grid),
        "width": width,
        "max_depth_m": max_depth_m,
        "images": [asdict(place) for place in places],
    }
    text = json.dumps(index, indent=1)
    file = folder / "index.json"
    if file.is_file():
        if hashlib.sha256(file.read_bytes()).digest() != hashlib.sha256(text.encode()).digest():
            raise ProbeProblem(
                f"'{folder}' holds features of another model, other images or another size; "
                "remove it or name another --out"
            )
    else:
        for stale in folder.glob("*.[fu]*"):
            stale.unlink()
        write_atomically(file, text.encode())
    return FeatureCache(folder, places, grid, width)


def _mapped(file: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not file.exists():
        with open(file, "wb") as handle:
            handle.truncate(size)  # sparse: only what is written takes room
    elif file.stat().st_size != size:
        raise ProbeProblem(f"{file} has {file.stat().st_size} bytes instead of {size}; remove its folder")
    return np.memmap(file, dtype, "r+", shape=shape)
