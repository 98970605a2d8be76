"""LoRA adapters in peft's own folder format, in and out of a wrapped model; knows no training.

    adapter_config.json         peft's LoraConfig; `modules_to_save` names the projector that was trained along
    adapter_model.safetensors   A and B of every adapted matrix, the projector whole; its metadata name the base

Stock `PeftModel.from_pretrained(base, folder)` reads what `write` wrote; `apply` also reads what stock peft
wrote, as long as it is plain LoRA.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.model.camera_aware import CameraAwareVLM

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
DIGEST = "base_sha256"
_NAME = "default"  # of the adapter among those of a model, as peft calls the first
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Adapter:
    """An adapter folder that was read.

    Attributes:
        config: peft's LoraConfig.
        tensors: by the names that they have in the stock model with the adapter in it.
        base_digest: `base_digest` of the model it was trained on; None where others wrote the file.
    """

    folder: Path
    config: Any
    tensors: dict[str, Tensor]
    base_digest: str | None


def base_digest(model: CameraAwareVLM) -> str | None:
    """Which weights a decoder has, from one matrix that adapters leave alone and merging changes.

    None for formats whose rounding differs (fp16, quantised); bf16 and fp32 of one checkpoint are alike.
    """
    weight = model.family.decoder(model.hf).layers[0].self_attn.q_proj.weight
    if weight.dtype not in (torch.float32, torch.bfloat16) or weight.is_meta:
        return None
    data = weight.detach().to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
    return hashlib.sha256(data).hexdigest()


def write(folder: Path, model: CameraAwareVLM, config: Any, *, base: str, whole: nn.Module) -> None:
    """Write the adapter that is in a model.

    Args:
        config: the LoraConfig that it was injected with.
        base: name of the checkpoint it belongs to.
        whole: a part of the stock model that was trained without an adapter; it is saved as it is.

    Raises:
        SpatialError: NOT_WRITABLE.
    """
    names = {id(module): name for name, module in model.hf.named_modules()}
    decoder, saved = names[id(model.family.decoder(model.hf))], names[id(whole)]
    told = copy.deepcopy(config)
    # towers have matrices of the same names: only those of the decoder are meant
    told.target_modules = rf"{re.escape(decoder)}\..*\.({'|'.join(sorted(config.target_modules))})"
    told.modules_to_save = [saved]
    told.base_model_name_or_path, told.task_type, told.inference_mode = base, "CAUSAL_LM", True
    tensors = {
        _PREFIX + name.replace(f".{_NAME}.", "."): value.detach().cpu().contiguous()
        for name, value in model.hf.named_parameters()
        if ".lora_" in name or name.startswith(f"{saved}.")
    }
    digest = base_digest(model)
    metadata = {"format": "pt", **({DIGEST: digest} if digest else {})}
    write_atomically(folder / WEIGHTS, save(tensors, metadata), replace=True)
    told.save_pretrained(str(folder))


def read(folder: Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        SpatialError: MODEL_MISSING; MODEL_SIGNATURE for torn files, or an adapter that is no plain LoRA.
    """
    from peft import LoraConfig

    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise SpatialError(ErrorCode.MODEL_MISSING, f"adapter folder '{folder}' holds no {name}")
    try:
        told = json.loads((folder / CONFIG).read_text())
        kind = told["peft_type"]
    except (ValueError, KeyError, TypeError):
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{folder / CONFIG}' is not a configuration of peft; copy it again"
        ) from None
    plain = not any(told.get(name) for name in ("use_dora", "trainable_token_indices", "target_parameters"))
    if kind != "LORA" or told.get("bias", "none") != "none" or not plain:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{folder / CONFIG}' tells of a {kind} that is not plain LoRA"
        )
    try:
        config = LoraConfig.from_peft_type(**{**told, "modules_to_save": None})
        tensors = load_file(str(folder / WEIGHTS))
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            digest = (file.metadata() or {}).get(DIGEST)
    except (SafetensorError, OSError) as error:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"'{folder / WEIGHTS}' is not a complete safetensors file ({error}); copy it again",
        ) from None
    except (TypeError, ValueError) as error:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{folder / CONFIG}' is not read by this peft: {error}"
        ) from None
    return Adapter(folder, config, {_in_model(name): value for name, value in tensors.items()}, digest)


def apply(model: CameraAwareVLM, adapter: Adapter) -> None:
    """Put an adapter into a model in place; what was trained whole replaces the model's, in its dtype.

    Raises:
        SpatialError: MODEL_SIGNATURE for the adapter of another base.
    """
    from peft import inject_adapter_in_model

    base = adapter.config.base_model_name_or_path or "another model"
    if None not in (adapter.base_digest, found := base_digest(model)) and adapter.base_digest != found:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"adapter '{adapter.folder}' was trained on other weights than these: load it with '{base}'",
        )
    try:
        inject_adapter_in_model(adapter.config, model.hf, _NAME)
    except (ValueError, TypeError):
        raise _foreign(adapter, base, "there is no such matrix") from None
    present = dict(model.hf.named_parameters())
    problem = _misfit(adapter.tensors, present)
    if problem:
        raise _foreign(adapter, base, problem)
    with torch.no_grad():
        for name, value in adapter.tensors.items():
            if ".lora_" in name:  # as peft does: adapters stay float32 beside half-precision weights
                present[name].data = present[name].data.to(torch.float32)
            present[name].copy_(value)


def merge(model: CameraAwareVLM) -> None:
    """Add the adapters to the weights they belong to and take them out, in place.

    Raises:
        SpatialError: INVALID_OUTPUT where a merged weight is not finite.
    """
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.hf.named_modules()):
        if not isinstance(module, LoraLayer):
            continue
        try:
            module.merge(safe_merge=True)
        except ValueError as error:
            raise SpatialError(ErrorCode.INVALID_OUTPUT, f"{name} cannot be merged: {error}") from None
        parent, _, child = name.rpartition(".")
        setattr(model.hf.get_submodule(parent), child, module.get_base_layer())


def _misfit(tensors: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> str:
    """The first tensor that is missing, too many or of another shape, in words; "" where all fit."""
    wanted = {name for name in present if ".lora_" in name}
    for name in sorted(wanted - tensors.keys()):
        return f"{name} is missing"
    for name in sorted(tensors):
        if name not in present:
            return f"the model has no {name}"
        if tensors[name].shape != present[name].shape:
            return f"{name} is {tuple(tensors[name].shape)} for {tuple(present[name].shape)}"
    return ""


def _foreign(adapter: Adapter, base: str, problem: str) -> SpatialError:
    return SpatialError(
        ErrorCode.MODEL_SIGNATURE,
        f"adapter '{adapter.folder}' is of '{base}' and does not fit this model: {problem}",
    )


def _in_model(name: str) -> str:
    """peft's name in a file as the name of a parameter of the stock model."""
    name = name.removeprefix(_PREFIX)
    for matrix in (".lora_A.", ".lora_B."):
        name = name.replace(matrix, f"{matrix}{_NAME}.")
    return name
