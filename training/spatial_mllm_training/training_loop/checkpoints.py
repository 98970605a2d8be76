"""Checkpoints of a run: whole or not there, verified by hash, the last good one found again.

    checkpoints/step-00000500/weights.safetensors    trained weights
                              average.safetensors    averaged weights, where a recipe averages
                              optimizer.pt           tensors and numbers, read with weights_only
                              state.json             progress, what it belongs to, sha256 of the others

A folder gets its name when everything in it is on the disk. Knows no model.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.dpt import NEVER_USED

FOLDER = "checkpoints"
WEIGHTS, AVERAGE, OPTIMIZER, STATE = (
    "weights.safetensors",
    "average.safetensors",
    "optimizer.pt",
    "state.json",
)


@dataclass
class Progress:
    """How far a run is.

    Attributes:
        step: optimiser steps done.  samples: drawn by all processes together.
        elapsed_s: wall time of all sessions.
        skipped: samples left out.
        window: losses summed since the last line of the log, and their number, so that a resumed
            run writes the same lines.
    """

    step: int = 0
    samples: int = 0
    elapsed_s: float = 0.0
    skipped: int = 0
    window: dict[str, float] = field(default_factory=dict)
    window_steps: int = 0

    @property
    def spent(self) -> dict[str, Any]:
        """Steps and minutes, for records that people read."""
        return {"steps": self.step, "minutes": round(self.elapsed_s / 60.0, 1)}


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole.

    Attributes:
        sha256: of its weights.
    """

    folder: Path
    progress: Progress
    belongs_to: dict[str, str]
    sha256: str

    def weights(self) -> dict[str, Tensor]:
        return load_file(str(self.folder / WEIGHTS))

    def average(self) -> dict[str, Tensor]:
        """Averaged weights, {} where there are none."""
        path = self.folder / AVERAGE
        return load_file(str(path)) if path.exists() else {}

    def final_weights(self, known: Collection[str]) -> dict[str, Tensor]:
        """What a run is served with: averaged weights where there are such, without what only a teacher needs.

        Args:
            known: names of the trained tensors of the model that they are for.

        Raises:
            SpatialError: MODEL_SIGNATURE when the names differ.
        """
        weights = {
            name: value
            for name, value in {**self.weights(), **self.average()}.items()
            if not name.startswith(("feature_projector.", NEVER_USED))
        }
        if other := sorted(weights.keys() ^ set(known)):
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{self.folder}' is not of the model in config.json: see {other[0]}",
            )
        return weights

    def optimizer(self) -> dict[str, Any]:
        return torch.load(self.folder / OPTIMIZER, weights_only=True, map_location="cpu")


def write(
    run: Path,
    progress: Progress,
    *,
    belongs_to: Mapping[str, str],
    weights: Mapping[str, Tensor],
    average: Mapping[str, Tensor],
    optimizer: Mapping[str, Any],
    keep: int,
) -> None:
    """Write a checkpoint of a run, then remove all but the newest `keep`.

    Raises:
        SpatialError: NOT_WRITABLE.
    """
    folder = run / FOLDER / f"step-{progress.step:08d}"
    part = folder.with_name(f".{folder.name}.part")
    buffer = io.BytesIO()
    torch.save(dict(optimizer), buffer)
    files = {WEIGHTS: save(dict(weights)), OPTIMIZER: buffer.getvalue()}
    if average:
        files[AVERAGE] = save(dict(average))
    state = {
        "progress": asdict(progress),
        "belongs_to": dict(belongs_to),
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, data in {**files, STATE: json.dumps(state, indent=2).encode()}.items():
            with open(part / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise SpatialError(
            ErrorCode.NOT_WRITABLE, f"checkpoint '{folder}' cannot be written ({error.strerror or error})"
        ) from error
    for old in _folders(run)[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def begun(run: Path) -> bool:
    """Whether a run has checkpoints, whole or torn; reads none."""
    return bool(_folders(run))


def latest(run: Path, say: Callable[[str], None] = print) -> Checkpoint | None:
    """The newest whole checkpoint, None where a run has not begun; a torn one is said and passed over.

    Raises:
        SpatialError: MODEL_SIGNATURE when there are checkpoints and none is whole.
    """
    folders = _folders(run)
    for folder in folders:
        problem, found = _opened(folder)
        if found is not None:
            return found
        say(f"checkpoint '{folder}' is torn ({problem}); the one before it is used")
    if folders:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"none of the {len(folders)} checkpoint(s) in '{run / FOLDER}' is whole; remove the folder to begin anew",
        )
    return None


def check(found: Checkpoint, belongs_to: Mapping[str, str]) -> None:
    """Raise MODEL_SIGNATURE where a checkpoint is of another family, size or set of trained weights."""
    for name, wanted in belongs_to.items():
        if (has := found.belongs_to.get(name, "none")) != wanted:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"checkpoint '{found.folder}' has {name} {has}, but the recipe gives {wanted}; "
                "name another run folder or the recipe it was trained with",
            )


def _folders(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("step-*"), reverse=True)


def _opened(folder: Path) -> tuple[str, Checkpoint | None]:
    try:
        state = json.loads((folder / STATE).read_text())
        for name, expected in state["sha256"].items():
            with open(folder / name, "rb") as file:
                if _digest(file) != expected:
                    return f"{name} has another hash than when it was written", None
        return "", Checkpoint(
            folder, Progress(**state["progress"]), state["belongs_to"], state["sha256"][WEIGHTS]
        )
    except OSError as error:
        return f"{Path(error.filename or folder).name}: {error.strerror or error}", None
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{STATE} is not what was written", None


def _digest(file: Any) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 22):
        digest.update(chunk)
    return digest.hexdigest()
