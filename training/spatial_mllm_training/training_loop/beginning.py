"""A new run that begins with the weights of another one or of a bundle, as stages of a training do; knows no loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.bundle import MANIFEST, open_bundle, read_manifest
from spatial_mllm_training.model.bundle_weights import read_weights
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.run_folder import began_with

_OPTIONAL = ("spatial_heads.", "matcher.", "copy_gate.")
"""Begin the names of what may be missing: the first in bundles, the others in what was made before they were known."""


def begin_with(before: Path, model: nn.Module) -> dict[str, Any]:
    """Give a model the final weights of a run or bundle; returns what the record of the new one says about it.

    Optimisers, step and clock begin anew. 3D heads, a matcher and a gate that were not trained before, or are
    not in a bundle because they are not served, begin as they are; those that a recipe has no longer are given up.

    Args:
        before: folder of a run or of a bundle.

    Raises:
        SpatialError: MODEL_MISSING without a checkpoint; MODEL_SIGNATURE when none is whole or the
            tensors are of other names or shapes; what a bundle is refused for.
    """
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if _is_bundle(before):
        weights, record = _of_bundle(before, trained), record_of(before)
    else:
        found = _checkpoint(before)
        weights, record = _of_run(found, trained), _record_of_run(before, found)
    for name, value in weights.items():
        if value.shape != trained[name].shape:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{before}' has {name} of shape {tuple(value.shape)}, "
                f"the recipe's is {tuple(trained[name].shape)}",
            )
    model.load_state_dict(weights, strict=False)  # what is missing is frozen, or a head that begins anew
    return record


def record_of(before: Path) -> dict[str, Any]:
    """Recipe, steps, minutes and a hash of the weights of a run or bundle, and what it began with itself.

    Raises:
        SpatialError: what a bundle is refused for; MODEL_MISSING or MODEL_SIGNATURE of a run, as `begin_with`.
    """
    if not _is_bundle(before):
        return _record_of_run(before, _checkpoint(before))
    manifest = read_manifest(before)
    told = manifest.training
    spent = {name: told.get(name, "not recorded") for name in ("recipe", "steps", "minutes")}
    return _record(spent, manifest.files["decoder.onnx"][0], told.get("began_with", {}))


def _record_of_run(run: Path, found: checkpoints.Checkpoint) -> dict[str, Any]:
    spent = {"recipe": found.belongs_to.get("recipe", ""), **found.progress.spent}
    return _record(spent, found.sha256, began_with(run))


def _record(spent: dict[str, Any], sha256: str, earlier: dict[str, Any]) -> dict[str, Any]:
    return {**spent, "weights": sha256[:12], **({"began_with": earlier} if earlier else {})}


def _is_bundle(before: Path) -> bool:
    return (before / MANIFEST).is_file()


def _checkpoint(run: Path) -> checkpoints.Checkpoint:
    found = checkpoints.latest(run)
    if found is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' holds no checkpoint to begin with")
    return found


def _of_run(found: checkpoints.Checkpoint, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ours, theirs = ({n for n in names if n.startswith(_OPTIONAL)} for names in (trained, found.weights()))
    weights = found.final_weights((trained.keys() - ours) | theirs)
    return {name: value for name, value in weights.items() if name in ours or name not in theirs}


def _of_bundle(folder: Path, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
    stored = read_weights(open_bundle(folder))
    weights = {name: stored[name] for name in trained if name in stored}
    missing = [n for n in trained if n not in stored and not n.startswith(_OPTIONAL)]
    if missing:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{folder}' is not of the recipe's model: it has no {missing[0]}"
        )
    return weights
