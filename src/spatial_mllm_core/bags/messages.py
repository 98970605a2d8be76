"""Message objects for writing: images, calibration, depth, poses, answers, rewards; and back.

One place says how the core's values become fields of messages in a bag. The nodes fill rclpy
messages; `evaluation.replay` holds both against each other, field by field.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.bags.message_types import make_header, make_message, make_stamp
from spatial_mllm_core.reward.task import Reward, RewardTask

_NS = 1_000_000_000


def compressed_image(stamp_ns: int, frame_id: str, data: bytes, image_format: str) -> Any:
    """sensor_msgs/CompressedImage of encoded bytes; `image_format` is "jpeg" or "png"."""
    return make_message(
        "sensor_msgs/msg/CompressedImage",
        header=make_header(stamp_ns, frame_id),
        format=image_format,
        data=np.frombuffer(data, np.uint8),
    )


def compressed_depth(stamp_ns: int, frame_id: str, depth_m: NDArray[np.floating[Any]]) -> Any:
    """sensor_msgs/CompressedImage of (H, W) metres as image_transport's compressedDepth writes 16UC1."""
    from spatial_mllm_core.images import encode_compressed_depth

    fields = encode_compressed_depth(depth_m)
    return compressed_image(stamp_ns, frame_id, bytes(fields.data), fields.format)


def camera_info(
    stamp_ns: int,
    frame_id: str,
    *,
    width: int,
    height: int,
    distortion_model: str,
    d: NDArray[np.float64],
    k: NDArray[np.float64],
    r: NDArray[np.float64],
    p: NDArray[np.float64],
) -> Any:
    """sensor_msgs/CameraInfo; `k` (3, 3), `r` (3, 3), `p` (3, 4) may be flat."""
    flat = {
        name: np.asarray(a, np.float64).reshape(-1) for name, a in (("d", d), ("k", k), ("r", r), ("p", p))
    }
    roi = make_message(
        "sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    return make_message(
        "sensor_msgs/msg/CameraInfo",
        header=make_header(stamp_ns, frame_id),
        height=height,
        width=width,
        distortion_model=distortion_model,
        **flat,
        binning_x=0,
        binning_y=0,
        roi=roi,
    )


def vector3(values: tuple[float, float, float]) -> Any:
    """geometry_msgs/Vector3."""
    x, y, z = (float(v) for v in values)
    return make_message("geometry_msgs/msg/Vector3", x=x, y=y, z=z)


def transform(
    stamp_ns: int, parent_frame: str, child_frame: str, parent_from_child: NDArray[np.float64]
) -> Any:
    """tf2_msgs/TFMessage with one transform; `parent_from_child` is (4, 4), a rigid motion in metres."""
    x, y, z, w = quaternion_xyzw(parent_from_child[:3, :3])
    stamped = make_message(
        "geometry_msgs/msg/TransformStamped",
        header=make_header(stamp_ns, parent_frame),
        child_frame_id=child_frame,
        transform=make_message(
            "geometry_msgs/msg/Transform",
            translation=vector3(tuple(parent_from_child[:3, 3])),
            rotation=make_message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        ),
    )
    return make_message("tf2_msgs/msg/TFMessage", transforms=[stamped])


