"""Training samples from scene files: two views of a scene, questions with their truths, dense depth.

One sample is a pair of frames (same camera or moved camera, same or different time, one or two sets
of intrinsics), encoded once, and questions about the first frame or both (`packing`). Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.data.dot_questions import Marks, dot_questions
from spatial_mllm_training.data.matches import match_map
from spatial_mllm_training.data.movement_drills import movement_question
from spatial_mllm_training.data.packing import Format, Sample, ShownImage, pack
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.pair_questions import pair_questions, single_questions, size_questions
from spatial_mllm_training.data.question import Question
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.view_pairs import ViewPairs
from spatial_mllm_training.multispa.dots import draw
from spatial_mllm_training.supervision.targets import (
    RowTargets,
    first_from_cameras,
    motion_map,
    points_on_rays,
    ray_map,
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
        matches: (h, w, 3) where the cells of the first image lie in the second one, see `match_map`; likewise.
        single, pair: questions about the first image, about both.
    """

    images: NDArray[np.uint8]
    cameras: tuple[CameraModel, CameraModel]
    world_from_camera: NDArray[np.float64]
    depth_m: NDArray[np.float32]
    motion_m: NDArray[np.float32] | None
    matches: NDArray[np.float32] | None
    single: list[Question]
    pair: list[Question]


class PairBuilder:
    """Build samples from scene files written by `make_scenes`.

    Attributes:
        views: where pairs come from.
        augment: random crops, colours, templates and missing cameras.
        maps: samples have ray and point maps beside depth.
        motion: they have what moved between their images, too.
        match_grid: (rows, columns) of the cells that are followed from the first image to the second; None: none are.
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
        match_grid: tuple[int, int] | None = None,
        form: Format | None = None,
    ) -> None:
        self.views = ViewPairs(scenes, config, augment=augment)
        self.tokenizer = tokenizer
        self.config = config
        self.augment = augment
        self.maps, self.motion = maps, motion and not config.apart
        self.match_grid = None if config.apart else match_grid
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
        drilled = (movement_question(rng, served_words=served_words) for _ in range(cfg.told_questions))
        questions += [replace(q, image_count=len(images)) for q in drilled]
        targets = dense_targets(view, maps=self.maps)
        return pack(name, images, questions, self.form, targets=targets, apart=cfg.apart)

    def draw(self, rng: np.random.Generator) -> PairView:
        """Two views of a random scene, their depth, and questions with their truths.

        Raises:
            LeftOutError: no window of the scene was found whose field of view is not held out.
        """
        cfg = self.config
        views, cameras = self.views.draw(rng)
        images = self.views.images(rng, views)
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
            matches=match_map(*views, *self.match_grid) if self.match_grid else None,
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
    matches = (None, None if view.matches is None else view.matches[None])
    return tuple(
        RowTargets(depth[[i]], rays[[i]], points[[i]], motion=motion[i], matches=matches[i])
        for i in range(len(depth))
    )
