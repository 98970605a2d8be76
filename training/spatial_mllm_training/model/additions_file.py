"""The safetensors file of what a wrapper adds to its base; knows tensors and a header, not models.

The header is the file's own metadata (text to text), read without the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.model.dpt import NEVER_USED
from spatial_mllm_training.model.heads import HeadsConfig

FORMAT = "spatial_mllm additions"
VERSION = 2
"""2 since the heads are told by a `HeadsConfig`; in 1 there is one depth head, told by its width."""


@dataclass(frozen=True)
class Header:
    """What additions belong to.

    Attributes:
        family: name of the model family.
        hidden_size: width of the decoder.
        tap_layers: indices into `hidden_states` that the heads were trained on.
        heads: which heads there are.
    """

    family: str
    hidden_size: int
    tap_layers: tuple[int, int, int, int]
    heads: HeadsConfig

    def to_metadata(self) -> dict[str, str]:
        return {
            "format": FORMAT,
            "version": str(VERSION),
            "family": self.family,
            "hidden_size": str(self.hidden_size),
            "tap_layers": " ".join(map(str, self.tap_layers)),
            "heads": self.heads.to_json(),
        }

    def check(self, path: Path, *, family: str, hidden_size: int) -> None:
        """Raise MODEL_SIGNATURE unless the additions were made for this family and width."""
        if (self.family, self.hidden_size) != (family, hidden_size):
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{path}' holds additions for a {self.family} of width {self.hidden_size}, but the model is a "
                f"{family} of width {hidden_size}",
            )

    def check_taps(self, path: Path, tap_layers: tuple[int, ...]) -> None:
        """Raise MODEL_SIGNATURE unless the heads were trained on these layers."""
        if self.tap_layers != tap_layers:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{path}' holds heads on layers {self.tap_layers}, but the model taps {tap_layers}",
            )

    def check_heads(self, path: Path, heads: HeadsConfig) -> None:
        """Raise MODEL_SIGNATURE with the differences unless the heads are these."""
        found, expected = self.heads.apart_from(heads)
        if found:
            raise SpatialError(
                ErrorCode.MODEL_SIGNATURE,
                f"'{path}' holds heads with {found}, but the model has {expected}",
            )


def write(path: Path, tensors: Mapping[str, Tensor], header: Header) -> None:
    """Write atomically; an existing file is replaced.

    Raises:
        SpatialError: NOT_WRITABLE.
    """
    write_atomically(path, save(dict(tensors), header.to_metadata()), replace=True)


def read_header(path: Path) -> Header:
    """Read what additions belong to.

    Raises:
        SpatialError: MODEL_MISSING; MODEL_SIGNATURE for a torn file, or one that is something else.
    """
    if not path.is_file():
        raise SpatialError(ErrorCode.MODEL_MISSING, f"there is no additions file '{path}'")
    try:
        with safe_open(str(path), framework="pt") as file:
            found = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from None
    version = found.get("version")
    if found.get("format") != FORMAT or version not in ("1", str(VERSION)):
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"'{path}' is '{found.get('format', 'unnamed')}' version {version or 'none'}, expected "
            f"'{FORMAT}' version 1 or {VERSION}",
        )
    try:
        first, second, third, fourth = (int(word) for word in found["tap_layers"].split())
        return Header(
            found["family"],
            int(found["hidden_size"]),
            (first, second, third, fourth),
            HeadsConfig(depth_features=int(found["head_features"]))
            if version == "1"
            else HeadsConfig.from_json(found["heads"]),
        )
    except KeyError:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"the header of '{path}' is not complete: {sorted(found)}"
        ) from None
    except ValueError as error:
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE, f"the header of '{path}' cannot be read: {error}"
        ) from None


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors.

    Raises:
        SpatialError: MODEL_SIGNATURE for a torn file.
    """
    try:
        found = load_file(str(path))
    except (SafetensorError, OSError) as error:
        raise _torn(path, error) from None
    return {name: value for name, value in found.items() if not name.startswith(NEVER_USED)}


def check_tensors(path: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise MODEL_SIGNATURE with the first tensors that are missing, too many or of another shape."""
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    other = [n for n in sorted(expected.keys() & found.keys()) if expected[n].shape != found[n].shape]
    if missing or unexpected or other:
        shapes = [f"{n} {tuple(found[n].shape)} for {tuple(expected[n].shape)}" for n in other[:2]]
        raise SpatialError(
            ErrorCode.MODEL_SIGNATURE,
            f"'{path}' does not fit: missing {missing[:3]}, unexpected {unexpected[:3]}, other shapes {shapes}",
        )


def _torn(path: Path, error: Exception) -> SpatialError:
    return SpatialError(
        ErrorCode.MODEL_SIGNATURE, f"'{path}' is not a complete safetensors file ({error}); copy it again"
    )
