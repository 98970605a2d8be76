"""A run's folder: configuration, versions, data hashes, metrics, TensorBoard; knows no model.

config.json  run.json  metrics.jsonl  tensorboard/  tokenizer.json  checkpoints/  final.json
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.recipes.config import TrainConfig

RECORD, TOKENIZER = "run.json", "tokenizer.json"
PACKAGES = ("torch", "transformers", "accelerate", "peft", "safetensors", "numpy", "tokenizers")


class RunFolder:
    """Only the leading process writes; the others hold one that does nothing."""

    def __init__(self, path: Path, *, leads: bool) -> None:
        self.path, self.leads = path, leads
        self._board: Any = None
        if not leads:
            return
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpatialError(
                ErrorCode.NOT_WRITABLE, f"run folder '{path}' cannot be made ({error.strerror})"
            ) from error

    def begin(
        self,
        config: TrainConfig,
        data: Mapping[str, str],
        *,
        subtasks: Sequence[str],
        processes: int,
        device: str,
        began_with: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """Write what the run is; a sentence when its data are others than at its beginning, else "".

        Args:
            subtasks: what the data teach; what they taught in earlier sessions stays in the record.
            began_with: the run whose weights this one begins with, see `beginning`; likewise.
        """
        if not self.leads:
            return ""
        file = self.path / RECORD
        known = json.loads(file.read_text()) if file.exists() else {}
        before = known.get("data")
        taught = {*known.get("subtasks", ()), *subtasks}
        self._write("config.json", config.to_json())
        record = {
            "data": dict(data),
            "subtasks": [name for name in tasks.names() if name in taught],
            "versions": {"python": platform.python_version(), **_versions()},
            "processes": processes,
            "device": device,
        }
        if earlier := dict(began_with) or known.get("began_with"):
            record["began_with"] = earlier
        self._write(RECORD, json.dumps(record, indent=2))
        if before is not None and before != dict(data):
            return "the data are not those that this run began with: it goes on, but cannot be repeated"
        return ""

    def rewind(self, step: int) -> None:
        """Forget lines of steps after a checkpoint: they are written again."""
        if not self.leads:
            return
        file = self.path / "metrics.jsonl"
        kept = []
        for line in file.read_text().splitlines() if file.exists() else []:
            try:
                record = json.loads(line)
            except ValueError:
                continue  # cut off by a kill
            if record["step"] <= step:
                kept.append(line)
        self._write("metrics.jsonl", "".join(f"{line}\n" for line in kept))

    def log(self, step: int, figures: Mapping[str, float], **beside: Any) -> None:
        """A line of metrics.jsonl and TensorBoard scalars; `beside` goes into the line only."""
        if not self.leads:
            return
        record = {"step": step, **beside, **figures}
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        for name, value in figures.items():
            self._writer().add_scalar(name, value, step)

    def finish(self, figures: Mapping[str, Any]) -> None:
        if self.leads:
            self._write("final.json", json.dumps(dict(figures), indent=2))
        if self._board is not None:
            self._board.close()

    def _writer(self) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.path / "tensorboard"))
        return self._board

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, text.encode(), replace=True)


def taught_subtasks(run: Path) -> tuple[str, ...] | None:
    """The subtasks that the data of a run taught; None where its record does not say.

    Raises:
        SpatialError: MODEL_SIGNATURE when the record is not what was written.
    """
    told = _record(run).get("subtasks")
    try:
        return None if told is None else tuple(tasks.get(name).name for name in told)
    except (TypeError, SpatialError):
        raise _not_a_record(run) from None


def began_with(run: Path) -> dict[str, Any]:
    """What the record of a run says about the one whose weights it began with; {} for a run of its own.

    Raises:
        SpatialError: MODEL_SIGNATURE when the record is not what was written.
    """
    told = _record(run).get("began_with", {})
    if not isinstance(told, dict):
        raise _not_a_record(run)
    return told


def _record(run: Path) -> dict[str, Any]:
    file = run / RECORD
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise _not_a_record(run)
    return record


def _not_a_record(run: Path) -> SpatialError:
    return SpatialError(ErrorCode.MODEL_SIGNATURE, f"'{run / RECORD}' is not the record of a run")


def kept_tokenizer(run: Path) -> Tokenizer | None:
    """The tokens that a run began with, whatever the templates have become since; None before it begins.

    Raises:
        SpatialError: MODEL_SIGNATURE when the file is not a tokenizer.
    """
    file = run / TOKENIZER
    if not file.exists():
        return None
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises no narrower class
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"'{file}' is not a tokenizer: {one_line(str(error))}"
        ) from None


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
