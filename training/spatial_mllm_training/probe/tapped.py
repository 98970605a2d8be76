"""The seam to a frozen model: images and cameras in, four tapped hidden states per visual token out.

`TappedModel` is all that the probe knows. `VlmTaps` serves every `CameraAwareVLM`: a training run's
checkpoint, and a published checkpoint of a supported family, whose additions then stand at
initialisation and change nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.images.resize import resized
from spatial_mllm_core.model.prompt import PromptFormat
from spatial_mllm_core.model.spatial_model import Perception
from spatial_mllm_training.model import adapter_file
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.preprocess import Framing, normalised, reframed, token_rays
from spatial_mllm_training.model.prompt_cameras import PromptCameras
from spatial_mllm_training.probe.problems import ProbeProblem

if TYPE_CHECKING:
    from spatial_mllm_training.export.published import PublishedRun

#: Size at which a published checkpoint looks at the probe's images unless told otherwise, px.
PUBLISHED_SIZE = (448, 336)


class TappedModel(Protocol):
    """What the probe needs of a frozen model.

    Attributes:
        name: for reports.
        fingerprint: changes when the weights or the input do; a cache belongs to one.
        width, height: size of the images that `taps` takes, px.
        framing: which pixels of such an image each visual token shows.
    """

    name: str
    fingerprint: str
    width: int
    height: int
    framing: Framing

    def taps(self, images_rgb: Sequence[NDArray[np.uint8]], cameras: Sequence[CameraModel | None]) -> Tensor:
        """(4, B, N, D) float32 hidden states of the visual tokens, raster order, on the CPU."""


class VlmTaps:
    """Taps of a `CameraAwareVLM` behind the prompt of one image, and the depth of its own head.

    Attributes:
        prompt_ids: token ids (before, visual, after) of an image in the prompt.
        serves_depth_head: whether `depth_head` was trained; else depth is that of `spatial_heads`.
    """

    def __init__(
        self,
        model: CameraAwareVLM,
        prompt_ids: tuple[list[int], int, list[int]],
        *,
        name: str,
        fingerprint: str,
        size: tuple[int, int],
        device: str = "cpu",
        serves_depth_head: bool = True,
    ) -> None:
        self.model, self.prompt_ids = model.to(device).eval(), prompt_ids
        self.name, self.device, self.serves_depth_head = name, device, serves_depth_head
        self.width, self.height = size
        self.framing = model.framing(*size)
        self.fingerprint = _digest(f"{fingerprint} {size} {model.tap_layers}")

    @torch.no_grad()
    def taps(self, images_rgb: Sequence[NDArray[np.uint8]], cameras: Sequence[CameraModel | None]) -> Tensor:
        model, framing = self.model, self.framing
        before, visual, after = self.prompt_ids
        row = [*before, *[visual] * framing.token_count, *after]
        ids = torch.tensor([row] * len(images_rgb), device=self.device)
        pixels = [
            normalised(
                model.processing, reframed(framing, model.processing, torch.from_numpy(image)).to(self.device)
            )
            for image in images_rgb
        ]
        inputs = {k: v.to(self.device) for k, v in model.family.pixel_inputs(model.hf.config, pixels).items()}
        rays = PromptCameras.of([token_rays(framing, camera) for camera in cameras]).to(self.device)
        out = model(ids, cameras=rays, output_hidden_states=True, use_cache=False, **inputs)
        per_image = model.visual_taps(out.hidden_states, ids, [framing] * len(images_rgb))
        return torch.stack([torch.stack(list(layer)) for layer in zip(*per_image, strict=True)]).float().cpu()

    @torch.no_grad()
    def perceive(self, frame: Frame) -> Perception:
        """Depth and confidence of a frame by the model's own head, at the frame's size; as the runtime does it.

        Raises:
            SpatialError: a 2xx code when the frame has no usable camera; INVALID_OUTPUT.
        """
        camera = frame.require_camera()
        image, camera = fitted(frame.image_rgb, camera, self.width, self.height)
        taps = [tap.to(self.device) for tap in self.taps([image], [camera])]
        depth_m, confidence = (x[0].cpu().numpy() for x in self._own_depth(taps))
        if not np.isfinite(depth_m).all():
            raise SpatialError(ErrorCode.INVALID_OUTPUT, f"the depth map of {self.name} is not finite")
        size = (frame.width, frame.height)
        return Perception(
            np.asarray(cv2.resize(depth_m, size, interpolation=cv2.INTER_LINEAR), np.float32),
            np.asarray(cv2.resize(1.0 - 1.0 / confidence, size, interpolation=cv2.INTER_LINEAR), np.float32),
        )

    def _own_depth(self, taps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(z-depth in metres (B, h, w), confidence from 1 upward (B, h, w)) of the head that was trained."""
        grid = (self.framing.grid_height, self.framing.grid_width)
        if self.serves_depth_head:
            log_depth, confidence = depth_from_logits(self.model.depth_head(taps, *grid))
            return torch.exp(log_depth), confidence
        heads = getattr(self.model, "spatial_heads", None)
        if heads is None or "depth" not in heads.decoders:
            raise ProbeProblem(f"{self.name} was trained without a head for depth; nothing can be lifted")
        value, confidence = heads(taps, *grid, tasks=("depth",))["depth"]
        return value[..., 0], confidence


