"""Build a small camera-aware model from a recipe: stock classes, our tokenizer's ids."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from spatial_mllm_core.model.pointing import sinusoids
from spatial_mllm_training.data.tokenizer import number_tokens
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.coordinate_code import CoordinateCode
from spatial_mllm_training.model.copy_gate import CopyGate
from spatial_mllm_training.model.heads import HeadsConfig
from spatial_mllm_training.model.matcher import Matcher
from spatial_mllm_training.recipes.config import ModelConfig


def build_model(
    config: ModelConfig, tokenizer: Tokenizer, *, heads: HeadsConfig | None = None
) -> CameraAwareVLM:
    """A freshly initialised model; whole-number tokens start as smooth functions of their value.

    Without `heads` it has the single depth head of `config.head_features` channels.
    """
    vocabulary = (tokenizer.get_vocab_size() + 31) // 32 * 32
    head_dim = config.hidden // config.heads
    section = [head_dim // 2 - 2 * (head_dim * 3 // 16), head_dim * 3 // 16, head_dim * 3 // 16]
    ids = {token: tokenizer.token_to_id(token) for token in tokenizer.get_vocab()}
    hf_config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": config.hidden,
            "intermediate_size": config.mlp,
            "num_hidden_layers": config.layers,
            "num_attention_heads": config.heads,
            "num_key_value_heads": config.kv_heads,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": config.rope_theta,
                "mrope_section": section,
            },
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|end|>"],
            "pad_token_id": ids["<|pad|>"],
        },
        vision_config={
            "depth": config.vision_layers,
            "hidden_size": config.vision_hidden,
            "num_heads": config.vision_heads,
            "intermediate_size": config.vision_mlp,
            "patch_size": config.patch,
            "spatial_merge_size": config.merge,
            "out_hidden_size": config.hidden,
            "fullatt_block_indexes": list(range(config.vision_layers)),
            "window_size": config.patch * config.merge * 4,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    hf = Qwen2_5_VLForConditionalGeneration(hf_config)
    _scale_by_fan_in(hf)
    numbers = number_tokens(tokenizer)
    rows = sinusoids(np.asarray(list(numbers), np.float64), config.hidden, 0.04)
    with torch.no_grad():
        hf.get_input_embeddings().weight[list(numbers.values())] += torch.from_numpy(rows)
    model = CameraAwareVLM(
        hf,
        family=config.family,
        tap_layers=config.tap_layers,
        heads=heads,
        head_features=config.head_features,
    )
    if config.coordinate_code:
        model.coordinate_code = CoordinateCode(config.hidden, config.coordinate_code)
    model.clips, model.pointers, model.deep_pointers = config.clips, config.pointers, config.deep_pointers
    model.told_digits = config.told_digits
    model.copy_gate = (
        CopyGate(config.hidden, [ids[digit] for digit in "0123456789"]) if config.copied_digits else None
    )
    model.matcher = Matcher(config.matcher) if config.matcher else None
    return model


def _scale_by_fan_in(hf: nn.Module) -> None:
    """Initialise matrices with standard deviation 1/sqrt(fan_in) instead of a flat 0.02.

    0.02 suits widths of thousands. At a width of 256 it shrinks every layer's contribution so far that
    60 steps on four samples left a log-depth error of 0.30; this brings 0.12, with the answers memorised.
    """
    tables = {id(hf.get_input_embeddings().weight), id(hf.lm_head.weight)}
    for parameter in hf.parameters():
        if parameter.ndim >= 2 and id(parameter) not in tables:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
