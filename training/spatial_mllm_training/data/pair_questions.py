"""Questions about one or two frames of a scene file, with their truths; knows neither tokens nor models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.tasks import camera_motion, correspondence, depth, object_motion
from spatial_mllm_core.tasks.text import pixel_to_coordinate
from spatial_mllm_training.data.views import Crop
from spatial_mllm_training.scenes.record import is_thing

_DIRECTIONS = (camera_motion.X_MOVEMENT, camera_motion.Y_MOVEMENT, camera_motion.Z_MOVEMENT)
_TURNS = (camera_motion.YAW_MOVEMENT, camera_motion.PITCH_MOVEMENT)
_ANGLES = (camera_motion.YAW_ANGLE, camera_motion.PITCH_ANGLE)

TASKS = tuple(
    task.name
    for task in (
        depth.DEPTH_VALUE,
        depth.DEPTH_COMPARISON,
        correspondence.CORRESPONDENCE,
        *_DIRECTIONS,
        *_TURNS,
        *_ANGLES,
        camera_motion.CAMERA_DISTANCE,
        camera_motion.CAMERA_VECTOR,
        object_motion.OBJECT_DISTANCE[False],
        object_motion.OBJECT_DISTANCE[True],
        object_motion.OBJECT_VECTOR[False],
        object_motion.OBJECT_VECTOR[True],
    )
)
"""Subtasks that a sample can ask, which a bundle trained on pairs claims."""

COMPARISON_SHARE = 0.25
"""Of the questions about one image; the others ask for one depth."""
_UP = np.array([0.0, 0.0, 1.0])
"""Of the worlds of `make_scenes`."""
_POINTS_TRIED = 24
_HIDDEN_M, _HIDDEN_SHARE = 0.02, 0.02
"""A point is seen where the depth measured there is not off by more than the larger of the two."""


@dataclass(frozen=True)
class Question:
    task: tasks.Task
    points: tuple[tuple[int, int], ...]
    truth: tasks.TaskValue


@dataclass(frozen=True, eq=False)
class SceneView:
    """A frame of a scene, and the window of it that an image of `width` times `height` pixels shows."""

    scene: dict[str, np.ndarray]
    time: int
    camera: int
    crop: Crop
    width: int
    height: int

    @property
    def depth_mm(self) -> NDArray[np.integer]:
        return np.asarray(self.scene["depth_mm"][self.time, self.camera])

    @property
    def body_id(self) -> NDArray[np.integer]:
        return np.asarray(self.scene["body_id"][self.time, self.camera])

    @property
    def world_from_camera(self) -> NDArray[np.float64]:
        return np.asarray(self.scene["world_from_camera"][self.camera], np.float64)

    @property
    def world_from_body(self) -> NDArray[np.float64]:
        return np.asarray(self.scene["world_from_body"][self.time], np.float64)

    @property
    def source_camera(self) -> CameraModel:
        """Of the whole frame."""
        height, width = self.scene["depth_mm"].shape[2:]
        return CameraModel.from_k(np.asarray(self.scene["k"], np.float64), width, height)

    def pick(self, rng: np.random.Generator, mask: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
        """(count, 2) pixels (u, v) of the frame inside the window where `mask` holds; none when there are none."""
        crop = self.crop
        window = mask[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        flat = np.flatnonzero(window)
        if flat.size == 0:
            return np.empty((0, 2), np.int64)
        v, u = np.divmod(flat[rng.integers(flat.size, size=count)], crop.width)
        return np.stack([u + crop.x, v + crop.y], axis=1)

    def shown_at(self, pixels: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
        """(N, 2) pixels of the image that lie at pixels of the frame."""
        u, v = self.crop.to_output(pixels[:, 0], pixels[:, 1], self.width, self.height)
        return np.stack([u, v], axis=1).astype(np.float64)

    def coordinates(self, pixels: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Where pixels of the frame lie in the image, as questions say it."""
        return [
            pixel_to_coordinate((u, v), self.width, self.height) for u, v in self.shown_at(pixels).tolist()
        ]


def single_questions(rng: np.random.Generator, view: SceneView, count: int) -> list[Question]:
    """About the depth of points of one image, half of them on bodies."""
    if count == 0:
        return []
    depth_mm = view.depth_mm
    valid = depth_mm > 0
    bodies = valid & (view.body_id > 0)
    pixels = np.concatenate(
        [view.pick(rng, valid, count), view.pick(rng, bodies if bodies.any() else valid, count)]
    )
    if len(pixels) == 0:
        return []
    pixels = pixels[rng.permutation(len(pixels))]
    coordinates = view.coordinates(pixels)
    depths_m = depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
    questions = []
    for i in range(min(count, len(pixels))):
        if rng.random() < COMPARISON_SHARE and i + count < len(pixels):
            pair = (coordinates[i], coordinates[i + count])
            truth = depth.comparison_truth(pair, (depths_m[i], depths_m[i + count]))
            if abs(np.log(depths_m[i] / depths_m[i + count])) > 0.03:
                questions.append(Question(depth.DEPTH_COMPARISON, pair, truth))
                continue
        questions.append(
            Question(depth.DEPTH_VALUE, (coordinates[i],), depth.depth_truth(float(depths_m[i])))
        )
    return questions


