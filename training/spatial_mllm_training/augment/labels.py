"""What is true of a row after its cameras changed: points, truth, words; knows neither images nor chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import TaskValue, camera_motion, correspondence, depth
from spatial_mllm_core.tasks.text import COORDINATE_SCALE, coordinate_to_pixel, pixel_to_coordinate
from spatial_mllm_training.augment.config import AugmentConfig
from spatial_mllm_training.augment.warp import CameraWarp
from spatial_mllm_training.multispa import dots
from spatial_mllm_training.multispa.rows import Row, RowPoint

Array = NDArray[np.float64]

_SHIFTS = (camera_motion.X_MOVEMENT.name, camera_motion.Y_MOVEMENT.name, camera_motion.Z_MOVEMENT.name)
_TURNS = {
    camera_motion.YAW_MOVEMENT.name: 0,
    camera_motion.YAW_ANGLE.name: 0,
    camera_motion.PITCH_MOVEMENT.name: 1,
    camera_motion.PITCH_ANGLE.name: 1,
}


class NotAskableError(Exception):
    """The row has no right answer, or one that cannot be seen, in the new images."""


def relabelled(row: Row, warps: Sequence[CameraWarp], config: AugmentConfig) -> Row:
    """The row as it is true of the warped images; no dots are drawn yet.

    Args:
        row: its cameras are the warps' sources, and its points lie in their images.

    Raises:
        NotAskableError: a point leaves its image, dots would overlap, a comparison becomes a draw, a
            direction has no margin.
        SpatialError: NO_CALIBRATION when the question needs `world_up` and the row has none.
    """
    task = tasks.get(row.question_type)
    cameras = [warp.target for warp in warps]
    points = _moved(row, warps)
    _require_inside(points, cameras, config)
    _require_apart(points, cameras)
    poses = [
        warp.world_from_target(np.reshape(pose, (4, 4)))
        for warp, pose in zip(warps, row.spatial.world_from_camera, strict=True)
    ]
    truth = _truth(task, row, warps, points, cameras, poses, config)
    return reworded(row, truth, points, cameras, poses)


def reworded(
    row: Row,
    truth: TaskValue,
    points: Sequence[RowPoint],
    cameras: Sequence[CameraModel],
    poses: Sequence[Array],
) -> Row:
    """The row with another truth (a coordinate on the 0-1000 scale), points and cameras; wording numbers stay."""
    task, spatial = tasks.get(row.question_type), row.spatial
    sizes = [(camera.width, camera.height) for camera in cameras]
    asked = [p for p in points if p.role == "asked"][: task.point_count]
    exact = truth.values
    if task.kind == "coordinate":
        exact = coordinate_to_pixel((exact[0], exact[1]), *sizes[task.answer_image])
    return replace(
        row,
        question=task.prompt(
            len(cameras),
            tuple(pixel_to_coordinate((p.u_px, p.v_px), *sizes[p.image]) for p in asked),
            templates=spatial.templates[:2],
            variant=spatial.variant,
            category=spatial.category,
        ),
        answer=task.answer_text(
            truth, template=spatial.templates[2], variant=spatial.variant, category=spatial.category
        ),
        gt_value=task.gt_value(truth),
        spatial=replace(
            spatial,
            k=tuple(_numbers(camera.k) for camera in cameras),
            size=tuple(sizes),
            distortion=tuple(camera.distortion_model for camera in cameras),
            d=tuple(_numbers(camera.d) for camera in cameras),
            world_from_camera=tuple(_numbers(pose) for pose in poses),
            points=tuple(points),
            truth=exact,
            label=truth.label,
        ),
    )


def exact_truth(row: Row) -> TaskValue:
    """The row's truth before rounding, a coordinate on the 0-1000 scale."""
    task, spatial = tasks.get(row.question_type), row.spatial
    if task.kind == "coordinate":
        return _coordinate((spatial.truth[0], spatial.truth[1]), spatial.size[task.answer_image])
    return TaskValue(spatial.truth, spatial.label)


