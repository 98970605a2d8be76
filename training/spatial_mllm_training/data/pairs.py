"""Training samples from scene files: two views of a scene, questions with their truths, dense depth.

One sample is a pair of frames (same camera or moved camera, same or different time, one or two sets
of intrinsics), encoded once, and questions about the first frame or both (`packing`). Augmented
frames never show a field of view that is held out for tests. Knows no model.
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.augment.draws import is_held_out
from spatial_mllm_training.data.dot_questions import TASKS as DOT_TASKS
from spatial_mllm_training.data.dot_questions import Marks, dot_questions
from spatial_mllm_training.data.packing import (
    Format,
    LeftOutError,
    Sample,
    ShownImage,
    pack,
)
from spatial_mllm_training.data.pair_questions import (
    SIZE_TASKS,
    TASKS,
    pair_questions,
    single_questions,
    size_questions,
)
from spatial_mllm_training.data.question import Question
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.views import Crop, jitter_colour
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.multispa.dots import draw
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG
from spatial_mllm_training.supervision.targets import (
    RowTargets,
    first_from_cameras,
    motion_map,
    points_on_rays,
    ray_map,
)

WINDOW_TRIES = 32


@dataclass(frozen=True)
class PairConfig:
    """What a training sample looks like.

    Attributes:
        width, height: model input, pixels.
        pitch: pixels per visual token and axis.
        single_questions, pair_questions: packed questions per sample.
        correspondences: points of the first image that are asked for in the second one, of another camera or window;
            more than one come on top of `pair_questions`.
        whole_camera: where the camera moved, everything is asked about that, on top, too.
        size_questions: likewise, about the size of things in the first image.
        dotted: share of samples whose images carry dots, with a question or two about them.
        served_template: probability of the template that the runtime serves.
        still_camera, same_time: shares of pairs with an unmoved camera, with an unmoved scene.
        smallest_crop, aspect: of the window of the source that an image shows, see `views.Crop.random`.
        own_crops: share of pairs whose images have a window each, as from two cameras; others share one.
        camera_dropout: share of samples that are shown without their cameras.
        apart: images are shown each by itself, for a model that learns to see before it learns to speak.
    """

    width: int = 192
    height: int = 144
    pitch: int = 16
    depth_cells_per_token: int = 8
    single_questions: int = 5
    pair_questions: int = 6
    correspondences: int = 1
    whole_camera: bool = False
    size_questions: int = 0
    dotted: float = 0.0
    served_template: float = 0.75
    still_camera: float = 0.7
    same_time: float = 0.1
    smallest_crop: float = 0.75
    aspect: float = 1.15
    own_crops: float = 0.5
    camera_dropout: float = 0.05
    apart: bool = False

    def __post_init__(self) -> None:
        if self.apart and self.subtasks:
            raise ValueError("nothing can be asked about images that are shown apart")

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // self.pitch, self.width // self.pitch

    @property
    def subtasks(self) -> frozenset[str]:
        """Names of the subtasks that samples ask, which a bundle trained on them claims."""
        return frozenset(
            (TASKS if self.single_questions or self.pair_questions else ())
            + (SIZE_TASKS if self.size_questions else ())
            + (DOT_TASKS if self.dotted else ())
        )


@dataclass(frozen=True)
class PairView:
    """What a sample shows and asks, before it becomes tokens.

    Attributes:
        images: (2, H, W, 3) uint8.
        cameras: of each image.
        world_from_camera: (2, 4, 4).
        depth_m: (2, 8 gh, 8 gw) z-depth at the head's cells, 0 = none.
        motion_m: (8 gh, 8 gw, 3) how far what the first image sees has moved in the second one, in the axes of
            the first camera; None where nobody asks, or images do not know of each other.
        single, pair: questions about the first image, about both.
    """

    images: NDArray[np.uint8]
    cameras: tuple[CameraModel, CameraModel]
    world_from_camera: NDArray[np.float64]
    depth_m: NDArray[np.float32]
    motion_m: NDArray[np.float32] | None
    single: list[Question]
    pair: list[Question]


class PairBuilder:
    """Build samples from scene files written by `make_scenes`.

    Attributes:
        augment: random crops, colours, templates and missing cameras.
        maps: samples have ray and point maps beside depth.
        motion: they have what moved between their images, too.
        form: how text becomes tokens; the usual way unless it is given.
    """

    def __init__(
        self,
        scenes: list[Path],
        tokenizer: Tokenizer,
        config: PairConfig,
        *,
        augment: bool = True,
        maps: bool = False,
        motion: bool = False,
        form: Format | None = None,
    ) -> None:
        self.scenes = {path: _scene(path) for path in scenes}
        self._order = sorted(self.scenes)
        self.tokenizer = tokenizer
        self.config = config
        self.augment = augment
        self.maps, self.motion = maps, motion and not config.apart
        self.form = form or Format(self.encode, tokenizer.token_to_id("<|image_pad|>"))

    def encode(self, words: str) -> list[int]:
        return self.tokenizer.encode(words, add_special_tokens=False).ids

    def sample(self, rng: np.random.Generator, name: str = "pair") -> Sample:
        """One random training sample."""
        cfg = self.config
        view = self.draw(rng)
        grid_h, grid_w = cfg.grid
        has_camera = not self.augment or rng.random() >= cfg.camera_dropout
        images = [
            ShownImage(pixels, cfg.grid, camera.token_rays(grid_w, grid_h).reshape(-1, 4), has_camera)
            for pixels, camera in zip(view.images, view.cameras, strict=True)
        ]
        served_words = cfg.served_template if self.augment else 1.0
        asked = [(q, 1) for q in view.single] + [(q, 2) for q in view.pair]
        questions = [q.worded(rng, count, served_words=served_words) for q, count in asked]
        targets = dense_targets(view, maps=self.maps)
        return pack(name, images, questions, self.form, targets=targets, apart=cfg.apart)

    def draw(self, rng: np.random.Generator) -> PairView:
        """Two views of a random scene, their depth, and questions with their truths.

        Raises:
            LeftOutError: no window of the scene was found whose field of view is not held out.
        """
        cfg = self.config
        views, cameras = self._views(rng)
        images = self._images(rng, views)
        marks = dot_questions(rng, *views) if cfg.dotted and rng.random() < cfg.dotted else Marks()
        dotted = [
            draw(image, dots, rng)[0] if dots else image
            for image, dots in zip(images, marks.dots, strict=True)
        ]
        cells = cfg.grid[0] * cfg.depth_cells_per_token, cfg.grid[1] * cfg.depth_cells_per_token
        depth_m = np.stack([view.cells(view.depth_mm, *cells) for view in views]).astype(np.float32) / 1e3
        return PairView(
            images=np.stack(dotted),
            cameras=cameras,
            world_from_camera=np.stack([view.world_from_camera for view in views]),
            depth_m=depth_m,
            motion_m=self._motion_m(views, cameras[0], depth_m[0]) if self.motion else None,
            single=single_questions(rng, views[0], cfg.single_questions)
            + size_questions(rng, views[0], cfg.size_questions)
            + marks.single,
            pair=pair_questions(
                rng,
                *views,
                cfg.pair_questions,
                correspondences=cfg.correspondences,
                whole_camera=cfg.whole_camera,
            )
            + marks.pair,
        )

    def _views(
        self, rng: np.random.Generator
    ) -> tuple[tuple[SceneView, SceneView], tuple[CameraModel, CameraModel]]:
        """Two frames of a random scene, the window of each, and the cameras of the windows."""
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
        return (
            SceneView(scene, t1, c1, first[0], cfg.width, cfg.height),
            SceneView(scene, t2, c2, second[0], cfg.width, cfg.height),
        ), (first[1], second[1])

    def _images(
        self, rng: np.random.Generator, views: tuple[SceneView, SceneView]
    ) -> list[NDArray[np.uint8]]:
        """What the windows show, in the colours of one camera."""
        gains = rng.uniform(0.75, 1.25, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.2))
        gamma = float(np.exp(rng.uniform(-0.35, 0.35)))
        images = [view.image() for view in views]
        return [jitter_colour(rng, image, gains, gamma) for image in images] if self.augment else images

    def _motion_m(
        self, views: tuple[SceneView, SceneView], camera: CameraModel, depth_m: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        first, second = views
        height, width = depth_m.shape
        return motion_map(
            np.where(depth_m > 0, depth_m, np.nan),
            first.cells(first.body_id, height, width),
            ray_map(camera, first.world_from_camera, grid_h=height, grid_w=width),
            world_from_body=(first.world_from_body, second.world_from_body),
            world_from_camera=first.world_from_camera,
        )

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


def _scene(path: Path) -> dict[str, np.ndarray]:
    try:
        return map_npz(path)
    except (OSError, ValueError, struct.error, zipfile.BadZipFile) as error:
        raise SpatialError(
            ErrorCode.NOT_READY, f"'{path}' is not a whole scene of make_scenes: {one_line(str(error))}"
        ) from None


def dense_targets(view: PairView, *, maps: bool) -> tuple[RowTargets, ...]:
    """What the dense heads should say about a view; NaN in place of rays and points without `maps`."""
    depth = np.where(view.depth_m > 0, view.depth_m, np.nan).astype(np.float32)
    if maps:
        grid_h, grid_w = depth.shape[1:]
        poses = first_from_cameras(view.world_from_camera)
        rays = np.stack(
            [
                ray_map(camera, pose, grid_h=grid_h, grid_w=grid_w)
                for camera, pose in zip(view.cameras, poses, strict=True)
            ]
        )
        points = points_on_rays(depth, rays)
    else:
        none = np.full((), np.nan, np.float32)
        rays = np.broadcast_to(none, (*depth.shape, 6))
        points = np.broadcast_to(none, (*depth.shape, 3))
    motion = (None, None if view.motion_m is None else view.motion_m[None])
    return tuple(RowTargets(depth[[i]], rays[[i]], points[[i]], motion=motion[i]) for i in range(len(depth)))
