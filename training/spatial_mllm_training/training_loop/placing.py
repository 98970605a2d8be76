"""Where a run computes: accelerate's processes, and which weights are sharded over them; knows no data.

Under FSDP the decoder's layers are sharded one by one, everything else as one unit that stays whole from the
first forward pass to the end of the backward pass. Vision tower, projector and heads must be in that unit:
images are seen in groups of one size, so that processes call them a different number of times, and a unit
of its own would wait for the others for ever.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import PartialState
from accelerate.utils import DistributedDataParallelKwargs, DistributedType
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import TrainConfig


def accelerator_for(config: TrainConfig, *, cpu: bool) -> Accelerator:
    """accelerate as its launcher was told, in the precision and accumulation of a recipe.

    Args:
        cpu: no GPU even where there is one.

    Raises:
        SpatialError: NOT_READY for FSDP of the first version.
    """
    plugin = _sharding()
    accelerator = Accelerator(
        # without the word, processes of a machine without GPU would not know of each other
        cpu=cpu or not torch.accelerator.is_available(),
        mixed_precision="bf16" if config.precision == "bf16" else "no",
        gradient_accumulation_steps=config.accumulate,
        # heads and towers go without gradients in batches that have no truth or no image for them
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        fsdp_plugin=plugin,
    )
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on devices only; torch shards on CPUs as well, which is how it is tried without any
        accelerator.state.fsdp_plugin = plugin
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP  # as accelerate does itself
    return accelerator


def placed(
    accelerator: Accelerator,
    objective: nn.Module,
    model: CameraAwareVLM,
    optimizers: list[torch.optim.Optimizer],
) -> tuple[nn.Module, list[Any]]:
    """(objective, optimizers) on their devices, replicated or sharded.

    Args:
        model: the one inside the objective.
    """
    if accelerator.distributed_type == DistributedType.FSDP:
        layers = list(model.family.decoder(model.hf).layers)
        accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = sorted(
            {type(x).__name__ for x in layers}
        )
        alone = {id(p) for layer in layers for p in layer.parameters()}
        rest = [p for p in objective.parameters() if p.requires_grad and id(p) not in alone]
        names = {id(p): n for n, p in objective.named_parameters()}
        objective.register_forward_hook(_touching([names[id(p)] for p in rest]))
    objective, *prepared = accelerator.prepare(objective, *optimizers)
    return objective, prepared


def _sharding() -> FullyShardedDataParallelPlugin | None:
    """What the launcher asks for by its environment, None without FSDP."""
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise SpatialError(
            ErrorCode.NOT_READY,
            "FSDP is served in its second version: set fsdp_version: 2 in the accelerate file",
        )
    # weights are gathered as they are stored and autocast does the rest, as without sharding
    return FullyShardedDataParallelPlugin(mixed_precision_policy=MixedPrecisionPolicy())


def _touching(names: list[str]) -> Any:
    """A hook that gives every named parameter a gradient, of zeros where a batch does not need it.

    All processes must reduce the same gradients; a batch without images or without depth has fewer.
    """

    def touch(objective: nn.Module, _args: Any, losses: Any) -> Any:
        if not (torch.is_grad_enabled() and isinstance(losses, dict)):
            return losses
        nothing = sum(objective.get_parameter(name).sum() for name in names) * 0.0
        return {**losses, "loss": losses["loss"] + nothing}

    return touch
