"""Sizes of the published models that recipes adapt, so that a plan needs no download; knows no weights."""

from __future__ import annotations

from typing import Any


def stock_config(checkpoint: str) -> Any:
    """transformers' configuration of a checkpoint that a recipe names; KeyError for others."""
    make, sizes = _MODELS[checkpoint]
    return make(*sizes)


def _qwen2_5_vl(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, words: int, tied: bool) -> Any:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            **_text(hidden, layers, heads, kv_heads, mlp, words, tied),
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
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


def _internvl3(hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, words: int, tied: bool) -> Any:
    from transformers import InternVLConfig

    return InternVLConfig(
        text_config={"model_type": "qwen2", **_text(hidden, layers, heads, kv_heads, mlp, words, tied)},
        vision_config={
            "attention_bias": True,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "intermediate_size": 4096,
        },
        tie_word_embeddings=tied,
    )


def _text(
    hidden: int, layers: int, heads: int, kv_heads: int, mlp: int, words: int, tied: bool
) -> dict[str, Any]:
    return {
        "vocab_size": words,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": mlp,
        "tie_word_embeddings": tied,
    }


_MODELS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": (_qwen2_5_vl, (2048, 36, 16, 2, 11008, 151936, True)),
    "Qwen/Qwen2.5-VL-7B-Instruct": (_qwen2_5_vl, (3584, 28, 28, 4, 18944, 152064, False)),
    "OpenGVLab/InternVL3-1B-hf": (_internvl3, (896, 24, 14, 2, 4864, 151674, False)),
    "OpenGVLab/InternVL3-8B-hf": (_internvl3, (3584, 28, 28, 4, 18944, 151674, False)),
}
