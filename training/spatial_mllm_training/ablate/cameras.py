"""Scene files as one camera or as many cameras would have taken them: crops that are enlarged, K with them.

Both sets show the same frames of the same scenes, so that what differs is the cameras alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.augment.draws import is_held_out
from spatial_mllm_training.data.view_pairs import WINDOW_TRIES
from spatial_mllm_training.data.views import Crop
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG, pinhole
from spatial_mllm_training.scenes.split import seed_of

SINGLE_HFOV_DEG = 50.0
"""Of the one camera: narrow enough to lie within most images."""


def single_window(
    camera: CameraModel, size: tuple[int, int], hfov_deg: float = SINGLE_HFOV_DEG
) -> Crop | None:
    """The part of an image that the one camera sees, None where the image is too narrow for it."""
    wanted = pinhole(*size, hfov_deg)
    width = round(size[0] * camera.k[0, 0] / wanted[0, 0])
    height = round(size[1] * camera.k[1, 1] / wanted[1, 1])
    x = round(float(camera.k[0, 2]) - (width - 1) / 2)
    y = round(float(camera.k[1, 2]) - (height - 1) / 2)
    inside = x >= 0 and y >= 0 and x + width <= camera.width and y + height <= camera.height
    return Crop(x, y, width, height) if inside else None


def mixed_window(camera: CameraModel, single: Crop, rng: np.random.Generator) -> Crop:
    """A window of the single one's shape anywhere in the image, up to as large as fits, log-uniform in f.

    Its field of view is none that is held out; where no such window is drawn it is the single one.
    """
    for _ in range(WINDOW_TRIES):
        crop = _any_window(camera, single, rng)
        if not is_held_out(crop.camera(camera, crop.width, crop.height), HELD_OUT_HFOV_DEG):
            return crop
    return single


def _any_window(camera: CameraModel, single: Crop, rng: np.random.Generator) -> Crop:
    largest = min(camera.width / single.width, camera.height / single.height)
    factor = float(np.exp(rng.uniform(0.0, np.log(largest))))
    width, height = (
        min(camera.width, round(single.width * factor)),
        min(camera.height, round(single.height * factor)),
    )
    x, y = rng.integers(0, camera.width - width + 1), rng.integers(0, camera.height - height + 1)
    return Crop(int(x), int(y), width, height)


def write_variants(scenes: list[Path], out: Path, size: tuple[int, int]) -> dict[str, Path]:
    """Write `<out>/single` and `<out>/mixed`; files that are there are kept.

    Args:
        size: (width, height) of the new images, px.

    Returns:
        the folder of each variant.

    Raises:
        SpatialError: NO_FRAME when no image is wide enough; NOT_WRITABLE.
    """
    folders = {name: out / name for name in ("single", "mixed")}
    for folder in folders.values():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SpatialError(
                ErrorCode.NOT_WRITABLE, f"'{folder}' cannot be made ({error.strerror})"
            ) from error
    written = 0
    for file in scenes:
        if all((folder / file.name).exists() for folder in folders.values()):
            written += 1
            continue
        scene = map_npz(file)
        height, width = scene["depth_mm"].shape[2:]
        camera = CameraModel.from_k(np.asarray(scene["k"], np.float64), width, height)
        single = single_window(camera, size)
        if single is None:
            continue
        windows = {
            "single": single,
            "mixed": mixed_window(camera, single, np.random.default_rng([seed_of(file), 5])),
        }
        for name, crop in windows.items():
            _write(folders[name] / file.name, scene, crop, camera, size)
        written += 1
    if not written:
        raise SpatialError(
            ErrorCode.NO_FRAME,
            f"none of {len(scenes)} scenes is wide enough for one camera of {SINGLE_HFOV_DEG:g} degrees",
        )
    return folders


def _write(
    path: Path, scene: dict[str, np.ndarray], crop: Crop, camera: CameraModel, size: tuple[int, int]
) -> None:
    width, height = size

    def near(stack: NDArray) -> NDArray:
        return np.stack([[crop.nearest(np.asarray(x), width, height) for x in row] for row in stack])

    rgb = [[crop.image(np.asarray(x), width, height) for x in row] for row in scene["rgb"]]
    changed = {
        **scene,
        "rgb": np.asarray(rgb, np.uint8),
        "depth_mm": near(scene["depth_mm"]),
        "body_id": near(scene["body_id"]),
        "k": crop.camera(camera, width, height).k,
    }
    part = path.with_name(f".{path.stem}.part.npz")
    np.savez(part, **changed)
    part.replace(path)
