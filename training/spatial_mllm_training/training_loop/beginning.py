"""A new run that begins with the weights of another one, as stages of a training do; knows no loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.run_folder import began_with

_HEADS = "spatial_heads."


def begin_with(run: Path, model: nn.Module) -> dict[str, Any]:
    """Give a model the final weights of a run; returns what the record of the new one says about it.

    Optimisers, step and clock begin anew. 3D heads that the run did not train begin as they are.

    Raises:
        SpatialError: MODEL_MISSING without a checkpoint; MODEL_SIGNATURE when none is whole or its trained
            tensors are of other names or shapes.
    """
    found = checkpoints.latest(run)
    if found is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' holds no checkpoint to begin with")
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    had = found.weights()
    new = {name for name in trained if name.startswith(_HEADS) and not any(n.startswith(_HEADS) for n in had)}
    weights = found.final_weights(trained.keys() - new)
    for name, value in weights.items():
        if value.shape != trained[name].shape:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{found.folder}' has {name} of shape {tuple(value.shape)}, "
                f"the recipe's is {tuple(trained[name].shape)}",
            )
    model.load_state_dict(weights, strict=False)  # what is missing is frozen
    earlier = began_with(run)
    return {
        "recipe": found.belongs_to.get("recipe", ""),
        **found.progress.spent,
        **({"began_with": earlier} if earlier else {}),
    }
