"""CameraAwareVLM: a transformers vision-language model with rays per visual token and a depth head.

The base model stays the stock class; what is added (ray embedding, heads) lives beside it and
in its own safetensors file. With the additions at initialisation the logits equal the base's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spatial_mllm_training.model.dpt import DPTHead
from spatial_mllm_training.model.families import ModelFamily, qwen2_5_vl
from spatial_mllm_training.model.ray_embedding import RayEmbedding

FAMILIES: dict[str, ModelFamily] = {qwen2_5_vl.name: qwen2_5_vl}


class CameraAwareVLM(nn.Module):
    """Wrap `hf` (a stock transformers model) with camera conditioning and 3D supervision.

    Attributes:
        tap_layers: four indices into `hidden_states` (0 = embeddings; the last entry is after the
            final norm and is not allowed).
    """

    def __init__(
        self, hf: nn.Module, *, family: str, tap_layers: tuple[int, int, int, int], head_features: int = 64
    ) -> None:
        super().__init__()
        self.hf = hf
        self.family = FAMILIES[family]
        self.decoder_config = self.family.decoder(hf).config
        layers = self.decoder_config.num_hidden_layers
        if len(tap_layers) != 4 or not all(0 < i < layers for i in tap_layers):
            raise ValueError(f"tap_layers must be four indices in 1..{layers - 1}, got {tap_layers}")
        self.tap_layers = tuple(tap_layers)
        hidden = self.decoder_config.hidden_size
        self.ray_embedding = RayEmbedding(hidden)
        self.depth_head = DPTHead(hidden, features=head_features)

    # -- the way through stock entry points: forward() and generate() of the base ----------------

    @contextmanager
    def camera(self, image_mask_BS: Tensor, rays_BN4: Tensor, has_camera_B: Tensor) -> Iterator[None]:
        """While open, the base model's prefill adds the ray embedding at its visual tokens.

        Args:
            image_mask_BS: bool, True at the visual tokens of the prompt.
            rays_BN4: rays of all visual tokens of a row, in prompt order.
            has_camera_B: bool per row.
        """

        def add_rays(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, Any] | None:
            embeds = kwargs.get("inputs_embeds")
            if embeds is None or embeds.shape[1] != image_mask_BS.shape[1]:
                return None  # a decode step: nothing visual in it
            added = torch.zeros_like(embeds)
            added[image_mask_BS] = (
                self.ray_embedding(rays_BN4, has_camera_B).reshape(-1, embeds.shape[-1]).to(embeds)
            )
            return args, {**kwargs, "inputs_embeds": embeds + added}

        handle = self.family.decoder(self.hf).register_forward_pre_hook(add_rays, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    # -- the way of training and export: explicit embeddings, masks and positions ----------------

    def embed_images(self, images_BCHW: Tensor, rays_BN4: Tensor, has_camera_B: Tensor) -> Tensor:
        """(B, N, D) visual tokens with their ray embedding."""
        tokens = self.family.visual_tokens(self.hf, images_BCHW)
        return tokens + self.ray_embedding(rays_BN4, has_camera_B).to(tokens.dtype)

    def decode(
        self, embeds_BSD: Tensor, positions_3BS: Tensor, mask_B1SS: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """(final hidden states, four taps), each (B, S, D), under an explicit boolean mask."""
        result = self.family.decoder(self.hf)(
            inputs_embeds=embeds_BSD,
            position_ids=positions_3BS,
            attention_mask={"full_attention": mask_B1SS},
            use_cache=False,
            output_hidden_states=True,
        )
        return result.last_hidden_state, [result.hidden_states[i] for i in self.tap_layers]

    # -- additions on disk ------------------------------------------------------------------------

    def additions(self) -> dict[str, Tensor]:
        return {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("hf.")}

    def save_additions(self, path: Path) -> None:
        save_file(self.additions(), str(path))

    def load_additions(self, path: Path) -> None:
        missing, unexpected = self.load_state_dict(load_file(str(path)), strict=False)
        missing = [k for k in missing if not k.startswith("hf.")]
        if missing or unexpected:
            raise ValueError(f"{path} does not fit: missing {missing[:3]}, unexpected {unexpected[:3]}")
