"""The embeddings of a batch of prompts: words, visual tokens in their places, and what questions point at."""

from __future__ import annotations

import torch
from torch import Tensor

from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.training_loop.batch import Batch, ImageGroup


def embedded(model: CameraAwareVLM, batch: Batch) -> Tensor:
    """(B, S, D) embeddings of prompts with their visual tokens in place."""
    embeds = model.hf.get_input_embeddings()(batch.ids)
    if not batch.groups:
        return embeds
    tokens = [
        model.embed_images(
            normalised(model.processing, g.pixels.permute(0, 3, 1, 2)), g.rays, g.has_camera, g.first
        )
        for g in batch.groups
    ]
    visual = _in_prompt_order(tokens, batch.groups)
    embeds = embeds.to(visual.dtype).masked_scatter(model.image_mask(batch.ids)[..., None], visual)
    if not model.pointers or not len(batch.pointers):
        return embeds
    shown = (batch.pointer_weights[..., None].to(visual.dtype) * visual[batch.pointer_tokens]).sum(1)
    return embeds.index_put(tuple(batch.pointers.unbind(1)), shown.to(embeds.dtype), accumulate=True)


def _in_prompt_order(tokens: list[Tensor], groups: tuple[ImageGroup, ...]) -> Tensor:
    """(T, D) visual tokens of all images, in the order of the prompts."""
    if len(groups) == 1:
        return tokens[0].flatten(0, 1)
    images: dict[int, Tensor] = {}
    for group, of_group in zip(groups, tokens, strict=True):
        images |= dict(zip(group.place.tolist(), of_group.unbind(), strict=True))
    return torch.cat([images[i] for i in range(len(images))])