def fitted(
    image_rgb: NDArray[np.uint8], camera: CameraModel, width: int, height: int
) -> tuple[NDArray[np.uint8], CameraModel]:
    """An image and its camera at another size, resampled as the runtime does it."""
    if image_rgb.shape[:2] == (height, width):
        return np.ascontiguousarray(image_rgb), camera
    return np.ascontiguousarray(resized(image_rgb, width, height)), camera.resized(width, height)


def open_run(run: Path, *, checkpoint: Path | None = None, device: str = "cpu") -> VlmTaps:
    """The weights of a run folder that `train` wrote, averaged where the run averages.

    Args:
        checkpoint: folder of the base of a run on a published model; None: the recipe's name on the hub.

    Raises:
        SpatialError: MODEL_MISSING or MODEL_SIGNATURE for its configuration, checkpoint or base.
        ProbeProblem: one that does not load.
    """
    from spatial_mllm_training.export import published
    from spatial_mllm_training.export.write_bundle import load_run

    try:
        if published.run_config(run).published is not None:
            return _published_run(published.open_run(run, checkpoint), run.name, device)
        model, config, tokenizer, progress = load_run(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProbeProblem(f"the run '{run}' does not load: {error}") from None
    prompt = PromptFormat()
    return VlmTaps(
        model,
        _around(model, tokenizer, (prompt.frame_prefix.format(index=1), prompt.frame_suffix)),
        name=f"{run.name} at step {progress['steps']}",
        fingerprint=_weights_digest(model.state_dict()),
        size=(config.data.width, config.data.height),
        device=device,
        serves_depth_head=config.depth_weight > 0,
    )


def _published_run(run: PublishedRun, name: str, device: str) -> VlmTaps:
    model, config = run.model, run.config
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return VlmTaps(
        model,
        _around(model, run.tokenizer, (model.family.PLACEHOLDER[0], model.family.PLACEHOLDER[2])),
        name=f"{name} at step {run.step}",
        fingerprint=f"{adapter_file.base_digest(model)} {_weights_digest(trained)}",
        size=config.rows.size or PUBLISHED_SIZE,
        device=device,
        serves_depth_head=config.depth_weight > 0,
    )


def _around(
    model: CameraAwareVLM, tokenizer: Tokenizer, texts: tuple[str, str]
) -> tuple[list[int], int, list[int]]:
    before, after = (tokenizer.encode(text, add_special_tokens=False).ids for text in texts)
    return before, model.family.visual_token_id(model.hf.config), after


def open_published(
    path_or_name: str,
    *,
    additions: Path | None = None,
    adapter: Path | None = None,
    size: tuple[int, int] | None = None,
    device: str = "cpu",
) -> VlmTaps:
    """A checkpoint of a supported family from a folder or the hub, with or without what was trained for it.

    Args:
        size: (width, height) px to which every image is brought before the checkpoint's own processing.

    Raises:
        SpatialError: a 5xx code when it does not load. ProbeProblem: it has no tokenizer.
    """
    from transformers import AutoTokenizer

    from spatial_mllm_training.model.checkpoint import load

    model = load(path_or_name, additions=additions, adapter=adapter, dtype="auto")
    texts, visual = model.family.PLACEHOLDER, model.family.visual_token_id(model.hf.config)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path_or_name)
        # without its files transformers gives an empty tokenizer instead of an error
        knows = tokenizer.convert_tokens_to_ids(texts[1]) == visual
    except (OSError, ValueError, KeyError):
        knows = False
    if not knows:
        raise ProbeProblem(
            f"'{path_or_name}' has no tokenizer in which {texts[1]} is token {visual}; copy its tokenizer files too"
        )
    before, after = (tokenizer.encode(texts[i], add_special_tokens=False) for i in (0, 2))
    folder = Path(path_or_name)
    weights = sorted(folder.glob("*.safetensors")) + ([additions] if additions else [])
    weights += [adapter / adapter_file.WEIGHTS] if adapter else []
    marks = [f"{f.name} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in weights]
    return VlmTaps(
        model,
        (before, visual, after),
        name=" with ".join([folder.name, *(part.name for part in (additions, adapter) if part)]),
        fingerprint=" ".join([str(path_or_name), *marks]),
        size=size or PUBLISHED_SIZE,
        device=device,
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _weights_digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
