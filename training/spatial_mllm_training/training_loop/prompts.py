"""The embeddings of a batch of prompts: words, visual tokens in their places, and what questions point at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_core.model.pointing import depth_code
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.training_loop.batch import Batch, ImageGroup


def embedded(model: CameraAwareVLM, batch: Batch) -> Tensor:
    """(B, S, D) embeddings of prompts with their visual tokens in place."""
    embeds = model.hf.get_input_embeddings()(batch.ids)
    if not batch.groups:
        return _with_told_depths(model, embeds, batch)
    tokens = [
        model.embed_images(
            normalised(model.processing, g.pixels.permute(0, 3, 1, 2)), g.rays, g.has_camera, g.first
        )
        for g in batch.groups
    ]
    visual = _in_prompt_order(tokens, batch.groups)
    embeds = _with_told_depths(model, embeds, batch, visual)
    embeds = embeds.to(visual.dtype).masked_scatter(model.image_mask(batch.ids)[..., None], visual)
    if not model.pointers or not len(batch.pointers):
        return embeds
    shown = (batch.pointer_weights[..., None].to(visual.dtype) * visual[batch.pointer_tokens]).sum(1)
    if model.deep_pointers:
        shown = shown + _depth_codes(model, batch, embeds).to(shown)
    return embeds.index_put(tuple(batch.pointers.unbind(1)), shown.to(embeds.dtype), accumulate=True)


_STRIDE = 7919
"""A prime: which look a told point has depends on nothing but its place in the batch."""


def _with_told_depths(
    model: CameraAwareVLM, embeds: Tensor, batch: Batch, visual: Tensor | None = None
) -> Tensor:
    """Points whose depths are told carry them, behind the look of some other point, as those of images do.

    Without looks a depth is learnt to be read that no point of an image shows so plainly.

    Args:
        visual: (T, D) visual tokens of the batch.
    """
    count = len(batch.told)
    if not model.deep_pointers or not count:
        return embeds
    shown = torch.from_numpy(depth_code(batch.told_m.cpu().numpy(), embeds.shape[-1])).to(embeds)
    if visual is not None:
        shown = shown + visual.detach()[torch.arange(count, device=visual.device) * _STRIDE % len(visual)]
    return embeds.index_put(tuple(batch.told.unbind(1)), shown.to(embeds.dtype), accumulate=True)


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


@torch.no_grad()
def _depth_codes(model: CameraAwareVLM, batch: Batch, embeds: Tensor) -> Tensor:
    """(P, D) how far what questions point at is, as the model's own depth of that image says; 0 where none is told.

    Nothing before the questions depends on them: the images are read once alone, as the runtime reads them.
    """
    device = embeds.device.type
    # weights that are cast here must not be kept for the pass that follows: they have no gradient
    with torch.autocast(device, enabled=torch.is_autocast_enabled(device), cache_enabled=False):
        depth_m = _depths_at_pointers(model, batch, embeds)
    codes = depth_code(depth_m.cpu().numpy(), embeds.shape[-1])
    return torch.from_numpy(np.nan_to_num(codes)).to(embeds.device)


def _depths_at_pointers(model: CameraAwareVLM, batch: Batch, embeds: Tensor) -> Tensor:
    """(P,) z-depth in metres, NaN where none is told."""
    mask = model.image_mask(batch.ids)
    end = int(mask.any(0).nonzero().max()) + 1
    positions = decoder_positions(model, batch.positions[:, :, :end])
    _, taps = model.decode(embeds[:, :end], positions, batch.mask[:, :, :end, :end])
    depth_m = embeds.new_full((len(batch.pointers),), torch.nan, dtype=torch.float32)
    for of_group, group in zip(
        by_group([t[mask[:, :end]] for t in taps], batch.groups), batch.groups, strict=True
    ):
        # (P, n): which image of the group a pointer is about
        about = batch.pointer_images[:, None] == group.place
        wanted = about.any(0).nonzero()[:, 0]
        if not len(wanted):
            continue
        maps, _ = model.served_depth([tap[wanted] for tap in of_group], *group.grid.tolist())
        about = about[:, wanted]
        row, here = about.long().argmax(1), about.any(1)
        at = batch.pointer_cells.clamp(max=maps[0].numel() - 1)  # a cell of another size is not looked at
        depth_m = torch.where(here, maps.flatten(1)[row, at].float(), depth_m)
    return depth_m


def _in_prompt_order(tokens: list[Tensor], groups: tuple[ImageGroup, ...]) -> Tensor:
    """(T, D) visual tokens of all images, in the order of the prompts."""
    if len(groups) == 1:
        return tokens[0].flatten(0, 1)
    images: dict[int, Tensor] = {}
    for group, of_group in zip(groups, tokens, strict=True):
        images |= dict(zip(group.place.tolist(), of_group.unbind(), strict=True))
    return torch.cat([images[i] for i in range(len(images))])