def quaternion_xyzw(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Unit quaternion of a (3, 3) rotation, w >= 0 (Shepperd's method, the largest divisor)."""
    m = np.asarray(rotation, np.float64)
    candidates = np.array([m[0, 0], m[1, 1], m[2, 2], np.trace(m)])
    i = int(np.argmax(candidates))
    q = np.empty(4)
    if i == 3:
        q[:] = (m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1 + candidates[3])
    else:
        j, k = (i + 1) % 3, (i + 2) % 3
        q[i] = 1 + m[i, i] - m[j, j] - m[k, k]
        q[j] = m[j, i] + m[i, j]
        q[k] = m[k, i] + m[i, k]
        q[3] = m[k, j] - m[j, k]
    q /= np.linalg.norm(q)
    if q[3] < 0:
        q = -q
    return float(q[0]), float(q[1]), float(q[2]), float(q[3])


def rotation_of(x: float, y: float, z: float, w: float) -> NDArray[np.float64]:
    """(3, 3) rotation of a quaternion, which is normalised first."""
    norm = math.sqrt(x * x + y * y + z * z + w * w)
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def matrix_of(transform_message: Any) -> NDArray[np.float64]:
    """(4, 4) parent_from_child of a geometry_msgs/Transform."""
    t, q = transform_message.translation, transform_message.rotation
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_of(q.x, q.y, q.z, q.w)
    matrix[:3, 3] = (t.x, t.y, t.z)
    return matrix


def answer_message(answer: Answer) -> Any:
    """spatial_mllm_msgs/SpatialAnswer of an answer that holds."""
    return make_message(
        "spatial_mllm_msgs/msg/SpatialAnswer",
        header=make_header(answer.stamps_ns[0] if answer.stamps_ns else 0, answer.frame_id),
        task=answer.task,
        question=answer.question,
        text=answer.text,
        kind=answer.kind,
        values=np.array(answer.values, np.float64),
        unit=answer.unit,
        label=answer.label,
        stamps=[make_stamp(ns) for ns in answer.stamps_ns],
        confidence=float(answer.confidence),
        latency_s=float(answer.latency_s),
        model=answer.model,
        error_code=0,
        error_msg="",
    )


def reward_message(reward: Reward) -> Any:
    """spatial_mllm_msgs/Reward."""
    return make_message(
        "spatial_mllm_msgs/msg/Reward",
        header=make_header(reward.stamp_ns, reward.frame_id),
        reference_stamp=make_stamp(reward.reference_stamp_ns),
        task_id=reward.task_id,
        displacement_m=vector3(reward.displacement_m),
        distance_m=float(reward.distance_m),
        progress=float(reward.progress),
        reward=float(reward.reward),
        success=bool(reward.success),
        valid=bool(reward.valid),
        confidence=float(reward.confidence),
        latency_s=float(reward.latency_s),
        model=reward.model,
        error_code=int(reward.error_code),
        error_msg=reward.error_sentence,
    )


def reward_task_message(task: RewardTask) -> Any:
    """spatial_mllm_msgs/RewardTask."""
    return make_message(
        "spatial_mllm_msgs/msg/RewardTask",
        task_id=task.task_id,
        description=task.description,
        reference_stamp=make_stamp(task.reference_stamp_ns),
        point_px=pixel(task.point_px),
        goal=task.goal.value,
        distance_m=float(task.distance_m),
        target_m=vector3(task.target_m),
        direction=vector3(task.direction),
        tolerance_m=float(task.tolerance_m),
        gamma=float(task.gamma),
        camera_moves=bool(task.camera_moves),
    )


def reward_task_of(message: Any) -> RewardTask:
    """The reward task of a spatial_mllm_msgs/RewardTask (rosbags' or rclpy's)."""
    from spatial_mllm_core.reward.task import RewardGoal

    return RewardTask(
        task_id=message.task_id,
        point_px=(float(message.point_px.u), float(message.point_px.v)),
        goal=RewardGoal(message.goal),
        distance_m=float(message.distance_m),
        target_m=(message.target_m.x, message.target_m.y, message.target_m.z),
        direction=(message.direction.x, message.direction.y, message.direction.z),
        tolerance_m=float(message.tolerance_m),
        gamma=float(message.gamma),
        reference_stamp_ns=message.reference_stamp.sec * _NS + message.reference_stamp.nanosec,
        camera_moves=bool(message.camera_moves),
        description=message.description,
    )


def pixel(point_px: tuple[float, float]) -> Any:
    """spatial_mllm_msgs/Pixel."""
    return make_message("spatial_mllm_msgs/msg/Pixel", u=float(point_px[0]), v=float(point_px[1]))
