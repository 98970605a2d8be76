"""The embeddings of a batch of prompts: words, visual tokens in their places, and what questions point at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spatial_mllm_core.model import told
from spatial_mllm_core.model.digits import COUNT, digit_codes
from spatial_mllm_core.model.engine import Float32
from spatial_mllm_core.model.pointing import depth_code
from spatial_mllm_core.two_view.view_pair import View, ViewPair
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.training_loop.batch import Batch, ImageGroup


class Embedded(NamedTuple):
    """Prompts as a decoder takes them.

    Attributes:
        embeds: (B, S, D) with visual tokens in their places, and what is told.
        numbers: (B, S, COUNT) float64, those whose digits are told at a token of an answer; NaN: none.
    """

    embeds: Tensor
    numbers: Tensor


def embedded(model: CameraAwareVLM, batch: Batch) -> Embedded:
    """The prompts of a batch."""
    embeds = model.hf.get_input_embeddings()(batch.ids)
    digits = _Digits(batch)
    if not batch.groups:
        embeds = _with_told_depths(model, embeds, batch, digits)
        return digits.added(model, _with_told_pairs(model, embeds, batch, digits))
    tokens = [
        model.embed_images(
            normalised(model.processing, g.pixels.permute(0, 3, 1, 2)), g.rays, g.has_camera, g.first
        )
        for g in batch.groups
    ]
    visual = _in_prompt_order(tokens, batch.groups)
    embeds = _with_told_depths(model, embeds, batch, digits, visual)
    embeds = embeds.to(visual.dtype).masked_scatter(model.image_mask(batch.ids)[..., None], visual)
    wanted = _asked_about(model, batch)
    maps = _depth_maps(model, batch, embeds, wanted) if wanted else {}
    if model.pointers and len(batch.pointers):
        shown = (batch.pointer_weights[..., None].to(visual.dtype) * visual[batch.pointer_tokens]).sum(1)
        embeds = _added(embeds, batch.pointers, shown)
        if model.deep_pointers:
            embeds = _with_depths(embeds, batch.pointers, _pointed_m(batch, maps), digits)
    if model.matcher is not None and len(batch.pairs):
        embeds = _with_matches(model, embeds, batch, maps, digits)
    return digits.added(model, _with_told_pairs(model, embeds, batch, digits))


class _Digits:
    """What the questions of a batch are told in digits, see `spatial_mllm_core.model.digits`."""

    def __init__(self, batch: Batch) -> None:
        self._owners = batch.owners.cpu().numpy()
        self._places = batch.places.cpu().numpy()
        self._spelled: dict[int, list[float]] = {}

    def depths(self, places: Tensor, depth_m: NDArray[np.floating]) -> None:
        """Of points whose words end at (P, 2) rows and tokens; NaN: not told."""
        by_question: dict[int, list[float]] = {}
        for (row, token), z in zip(places.tolist(), depth_m.tolist(), strict=True):
            if np.isfinite(z):
                by_question.setdefault(int(self._owners[row, token]), []).append(z)
        self._spelled |= {of: list(told.of_depths(each).spelled) for of, each in by_question.items()}

    def pairs(self, places: Tensor, known: Sequence[told.Told]) -> None:
        """Of questions that begin at (N, 2) rows and tokens, in place of the depths that they point at."""
        for (row, token), each in zip(places.tolist(), known, strict=True):
            self._spelled[int(self._owners[row, token])] = list(each.spelled)

    def added(self, model: CameraAwareVLM, embeds: Tensor) -> Embedded:
        """The embeddings with what comes next at every token of the answers."""
        numbers = np.full((*self._places.shape, COUNT), np.nan)
        if model.told_digits and self._spelled:
            rows, tokens = np.nonzero((self._places >= 0) & np.isin(self._owners, list(self._spelled)))
            told_here = [self._spelled[of] for of in self._owners[rows, tokens].tolist()]
            numbers[rows, tokens] = np.reshape(told_here, (-1, COUNT))
            codes = digit_codes(numbers[rows, tokens], self._places[rows, tokens], embeds.shape[-1])
            places = torch.from_numpy(np.stack([rows, tokens], axis=1)).to(embeds.device)
            embeds = _added(embeds, places, torch.from_numpy(codes))
        return Embedded(embeds, torch.from_numpy(numbers).to(embeds.device))


_STRIDE = 7919
"""A prime: which look a told point has depends on nothing but its place in the batch."""


def _with_told_depths(
    model: CameraAwareVLM, embeds: Tensor, batch: Batch, digits: _Digits, visual: Tensor | None = None
) -> Tensor:
    """Points whose depths are told carry them, behind the look of some other point, as those of images do.

    Without looks a depth is learnt to be read that no point of an image shows so plainly.

    Args:
        visual: (T, D) visual tokens of the batch.
    """
    count = len(batch.told)
    if not model.deep_pointers or not count:
        return embeds
    if visual is not None:
        looks = visual.detach()[torch.arange(count, device=visual.device) * _STRIDE % len(visual)]
        embeds = _added(embeds, batch.told, looks)
    return _with_depths(embeds, batch.told, batch.told_m.cpu().numpy(), digits)


def _with_depths(embeds: Tensor, places: Tensor, depth_m: NDArray[np.floating], digits: _Digits) -> Tensor:
    """How far the points are whose words end at (P, 2) rows and tokens; NaN: not told."""
    digits.depths(places, depth_m)
    codes = np.nan_to_num(depth_code(depth_m, embeds.shape[-1]))
    return _added(embeds, places, torch.from_numpy(codes))


def _with_told_pairs(model: CameraAwareVLM, embeds: Tensor, batch: Batch, digits: _Digits) -> Tensor:
    """What is told of two images that nobody sees."""
    if model.matcher is None or not len(batch.told_pairs):
        return embeds
    known = [told.Told(*map(tuple, of.tolist())) for of in batch.told_numbers]
    return _with_codes(embeds, batch.told_pairs, known, digits)


def _added(embeds: Tensor, places: Tensor, codes: Tensor) -> Tensor:
    """With (P, D) codes at (P, 2) rows and tokens."""
    return embeds.index_put(tuple(places.unbind(1)), codes.to(embeds), accumulate=True)


def decoder_positions(model: CameraAwareVLM, positions_3BS: Tensor) -> Tensor:
    """Positions of a batch as the family's decoder takes them: with an axis for rows and columns, or without."""
    return positions_3BS if model.family.name == "qwen2_5_vl" else positions_3BS[0]


