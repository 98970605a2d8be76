"""Two images of a random scene, as two cameras or one camera at two times take them; knows no question and no model.

Augmented windows never show a field of view that is held out for tests.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.augment.draws import is_held_out
from spatial_mllm_training.data.matches import match_map
from spatial_mllm_training.data.packing import LeftOutError
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.views import Crop, jitter_colour
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG

WINDOW_TRIES = 32
FAR_SEEN_SHARES = 0.1, 0.52
"""Of a first image's cells that a far one shows, too: where 6 to 35 % of the places of two like images are common
ones, as in MultiSPA's pairs (papers.md 2.3), 0.11 to 0.52 of each are."""
_SHARE_CELLS = 9, 12


class ViewPairs:
    """Draws pairs from scene files written by `make_scenes`.

    Attributes:
        augment: random crops and colours.

    Raises:
        SpatialError: NOT_READY for a file that is no whole scene.
    """

    def __init__(self, scenes: list[Path], config: PairConfig, *, augment: bool = True) -> None:
        self.scenes = {path: _scene(path) for path in scenes}
        self._order = sorted(self.scenes)
        self.config = config
        self.augment = augment

    def digest(self) -> str:
        """sha256 over the names and sizes of the scene files."""
        text = "".join(f"{p.name} {p.stat().st_size}\n" for p in self._order)
        return hashlib.sha256(text.encode()).hexdigest()

    def draw(
        self, rng: np.random.Generator
    ) -> tuple[tuple[SceneView, SceneView], tuple[CameraModel, CameraModel]]:
        """Two frames of a random scene, the window of each, and the cameras of the windows.

        Raises:
            LeftOutError: no window of the scene was found whose field of view is not held out.
        """
        cfg = self.config
        scene = self.scenes[self._order[int(rng.integers(len(self._order)))]]
        times, cameras, height, width = scene["depth_mm"].shape
        t1, c1 = int(rng.integers(times)), int(rng.integers(cameras))
        still = rng.random() < cfg.still_camera
        same_time = not still and rng.random() < cfg.same_time / (1.0 - cfg.still_camera)
        t2 = t1 if same_time else int((t1 + rng.integers(1, times)) % times)
        c2 = c1 if still else int((c1 + rng.integers(1, cameras)) % cameras)
        source = CameraModel.from_k(np.asarray(scene["k"], np.float64), width, height)
        first = self._window(rng, source)
        second = self._window(rng, source) if self.augment and rng.random() < cfg.own_crops else first
        views = (
            SceneView(scene, t1, c1, first[0], cfg.width, cfg.height),
            SceneView(scene, t2, c2, second[0], cfg.width, cfg.height),
        )
        if not still and cfg.far and rng.random() < cfg.far:
            views = views[0], _far(rng, *views)
        return views, (first[1], second[1])

    def images(self, rng: np.random.Generator, views: tuple[SceneView, SceneView]) -> list[NDArray[np.uint8]]:
        """What the windows show, in the colours of one camera."""
        gains = rng.uniform(0.75, 1.25, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.2))
        gamma = float(np.exp(rng.uniform(-0.35, 0.35)))
        images = [view.image() for view in views]
        return [jitter_colour(rng, image, gains, gamma) for image in images] if self.augment else images

    def _window(self, rng: np.random.Generator, source: CameraModel) -> tuple[Crop, CameraModel]:
        """The part of a source image that is shown, and its camera; the whole without augmentation."""
        cfg = self.config
        if not self.augment:
            whole = Crop(0, 0, source.width, source.height)
            return whole, whole.camera(source, cfg.width, cfg.height)
        for _ in range(WINDOW_TRIES):
            crop = Crop.random(
                rng, source.width, source.height, smallest=cfg.smallest_crop, aspect=cfg.aspect
            )
            camera = crop.camera(source, cfg.width, cfg.height)
            if not is_held_out(camera, HELD_OUT_HFOV_DEG):
                return crop, camera
        raise LeftOutError(f"every one of {WINDOW_TRIES} windows has a field of view that is held out")


def _far(rng: np.random.Generator, first: SceneView, second: SceneView) -> SceneView:
    """The second view by another camera, if need be, that shows little of the first; as it is where none does."""
    others = rng.permutation(np.delete(np.arange(len(second.scene["world_from_camera"])), first.camera))
    for camera in others.tolist():
        view = replace(second, camera=camera)
        seen = np.isfinite(match_map(first, view, *_SHARE_CELLS)[..., 0]).mean()
        if FAR_SEEN_SHARES[0] <= seen <= FAR_SEEN_SHARES[1]:
            return view
    return second


def _scene(path: Path) -> dict[str, np.ndarray]:
    try:
        return map_npz(path)
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise SpatialError(
            ErrorCode.NOT_READY, f"'{path}' is not a whole scene of make_scenes: {one_line(str(error))}"
        ) from None
