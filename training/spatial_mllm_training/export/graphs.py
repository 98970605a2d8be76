"""Export modules: the same weights as the transformers classes, written with static grids and explicit KV.

Each module is compared with the stock classes before it is written (`export.parity`); none
knows files.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_vision,
    repeat_kv,
)
from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.families.qwen2_5_vl import clip, patchify
from spatial_mllm_training.model.heads import served_depth
from spatial_mllm_training.model.matcher import Matcher
from spatial_mllm_training.model.normalised import Normalised


class VisionGraph(nn.Module):
    """uint8 image + rays -> visual tokens with ray embedding, for one image of one size.

    A model of clips takes the first image of the prompt beside, which for that one is itself.
    """

    def __init__(self, model: CameraAwareVLM, height: int, width: int) -> None:
        super().__init__()
        self.visual = model.hf.model.visual
        self.ray_embedding = model.ray_embedding
        vision = model.hf.config.vision_config
        self.patch, self.merge, self.temporal = (
            vision.patch_size,
            vision.spatial_merge_size,
            vision.temporal_patch_size,
        )
        self.heads = vision.num_heads
        thw = torch.tensor([[1, height // self.patch, width // self.patch]])
        unit = self.merge**2
        window_index, cu_window = get_vision_window_index(
            thw, spatial_merge_size=self.merge, window_size=vision.window_size, patch_size=self.patch
        )
        positions = get_vision_position_ids(thw, self.merge)
        patches = int(thw.prod())
        cos, sin = self.visual.rotary_pos_emb(torch.zeros(patches, 1), positions)
        order = (window_index[:, None] * unit + torch.arange(unit)).reshape(-1)
        segments = torch.bucketize(torch.arange(patches), torch.as_tensor(cu_window)[1:], right=True)
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("restore", torch.argsort(window_index), persistent=False)
        self.register_buffer("cos", cos[order].float(), persistent=False)
        self.register_buffer("sin", sin[order].float(), persistent=False)
        self.register_buffer(
            "window_mask", (segments[:, None] == segments[None, :])[None, None], persistent=False
        )
        places = torch.zeros(())
        if model.coordinate_code is not None:
            pitch = self.patch * self.merge
            places = model.coordinate_code(height // pitch, width // pitch, torch.zeros(()))
        self.register_buffer("places", places, persistent=False)
        self.normalised = Normalised()

    def forward(
        self, image: Tensor, rays: Tensor, has_camera: Tensor, first_image: Tensor | None = None
    ) -> Tensor:
        shown, before = (self.normalised(x) for x in (image, image if first_image is None else first_image))
        x = patchify(clip(before, shown, self.temporal), patch=self.patch, merge=self.merge)
        x = F.linear(x, self.visual.patch_embed.proj.weight.flatten(1))[self.order]
        for i, block in enumerate(self.visual.blocks):
            mask = None if i in self.visual.fullatt_block_indexes else self.window_mask
            x = x + self._attention(block.attn, block.norm1(x), mask)
            x = x + block.mlp(block.norm2(x))
        tokens = self.visual.merger(x)[self.restore][None]
        return tokens + self.ray_embedding(rays, has_camera) + self.places

    def _attention(self, attn: nn.Module, x: Tensor, mask: Tensor | None) -> Tensor:
        length = x.shape[0]
        q, k, v = attn.qkv(x).reshape(length, 3, self.heads, -1).permute(1, 0, 2, 3).unbind(0)
        q, k = apply_rotary_pos_emb_vision(q, k, self.cos, self.sin)
        y = F.scaled_dot_product_attention(
            q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], attn_mask=mask
        )
        return attn.proj(y[0].transpose(0, 1).reshape(length, -1))


class DecoderGraph(nn.Module):
    """Prefill and decode in one graph: S new embeddings after P cached ones, causal, taps out."""

    def __init__(self, model: CameraAwareVLM) -> None:
        super().__init__()
        self.decoder = model.family.decoder(model.hf)
        self.lm_head = model.hf.lm_head
        self.copy_gate = model.copy_gate
        self.tap_layers = model.tap_layers

    def forward(
        self, embeddings: Tensor, positions: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        decoder = self.decoder
        x = embeddings
        cos, sin = decoder.rotary_emb(x, positions)
        new, cached = x.shape[1], past[0].shape[2]
        rows = torch.arange(new, device=x.device)[:, None] + cached
        mask = torch.arange(cached + new, device=x.device)[None, :] <= rows
        taps, present = [], []
        for i, layer in enumerate(decoder.layers):
            if i in self.tap_layers:
                taps.append(x)
            attn = layer.self_attn
            h = layer.input_layernorm(x)
            shape = (1, new, -1, attn.head_dim)
            q = attn.q_proj(h).view(shape).transpose(1, 2)
            k = attn.k_proj(h).view(shape).transpose(1, 2)
            v = attn.v_proj(h).view(shape).transpose(1, 2)
            q, k = apply_rotary_pos_emb(q, k, cos, sin)
            k = torch.cat([past[2 * i], k], dim=2)
            v = torch.cat([past[2 * i + 1], v], dim=2)
            present += [k, v]
            groups = attn.num_key_value_groups
            y = F.scaled_dot_product_attention(q, repeat_kv(k, groups), repeat_kv(v, groups), attn_mask=mask)
            x = x + attn.o_proj(y.transpose(1, 2).reshape(1, new, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        last = decoder.norm(x[:, -1])
        logits = self.lm_head(last)
        if self.copy_gate is not None:
            logits = self.copy_gate(logits, last)
        return logits, torch.stack(taps), present


class LiftGraph(nn.Module):
    """Taps of one image's visual tokens -> z-depth in metres and confidence in [0, 1].

    One signature for every kind of head; decoders of other tasks than depth are left out.

    Raises:
        SpatialError: MODEL_SIGNATURE when the model has no head for depth.
    """

    def __init__(self, model: CameraAwareVLM, grid_h: int, grid_w: int) -> None:
        super().__init__()
        self.head = model.depth_server()
        self.grid = (grid_h, grid_w)

    def forward(self, taps: Tensor) -> tuple[Tensor, Tensor]:
        depth_m, confidence = served_depth(self.head, taps.unbind(0), *self.grid)
        return depth_m, 1.0 - 1.0 / confidence


class MatcherGraph(nn.Module):
    """uint8 image -> (1, h, w, C) features of its cells."""

    def __init__(self, matcher: Matcher, height: int, width: int) -> None:
        super().__init__()
        self.matcher = matcher
        self.grid = matcher.size.grid(height, width)
        self.normalised = Normalised()

    def forward(self, image: Tensor) -> Tensor:
        return self.matcher(self.normalised(image)).unflatten(1, self.grid)
