"""From decoded pixels and a CameraInfo to a Frame; the same function live and from a bag."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames.frame import Frame


def build_frame(
    stamp_ns: int,
    frame_id: str,
    image_rgb: NDArray[np.uint8],
    info: Any | None,
    camera_name: str = "camera",
    *,
    rectified: bool = False,
) -> Frame:
    """Build a frame; a fault of the calibration is kept in the frame instead of raised.

    Questions that need no scale stay possible without intrinsics; the others raise the kept
    fault through `Frame.require_camera`.

    Args:
        stamp_ns: stamp of the image.
        frame_id: optical frame of the image.
        image_rgb: (H, W, 3) uint8.
        info: anything shaped like a sensor_msgs/CameraInfo, or None when none came.
        camera_name: key in the frame memory.
        rectified: the image is rectified: P of `info` applies instead of K and D.

    Returns:
        A frame with `camera`, or with `camera_fault` (a 2xx error).
    """
    camera: CameraModel | None = None
    fault: SpatialError | None = None
    try:
        camera = _camera(stamp_ns, frame_id, image_rgb, info, rectified)
    except SpatialError as error:
        fault = error
    return Frame(
        stamp_ns=int(stamp_ns),
        frame_id=frame_id,
        image_rgb=image_rgb,
        camera=camera,
        camera_fault=fault,
        camera_name=camera_name,
    )


def _camera(
    stamp_ns: int, frame_id: str, image_rgb: NDArray[np.uint8], info: Any | None, rectified: bool
) -> CameraModel:
    if info is None:
        raise SpatialError(
            ErrorCode.NO_CALIBRATION,
            f"no CameraInfo for the image of '{frame_id}' at {stamp_ns} ns; publish one with the "
            "same stamp beside the image",
        )
    info_frame_id = str(info.header.frame_id)
    # ROS 1 bags may still carry tf names with a leading slash
    if not frame_id or frame_id.lstrip("/") != info_frame_id.lstrip("/"):
        raise SpatialError(
            ErrorCode.FRAME_MISMATCH,
            f"the image's frame_id is '{frame_id}' but its CameraInfo's is '{info_frame_id}'; "
            "both must name the same optical frame",
        )
    height, width = image_rgb.shape[:2]
    return CameraModel.from_camera_info(info, image_size=(width, height), rectified=rectified)
