"""Core dataclasses to ROS messages and back; the only module that knows both shapes.

Pixel buffers enter a message through `array.frombytes` (0.1 ms for VGA); assigning bytes, a list or
an ndarray would cost 16 to 136 ms because rclpy checks every element.
"""

from __future__ import annotations

import math
from array import array
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Vector3
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from spatial_mllm_msgs.msg import Pixel, SpatialAnswer
from spatial_mllm_msgs.msg import Reward as RewardMsg
from spatial_mllm_msgs.msg import RewardTask as RewardTaskMsg
from std_msgs.msg import Header

from spatial_mllm_core.answers import Answer
from spatial_mllm_core.camera import CameraInfoFields
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.images import ImageFields
from spatial_mllm_core.reward.task import Reward, RewardGoal, RewardTask

_NS = 1_000_000_000


def to_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time."""
    return int(stamp.sec) * _NS + int(stamp.nanosec)


def to_time(stamp_ns: int) -> Time:
    """builtin_interfaces/Time of nanoseconds."""
    return Time(sec=stamp_ns // _NS, nanosec=stamp_ns % _NS)


def to_header(stamp_ns: int, frame_id: str) -> Header:
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


# -- images ---------------------------------------------------------------------------------------


def image_to_msg(fields: ImageFields, header: Header) -> Image:
    """sensor_msgs/Image of encoded fields; copies the pixels once."""
    data = array("B")
    data.frombytes(fields.data)
    msg = Image(
        header=header,
        height=fields.height,
        width=fields.width,
        encoding=fields.encoding,
        is_bigendian=fields.is_bigendian,
        step=fields.step,
    )
    msg.data = data
    return msg


def camera_info_to_msg(fields: CameraInfoFields, header: Header) -> CameraInfo:
    """sensor_msgs/CameraInfo of the camera that belongs to an output image."""
    return CameraInfo(
        header=header,
        height=fields.height,
        width=fields.width,
        distortion_model=fields.distortion_model,
        d=list(fields.d),
        k=list(fields.k),
        r=list(fields.r),
        p=list(fields.p),
    )


def cloud_to_msg(points_m: np.ndarray, image_rgb: np.ndarray, header: Header) -> PointCloud2:
    """Organised coloured cloud (x, y, z in metres, rgb as packed float, the PCL way).

    Args:
        points_m: (H, W, 3) float32, optical frame, NaN = no point.
        image_rgb: (H, W, 3) uint8.
    """
    height, width = points_m.shape[:2]
    cloud = np.empty((height, width, 4), np.float32)
    cloud[..., :3] = points_m
    rgb = image_rgb.astype(np.uint32)
    cloud[..., 3] = (rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]).view(np.float32)
    data = array("B")
    data.frombytes(memoryview(cloud).cast("B"))
    msg = PointCloud2(
        header=header,
        height=height,
        width=width,
        fields=[
            PointField(name=name, offset=4 * i, datatype=PointField.FLOAT32, count=1)
            for i, name in enumerate(("x", "y", "z", "rgb"))
        ],
        is_bigendian=False,
        point_step=16,
        row_step=16 * width,
        is_dense=False,
    )
    msg.data = data
    return msg


# -- answers --------------------------------------------------------------------------------------


def answer_to_msg(answer: Answer) -> SpatialAnswer:
    """spatial_mllm_msgs/SpatialAnswer of an answer that holds."""
    stamps = [to_time(s) for s in answer.stamps_ns]
    return SpatialAnswer(
        header=Header(stamp=stamps[0] if stamps else Time(), frame_id=answer.frame_id),
        task=answer.task,
        question=answer.question,
        text=answer.text,
        kind=answer.kind,
        values=[float(v) for v in answer.values],
        unit=answer.unit,
        label=answer.label,
        stamps=stamps,
        confidence=float(answer.confidence),
        latency_s=float(answer.latency_s),
        model=answer.model,
    )


def answer_from_msg(msg: SpatialAnswer) -> Answer:
    """The answer of a message.

    Raises:
        SpatialError: the fault that the message carries instead of an answer.
    """
    if msg.error_code:
        raise fault_from(msg.error_code, msg.error_msg)
    return Answer(
        task=msg.task,
        question=msg.question,
        text=msg.text,
        kind=msg.kind,
        values=tuple(msg.values),
        unit=msg.unit,
        label=msg.label,
        frame_id=msg.header.frame_id,
        stamps_ns=tuple(to_ns(s) for s in msg.stamps),
        confidence=msg.confidence,
        latency_s=msg.latency_s,
        model=msg.model,
    )


def failed_answer_to_msg(
    fault: SpatialError, *, task: str, question: str, stamps_ns: tuple[int, ...] = (), model: str = ""
) -> SpatialAnswer:
    """What is sent instead of an answer: the question, the images it spoke of, and the fault."""
    stamps = [to_time(s) for s in stamps_ns]
    return SpatialAnswer(
        header=Header(stamp=stamps[0] if stamps else Time()),
        task=task,
        question=question,
        stamps=stamps,
        model=model,
        error_code=int(fault.code),
        error_msg=fault.sentence,
    )


def fault_from(code: int, sentence: str) -> SpatialError:
    """The exception of a fault that travelled in a message."""
    return SpatialError(ErrorCode(code), sentence)


# -- rewards --------------------------------------------------------------------------------------


def task_to_msg(task: RewardTask) -> RewardTaskMsg:
    return RewardTaskMsg(
        task_id=task.task_id,
        description=task.description,
        reference_stamp=to_time(task.reference_stamp_ns),
        point_px=Pixel(u=float(task.point_px[0]), v=float(task.point_px[1])),
        goal=task.goal.value,
        distance_m=float(task.distance_m),
        target_m=_vector(task.target_m),
        direction=_vector(task.direction),
        tolerance_m=float(task.tolerance_m),
        gamma=float(task.gamma),
        camera_moves=task.camera_moves,
    )


def task_from_msg(msg: RewardTaskMsg) -> RewardTask:
    """The task of a message.

    Raises:
        SpatialError: UNKNOWN_TASK when `goal` is none of the GOAL_ constants.
    """
    try:
        goal = RewardGoal(msg.goal)
    except ValueError:
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK,
            f"no reward goal is named '{msg.goal}'; there are: {', '.join(g.value for g in RewardGoal)}",
        ) from None
    return RewardTask(
        task_id=msg.task_id,
        description=msg.description,
        reference_stamp_ns=to_ns(msg.reference_stamp),
        point_px=(msg.point_px.u, msg.point_px.v),
        goal=goal,
        distance_m=msg.distance_m,
        target_m=_triple(msg.target_m),
        direction=_triple(msg.direction),
        tolerance_m=msg.tolerance_m,
        gamma=msg.gamma,
        camera_moves=msg.camera_moves,
    )


def reward_to_msg(reward: Reward) -> RewardMsg:
    return RewardMsg(
        header=to_header(reward.stamp_ns, reward.frame_id),
        reference_stamp=to_time(reward.reference_stamp_ns),
        task_id=reward.task_id,
        displacement_m=_vector(reward.displacement_m),
        distance_m=float(reward.distance_m),
        progress=float(reward.progress),
        reward=float(reward.reward),
        success=reward.success,
        valid=reward.valid,
        confidence=float(reward.confidence),
        latency_s=float(reward.latency_s),
        model=reward.model,
        error_code=int(reward.error_code),
        error_msg=reward.error_sentence,
    )


def reward_from_msg(msg: RewardMsg) -> Reward:
    return Reward(
        stamp_ns=to_ns(msg.header.stamp),
        frame_id=msg.header.frame_id,
        reference_stamp_ns=to_ns(msg.reference_stamp),
        task_id=msg.task_id,
        displacement_m=_triple(msg.displacement_m),
        distance_m=msg.distance_m,
        progress=msg.progress,
        reward=msg.reward,
        success=msg.success,
        valid=msg.valid,
        confidence=msg.confidence,
        latency_s=msg.latency_s,
        model=msg.model,
        error_code=msg.error_code,
        error_sentence=msg.error_msg,
    )


def seconds_to_ns(seconds: float, name: str) -> int:
    """Nanoseconds of a length of time in a request.

    Raises:
        SpatialError: BAD_NUMBER when it is negative, not finite or longer than a day.
    """
    if not (math.isfinite(seconds) and 0 <= seconds <= 86_400):
        raise SpatialError(ErrorCode.BAD_NUMBER, f"{name} must lie in 0 to 86400 s, got {seconds}")
    return round(seconds * _NS)


def _vector(values: tuple[float, float, float]) -> Vector3:
    x, y, z = values
    return Vector3(x=float(x), y=float(y), z=float(z))


def _triple(vector: Vector3) -> tuple[float, float, float]:
    return (vector.x, vector.y, vector.z)
