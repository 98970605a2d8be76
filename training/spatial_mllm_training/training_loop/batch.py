"""Samples as tensors, images of one size together; on disk as safetensors. Knows no model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.model.pointing import cell, neighbours
from spatial_mllm_core.model.told import COUNT
from spatial_mllm_training.data.packing import IGNORE, Sample
from spatial_mllm_training.supervision.targets import DenseTargets


@dataclass(frozen=True, eq=False)
class ImageGroup:
    """All n images of one input size.

    Attributes:
        pixels: (n, H, W, 3) uint8.  rays: (n, N, 4).  has_camera: (n,) bool.
        place: (n,) index of each image among all images of the batch.
        first: (n,) index in this group of the first image of the same prompt, of the image itself where that
            one has another size.
        grid: (2,) tokens (rows, columns).
        depth: (n, h, w) z-depth at the heads' cells, NaN = none.
        ray_map, point_map, motion_map: (n, h, w, 6, 3 and 3), or None where no head needs them.
        match_map: (n, h', w', 3) where the cells of each one's first image are in it, and whether they moved, or None
            where no matcher learns.
        row: (n,) sample of each image.  is_metric: (B,) bool.
        features: (n, h, w, D) last features of a teacher on its own grid, or None.
        is_taught: (n,) bool, whether they mean something; None where there are none.
    """

    pixels: Tensor
    rays: Tensor
    has_camera: Tensor
    place: Tensor
    first: Tensor
    grid: Tensor
    depth: Tensor
    row: Tensor
    is_metric: Tensor
    ray_map: Tensor | None = None
    point_map: Tensor | None = None
    motion_map: Tensor | None = None
    match_map: Tensor | None = None
    features: Tensor | None = None
    is_taught: Tensor | None = None

    def targets(self) -> DenseTargets:
        if self.ray_map is None or self.point_map is None:
            raise ValueError("this batch was collated without ray and point maps")
        return DenseTargets(
            self.depth, self.ray_map, self.point_map, self.row, self.is_metric, self.motion_map
        )


_PLAIN = (
    "ids",
    "labels",
    "weights",
    "positions",
    "mask",
    "pointers",
    "pointer_tokens",
    "pointer_weights",
    "pointer_images",
    "pointer_cells",
    "places",
    "owners",
    "told",
    "told_m",
    "told_pairs",
    "told_numbers",
    "pairs",
    "pair_images",
    "pair_points",
)


@dataclass(frozen=True, eq=False)
class Batch:
    """B samples padded to S tokens.

    Attributes:
        ids, labels, weights: (B, S).  positions: (3, B, S).  mask: (B, 1, S, S) bool, True = is seen.
        pointers: (P, 2) row and token of the coordinates of questions; pointer_tokens, pointer_weights: (P, 4) which
            of all visual tokens of the batch, in prompt order, are seen there; pointer_images, pointer_cells: (P,)
            which image that is, in prompt order, -1 for one whose depth is not told, and which cell of its depth map.
        told: (T, 2) row and token of coordinates without an image; told_m: (T,) their z-depths, metres.
        told_pairs: (U, 2) row and token of what is told of two images that nobody sees; told_numbers: (U, 2, 8)
            float64, see `told.Told`.
        places: (B, S) see `Sample`; owners: (B, S) to which question, or image, of all of the batch a token belongs.
        pairs: (Q, 2) row and first token of questions about several images; pair_images: (Q, 2) the first and the
            last of them, in prompt order; pair_points: (Q, 2) the coordinate that they name first, -1 for none.
        groups: the images, by size.
        names: of the samples.
        problems: sentences about samples that were left out while this batch was drawn.
    """

    ids: Tensor
    labels: Tensor
    weights: Tensor
    positions: Tensor
    mask: Tensor
    pointers: Tensor
    pointer_tokens: Tensor
    pointer_weights: Tensor
    pointer_images: Tensor
    pointer_cells: Tensor
    places: Tensor
    owners: Tensor
    told: Tensor
    told_m: Tensor
    told_pairs: Tensor
    told_numbers: Tensor
    pairs: Tensor
    pair_images: Tensor
    pair_points: Tensor
    groups: tuple[ImageGroup, ...]
    names: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def each(thing: Any) -> dict[str, Any]:
            pairs = ((f.name, getattr(thing, f.name)) for f in fields(thing))
            # the grid stays where it is: it is read on the host
            return {k: change(v) if isinstance(v, Tensor) and k != "grid" else v for k, v in pairs}

        return Batch(**{**each(self), "groups": tuple(ImageGroup(**each(g)) for g in self.groups)})

    def to(self, device: torch.device | str) -> Batch:
        return self._mapped(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._mapped(lambda x: x.pin_memory())

    def save(self, path: Path, **notes: str) -> None:
        """Write it for a replay; `notes` go into the file's header."""
        tensors = {k: getattr(self, k) for k in _PLAIN}
        for number, group in enumerate(self.groups):
            for f in fields(group):
                if (value := getattr(group, f.name)) is not None:
                    tensors[f"groups.{number}.{f.name}"] = value
        # a copy each: groups share tensors, which the file format refuses
        plain = {k: v.detach().cpu().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
        write_atomically(path, save(plain, {"names": "\n".join(self.names), **notes}), replace=True)

    @classmethod
    def read(cls, path: Path) -> Batch:
        """Inverse of `save`, without names."""
        found = load_file(str(path))
        groups: dict[str, dict[str, Tensor]] = {}
        for key in [k for k in found if k.startswith("groups.")]:
            _, number, name = key.split(".")
            groups.setdefault(number, {})[name] = found.pop(key)
        if "pointers" in found:  # files of before deep pointers
            untold = torch.full((len(found["pointers"]),), -1)
            found = {"pointer_images": untold, "pointer_cells": untold.clone(), **found}
        if "told" not in found:  # files of before drills
            found |= {"told": torch.empty((0, 2), dtype=torch.int64), "told_m": torch.empty(0)}
        if "pairs" not in found:  # files of before matching
            found |= _seen_twice([])
        if found["told_numbers"].ndim == 2:  # files of before digits
            shares = found["told_numbers"]
            found["told_numbers"] = torch.stack([shares, torch.full_like(shares, torch.nan)], dim=1)
        if "places" not in found:
            found |= {"places": torch.full_like(found["ids"], -1), "owners": torch.zeros_like(found["ids"])}
        return cls(**found, groups=tuple(ImageGroup(**groups[n]) for n in sorted(groups, key=int)))


def collate(
    samples: Sequence[Sample],
    pad_id: int,
    *,
    maps: bool = False,
    match_stride: int | None = None,
    cells: int = 8,
) -> Batch:
    """Stack samples; tokens are padded to the longest row, a pad sees only itself.

    Args:
        maps: with ray and point maps.
        match_stride: pixels per cell of the maps of matches; None: without.
        cells: of the heads per token and axis, for samples without truth.
    """
    length = max(len(s.ids) for s in samples)
    count = len(samples)
    ids = np.full((count, length), pad_id, np.int64)
    labels = np.full((count, length), IGNORE, np.int64)
    weights = np.ones((count, length), np.float32)
    positions = np.zeros((3, count, length), np.int64)
    mask = np.zeros((count, length, length), bool)
    mask[:, np.arange(length), np.arange(length)] = True
    places = np.full((count, length), -1, np.int64)
    owners = np.zeros((count, length), np.int64)
    for b, s in enumerate(samples):
        n = len(s.ids)
        ids[b, :n], labels[b, :n], weights[b, :n], positions[:, b, :n] = (
            s.ids,
            s.labels,
            s.weights,
            s.positions,
        )
        mask[b, :n, :n] = s.mask()
        places[b, :n], owners[b, :n] = s.places, owners.max() + 1 + s.owner
    return Batch(
        ids=torch.from_numpy(ids),
        labels=torch.from_numpy(labels),
        weights=torch.from_numpy(weights),
        positions=torch.from_numpy(positions),
        mask=torch.from_numpy(mask)[:, None],
        **_pointers(samples, cells),
        places=torch.from_numpy(places),
        owners=torch.from_numpy(owners),
        **_told(samples),
        **_seen_twice(samples),
        groups=_groups(samples, maps, match_stride, cells),
        names=tuple(s.name for s in samples),
    )


def _pointers(samples: Sequence[Sample], cells: int) -> dict[str, Tensor]:
    """The fields of a batch that say where its questions point."""
    places, tokens, weights, images, at_cells = [], [], [], [], []
    start = images_before = 0
    for b, sample in enumerate(samples):
        grids = [image.grid for image in sample.images]
        starts = start + np.cumsum([0, *(h * w for h, w in grids)])
        for at, image, x, y in sample.pointers:
            near, shares = neighbours(x, y, *grids[image])
            places.append((b, at))
            tokens.append(near + starts[image])
            weights.append(shares)
            images.append(images_before if image == 0 else -1)
            at_cells.append(cell(x, y, *(cells * side for side in grids[image])))
        start = int(starts[-1])
        images_before += len(grids)
    return {
        "pointers": torch.tensor(places, dtype=torch.int64).reshape(-1, 2),
        "pointer_tokens": torch.from_numpy(np.asarray(tokens, np.int64).reshape(-1, 4)),
        "pointer_weights": torch.from_numpy(np.asarray(weights, np.float32).reshape(-1, 4)),
        "pointer_images": torch.tensor(images, dtype=torch.int64),
        "pointer_cells": torch.tensor(at_cells, dtype=torch.int64),
    }


def _told(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """The fields of a batch that say how far points without an image are."""
    found = [(b, token, depth_m) for b, sample in enumerate(samples) for token, depth_m in sample.told]
    return {
        "told": torch.tensor([place[:2] for place in found], dtype=torch.int64).reshape(-1, 2),
        "told_m": torch.tensor([place[2] for place in found], dtype=torch.float32),
    }


def _seen_twice(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """The fields of a batch about several images: where questions begin, what they ask of both, what they are told."""
    pairs: list[tuple[int, int]] = []
    images: list[tuple[int, int]] = []
    points: list[tuple[int, int]] = []
    images_before = 0
    for b, sample in enumerate(samples):
        for token, later, coordinates in sample.pairs:
            pairs.append((b, token))
            images.append((images_before, images_before + later))
            points.append((*coordinates, (-1, -1))[0])
        images_before += len(sample.images)
    told = [(b, token, numbers) for b, sample in enumerate(samples) for token, numbers in sample.told_pairs]
    whole = partial(torch.tensor, dtype=torch.int64)
    return {
        "told_pairs": whole([place[:2] for place in told]).reshape(-1, 2),
        "told_numbers": torch.tensor([place[2] for place in told], dtype=torch.float64).reshape(-1, 2, COUNT),
        "pairs": whole(pairs).reshape(-1, 2),
        "pair_images": whole(images).reshape(-1, 2),
        "pair_points": whole(points).reshape(-1, 2),
    }


def _groups(
    samples: Sequence[Sample], maps: bool, match_stride: int | None, cells: int
) -> tuple[ImageGroup, ...]:
    images = [(b, i) for b, s in enumerate(samples) for i in range(len(s.images))]
    by_size: dict[tuple[int, ...], list[int]] = {}
    for place, (b, i) in enumerate(images):
        by_size.setdefault(samples[b].images[i].pixels.shape, []).append(place)
    is_metric = torch.tensor([all(t.is_metric for t in s.targets or ()) for s in samples])
    groups = []
    for places in by_size.values():
        shown = [samples[images[p][0]].images[images[p][1]] for p in places]
        truth = partial(_truth, samples, [images[p] for p in places])
        grid = shown[0].grid
        size = (cells * grid[0], cells * grid[1])
        groups.append(
            ImageGroup(
                pixels=torch.from_numpy(np.stack([x.pixels for x in shown])),
                rays=torch.from_numpy(np.stack([x.rays for x in shown])),
                has_camera=torch.tensor([x.has_camera for x in shown]),
                place=torch.tensor(places),
                first=torch.tensor(_firsts(samples, [images[p] for p in places])),
                grid=torch.tensor(grid),
                depth=truth("depth", size),
                row=torch.tensor([images[p][0] for p in places]),
                is_metric=is_metric,
                ray_map=truth("rays", (*size, 6)) if maps else None,
                point_map=truth("points", (*size, 3)) if maps else None,
                motion_map=truth("motion", (*size, 3)) if maps else None,
                match_map=truth("matches", (*(n // match_stride for n in shown[0].pixels.shape[:2]), 3))
                if match_stride
                else None,
            )
        )
    return tuple(groups)


def _firsts(samples: Sequence[Sample], images: Sequence[tuple[int, int]]) -> list[int]:
    """Per image, as (sample, number in it), the place of the first one of its prompt."""
    at = {image: place for place, image in enumerate(images)}
    return [at[b, i] if samples[b].apart else at.get((b, 0), at[b, i]) for b, i in images]


def _truth(
    samples: Sequence[Sample], images: Sequence[tuple[int, int]], name: str, shape: tuple[int, ...]
) -> Tensor:
    out = np.full((len(images), *shape), np.nan, np.float32)
    for n, (b, i) in enumerate(images):
        targets = samples[b].targets
        if targets is not None and (known := getattr(targets[i], name)) is not None:
            out[n] = known[0]
    return torch.from_numpy(out)
