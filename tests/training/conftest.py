"""Small models that the training tests share; skipped as a whole where torch is not installed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

torch = pytest.importorskip(
    "torch", reason="the training tests need the 'training' extra (torch, transformers)"
)

from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

from spatial_mllm_training.data.tokenizer import build_tokenizer  # noqa: E402
from spatial_mllm_training.model.families import FAMILIES  # noqa: E402
from spatial_mllm_training.multispa.run import make_dataset  # noqa: E402
from spatial_mllm_training.recipes import RECIPES  # noqa: E402
from spatial_mllm_training.sources.simulated import find_scenes  # noqa: E402
from spatial_mllm_training.training_loop.setup import DataPaths  # noqa: E402
from spatial_mllm_training.training_loop.small_model import build_model  # noqa: E402

FIXTURES = Path(__file__).parents[1] / "fixtures" / "simulated"


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def small_model(tokenizer):
    """A micro Qwen2.5-VL with nonzero additions, so that they show."""
    torch.manual_seed(0)
    model = build_model(RECIPES["smoke"]().model, tokenizer).eval()
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.05)
    torch.nn.init.normal_(model.ray_embedding.null, std=0.05)
    return model


HEIGHT, WIDTH = 192, 256


def _write_scene(path, seed: int) -> None:
    """A scene of noise with a sloped floor and two bodies, one of which moves and turns."""
    rng = np.random.default_rng(seed)
    times, cameras, bodies = 3, 2, 3
    ids = np.zeros((times, cameras, HEIGHT, WIDTH), np.uint8)
    ids[:, :, 60:130, 40:120] = 1
    ids[:, :, 60:130, 150:230] = 2
    depth = np.broadcast_to(np.linspace(2500, 900, HEIGHT)[:, None], ids.shape).astype(np.uint16)
    world_from_body = np.tile(np.eye(4), (times, bodies, 1, 1))
    for t in range(times):
        world_from_body[t, 1, :3, :3] = Rotation.from_rotvec([0.0, 0.0, 0.3 * t]).as_matrix()
        world_from_body[t, 1, :3, 3] = [0.1 * t, 0.02 * t, 0.0]
    world_from_camera = np.tile(np.eye(4), (cameras, 1, 1))
    world_from_camera[:, :3, :3] = Rotation.random(cameras, random_state=seed).as_matrix()
    world_from_camera[:, :3, 3] = rng.normal(size=(cameras, 3))
    np.savez(
        path,
        rgb=rng.integers(0, 255, (times, cameras, HEIGHT, WIDTH, 3), dtype=np.uint8),
        depth_mm=depth,
        body_id=ids,
        k=np.array([[210.0, 0, 130], [0, 205.0, 92], [0, 0, 1]]),
        world_from_camera=world_from_camera,
        world_from_body=world_from_body,
    )


@pytest.fixture(scope="session")
def write_scene():
    """A function (path, seed) that writes a scene file without drawing anything."""
    return _write_scene


# -- a published checkpoint of a few thousand parameters, and rows to train it on ---------------------

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<img>",
    "</img>",
    "<IMG_CONTEXT>",
)
RECIPE_OF = {"qwen2_5_vl": "qwen2_5_vl_3b_lora", "internvl": "internvl3_1b_lora"}


def _stock_config(family, ids, size):
    import transformers as tf

    text = {
        "vocab_size": size,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }
    if family == "internvl":
        tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        return tf.InternVLConfig(
            text_config={"model_type": "qwen2", **text},
            vision_config={**tower, "image_size": (112, 112), "patch_size": (14, 14)},
            image_token_id=ids["<IMG_CONTEXT>"],
            image_seq_length=16,
        )
    return tf.Qwen2_5_VLConfig(
        text_config={
            **text,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 48,
            "out_hidden_size": 32,
            "fullatt_block_indexes": [1],
            "window_size": 56,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )


@pytest.fixture(params=sorted(RECIPE_OF))
def published(request, tmp_path):
    """(recipe, folder of a checkpoint of a few thousand parameters with a tokenizer of bytes)."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    folder = tmp_path / "checkpoint"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>").save_pretrained(folder)
    torch.manual_seed(0)
    stock = _stock_config(request.param, tokenizer.get_vocab(), tokenizer.get_vocab_size())
    FAMILIES[request.param].stock_class()(stock).save_pretrained(folder)
    recipe = dataclasses.replace(
        RECIPES[RECIPE_OF[request.param]](),
        steps=2,
        batch=2,
        accumulate=1,
        workers=0,
        checkpoint_steps=1,
        validate_batches=1,
        log_steps=1,
    )
    return recipe, folder


@pytest.fixture(scope="session")
def published_rows(tmp_path_factory):
    """A folder of a dozen MultiSPA rows of the simulated fixtures."""
    out = tmp_path_factory.mktemp("published") / "rows"
    wanted = dict.fromkeys(("depth_estimation_coor", "total_distance"), 6)
    make_dataset(find_scenes(FIXTURES), out, wanted, split=None, quiet=True)
    return out


@pytest.fixture
def published_paths(published_rows, published, tmp_path):
    """Everything that a published recipe learns from, and the small checkpoint instead of the hub."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((90, 120, 3), 120, np.uint8))
    talk = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "Grey."}]
    (tmp_path / "talk.json").write_text(json.dumps([{"image": "a.png", "conversations": talk}]))
    return DataPaths(
        rows=(published_rows,),
        held_out_rows=(published_rows,),
        depth=(("simulated", FIXTURES),),
        general=tmp_path / "talk.json",
        checkpoint=published[1],
    )
