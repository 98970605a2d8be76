"""The published models' real sizes on meta tensors: the wrapper fits them, and no memory is taken."""

from __future__ import annotations

import pytest
import torch

from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.families import FAMILIES


def text(hidden, layers, heads, kv_heads, mlp, vocabulary, *, tied, kind="qwen2"):
    out = {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "tie_word_embeddings": tied,
    }
    return {"model_type": kind, **out} if kind else out


def qwen(hidden, layers, heads, kv_heads, mlp, vocabulary, *, tied):
    from transformers import Qwen2_5_VLConfig

    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]}
    return Qwen2_5_VLConfig(
        text_config={
            **text(hidden, layers, heads, kv_heads, mlp, vocabulary, tied=tied, kind=""),
            "rope_parameters": rope,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": hidden,
        },
        tie_word_embeddings=tied,
    )


def internvl(*sizes):
    from transformers import InternVLConfig

    tower = {"attention_bias": True, "hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}
    return InternVLConfig(
        text_config=text(*sizes, tied=False), vision_config=tower, tie_word_embeddings=False
    )


def onevision(*sizes, tied=False):
    from transformers import LlavaOnevisionConfig

    return LlavaOnevisionConfig(text_config=text(*sizes, tied=tied), tie_word_embeddings=tied)


def next_video(*sizes):
    from transformers import LlavaNextVideoConfig

    return LlavaNextVideoConfig(text_config=text(*sizes, tied=False, kind="llama"))


#: configuration, parameters of the published checkpoint in millions, published or scaled taps, tokens of 640x480
MODELS = {
    "Qwen2.5-VL-3B": (
        lambda: qwen(2048, 36, 16, 2, 11008, 151936, tied=True),
        3755,
        (4, 12, 20, 28),
        23 * 17,
    ),
    "Qwen2.5-VL-7B": (
        lambda: qwen(3584, 28, 28, 4, 18944, 152064, tied=False),
        8292,
        (3, 10, 17, 24),
        23 * 17,
    ),
    "InternVL3-1B": (
        lambda: internvl(896, 24, 14, 2, 4864, 151674),
        938,
        (3, 9, 15, 21),
        256,
    ),
    "InternVL3-2B": (lambda: internvl(1536, 28, 12, 2, 8960, 151674), 2089, (3, 9, 15, 21), 256),
    "InternVL3-8B": (lambda: internvl(3584, 28, 28, 4, 18944, 151674), 7944, (3, 9, 15, 21), 256),
    "LLaVA-OneVision-0.5B": (
        lambda: onevision(896, 24, 14, 2, 4864, 152000, tied=True),
        894,
        (2, 8, 14, 20),
        730,
    ),
    "LLaVA-OneVision-7B": (lambda: onevision(3584, 28, 28, 4, 18944, 152128), 8030, (3, 10, 17, 24), 730),
    "LLaVA-NeXT-Video-7B": (lambda: next_video(4096, 32, 32, 32, 11008, 32064), 7063, (4, 11, 18, 25), 144),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_wrapper_fits_a_published_model(name):
    make, millions, taps, tokens = MODELS[name]
    config = make()
    family = FAMILIES[config.model_type]
    with torch.device("meta"):
        model = CameraAwareVLM(family.stock_class()(config), family=family.name)
    assert all(p.is_meta for p in model.parameters())
    assert model.tap_layers == taps
    width = config.get_text_config().hidden_size
    assert model.ray_embedding.null.shape == (width,)
    framing = model.framing(640, 480)
    assert framing.token_count == tokens
    rays = torch.zeros(1, framing.token_count, 4, device="meta")
    added = model.ray_embedding(rays, torch.ones(1, dtype=torch.bool, device="meta"))
    assert added.shape == (1, tokens, width)

    counts = model.parameter_count()
    base = sum(count for part, count in counts.items() if part not in ("ray_embedding", "heads"))
    assert base == sum(p.numel() for p in model.hf.parameters())
    assert base == pytest.approx(millions * 1e6, rel=0.002)
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())
    assert counts["embedding"] == config.get_text_config().vocab_size * width
    assert counts["projector"] > 0 and counts["vision"] > 100e6 and counts["decoder"] > 300e6
    assert counts["ray_embedding"] == 68 * 256 + 256 + 256 * width + 2 * width
