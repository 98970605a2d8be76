"""Questions about two images, with what the runtime would tell of them, whatever is seen; knows no model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model import told
from spatial_mllm_core.tasks import camera_motion, correspondence, object_motion
from spatial_mllm_core.two_view.view_pair import CameraMovement, Place
from spatial_mllm_training.data.packing import PackedQuestion
from spatial_mllm_training.data.question import Question

_NEAR_M, _FAR_M = 0.03, 2.5
_TURNS_DEG = (25.0, 12.0)
"""Standard deviations of yaw and pitch."""
_ABOUT_CAMERA = 0.7
"""Of the questions; the others are about a point."""
_STILL = 0.15
"""Of the points that did not move at all."""


def movement_question(rng: np.random.Generator, *, served_words: float) -> PackedQuestion:
    """About how the camera moved, or where a point went, as exactly as it is told."""
    if rng.random() < _ABOUT_CAMERA:
        return _about_camera(rng, served_words)
    return _about_point(rng, served_words)


def _about_camera(rng: np.random.Generator, served_words: float) -> PackedQuestion:
    offset_m = _movement_m(rng)
    yaw_deg, pitch_deg = map(float, rng.normal(0.0, _TURNS_DEG))
    truths = camera_motion.all_truths(offset_m, (yaw_deg, pitch_deg))
    task = camera_motion.TASKS[int(rng.integers(len(camera_motion.TASKS)))]
    question = Question(task, (), truths[task.name]).worded(rng, 0, served_words=served_words)
    movement = CameraMovement(offset_m, (yaw_deg, pitch_deg), inliers=float(rng.uniform(0.1, 1.0)))
    return replace(question, told_pair=told.of_camera(movement))


def _about_point(rng: np.random.Generator, served_words: float) -> PackedQuestion:
    x, y, *there = rng.integers(0, 1000, 4)
    point = ((int(x), int(y)),)
    moved_m = np.zeros(3) if rng.random() < _STILL else _movement_m(rng)
    moving = bool(rng.integers(2))
    kind = int(rng.integers(3))
    if kind == 0:
        truth = correspondence.coordinate_truth((float(there[0]), float(there[1])), 1000, 1000)
        question = Question(correspondence.CORRESPONDENCE, point, truth)
    elif kind == 1:
        question = Question(
            object_motion.OBJECT_DISTANCE[moving], point, object_motion.distance_truth(moved_m)
        )
    else:
        question = Question(object_motion.OBJECT_VECTOR[moving], point, object_motion.vector_truth(moved_m))
    place = Place((there[0] / 1000, there[1] / 1000), float(rng.uniform(0.2, 1.0)), True, moved_m)
    return replace(question.worded(rng, 0, served_words=served_words), told_pair=told.of_place(place))


def _movement_m(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3,) any direction; as many near as far by ratio."""
    direction = rng.normal(size=3)
    length_m = np.exp(rng.uniform(np.log(_NEAR_M), np.log(_FAR_M)))
    return np.asarray(length_m * direction / np.linalg.norm(direction), np.float64)