def pair_questions(
    rng: np.random.Generator, first: SceneView, second: SceneView, count: int
) -> list[Question]:
    """About two images of a scene: how things moved and, where the camera did, how it did and what is seen again."""
    if count == 0:
        return []
    moving = first.camera != second.camera
    questions: list[Question] = []
    if moving:
        questions = _camera_questions(rng, first, second)[: max(1, count // 2)]
        questions += _correspondences(rng, first, second, 1)
    return questions + _movements(rng, first, second, max(0, count - len(questions)), moving=moving)


def _camera_questions(rng: np.random.Generator, first: SceneView, second: SceneView) -> list[Question]:
    """One of each kind, in random order."""
    poses = first.world_from_camera, second.world_from_camera
    offset = camera_motion.camera_displacement_m(*poses)
    truths = camera_motion.direction_truths(offset)
    truths |= camera_motion.turn_truths(camera_motion.camera_turn_deg(*poses, _UP))
    found = [
        Question(camera_motion.CAMERA_DISTANCE, (), camera_motion.distance_truth(offset)),
        Question(camera_motion.CAMERA_VECTOR, (), camera_motion.vector_truth(offset)),
    ]
    for kind in (_DIRECTIONS, _TURNS, _ANGLES):
        task = kind[int(rng.integers(len(kind)))]
        if task.name in truths:
            found.append(Question(task, (), truths[task.name]))
    return [found[i] for i in rng.permutation(len(found))]


def _correspondences(
    rng: np.random.Generator, first: SceneView, second: SceneView, count: int
) -> list[Question]:
    """Where points of the first image lie in the second one, of those that it shows."""
    pixels = first.pick(rng, first.depth_mm > 0, _POINTS_TRIED)
    if len(pixels) == 0:
        return []
    in_world, body = _in_world(first, pixels)
    after = _moved(first, second, in_world, body)
    pose = second.world_from_camera
    in_camera = (after - pose[:3, 3]) @ pose[:3, :3]
    z = in_camera[:, 2]
    seen_at = second.source_camera.project(in_camera)
    shown_at = second.shown_at(seen_at)
    depth_mm = second.depth_mm
    inside = (z > 0) & ((shown_at >= 0) & (shown_at <= (second.width - 1, second.height - 1))).all(axis=1)
    nearest = np.zeros_like(pixels)
    nearest[inside] = np.rint(seen_at[inside]).astype(np.int64)
    nearest = np.clip(nearest, 0, (depth_mm.shape[1] - 1, depth_mm.shape[0] - 1))
    off = np.abs(depth_mm[nearest[:, 1], nearest[:, 0]] / 1e3 - z)
    seen = np.flatnonzero(inside & (off <= np.maximum(_HIDDEN_M, _HIDDEN_SHARE * z)))[:count]
    asked = first.coordinates(pixels[seen])
    return [
        Question(
            correspondence.CORRESPONDENCE,
            (point,),
            correspondence.coordinate_truth((float(u), float(v)), second.width, second.height),
        )
        for point, (u, v) in zip(asked, shown_at[seen], strict=True)
    ]


def _movements(
    rng: np.random.Generator, first: SceneView, second: SceneView, count: int, *, moving: bool
) -> list[Question]:
    """Distances and vectors in turn of points of the first image, most of them on things that move."""
    if count == 0:
        return []
    depth_mm, ids = first.depth_mm, first.body_id
    changed = np.abs(first.world_from_body - second.world_from_body).max(axis=(1, 2)) > 1e-4
    on_moved = np.isin(ids, np.flatnonzero(changed)) & (depth_mm > 0)
    # an arm covers more pixels than what it moves, which is what rewards are about
    on_things = on_moved & np.isin(ids, np.flatnonzero(_things(first.scene)))
    pixels = np.concatenate(
        [
            first.pick(rng, on_things, count),
            first.pick(rng, on_moved, max(1, count // 3)),
            first.pick(rng, depth_mm > 0, max(1, count // 6)),
        ]
    )
    if len(pixels) == 0:
        return []
    pixels = pixels[rng.permutation(len(pixels))][:count]
    in_world, body = _in_world(first, pixels)
    after = _moved(first, second, in_world, body)
    questions = []
    for i, coordinate in enumerate(first.coordinates(pixels)):
        movement = object_motion.displacement_m(in_world[i], after[i], first.world_from_camera)
        if i % 2 == 0:
            task, truth = object_motion.OBJECT_DISTANCE[moving], object_motion.distance_truth(movement)
        else:
            task, truth = object_motion.OBJECT_VECTOR[moving], object_motion.vector_truth(movement)
        questions.append(Question(task, (coordinate,), truth))
    return questions


def _in_world(view: SceneView, pixels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """(N, 3) points of the world that pixels show, metres, and the body of each."""
    depths_m = view.depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
    in_camera = view.source_camera.rays(pixels.astype(np.float64)) * depths_m[:, None]
    pose = view.world_from_camera
    body = view.body_id[pixels[:, 1], pixels[:, 0]].astype(np.int64)
    return in_camera @ pose[:3, :3].T + pose[:3, 3], body


def _moved(
    first: SceneView, second: SceneView, in_world: NDArray[np.float64], body: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N, 3) where points of bodies are at the second frame's time."""
    change = second.world_from_body[body] @ np.linalg.inv(first.world_from_body[body])
    return np.einsum("nij,nj->ni", change[:, :3, :3], in_world) + change[:, :3, 3]


def _things(scene: dict[str, np.ndarray]) -> NDArray[np.bool_]:
    """(B,) which bodies are things; all where a scene has no words for them."""
    if "body_category" not in scene:
        return np.ones(256, bool)
    return np.array([is_thing(str(category)) for category in scene["body_category"]])
