"""Takes lens distortion out of an image, so that it can be warped; knows neither rows nor chance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError

_AGREES_PX = 0.1
_EVERY = 7  # raw pixels that are counted for the share that is kept


@dataclass(frozen=True, eq=False)
class Rectified:
    """The pinhole image with the same K and axes, cut to a rectangle that the raw image fills.

    z-depths and poses stay what they are.

    Attributes:
        raw, camera: of the raw and of the new image.
        x, y: pixel of the uncut pinhole image that became (0, 0).
        map_x, map_y: (h, w) float32 raw pixel of each new pixel.
        kept_share: part of the raw pixels that the new image shows.
    """

    raw: CameraModel
    camera: CameraModel
    x: int
    y: int
    map_x: NDArray[np.float32]
    map_y: NDArray[np.float32]
    kept_share: float

    def points(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        """New pixels (N, 2) of raw pixels; NaN where the lens model cannot be undone."""
        return self.raw.undistort_pixels(pixels) - (self.x, self.y)

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The new image, sampled bilinearly from the raw one."""
        return np.asarray(
            cv2.remap(image, self.map_x, self.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )

    def depth(self, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
        """z-depth (0 = none) of the new image, nearest sample."""
        rows = np.clip(np.floor(self.map_y + 0.5), 0, self.raw.height - 1).astype(np.int64)
        columns = np.clip(np.floor(self.map_x + 0.5), 0, self.raw.width - 1).astype(np.int64)
        return np.asarray(depth_m[rows, columns])


@lru_cache(maxsize=16)
def rectified(camera: CameraModel) -> Rectified:
    """The rectification of a camera with distortion; kept, since its maps serve every frame.

    Raises:
        SpatialError: BAD_DISTORTION when no rectangle is left.
    """
    ideal = camera.rectified()
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float64)
    at = camera.distort_pixels(pixels)
    with np.errstate(invalid="ignore"):
        inside = ((at >= -0.5) & (at <= np.array([camera.width, camera.height]) - 0.5)).all(axis=1)
        # a folded lens maps far rays back into the image, where other rays belong
        inside[inside] = np.abs(camera.undistort_pixels(at[inside]) - pixels[inside]).max(axis=1) < _AGREES_PX
    x, y, width, height = _filled_rectangle(inside.reshape(camera.height, camera.width))
    if width < 1 or height < 1:
        raise SpatialError(
            ErrorCode.BAD_DISTORTION,
            f"the {camera.distortion_model} lens of '{camera.frame_id}' leaves no rectified image; calibrate again",
        )
    maps = at.reshape(camera.height, camera.width, 2)[y : y + height, x : x + width].astype(np.float32)
    map_x, map_y = (np.ascontiguousarray(maps[..., axis]) for axis in range(2))
    low, high = np.array([x, y]) - 0.5, np.array([x + width, y + height]) - 0.5
    there = camera.undistort_pixels(pixels[::_EVERY])
    with np.errstate(invalid="ignore"):
        kept = float(((there >= low) & (there <= high)).all(axis=1).mean())
    return Rectified(camera, ideal.cropped(x, y, width, height), x, y, map_x, map_y, kept)


def _filled_rectangle(filled: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(x, y, width, height) of a rectangle of True, found by cutting the emptiest side again and again."""
    height, width = filled.shape
    left, top, right, bottom = 0, 0, width, height
    while left < right and top < bottom:
        part = filled[top:bottom, left:right]
        sides = [part[:, 0].mean(), part[0].mean(), part[:, -1].mean(), part[-1].mean()]
        worst = int(np.argmin(sides))
        if sides[worst] == 1.0:
            if part.all():
                return left, top, right - left, bottom - top
            break
        left, top = left + (worst == 0), top + (worst == 1)
        right, bottom = right - (worst == 2), bottom - (worst == 3)
    return 0, 0, 0, 0