def _moved(row: Row, warps: Sequence[CameraWarp]) -> list[RowPoint]:
    """The row's points in the new images; NaN behind the camera."""
    moved = []
    for point in row.spatial.points:
        pixel, depth_m = warps[point.image].points([(point.u_px, point.v_px)], [point.depth_m])
        u_px, v_px = pixel[0].tolist()
        moved.append(replace(point, u_px=u_px, v_px=v_px, depth_m=float(depth_m[0])))
    return moved


def _require_inside(
    points: Sequence[RowPoint], cameras: Sequence[CameraModel], config: AugmentConfig
) -> None:
    for point in points:
        camera, border = cameras[point.image], config.border_px
        inside = border <= point.u_px <= camera.width - 1 - border  # False for NaN
        if not (inside and border <= point.v_px <= camera.height - 1 - border):
            raise NotAskableError("a point leaves its image")


def _require_apart(points: Sequence[RowPoint], cameras: Sequence[CameraModel]) -> None:
    """Two points of an image that are named or drawn keep a dot's width between them."""
    shown = [p for p in points if p.role != "answer"]
    for number, one in enumerate(shown):
        for other in shown[:number]:
            if one.image == other.image:
                least = 2 * dots.radius_px(cameras[one.image].width) + 2
                if math.hypot(one.u_px - other.u_px, one.v_px - other.v_px) < least:
                    raise NotAskableError("two points come too close")


def _truth(
    task: tasks.Task,
    row: Row,
    warps: Sequence[CameraWarp],
    points: Sequence[RowPoint],
    cameras: Sequence[CameraModel],
    poses: Sequence[Array],
    config: AugmentConfig,
) -> TaskValue:
    asked = [p for p in points if p.role == "asked"]
    sizes = [(camera.width, camera.height) for camera in cameras]
    turned = any(warp.is_turned for warp in warps)
    variant = row.spatial.variant or "closer"
    if task.group == "depth_value":
        return depth.depth_truth(asked[0].depth_m)
    if task.group == "depth_comparison":
        depths = (asked[0].depth_m, asked[1].depth_m)
        if turned and max(depths) < config.min_depth_ratio * min(depths):
            raise NotAskableError("the depths come too close")
        if task.kind == "label":
            return depth.letter_truth(depths, variant)
        first, second = (_coordinate((p.u_px, p.v_px), sizes[0]).values for p in asked)
        return depth.comparison_truth(((first[0], first[1]), (second[0], second[1])), depths, variant)
    if task.name == correspondence.CORRESPONDENCE.name:
        (answer,) = (p for p in points if p.role == "answer")
        return _coordinate((answer.u_px, answer.v_px), sizes[task.answer_image])
    if turned and task.group.startswith("camera"):
        return _camera_truth(task, row, poses, config)
    if task.group == "object_movement_vector":
        x, y, z = (warps[0].rotation @ row.spatial.truth).tolist()
        return TaskValue((x, y, z))
    return exact_truth(row)  # lengths and letters do not depend on the direction of view


def _camera_truth(task: tasks.Task, row: Row, poses: Sequence[Array], config: AugmentConfig) -> TaskValue:
    if task.name in _TURNS:
        if not row.spatial.world_up:
            raise SpatialError(
                ErrorCode.NO_CALIBRATION, f"row '{row.id}' asks for {task.name} but has no world_up"
            )
        turn = camera_motion.camera_turn_deg(poses[0], poses[1], np.array(row.spatial.world_up))
        if not abs(turn[_TURNS[task.name]]) >= config.min_turn_deg:  # NaN, too
            raise NotAskableError("the camera turns too little, or looks straight up or down")
        return camera_motion.turn_truths(turn)[task.name]
    shift = camera_motion.camera_displacement_m(poses[0], poses[1])
    if task.name in _SHIFTS:
        if abs(shift[_SHIFTS.index(task.name)]) < config.min_shift_m:
            raise NotAskableError("the camera moves too little in this direction")
        return camera_motion.direction_truths(shift)[task.name]
    return exact_truth(row) if task.kind == "scalar" else camera_motion.vector_truth(shift)


def _coordinate(pixel: tuple[float, float], size: tuple[int, int]) -> TaskValue:
    return TaskValue((pixel[0] / size[0] * COORDINATE_SCALE, pixel[1] / size[1] * COORDINATE_SCALE))


def _numbers(array: Array) -> tuple[float, ...]:
    return tuple(np.ravel(array).tolist())