def by_group(taps: list[Tensor], groups: tuple[ImageGroup, ...]) -> list[list[Tensor]]:
    """Taps (T, D) in prompt order as (n, N, D) per group."""
    if not groups:
        return []
    if len(groups) == 1:
        n = len(groups[0].place)
        return [[tap.reshape(n, -1, tap.shape[-1]) for tap in taps]]
    counts = {i: g.rays.shape[1] for g in groups for i in g.place.tolist()}
    split = [tap.split([counts[i] for i in range(len(counts))]) for tap in taps]
    return [[torch.stack([t[i] for i in g.place.tolist()]) for t in split] for g in groups]


def _asked_about(model: CameraAwareVLM, batch: Batch) -> set[int]:
    """Images, in prompt order, whose depth is told."""
    found: set[int] = set()
    if model.deep_pointers:
        found |= set(batch.pointer_images.tolist()) - {-1}
    if model.matcher is not None:
        found |= set(batch.pair_images.flatten().tolist())
    return found


def _pointed_m(batch: Batch, maps: Mapping[int, Float32]) -> NDArray[np.float32]:
    """(P,) how far what questions point at is, metres; NaN where none is told."""
    depth_m = np.full(len(batch.pointers), np.nan, np.float32)
    for n, (image, at) in enumerate(
        zip(batch.pointer_images.tolist(), batch.pointer_cells.tolist(), strict=True)
    ):
        if image in maps:
            depth_m[n] = maps[image].ravel()[at]
    return depth_m


