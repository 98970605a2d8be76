"""Frame: one decoded image with its camera model and stamp; knows neither ROS nor the model."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError


@dataclass(frozen=True)
class Frame:
    """One image as every later stage sees it.

    Attributes:
        stamp_ns: capture time of the image, nanoseconds; every output about it carries this stamp.
        frame_id: optical frame of the camera (x right, y down, z forward; REP-103).
        image_rgb: (H, W, 3) uint8, read-only by convention.
        camera: intrinsics for exactly this image size, or None when there are none.
        camera_fault: why `camera` is None (a 2xx error).
        camera_name: key of the camera in a multi-camera memory.
    """

    stamp_ns: int
    frame_id: str
    image_rgb: NDArray[np.uint8]
    camera: CameraModel | None = None
    camera_fault: SpatialError | None = field(default=None, compare=False)
    camera_name: str = "camera"

    @property
    def width(self) -> int:
        return int(self.image_rgb.shape[1])

    @property
    def height(self) -> int:
        return int(self.image_rgb.shape[0])

    def require_camera(self) -> CameraModel:
        """Return the camera model, or raise the 2xx fault that explains its absence."""
        if self.camera is not None:
            return self.camera
        if self.camera_fault is not None:
            raise self.camera_fault
        raise SpatialError(
            ErrorCode.NO_CALIBRATION,
            f"the image of '{self.frame_id}' at {self.stamp_ns} ns came without a CameraInfo; "
            "publish one with the same stamp beside the image",
        )

    def require_pixel(self, pixel: tuple[float, float], image: str = "image") -> None:
        """Refuse a pixel that lies outside; integer coordinates are centres, so that half a pixel is spare.

        Args:
            image: what the sentence calls this frame.

        Raises:
            SpatialError: BAD_NUMBER or PIXEL_OUTSIDE.
        """
        u, v = pixel
        if not (math.isfinite(u) and math.isfinite(v)):
            raise SpatialError(ErrorCode.BAD_NUMBER, f"the pixel ({u}, {v}) is not finite")
        if not (-0.5 <= u <= self.width - 0.5 and -0.5 <= v <= self.height - 0.5):
            raise SpatialError(
                ErrorCode.PIXEL_OUTSIDE,
                f"the pixel ({u:g}, {v:g}) lies outside the {self.width}x{self.height} {image}",
            )
