"""CameraAwareVLM: a transformers vision-language model with rays per visual token and heads beside it.

The base model stays the stock class; what is added (ray embedding, heads) lives beside it and
in its own safetensors file (`model.checkpoint`). With the additions at initialisation the logits equal
the base's. This file knows no family and no head: families answer behind `ModelFamily`, heads read taps.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model import additions_file
from spatial_mllm_training.model.coordinate_code import CoordinateCode
from spatial_mllm_training.model.copy_gate import CopyGate
from spatial_mllm_training.model.dpt import DPTHead
from spatial_mllm_training.model.families import FAMILIES, ModelFamily
from spatial_mllm_training.model.families.base import tap_layers as published_taps
from spatial_mllm_training.model.heads import HeadsConfig, served_depth
from spatial_mllm_training.model.matcher import Matcher
from spatial_mllm_training.model.preprocess import Framing, Processing
from spatial_mllm_training.model.prompt_cameras import PromptCameras
from spatial_mllm_training.model.ray_embedding import CameraDropout, RayEmbedding
from spatial_mllm_training.supervision.heads import DenseMap, SpatialHeads


class CameraAwareVLM(nn.Module):
    """Wrap `hf` (a stock transformers model) with camera conditioning and 3D supervision.

    Args:
        heads: what reads the taps; None = the single depth head, of `head_features` channels.

    Attributes:
        hf: the stock model; adapters (LoRA) are put into it in place.
        family: what is particular to it.
        processing: what its processor does to pixels.
        tap_layers: four indices into `hidden_states` (0 = embeddings; the last entry is after the
            final norm and is not allowed); None = the paper's, scaled to the depth of the decoder.
        coordinate_code: what tells a visual token its place (`embed_images` alone adds it), or None.
        clips: `embed_images` reads a later image together with the first one of its prompt.
        pointers: coordinates of a question carry what is seen there (`training_loop.prompts` adds it).
        deep_pointers: and how far that is.
        told_digits: what deep pointers and the matcher tell is told in digits, too (likewise).
        copy_gate: what copies these in answers, or None.
        frozen_vision: `embed_images` teaches the tower and the projector nothing.
        matcher: what tells questions about several images how they belong together (likewise), or None.
        depth_head, spatial_heads, feature_projector: the parts that `heads` asks for, or None.
    """

    def __init__(
        self,
        hf: nn.Module,
        *,
        family: str,
        tap_layers: tuple[int, int, int, int] | None = None,
        heads: HeadsConfig | None = None,
        head_features: int = 64,
        camera_dropout: float = 0.0,
        processing: Processing | None = None,
    ) -> None:
        super().__init__()
        self.hf = hf
        self.family: ModelFamily = FAMILIES[family]
        self.processing = processing or self.family.PROCESSING
        self.decoder_config = self.family.decoder(hf).config
        layers = self.decoder_config.num_hidden_layers
        taps = published_taps(self.family, layers) if tap_layers is None else tuple(tap_layers)
        if len(taps) != 4 or not all(0 < i < layers for i in taps):
            raise ValueError(f"tap_layers must be four indices in 1..{layers - 1}, got {taps}")
        self.tap_layers = taps
        self.heads = heads or HeadsConfig(depth_features=head_features)
        hidden = self.decoder_config.hidden_size
        self.camera_dropout = CameraDropout(camera_dropout)
        self.ray_embedding = RayEmbedding(hidden)
        self.coordinate_code: CoordinateCode | None = None
        self.clips = False
        self.pointers = False
        self.deep_pointers = False
        self.told_digits = False
        self.copy_gate: CopyGate | None = None
        self.frozen_vision = False
        self.matcher: Matcher | None = None
        self.depth_head = self.heads.single_head(hidden)
        self.spatial_heads = self.heads.spatial_heads(hidden)
        self.feature_projector = self.heads.feature_projector(hidden)

    @property
    def head_features(self) -> int:
        """Channels of the fused maps of the widest head."""
        return self.heads.depth_features or self.heads.size.features

    # -- images in ----------------------------------------------------------------------------------

    def framing(self, width: int, height: int) -> Framing:
        """What the processor does to a source image of this size, and which token sees which pixel."""
        return self.family.framing(self.hf.config, self.processing, width, height)

    def image_mask(self, ids_BS: Tensor) -> Tensor:
        """(B, S) bool, True at the visual tokens of prompts (newline tokens of a family included)."""
        return ids_BS == self.family.visual_token_id(self.hf.config)

    # -- the way through stock entry points: forward() and generate() of the base ----------------

    def forward(self, input_ids: Tensor, *, cameras: PromptCameras | None = None, **stock: Any) -> Any:
        """The stock model's forward, with the cameras of all images of the batch.

        Args:
            input_ids: (B, S) prompts with as many visual tokens as the framings say.
            cameras: None leaves the base model as it is.
            stock: arguments of the stock class: `family.pixel_inputs(...)`, attention_mask, labels, ...
        """
        return self._call(self.hf, input_ids, cameras, stock)

    @torch.no_grad()
    def generate(self, input_ids: Tensor, *, cameras: PromptCameras | None = None, **stock: Any) -> Any:
        """The stock model's generate, with the cameras of all images of the batch."""
        return self._call(self.hf.generate, input_ids, cameras, stock)

    def _call(self, run: Any, ids: Tensor, cameras: PromptCameras | None, stock: dict[str, Any]) -> Any:
        stock = {**self.family.prompt_inputs(self.hf.config, ids), **stock}
        if cameras is None:
            return run(input_ids=ids, **stock)
        has_camera_T = self.camera_dropout(cameras.has_camera_I)[cameras.image_T]
        with self.camera(self.image_mask(ids), cameras.rays_T4, has_camera_T, cameras.sees_pixel_T):
            return run(input_ids=ids, **stock)

    @contextmanager
    def camera(
        self, image_mask_BS: Tensor, rays: Tensor, has_camera: Tensor, sees_pixel: Tensor | None = None
    ) -> Iterator[None]:
        """While open, the base model's prefill adds the ray embedding at its visual tokens.

        Args:
            image_mask_BS: bool, True at the visual tokens of the prompt.
            rays: rays of all visual tokens, in prompt order: (T, 4) or (B, N, 4).
            has_camera: bool per token or per row of `rays`.
            sees_pixel: (T,) bool; nothing is added where it is False.

        Raises:
            ValueError: there are not as many rays as visual tokens; or no prefill of this length
                came through, so that the rays would have been lost without a word.
        """
        tokens, found = int(image_mask_BS.sum()), rays.shape[:-1].numel()
        if tokens != found:
            raise ValueError(f"the prompts hold {tokens} visual tokens but there are rays of {found}")
        used = False

        def add_rays(
            _module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
        ) -> tuple[Any, Any] | None:
            nonlocal used
            embeds = kwargs.get("inputs_embeds")
            if embeds is None or embeds.shape[1] != image_mask_BS.shape[1]:
                return None  # a decode step: nothing visual in it
            used = True
            embedded = self.ray_embedding(rays, has_camera).reshape(-1, embeds.shape[-1])
            if sees_pixel is not None:
                embedded = torch.where(sees_pixel[:, None], embedded, 0.0)
            added = embeds.new_zeros(*image_mask_BS.shape, embeds.shape[-1])
            added = added.masked_scatter(image_mask_BS[..., None], embedded.to(embeds))
            copies = len(embeds) // len(added)  # generate() repeats each row for its beams
            return args, {**kwargs, "inputs_embeds": embeds + added.repeat_interleave(copies, 0)}

        handle = self.family.decoder(self.hf).register_forward_pre_hook(add_rays, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()
        if not used:
            raise ValueError(
                f"no prefill of {image_mask_BS.shape[1]} tokens was run: the rays reached no token "
                "(a prompt in chunks, or one that goes on from a cache, is not served)"
            )

    # -- the way of training and export: explicit embeddings, masks and positions ----------------

    def embed_images(
        self, images_BCHW: Tensor, rays_BN4: Tensor, has_camera_B: Tensor, first_B: Tensor | None = None
    ) -> Tensor:
        """(B, N, D) visual tokens of normalised images with their ray embedding, raster order.

        Args:
            first_B: index of the first image of each one's prompt, which only a model of `clips` looks at;
                None: every image is the first.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen_vision):
            if self.clips and first_B is not None:
                tokens = self.family.visual_tokens_of_clips(self.hf, images_BCHW[first_B], images_BCHW)
            else:
                tokens = self.family.visual_tokens(self.hf, images_BCHW)
        known_B = self.camera_dropout(has_camera_B)
        tokens = tokens + self.ray_embedding(rays_BN4, known_B).to(tokens.dtype)
        if self.coordinate_code is None:
            return tokens
        height, width = images_BCHW.shape[2:]
        pitch = math.isqrt(height * width // tokens.shape[1])
        return tokens + self.coordinate_code(height // pitch, width // pitch, tokens)

    def decode(self, embeds_BSD: Tensor, positions: Tensor, mask_B1SS: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(final hidden states, four taps), each (B, S, D), under an explicit boolean mask.

        Args:
            positions: (3, B, S) for Qwen2.5-VL, (B, S) for the others.
            mask_B1SS: True where a row may look at a column.
        """
        result = self.family.decoder(self.hf)(
            inputs_embeds=embeds_BSD,
            position_ids=positions,
            attention_mask=mask_B1SS,
            use_cache=False,
            output_hidden_states=True,
        )
        return result.last_hidden_state, [result.hidden_states[i] for i in self.tap_layers]

    def scores(self, hidden_MD: Tensor) -> Tensor:
        """(M, V) logits of the words behind M final hidden states; with a gate (M, V + C), as it gives them."""
        logits = self.hf.get_output_embeddings()(hidden_MD)
        return logits if self.copy_gate is None else self.copy_gate(logits, hidden_MD)

    # -- taps out: what heads of any kind read ------------------------------------------------------

    def visual_taps(
        self, hidden_states: Sequence[Tensor], ids_BS: Tensor, framings: Sequence[Framing]
    ) -> list[list[Tensor]]:
        """Per image, in prompt order: four taps (grid_h * grid_w, D) in raster order.

        Args:
            hidden_states: of a forward with `output_hidden_states=True`.
            framings: of every image of the batch, in prompt order.
        """
        mask = self.image_mask(ids_BS)
        counts = [framing.token_count for framing in framings]
        per_layer = [hidden_states[i][mask].split(counts) for i in self.tap_layers]
        rasters = [framing.grid_height * framing.grid_width for framing in framings]
        return [[layer[i][:n] for layer in per_layer] for i, n in enumerate(rasters)]

    def dense_predictions(self, taps_BND: Sequence[Tensor], grid_h: int, grid_w: int) -> dict[str, DenseMap]:
        """What the decoupled heads say, for `supervision.dense_losses`; {} where there are none.

        Args:
            taps_BND: four, of images of one grid, tokens in raster order.
        """
        return {} if self.spatial_heads is None else self.spatial_heads(taps_BND, grid_h, grid_w)

    def served_depth(self, taps_BND: Sequence[Tensor], grid_h: int, grid_w: int) -> tuple[Tensor, Tensor]:
        """(z-depth in metres, confidence from 1 upward), each (B, H, W) float32, of whichever head serves it.

        Raises:
            SpatialError: MODEL_SIGNATURE without a head for depth.
        """
        return served_depth(self.depth_server(), taps_BND, grid_h, grid_w)

    def depth_server(self) -> DPTHead | SpatialHeads:
        """The module that `served_depth` asks.

        Raises:
            SpatialError: MODEL_SIGNATURE without a head for depth.
        """
        if self.depth_head is not None:
            return self.depth_head
        if self.spatial_heads is None or "depth" not in self.spatial_heads.decoders:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE, "the model has no head for depth: nothing can be lifted"
            )
        return self.spatial_heads

    # -- additions on disk and sizes ----------------------------------------------------------------

    def additions(self) -> dict[str, Tensor]:
        """Every tensor that is not the base model's, whatever heads there are."""
        return {k: v.contiguous() for k, v in self.state_dict().items() if not k.startswith("hf.")}

    def save_additions(self, path: Path) -> None:
        """Write the additions, with what they belong to, under a temporary name first."""
        additions_file.write(
            path,
            self.additions(),
            additions_file.Header(
                self.family.name, self.decoder_config.hidden_size, self.tap_layers, self.heads
            ),
        )

    def load_additions(self, path: Path) -> None:
        """Read additions of the same family, width, taps and heads.

        Raises:
            SpatialError: MODEL_MISSING, or MODEL_SIGNATURE with a sentence that names both sides.
        """
        header = additions_file.read_header(path)
        header.check(path, family=self.family.name, hidden_size=self.decoder_config.hidden_size)
        header.check_taps(path, self.tap_layers)
        header.check_heads(path, self.heads)
        tensors = additions_file.read(path)
        additions_file.check_tensors(path, tensors, self.additions())
        self.load_state_dict(tensors, strict=False)

    def parameter_count(self) -> dict[str, int]:
        """Parameters by part: each is counted once, at the first part that holds it."""
        parts = {
            "projector": self.family.projector(self.hf),
            "vision": self.family.vision(self.hf),
            "embedding": self.hf.get_input_embeddings(),
            "lm_head": self.hf.get_output_embeddings(),
            "decoder": self.family.decoder(self.hf),
            "rest of the base": self.hf,
            "ray_embedding": self.ray_embedding,
            "matcher": self.matcher or nn.Identity(),
            "copy_gate": self.copy_gate or nn.Identity(),
            "heads": self,
        }
        seen: set[int] = set()
        counts = {}
        for name, module in parts.items():
            new = {id(p): p.numel() for p in module.parameters() if id(p) not in seen}
            seen |= set(new)
            counts[name] = sum(new.values())
        return counts
