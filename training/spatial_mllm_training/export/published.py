"""A run on a published checkpoint as files that a user loads; knows the run folder, not how it was trained.

additions.safetensors   ray embedding and heads, for `model.checkpoint.load(base, additions=...)`
adapter/                LoRA and projector in peft's format, for `load(..., adapter=...)` or stock peft
merged/                 on demand: a stock checkpoint with the adapter added to its weights
README.md               how to load them, and what they come from
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.model import adapter_file
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import PublishedConfig, TrainConfig
from spatial_mllm_training.training_loop import adapting, checkpoints
from spatial_mllm_training.training_loop.setup import build_learner

ADDITIONS, ADAPTER, MERGED = "additions.safetensors", "adapter", "merged"
_WEIGHTS = (
    "*.safetensors",
    "*.safetensors.index.json",
    "*.bin",
    "*.bin.index.json",
    "*.pt",
    "*.pth",
    "*.gguf",
)


@dataclass(frozen=True)
class PublishedRun:
    """The model at the end of a run, averaged where the run averages.

    Attributes:
        place: folder or hub name of the checkpoint that it was trained on.
        step: optimiser steps of the checkpoint that was read.
    """

    model: CameraAwareVLM
    config: TrainConfig
    published: PublishedConfig
    tokenizer: Tokenizer
    place: str
    step: int


def run_config(run: Path) -> TrainConfig:
    """The configuration of a run folder.

    Raises:
        SpatialError: MODEL_MISSING without one, MODEL_SIGNATURE when it cannot be read.
    """
    file = run / "config.json"
    try:
        return TrainConfig.from_json(file.read_text())
    except OSError:
        raise SpatialError(
            ErrorCode.MODEL_MISSING, f"'{run}' holds no config.json; it is not a run folder that train wrote"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpatialError(ErrorCode.MODEL_SIGNATURE, f"'{file}' cannot be read: {error}") from None


def open_run(run: Path, checkpoint: Path | None = None) -> PublishedRun:
    """Build the model of a run from its base and the tensors that were trained.

    Args:
        checkpoint: folder of the base, as `train --checkpoint`; None: the recipe's name on the hub.

    Raises:
        SpatialError: MODEL_MISSING without a checkpoint or a base; MODEL_SIGNATURE when none is whole, for
            a run on other weights, or one of a small model.
    """
    config = run_config(run)
    if config.published is None:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{run}' is a run of a small model, not of a published one"
        )
    found = checkpoints.latest(run)
    if found is None:
        raise SpatialError(ErrorCode.MODEL_MISSING, f"'{run}' holds no checkpoint; train first")
    learner = build_learner(config, checkpoint)
    model = learner.model
    place = str(checkpoint or config.published.checkpoint)
    if not adapting.identity(model).items() <= found.belongs_to.items():
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{run}' was trained on other weights than those of '{place}'"
        )
    weights = found.final_weights({name for name, p in model.named_parameters() if p.requires_grad})
    model.load_state_dict(weights, strict=False)  # what is missing is frozen
    return PublishedRun(
        adapting.served(model), config, config.published, learner.tokenizer, place, found.progress.step
    )


def write_files(run: PublishedRun, folder: Path, *, merge: bool = False) -> list[str]:
    """Write the files of a run into an empty folder; returns their names.

    Args:
        merge: write the merged checkpoint too; the model of `run` is merged by it.

    Raises:
        SpatialError: NOT_READY for a decoder that was trained whole, without `merge`; NOT_WRITABLE.
    """
    model, published = run.model, run.published
    if not published.lora_rank and not merge:
        raise SpatialError(
            ErrorCode.NOT_READY,
            f"recipe '{run.config.name}' trained the decoder whole, not an adapter: give --merge",
        )
    try:
        model.save_additions(folder / ADDITIONS)
        written = [ADDITIONS]
        if published.lora_rank:
            adapter_file.write(
                folder / ADAPTER,
                model,
                adapting.lora_config(published),
                base=published.checkpoint,
                whole=model.family.projector(model.hf),
            )
            written.append(ADAPTER)
        if merge:
            adapter_file.merge(model)
            model.hf.save_pretrained(folder / MERGED)
            _copy_beside(run.place, folder / MERGED)
            written.append(MERGED)
        (folder / "README.md").write_text(_readme(run, written))
    except OSError as error:
        raise SpatialError(
            ErrorCode.NOT_WRITABLE, f"'{folder}' cannot be written ({error.strerror or error})"
        ) from error
    return [*written, "README.md"]


def _copy_beside(place: str, target: Path) -> None:
    """Copy tokenizer, processor and chat template of a checkpoint; files that are there stay."""
    source = Path(place)
    if not source.is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            source = Path(snapshot_download(place, ignore_patterns=list(_WEIGHTS)))
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
            raise SpatialError(
                ErrorCode.MODEL_MISSING,
                f"tokenizer and processor of '{place}' cannot be had: {one_line(str(error))}",
            ) from None
    for file in sorted(source.iterdir()):
        weights = any(file.match(pattern) for pattern in _WEIGHTS)
        if file.is_file() and not weights and not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)


def _readme(run: PublishedRun, written: list[str]) -> str:
    base = run.published.checkpoint
    arguments = [f'"{base}"', f'additions="{ADDITIONS}"']
    if ADAPTER in written:
        arguments.append(f'adapter="{ADAPTER}"')
    lines = [
        f"# {run.config.name}, step {run.step}",
        "",
        f"Trained on `{base}` with the recipe `{run.config.name}` of spatial_mllm. From this folder:",
        "",
        "```python",
        "from spatial_mllm_training.model.checkpoint import load",
        "",
    ]
    if ADAPTER in written:
        lines.append(f'model = load({", ".join(arguments)}, dtype="auto")')
    if MERGED in written:
        lines.append(f'model = load("{MERGED}", additions="{ADDITIONS}", dtype="auto")')
    lines += ["```", ""]
    if ADAPTER in written:
        lines += [
            f'`{ADAPTER}` is a LoRA adapter of peft: `PeftModel.from_pretrained(base, "{ADAPTER}")` loads it',
            "",
        ]
    if MERGED in written:
        lines += [
            f'`{MERGED}` is a checkpoint of transformers: `AutoModelForImageTextToText.from_pretrained("{MERGED}")`',
            "",
        ]
    lines.append("Without the additions a model has the trained words, but knows no camera and no depth.")
    return "\n".join(lines) + "\n"
