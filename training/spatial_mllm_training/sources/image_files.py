"""Encoded pictures as arrays, with faults that name scene and file; knows no folder layout."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.images import CompressedFields, decode_any
from spatial_mllm_training.sources.base import SceneProblem

PICTURES = (".jpg", ".jpeg", ".png")


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which frame10 follows frame9."""
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in re.split(r"(\d+)", path.name)]


def pictures_in(folder: Path) -> list[Path]:
    """The JPEG and PNG files of a folder in natural order; [] when there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted((f for f in folder.iterdir() if f.suffix.lower() in PICTURES), key=natural)


def decode_rgb(scene: str, file: str, data: bytes) -> NDArray[np.uint8]:
    """(H, W, 3) RGB of a JPEG or PNG; a cut one is refused, not filled with grey.

    Raises:
        SceneProblem: it does not decode.
    """
    try:
        return decode_any(CompressedFields("", memoryview(data)))
    except SpatialError as error:
        raise SceneProblem(scene, file, error.sentence) from error


def read_rgb(scene: str, file: Path) -> NDArray[np.uint8]:
    """As `decode_rgb`, of a file."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SceneProblem(scene, str(file), f"cannot be read ({error.strerror or error})") from error
    return decode_rgb(scene, str(file), data)


def read_uint16(scene: str, file: Path) -> NDArray[np.uint16]:
    """(H, W) samples of a one-channel 16-bit PNG.

    Raises:
        SceneProblem: it does not open or is of another kind.
    """
    if not file.is_file():
        raise SceneProblem(scene, str(file), "does not exist")
    samples = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    if samples is None or samples.ndim != 2 or samples.dtype != np.uint16:
        raise SceneProblem(scene, str(file), "is not a 16-bit one-channel PNG that opens")
    return np.asarray(samples, np.uint16)


def read_matrix(scene: str, file: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A matrix of finite numbers from a text file.

    Raises:
        SceneProblem: missing, not numbers, or of another count.
    """
    try:
        numbers = np.array(file.read_text(encoding="utf-8").split(), np.float64)
    except OSError as error:
        raise SceneProblem(scene, str(file), f"cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise SceneProblem(scene, str(file), f"holds something else than numbers ({error})") from error
    if numbers.size != shape[0] * shape[1]:
        raise SceneProblem(
            scene, str(file), f"should hold {shape[0]}x{shape[1]} numbers, found {numbers.size}"
        )
    if not np.isfinite(numbers).all():
        raise SceneProblem(scene, str(file), "should hold finite numbers, found NaN or infinity")
    return numbers.reshape(shape)