@torch.no_grad()
def _depth_maps(model: CameraAwareVLM, batch: Batch, embeds: Tensor, wanted: set[int]) -> dict[int, Float32]:
    """z-depth in metres of the wanted images, as the model's own head says it.

    Nothing before the questions depends on them: the images are read once alone, as the runtime reads them.
    """
    device = embeds.device.type
    # weights that are cast here must not be kept for the pass that follows: they have no gradient
    with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
        mask = model.image_mask(batch.ids)
        end = int(mask.any(0).nonzero().max()) + 1
        positions = decoder_positions(model, batch.positions[:, :, :end])
        _, taps = model.decode(embeds[:, :end], positions, batch.mask[:, :, :end, :end])
        found: dict[int, Float32] = {}
        for of_group, group in zip(
            by_group([t[mask[:, :end]] for t in taps], batch.groups), batch.groups, strict=True
        ):
            places = group.place.tolist()
            here = [n for n, place in enumerate(places) if place in wanted]
            if not here:
                continue
            depth_m, _ = model.served_depth([tap[here] for tap in of_group], *group.grid.tolist())
            found |= dict(zip([places[n] for n in here], depth_m.float().cpu().numpy(), strict=True))
    return found


def _with_matches(
    model: CameraAwareVLM, embeds: Tensor, batch: Batch, maps: Mapping[int, Float32], digits: _Digits
) -> Tensor:
    """Questions about several images carry what they are told of them, as if served."""
    views = _views(model, batch, maps)
    known: dict[tuple[int, int], ViewPair] = {}
    found = []
    for images, point in zip(batch.pair_images.tolist(), batch.pair_points.tolist(), strict=True):
        first, later = images
        if (first, later) not in known:
            known[first, later] = ViewPair(views[first], views[later])
        named = [(point[0], point[1])] if min(point) >= 0 else []
        found.append(told.of_question(known[first, later], named))
    return _with_codes(embeds, batch.pairs, found, digits)


def _with_codes(embeds: Tensor, places: Tensor, known: Sequence[told.Told], digits: _Digits) -> Tensor:
    """What is told of two images, added at (N, 2) rows and tokens."""
    digits.pairs(places, known)
    codes = np.stack([told.code(each.shares, embeds.shape[-1]) for each in known])
    return _added(embeds, places, torch.from_numpy(codes))


@torch.no_grad()
def _views(model: CameraAwareVLM, batch: Batch, maps: Mapping[int, Float32]) -> dict[int, View]:
    """The images of questions about several, in prompt order."""
    assert model.matcher is not None
    wanted = set(batch.pair_images.flatten().tolist())
    found: dict[int, View] = {}
    device = batch.ids.device.type
    for group in batch.groups:
        places = group.place.tolist()
        here = [n for n, place in enumerate(places) if place in wanted]
        if not here:
            continue
        shown = normalised(model.processing, group.pixels[here].permute(0, 3, 1, 2))
        with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
            features = model.matcher(shown).float().cpu().numpy()
        grid = model.matcher.size.grid(*shown.shape[-2:])
        rays = group.rays[here, :, :2].unflatten(1, group.grid.tolist()).cpu().numpy()
        for n, of_cells, of_tokens in zip(here, features, rays, strict=True):
            known = of_tokens if bool(group.has_camera[n]) else None
            found[places[n]] = View(of_cells.reshape(*grid, -1), maps[places[n]], known)
    return found


def _in_prompt_order(tokens: list[Tensor], groups: tuple[ImageGroup, ...]) -> Tensor:
    """(T, D) visual tokens of all images, in the order of the prompts."""
    if len(groups) == 1:
        return tokens[0].flatten(0, 1)
    images: dict[int, Tensor] = {}
    for group, of_group in zip(groups, tokens, strict=True):
        images |= dict(zip(group.place.tolist(), of_group.unbind(), strict=True))
    return torch.cat([images[i] for i in range(len(images))])
