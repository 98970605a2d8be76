"""Training samples: two views of a scene with many packed questions and dense depth.

One sample is a pair of frames (same camera or moved camera, same or different time), encoded
once, and a bundle of questions that each see only what a served question would see: the first
frame's prefix, or both. A block mask and repeated positions keep the packed questions apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.model.prompt import (
    PromptFormat,
    position_after_visual,
    text_positions,
    visual_positions,
)
from spatial_mllm_core.tasks import camera_motion, depth, object_motion
from spatial_mllm_core.tasks.text import pixel_to_coordinate
from spatial_mllm_training.data.mapped_npz import map_npz
from spatial_mllm_training.data.views import Crop, jitter_colour

IGNORE = -100

TASKS = tuple(
    task.name
    for task in (
        depth.DEPTH_VALUE,
        depth.DEPTH_COMPARISON,
        camera_motion.X_MOVEMENT,
        camera_motion.Y_MOVEMENT,
        camera_motion.Z_MOVEMENT,
        camera_motion.CAMERA_DISTANCE,
        camera_motion.CAMERA_VECTOR,
        object_motion.OBJECT_DISTANCE[False],
        object_motion.OBJECT_DISTANCE[True],
        object_motion.OBJECT_VECTOR[False],
        object_motion.OBJECT_VECTOR[True],
    )
)
"""Subtasks that a sample can ask; what is trained here is what the tokenizer knows and a bundle claims."""


@dataclass(frozen=True)
class PairConfig:
    """What a training sample looks like.

    Attributes:
        width, height: model input, pixels.
        pitch: pixels per visual token and axis.
        single_questions, pair_questions: packed questions per sample.
        served_template: probability of the template that the runtime serves.
        still_camera, same_time: shares of pairs with an unmoved camera, with an unmoved scene.
    """

    width: int = 192
    height: int = 144
    pitch: int = 16
    depth_cells_per_token: int = 8
    single_questions: int = 5
    pair_questions: int = 6
    served_template: float = 0.75
    still_camera: float = 0.7
    same_time: float = 0.1
    smallest_crop: float = 0.75
    aspect: float = 1.15
    camera_dropout: float = 0.05

    @property
    def grid(self) -> tuple[int, int]:
        return self.height // self.pitch, self.width // self.pitch


@dataclass
class PairSample:
    """Arrays of one sample; S tokens, N visual tokens per image.

    Attributes:
        images: (2, H, W, 3) uint8.  rays: (2, N, 4).  depth_m: (2, 8 gh, 8 gw), 0 = none.
        ids: (S,) token ids, image_pad at visual tokens.  labels: (S,) answer ids or IGNORE.
        positions: (3, S).  owner: (S,) 0 = first frame's prefix, 1 = second's, 2.. = question number.
        sees_second: (S,) True where a question may see the second frame.
    """

    images: NDArray[np.uint8]
    rays: NDArray[np.float32]
    has_camera: bool
    depth_m: NDArray[np.float32]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    positions: NDArray[np.int64]
    owner: NDArray[np.int64]
    sees_second: NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    task: tasks.Task
    points: tuple[tuple[int, int], ...]
    truth: tasks.TaskValue


@dataclass(frozen=True)
class PairView:
    """What a sample shows and asks, before it becomes tokens.

    Attributes:
        images: (2, H, W, 3) uint8 of one camera model.
        depth_m: (2, 8 gh, 8 gw) z-depth at the head's cells, 0 = none.
        single, pair: questions about the first image, about both.
    """

    images: NDArray[np.uint8]
    camera: CameraModel
    depth_m: NDArray[np.float32]
    single: list[Question]
    pair: list[Question]


class PairBuilder:
    """Build samples from scene files written by `make_scenes`."""

    def __init__(
        self, scenes: list[Path], tokenizer: Tokenizer, config: PairConfig, *, augment: bool = True
    ) -> None:
        self.scenes: dict[Path, dict[str, np.ndarray]] = {}
        self.add_scenes(scenes)
        self.tokenizer = tokenizer
        self.config = config
        self.augment = augment
        self.prompt = PromptFormat()
        self.image_id = tokenizer.token_to_id("<|image_pad|>")
        self._text_ids: dict[str, list[int]] = {}

    def add_scenes(self, scenes: list[Path]) -> None:
        """Map scenes that are not known yet (a running `make_scenes` may add some)."""
        for path in scenes:
            if path not in self.scenes:
                self.scenes[path] = map_npz(path)
        self._order = sorted(self.scenes)

    def encode(self, words: str) -> list[int]:
        return self.tokenizer.encode(words, add_special_tokens=False).ids

    def sample(self, rng: np.random.Generator) -> PairSample:
        """One random training sample."""
        cfg = self.config
        view = self.draw(rng)
        grid_h, grid_w = cfg.grid
        rays = np.asarray(view.camera.token_rays(grid_w, grid_h), np.float32).reshape(-1, 4)
        return PairSample(
            images=view.images,
            rays=np.stack([rays, rays]),
            has_camera=not self.augment or rng.random() >= cfg.camera_dropout,
            depth_m=view.depth_m,
            **self._pack(rng, view.single, view.pair),
        )

    def draw(self, rng: np.random.Generator) -> PairView:
        """Two views of a random scene, their depth, and questions with their truths."""
        cfg = self.config
        scene = self.scenes[self._order[int(rng.integers(len(self._order)))]]
        times, cameras, source_h, source_w = scene["depth_mm"].shape
        t1, c1 = int(rng.integers(times)), int(rng.integers(cameras))
        still = rng.random() < cfg.still_camera
        same_time = not still and rng.random() < cfg.same_time / (1.0 - cfg.still_camera)
        t2 = t1 if same_time else int((t1 + rng.integers(1, times)) % times)
        c2 = c1 if still else int((c1 + rng.integers(1, cameras)) % cameras)
        crop = (
            Crop.random(rng, source_w, source_h, smallest=cfg.smallest_crop, aspect=cfg.aspect)
            if self.augment
            else Crop(0, 0, source_w, source_h)
        )
        source = CameraModel.from_k(np.asarray(scene["k"], np.float64), source_w, source_h)
        images = []
        gains = rng.uniform(0.75, 1.25, 3).astype(np.float32) * np.float32(rng.uniform(0.7, 1.2))
        gamma = float(np.exp(rng.uniform(-0.35, 0.35)))
        for t, c in ((t1, c1), (t2, c2)):
            image = crop.image(np.asarray(scene["rgb"][t, c]), cfg.width, cfg.height)
            images.append(jitter_colour(rng, image, gains, gamma) if self.augment else image)
        grid_h, grid_w = cfg.grid
        cells = cfg.depth_cells_per_token
        depth_mm = [
            crop.nearest(np.asarray(scene["depth_mm"][t, c]), grid_w * cells, grid_h * cells)
            for t, c in ((t1, c1), (t2, c2))
        ]
        return PairView(
            images=np.stack(images),
            camera=crop.camera(source, cfg.width, cfg.height),
            depth_m=np.stack(depth_mm).astype(np.float32) / 1e3,
            single=self._single_questions(rng, scene, t1, c1, crop),
            pair=self._pair_questions(rng, scene, (t1, c1), (t2, c2), crop),
        )

    # -- questions --------------------------------------------------------------------------------

    def _pick(
        self, rng: np.random.Generator, mask: NDArray[np.bool_], count: int, crop: Crop
    ) -> NDArray[np.int64]:
        """(count, 2) source pixels (u, v) inside the crop where `mask` holds; fewer when there are none."""
        window = mask[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        flat = np.flatnonzero(window)
        if flat.size == 0:
            return np.empty((0, 2), np.int64)
        chosen = flat[rng.integers(flat.size, size=count)]
        v, u = np.divmod(chosen, crop.width)
        return np.stack([u + crop.x, v + crop.y], axis=1)

    def _coordinates(self, pixels: NDArray[np.int64], crop: Crop) -> list[tuple[int, int]]:
        cfg = self.config
        u, v = crop.to_output(pixels[:, 0], pixels[:, 1], cfg.width, cfg.height)
        return [
            pixel_to_coordinate((float(a), float(b)), cfg.width, cfg.height)
            for a, b in zip(u, v, strict=True)
        ]

    def _single_questions(
        self, rng: np.random.Generator, scene: dict[str, np.ndarray], t: int, c: int, crop: Crop
    ) -> list[Question]:
        depth_mm = np.asarray(scene["depth_mm"][t, c])
        valid = depth_mm > 0
        bodies = valid & (np.asarray(scene["body_id"][t, c]) > 0)
        count = self.config.single_questions
        pixels = np.concatenate(
            [
                self._pick(rng, valid, count, crop),
                self._pick(rng, bodies if bodies.any() else valid, count, crop),
            ]
        )
        if len(pixels) == 0:
            return []
        pixels = pixels[rng.permutation(len(pixels))]
        coordinates = self._coordinates(pixels, crop)
        depths_m = depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
        questions = []
        for i in range(min(count, len(pixels))):
            if i % 4 == 3 and i + count < len(pixels):
                pair = (coordinates[i], coordinates[i + count])
                truth = depth.comparison_truth(pair, (depths_m[i], depths_m[i + count]))
                if abs(np.log(depths_m[i] / depths_m[i + count])) > 0.03:
                    questions.append(Question(depth.DEPTH_COMPARISON, pair, truth))
                    continue
            questions.append(
                Question(depth.DEPTH_VALUE, (coordinates[i],), depth.depth_truth(float(depths_m[i])))
            )
        return questions

    def _pair_questions(
        self,
        rng: np.random.Generator,
        scene: dict[str, np.ndarray],
        first: tuple[int, int],
        second: tuple[int, int],
        crop: Crop,
    ) -> list[Question]:
        (t1, c1), (t2, c2) = first, second
        moving = c1 != c2
        count = self.config.pair_questions
        depth_mm = np.asarray(scene["depth_mm"][t1, c1])
        ids = np.asarray(scene["body_id"][t1, c1])
        world_from_camera = np.asarray(scene["world_from_camera"], np.float64)
        body_1 = np.asarray(scene["world_from_body"][t1], np.float64)
        body_2 = np.asarray(scene["world_from_body"][t2], np.float64)
        moved = np.flatnonzero(np.abs(body_1 - body_2).max(axis=(1, 2)) > 1e-4)
        on_moved = np.isin(ids, moved) & (depth_mm > 0)
        near_moved = self._pick(rng, on_moved, count, crop)
        pixels = np.concatenate([near_moved, self._pick(rng, depth_mm > 0, max(1, count // 6), crop)])
        questions: list[Question] = []
        if moving:
            offset = camera_motion.camera_displacement_m(world_from_camera[c1], world_from_camera[c2])
            words = camera_motion.direction_truths(offset)
            name = ("x_movement", "y_movement", "z_movement")[int(rng.integers(3))]
            questions = [
                Question(camera_motion.CAMERA_DISTANCE, (), camera_motion.distance_truth(offset)),
                Question(camera_motion.CAMERA_VECTOR, (), camera_motion.vector_truth(offset)),
                Question(tasks.get(name), (), words[name]),
            ]
        if len(pixels) == 0:
            return questions
        pixels = pixels[rng.permutation(len(pixels))][: count - len(questions)]
        camera = CameraModel.from_k(np.asarray(scene["k"], np.float64), depth_mm.shape[1], depth_mm.shape[0])
        z = depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
        in_camera = camera.rays(pixels.astype(np.float64)) * z[:, None]
        pose = world_from_camera[c1]
        in_world = in_camera @ pose[:3, :3].T + pose[:3, 3]
        for i, (coordinate, point) in enumerate(zip(self._coordinates(pixels, crop), in_world, strict=True)):
            body = int(ids[pixels[i, 1], pixels[i, 0]])
            to_second = body_2[body] @ np.linalg.inv(body_1[body])
            after = to_second[:3, :3] @ point + to_second[:3, 3]
            movement = object_motion.displacement_m(point, after, pose)
            if i % 2 == 0:
                truth = object_motion.distance_truth(movement)
                questions.append(Question(object_motion.OBJECT_DISTANCE[moving], (coordinate,), truth))
            else:
                truth = object_motion.vector_truth(movement)
                questions.append(Question(object_motion.OBJECT_VECTOR[moving], (coordinate,), truth))
        return questions

    # -- packing ----------------------------------------------------------------------------------

    def _pack(
        self, rng: np.random.Generator, single: list[Question], pair: list[Question]
    ) -> dict[str, NDArray]:
        grid_h, grid_w = self.config.grid
        ids: list[int] = []
        positions: list[NDArray[np.int64]] = []
        owner: list[int] = []
        labels: list[int] = []
        sees: list[bool] = []

        def add(
            tokens: list[int],
            place: NDArray[np.int64],
            who: int,
            second: bool,
            targets: list[int] | None = None,
        ) -> None:
            ids.extend(tokens)
            positions.append(place)
            owner.extend([who] * len(tokens))
            sees.extend([second] * len(tokens))
            labels.extend(targets if targets is not None else [IGNORE] * len(tokens))

        starts = []
        at = 0
        for index in (0, 1):
            before = self.encode(self.prompt.frame_prefix.format(index=index + 1))
            after = self.encode(self.prompt.frame_suffix)
            add(before, text_positions(len(before), at), index, index == 1)
            at += len(before)
            add([self.image_id] * (grid_h * grid_w), visual_positions(grid_h, grid_w, at), index, index == 1)
            at = position_after_visual(grid_h, grid_w, at)
            add(after, text_positions(len(after), at), index, index == 1)
            at += len(after)
            starts.append(at)
        for number, (question, second) in enumerate([(q, False) for q in single] + [(q, True) for q in pair]):
            served = rng.random() < self.config.served_template or not self.augment
            q_template = 0 if served else int(rng.integers(len(question.task.questions)))
            a_template = 0 if served else int(rng.integers(len(question.task.answers)))
            asked = self.encode(
                question.task.question(question.points, template=q_template) + self.prompt.question_suffix
            )
            answer = self.encode(
                question.task.answer_text(question.truth, template=a_template) + self.prompt.stop
            )
            tokens = asked + answer[:-1]
            targets = [IGNORE] * (len(asked) - 1) + answer
            add(tokens, text_positions(len(tokens), starts[int(second)]), 2 + number, second, targets)
        return {
            "ids": np.asarray(ids, np.int64),
            "labels": np.asarray(labels, np.int64),
            "positions": np.concatenate(positions, axis=1),
            "owner": np.asarray(owner, np.int64),
            "sees_second": np.asarray(sees, bool),
        }
