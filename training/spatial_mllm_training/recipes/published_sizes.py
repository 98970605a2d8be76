"""Sizes of the published models that recipes adapt, so that a plan needs no download; knows no weights."""

from __future__ import annotations

from typing import Any


def stock_config(checkpoint: str) -> Any:
    """transformers' configuration of a checkpoint that a recipe names; KeyError for others."""
    return _CONFIGS[checkpoint]()


def _qwen2_5_vl_3b() -> Any:
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 2048,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "intermediate_size": 11008,
            "tie_word_embeddings": True,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 2048,
        },
        tie_word_embeddings=True,
    )


def _internvl3_1b() -> Any:
    from transformers import InternVLConfig

    return InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": 151674,
            "hidden_size": 896,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
            "intermediate_size": 4864,
            "tie_word_embeddings": False,
        },
        vision_config={
            "attention_bias": True,
            "hidden_size": 1024,
            "num_hidden_layers": 24,
            "intermediate_size": 4096,
        },
        tie_word_embeddings=False,
    )


_CONFIGS = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5_vl_3b,
    "OpenGVLab/InternVL3-1B-hf": _internvl3_1b,
}
