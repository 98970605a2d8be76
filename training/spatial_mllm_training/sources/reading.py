"""Checks that every reader of posed images needs: folders, poses, K, up, text; knows no folder layout."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.sources.base import SceneProblem
from spatial_mllm_training.sources.image_files import natural, read_matrix

#: How far R^T R may be from the identity: rounded text is far nearer, a wrong matrix far farther off.
RIGID_TOLERANCE = 0.01


def safe_name(text: str) -> str:
    """`text` with everything that is awkward in a file name replaced by '_'."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", text).strip("_") or "_"


def scene_folders(
    path: Path, is_scene: Callable[[Path], bool], *, levels: int = 1, expected: str
) -> list[Path]:
    """`path` when it is a scene, else the scenes up to `levels` folders below it, as absolute paths.

    Args:
        expected: what a scene looks like, completes "there is no scene here, expected ...".

    Raises:
        SceneProblem: there is none.
    """
    path = Path(os.path.abspath(path))
    if not path.is_dir():
        raise SceneProblem(path.name, str(path), "does not exist or is not a folder")
    found = [path]
    try:
        for _ in range(levels + 1):
            scenes = [folder for folder in found if is_scene(folder)]
            if scenes:
                return scenes
            found = [sub for folder in found for sub in sorted(folder.iterdir(), key=natural) if sub.is_dir()]
    except OSError as error:
        raise SceneProblem(path.name, str(path), f"cannot be searched ({_reason(error)})") from error
    raise SceneProblem(path.name, str(path), f"there is no scene here, expected {expected}")


def check_stride(path: Path, stride: int) -> None:
    """Raises SceneProblem unless `stride` is 1 or more."""
    if stride < 1:
        raise SceneProblem(path.name, str(path), f"stride should be 1 or more, found {stride}")


def read_text(scene: str, file: Path) -> str:
    """The text of a file. Raises SceneProblem."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneProblem(scene, str(file), f"cannot be read as text ({_reason(error)})") from error


def read_json(scene: str, file: Path) -> dict[str, object]:
    """The object in a JSON file. Raises SceneProblem."""
    try:
        found = json.loads(read_text(scene, file))
    except ValueError as error:
        raise SceneProblem(scene, str(file), f"is not whole JSON: {error}") from error
    if not isinstance(found, dict):
        raise SceneProblem(scene, str(file), "should hold a JSON object with names")
    return found


def checked_pose(scene: str, file: Path | str, pose: ArrayLike) -> NDArray[np.float64]:
    """`target_from_source` (4, 4) with its rotation made exact.

    Raises:
        SceneProblem: NaN, infinity, or not a rigid motion. The sentence holds no numbers, so
            that equal faults can be counted.
    """
    matrix = np.array(pose, np.float64)
    if not np.isfinite(matrix).all():
        raise SceneProblem(scene, str(file), "should hold finite numbers, found NaN or infinity")
    rotation = matrix[:3, :3]
    is_turned = np.abs(rotation.T @ rotation - np.eye(3)).max() <= RIGID_TOLERANCE
    if not (is_turned and np.linalg.det(rotation) > 0 and np.allclose(matrix[3], (0, 0, 0, 1))):
        raise SceneProblem(scene, str(file), "is not a rotation and a shift")
    u, _, vt = np.linalg.svd(rotation)
    matrix[:3, :3] = u @ vt
    matrix[3] = (0, 0, 0, 1)
    return matrix


def read_pose(scene: str, file: Path) -> NDArray[np.float64]:
    """`target_from_source` (4, 4) from a text file of 16 numbers.

    Raises:
        SceneProblem: missing, or as `checked_pose`.
    """
    if not file.is_file():
        raise SceneProblem(scene, str(file), "is missing, and with it a pose")
    return checked_pose(scene, file, read_matrix(scene, file, (4, 4)))


def read_k(scene: str, file: Path) -> NDArray[np.float64]:
    """K (3, 3) from a text file of 3x3 or 4x4 numbers. Raises SceneProblem."""
    count = len(read_text(scene, file).split())
    return read_matrix(scene, file, (4, 4) if count == 16 else (3, 3))[:3, :3]


def camera_of(
    scene: str,
    file: Path | str,
    k: ArrayLike,
    size: tuple[int, int],
    *,
    d: Sequence[float] = (),
    stated_size: tuple[int, int] | None = None,
) -> CameraModel:
    """A camera whose K fits its image.

    Args:
        file: where K was read, for the sentence.
        size: (width, height) of the images.
        d: plumb_bob coefficients.
        stated_size: (width, height) that K is said to be for, where something says so.

    Raises:
        SceneProblem: K is of another resolution, or no K.
    """
    width, height = size
    if stated_size is not None and tuple(stated_size) != (width, height):
        raise SceneProblem(
            scene,
            str(file),
            f"K is for {stated_size[0]}x{stated_size[1]} px, but the images are {width}x{height} px",
        )
    try:
        camera = CameraModel.from_k(k, width, height, d=d)
    except SpatialError as error:
        raise SceneProblem(scene, str(file), error.sentence) from error
    if not camera.principal_point_inside:
        raise SceneProblem(
            scene,
            str(file),
            f"K is of another resolution: its principal point lies outside the {width}x{height} px image",
        )
    return camera


def k_of(fx: float, fy: float, cx: float, cy: float) -> NDArray[np.float64]:
    """K (3, 3) of its four numbers, px."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64)


def unit_up(scene: str, file: Path | str, world_up: object) -> NDArray[np.float64] | None:
    """(3,) unit vector of three numbers, None of None. Raises SceneProblem for anything else."""
    if world_up is None:
        return None
    try:
        vector = np.array(world_up, np.float64)
    except (TypeError, ValueError):
        vector = np.zeros(0)
    length = np.linalg.norm(vector)
    if vector.shape != (3,) or not np.isfinite(length) or length == 0:
        raise SceneProblem(scene, str(file), f"world_up should be three numbers, not all 0, found {world_up}")
    return vector / length


def summarise(problems: Iterable[SceneProblem]) -> list[str]:
    """One sentence per kind of fault, with the first file and how many frames are left out for it."""
    kinds: dict[str, list[SceneProblem]] = {}
    for problem in problems:
        kinds.setdefault(problem.sentence, []).append(problem)
    lines = []
    for same in kinds.values():
        count = "the frame is" if len(same) == 1 else f"{len(same)} frames like this are"
        lines.append(f"{same[0]}; {count} left out")
    return lines


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
