"""Questions about one or two frames of a scene file, with their truths; knows neither tokens nor models."""

from __future__ import annotations

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import camera_motion, correspondence, depth, object_motion, object_size
from spatial_mllm_training.data.question import Question
from spatial_mllm_training.data.scene_view import SceneView, carried, moved_bodies

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
"""Subtasks that a sample can ask by coordinates or without pointing."""

SIZE_TASKS = tuple(task.name for task in object_size.TASKS)

COMPARISON_SHARE = 0.5
"""Of the questions about one image; the others ask for one depth."""
_UP = np.array([0.0, 0.0, 1.0])
"""Of the worlds of `make_scenes`."""
_POINTS_TRIED = 24
_UPRIGHT = float(np.cos(np.radians(1.0)))
_THING_PIXELS = 24
"""Of a frame: what covers less is not asked about."""


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
            both_m = (depths_m[i], depths_m[i + count])
            if are_comparable(both_m):
                variant = str(rng.choice(depth.DEPTH_COMPARISON.variants))
                truth = depth.comparison_truth(pair, both_m, variant)
                questions.append(Question(depth.DEPTH_COMPARISON, pair, truth, variant))
                continue
        questions.append(
            Question(depth.DEPTH_VALUE, (coordinates[i],), depth.depth_truth(float(depths_m[i])))
        )
    return questions


def are_comparable(depths_m: tuple[float, float]) -> bool:
    """Whether one of two depths is the smaller one, visibly."""
    return abs(np.log(depths_m[0] / depths_m[1])) > 0.03


def size_questions(rng: np.random.Generator, view: SceneView, count: int) -> list[Question]:
    """About the size of upright things that the image shows whole, each the only one of its category."""
    if count == 0 or "body_category" not in view.scene:
        return []
    crop = view.crop
    window = view.body_id[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
    pixels = np.bincount(window.ravel(), minlength=256)
    border = np.concatenate([window[0], window[-1], window[:, 0], window[:, -1]])
    named = [" ".join(str(category).split()) for category in view.scene["body_category"]]
    shown = [named[body] for body in np.flatnonzero(pixels[: len(named)])]
    upright = view.world_from_body[:, 2, 2] > _UPRIGHT
    whole = [
        body
        for body in np.flatnonzero(upright & view.is_thing & (pixels[: len(named)] >= _THING_PIXELS))
        if body not in border and shown.count(named[body]) == 1
    ]
    questions = []
    for body in rng.permutation(np.array(whole, np.int64))[:count]:
        truths = object_size.size_truths(np.asarray(view.scene["body_size_m"][body], np.float64))
        name = str(rng.choice(list(truths)))
        questions.append(Question(tasks.get(name), (), truths[name], category=named[body]))
    return questions


def pair_questions(
    rng: np.random.Generator,
    first: SceneView,
    second: SceneView,
    count: int,
    *,
    correspondences: int = 1,
    whole_camera: bool = False,
) -> list[Question]:
    """About two images of a scene: how things moved and, where the camera did, how it did and what is seen again.

    Args:
        count: of questions; what the next two ask for beyond the usual comes on top.
        correspondences: of images that do not show the same places at the same pixels; 1 is usual.
        whole_camera: everything about the camera's movement, instead of half of `count`.
    """
    if count == 0:
        return []
    moving = first.camera != second.camera
    about_camera = _camera_questions(rng, first, second, every=whole_camera) if moving else []
    found: list[Question] = []
    if moving or first.crop != second.crop:
        found = _correspondences(rng, first, second, correspondences)
    half = max(1, count // 2)
    others = max(0, count - min(half, len(about_camera)) - min(1, len(found)))
    asked = about_camera if whole_camera else about_camera[:half]
    return asked + found + _movements(rng, first, second, others, moving=moving)


def _camera_questions(
    rng: np.random.Generator, first: SceneView, second: SceneView, *, every: bool = False
) -> list[Question]:
    """One of each kind, or every one, in random order."""
    poses = first.world_from_camera, second.world_from_camera
    offset = camera_motion.camera_displacement_m(*poses)
    truths = camera_motion.all_truths(offset, camera_motion.camera_turn_deg(*poses, _UP))
    measured = (camera_motion.CAMERA_DISTANCE, camera_motion.CAMERA_VECTOR)
    found = [Question(task, (), truths[task.name]) for task in measured]
    for kind in (_DIRECTIONS, _TURNS, _ANGLES):
        of_kind = kind if every else (kind[int(rng.integers(len(kind)))],)
        found += [Question(task, (), truths[task.name]) for task in of_kind if task.name in truths]
    return [found[i] for i in rng.permutation(len(found))]


def _correspondences(
    rng: np.random.Generator, first: SceneView, second: SceneView, count: int
) -> list[Question]:
    """Where points of the first image lie in the second one, of those that it shows."""
    pixels = first.pick(rng, first.depth_mm > 0, _POINTS_TRIED)
    if len(pixels) == 0:
        return []
    is_seen, shown_at = second.sees(carried(first, second, *first.in_world(pixels)))
    seen = np.flatnonzero(is_seen)[:count]
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
    on_moved = np.isin(ids, moved_bodies(first, second)) & (depth_mm > 0)
    # an arm covers more pixels than what it moves, which is what rewards are about
    on_things = on_moved & np.isin(ids, np.flatnonzero(first.is_thing))
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
    in_world, body = first.in_world(pixels)
    after = carried(first, second, in_world, body)
    questions = []
    for i, coordinate in enumerate(first.coordinates(pixels)):
        movement = object_motion.displacement_m(in_world[i], after[i], first.world_from_camera)
        if i % 2 == 0:
            task, truth = object_motion.OBJECT_DISTANCE[moving], object_motion.distance_truth(movement)
        else:
            task, truth = object_motion.OBJECT_VECTOR[moving], object_motion.vector_truth(movement)
        questions.append(Question(task, (coordinate,), truth))
    return questions
