"""Which weights of a published model are trained: the papers' freezing rules, LoRA on the decoder.

The vision tower is frozen; the projector, the decoder (LoRA or whole), the ray embedding and the heads
are trained (SpatialSV, CA-MLLM, MultiSPA: facts 1.2, 2.8, 3.1). Knows no data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spatial_mllm_training.model.adapter_file import base_digest
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import PublishedConfig

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def adapt(model: CameraAwareVLM, config: PublishedConfig) -> None:
    """Freeze and unfreeze in place; adapters are put into the decoder, trained weights become float32."""
    for parameter in model.hf.parameters():
        parameter.requires_grad_(False)
    decoder = model.family.decoder(model.hf)
    if config.lora_rank:
        _add_lora(decoder, config)
    else:
        for parameter in decoder.parameters():
            parameter.requires_grad_(True)
        model.hf.get_output_embeddings().requires_grad_(True)
    model.family.projector(model.hf).requires_grad_(True)
    for name, parameter in model.named_parameters():
        if not name.startswith("hf."):
            parameter.requires_grad_(True)
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def _add_lora(decoder: nn.Module, config: PublishedConfig) -> None:
    from peft import inject_adapter_in_model

    inject_adapter_in_model(lora_config(config), decoder)


def lora_config(config: PublishedConfig) -> Any:
    """peft's configuration of the adapters that a recipe asks for."""
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=LORA_TARGETS,
    )


def identity(model: CameraAwareVLM) -> dict[str, str]:
    """What trained tensors of a published model belong to, asked of one that is not trained yet."""
    return {"family": model.family.name, "base weights": (base_digest(model) or "not known")[:16]}


def served(model: CameraAwareVLM) -> CameraAwareVLM:
    """The model after training, in place: stock weights that were trained in float32 get the dtype of the frozen.

    Under autocast both dtypes stand beside each other; a stock model that is asked without it has one.
    """
    frozen = [p.dtype for p in model.hf.parameters() if not p.requires_grad]
    for name, parameter in model.hf.named_parameters():
        if frozen and parameter.requires_grad and ".lora_" not in name:
            parameter.data = parameter.data.to(frozen[0])
    return model.eval()


def use_checkpointing(model: CameraAwareVLM) -> None:
    """Keep only the inputs of the decoder's layers and compute the rest again in the backward pass."""
    model.hf.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
