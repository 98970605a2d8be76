"""Small random models of every family, with prompts, as a user would build them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from spatial_mllm_core.camera import CameraModel  # noqa: E402
from spatial_mllm_training.model.camera_aware import CameraAwareVLM  # noqa: E402
from spatial_mllm_training.model.families import FAMILIES  # noqa: E402
from spatial_mllm_training.model.preprocess import normalised, reframed, token_rays  # noqa: E402
from spatial_mllm_training.model.prompt_cameras import PromptCameras  # noqa: E402

PAD, IMAGE_ID, VIDEO_ID = 0, 90, 91

TEXT = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": PAD,
}


def _config(family: str) -> Any:
    """A few thousand parameters in the stock configuration class."""
    import transformers as tf

    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    if family == "qwen2_5_vl":
        rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
        return tf.Qwen2_5_VLConfig(
            text_config={**TEXT, "rope_parameters": rope},
            vision_config={
                "depth": 2,
                "hidden_size": 32,
                "num_heads": 2,
                "intermediate_size": 48,
                "out_hidden_size": 32,
                "fullatt_block_indexes": [1],
                "window_size": 56,
            },
            image_token_id=IMAGE_ID,
            video_token_id=VIDEO_ID,
            vision_start_token_id=92,
            vision_end_token_id=93,
        )
    if family == "internvl":
        return tf.InternVLConfig(
            text_config={"model_type": "qwen2", **TEXT},
            vision_config={**tower, "image_size": (112, 112), "patch_size": (14, 14)},
            image_token_id=IMAGE_ID,
            image_seq_length=16,
        )
    if family == "llava_onevision":
        return tf.LlavaOnevisionConfig(
            text_config={"model_type": "qwen2", **TEXT},
            # as in the published tower, 90 is no multiple of 14: the last 6 px are unseen
            vision_config={
                "model_type": "siglip_vision_model",
                **tower,
                "image_size": 90,
                "patch_size": 14,
                "vision_use_head": False,
            },
            image_token_index=IMAGE_ID,
            video_token_index=VIDEO_ID,
        )
    return tf.LlavaNextVideoConfig(
        text_config={"model_type": "llama", **TEXT},
        vision_config={
            "model_type": "clip_vision_model",
            **tower,
            "image_size": 112,
            "patch_size": 14,
            "projection_dim": 32,
        },
        image_token_index=IMAGE_ID,
        video_token_index=VIDEO_ID,
    )


@dataclass
class Batch:
    """Prompts of a batch with everything that belongs to them."""

    ids: Any
    cameras: PromptCameras
    stock: dict[str, Any]
    framings: list[Any] = field(default_factory=list)


def _batch(model: CameraAwareVLM, rows: list[list[tuple[int, int]]], *, padding: str = "right") -> Batch:
    """Prompts with images of the given (width, height), text before, between and after them."""
    rng = np.random.default_rng(len(rows))
    config = model.hf.config
    prompts, images, rays, framings = [], [], [], []
    for number, sizes in enumerate(rows):
        ids = list(rng.integers(3, 80, 3 + number))
        for width, height in sizes:
            framing = model.framing(width, height)
            picture = torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            images.append(normalised(model.processing, reframed(framing, model.processing, picture)))
            camera = CameraModel.from_fov(width, height, hfov_rad=rng.uniform(0.7, 1.5))
            rays.append(token_rays(framing, camera))
            framings.append(framing)
            visual = [model.family.visual_token_id(config)] * framing.token_count
            # Qwen counts images by their start tokens when it repeats rows for beams
            ids += [92, *visual, 93, int(rng.integers(3, 80))]
        prompts.append(ids + list(rng.integers(3, 80, 4)))
    length = max(map(len, prompts))
    ids = torch.full((len(rows), length), PAD)
    attention = torch.zeros_like(ids)
    for b, prompt in enumerate(prompts):
        at = slice(0, len(prompt)) if padding == "right" else slice(length - len(prompt), length)
        ids[b, at] = torch.tensor(prompt)
        attention[b, at] = 1
    stock = {"attention_mask": attention, **model.family.pixel_inputs(config, images)}
    return Batch(ids, PromptCameras.of(rays), stock, framings)


@pytest.fixture(params=sorted(FAMILIES))
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def small_config(family):
    return _config(family.name)


@pytest.fixture
def base(family, small_config):
    """A stock model, freshly drawn."""
    torch.manual_seed(0)
    return family.stock_class()(small_config).eval()


@pytest.fixture
def wrapped(family, base):
    """The wrapper with its additions at initialisation."""
    return CameraAwareVLM(base, family=family.name, head_features=8).eval()


@pytest.fixture
def speaking(wrapped):
    """The wrapper with a ray MLP and a null embedding that say something."""
    torch.nn.init.normal_(wrapped.ray_embedding.mlp[2].weight, std=0.1)
    torch.nn.init.normal_(wrapped.ray_embedding.null, std=0.3)
    return wrapped


@pytest.fixture
def make_config():
    return _config


@pytest.fixture
def make_batch():
    """A function (model, rows of image sizes, padding=...) -> Batch."""
    return _batch
