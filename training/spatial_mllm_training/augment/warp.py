"""CameraWarp: another camera at the same place and what it sees of an image; knows neither rows nor chance.

An image taken from one point determines every other pinhole image from this point as far as the
fields of view agree: new pixels are H = K' R K^-1 of the old ones, whatever the depth (Hartley and
Zisserman, 8.4). Crop and resize are the case R = 1. Integer pixel coordinates are pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError

Array = NDArray[np.float64]

_ROUNDING_PX = 1e-5
_CORNERS = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


def _unturned() -> Array:
    return np.eye(3)


@dataclass(frozen=True, eq=False)
class CameraWarp:
    """From a pinhole camera to another one with the same centre, whose image it can fill.

    Attributes:
        source, target: the cameras.
        rotation: (3, 3) target_from_source, for points in camera coordinates.

    Raises:
        SpatialError: BAD_DISTORTION for a lens that is no pinhole, BAD_ROI when the new image would
            show something that the source does not (there is no padding).
    """

    source: CameraModel
    target: CameraModel
    rotation: Array = field(default_factory=_unturned)

    def __post_init__(self) -> None:
        for camera in (self.source, self.target):
            if not is_pinhole(camera):
                raise SpatialError(
                    ErrorCode.BAD_DISTORTION,
                    f"an image with {camera.distortion_model} distortion cannot be warped; rectify it first",
                )
        rotation = np.array(self.rotation, np.float64)
        if rotation.shape != (3, 3) or not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-9):
            raise ValueError("rotation must be a (3, 3) rotation matrix")
        rotation.setflags(write=False)
        object.__setattr__(self, "rotation", rotation)
        seen, in_front = self._corners_in_source
        low, high = (
            -0.5 - _ROUNDING_PX,
            np.array([self.source.width, self.source.height]) - 0.5 + _ROUNDING_PX,
        )
        if not (in_front and (seen >= low).all() and (seen <= high).all()):
            raise SpatialError(
                ErrorCode.BAD_ROI,
                f"an image of {self.target.width}x{self.target.height} px of the new camera would show "
                f"more than the source of {self.source.width}x{self.source.height} px",
            )

    # -- building ---------------------------------------------------------------------------------

    @classmethod
    def identity(cls, camera: CameraModel) -> CameraWarp:
        """The same camera."""
        return cls(camera, camera)

    @classmethod
    def cropped(cls, camera: CameraModel, x: int, y: int, width: int, height: int) -> CameraWarp:
        """The part whose top-left pixel is (x, y); the principal point moves. Raises SpatialError BAD_ROI."""
        return cls(camera, camera.cropped(x, y, width, height))

    @classmethod
    def resized(cls, camera: CameraModel, width: int, height: int) -> CameraWarp:
        """The whole image resampled; f follows by the pixel-centre rule of `CameraModel.resized`."""
        return cls(camera, camera.resized(width, height))

    @classmethod
    def rotated(cls, camera: CameraModel, rotation: ArrayLike) -> CameraWarp:
        """The camera turned about its centre, f unchanged.

        The new image is the largest window of the source's shape that the source fills, around what
        was in the source's middle; so the principal point moves against the turn.

        Args:
            rotation: (3, 3) target_from_source.

        Raises:
            SpatialError: BAD_ROI when the turn leaves no window.
        """
        turn = np.array(rotation, np.float64)
        size = np.array([camera.width, camera.height], np.float64)
        k_inverse = _inverse(camera.k)
        middle = camera.k @ turn @ k_inverse @ [*(size - 1) / 2, 1.0]
        share = 0.0
        if middle[2] > 0:
            centre = middle[:2] / middle[2]
            share = _largest_share(camera.k @ turn.T @ k_inverse, centre, size)
        width, height = np.floor(size * share + 1e-9).astype(int).tolist()
        if width < 1 or height < 1:
            raise SpatialError(ErrorCode.BAD_ROI, "the camera is turned so far that no image of it is left")
        k = camera.k.copy()
        k[:2, 2] -= centre - (np.array([width, height]) - 1) / 2
        return cls(camera, CameraModel.from_k(k, width, height, frame_id=camera.frame_id), turn)

    def after(self, first: CameraWarp) -> CameraWarp:
        """`first` and then this one, as one warp that resamples once.

        Raises:
            ValueError: this warp does not begin with the camera that `first` ends with.
        """
        if first.target != self.source:
            raise ValueError("a warp must begin with the camera that the warp before it ends with")
        turned = self.is_turned or first.is_turned
        return CameraWarp(
            first.source, self.target, self.rotation @ first.rotation if turned else self.rotation
        )

    # -- properties -------------------------------------------------------------------------------

    @cached_property
    def is_turned(self) -> bool:
        """Whether the direction of view changes, and depths and poses with it."""
        return not np.array_equal(self.rotation, np.eye(3))

    @cached_property
    def homography(self) -> Array:
        """(3, 3) target pixels from source pixels, scaled so that w of (u, v, 1) is z' / z."""
        if not self.is_turned:
            return _over(self.target, self.source)
        return np.asarray(self.target.k @ self.rotation @ _inverse(self.source.k))

    @cached_property
    def kept_share(self) -> float:
        """Part of the source's area that the new image shows."""
        x, y = self._corners_in_source[0].T
        area = 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))
        return float(area / (self.source.width * self.source.height))

    def world_from_target(self, world_from_source: Array) -> Array:
        """(4, 4) pose of the new camera from that of the source."""
        pose = np.array(world_from_source, np.float64)
        pose[:3, :3] = pose[:3, :3] @ self.rotation.T
        return pose

    # -- pixels, images, depth --------------------------------------------------------------------

    def points(self, pixels: ArrayLike, z_depths_m: ArrayLike) -> tuple[Array, Array]:
        """New pixels (N, 2) and z-depths (N,) of surface points at source pixels and z-depths.

        Pixels may lie outside the new image; both are NaN where a point is behind the new camera.
        """
        uv = np.asarray(pixels, np.float64).reshape(-1, 2)
        moved = uv @ self.homography[:, :2].T + self.homography[:, 2]
        w = np.where(moved[:, 2] > 0, moved[:, 2], np.nan)
        return moved[:, :2] / w[:, None], np.asarray(z_depths_m, np.float64).reshape(-1) * w

    def image(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The new camera's image from the source's (H, W, C) or (H, W).

        Antialiased: what shrinks is averaged over pixel areas (OpenCV's INTER_AREA), to the scale in
        the new image's middle where the camera turns, and then sampled bilinearly. In the outer half
        of the border pixels their own value stands.

        Raises:
            SpatialError: SIZE_MISMATCH when the image is not of the source's size.
        """
        self._require_size(image)
        size = (self.target.width, self.target.height)
        window = self._whole_window
        if window is not None:
            x, y, width, height = window
            return _resampled(image[y : y + height, x : x + width], size)
        shrunk = _resampled(image, self._size_before_sampling)
        small = self.source.resized(*self._size_before_sampling)
        homography = replace(self, source=small).homography
        return np.asarray(
            cv2.warpPerspective(
                shrunk, homography, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
        )

    def depth(self, depth_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """(H', W') float32 z-depth of the new camera from the source's (H, W), nearest sample; 0 = none.

        A sample keeps its source z along the new pixel's ray, which in the new camera is
        z' = z / (R^T K'^-1 [u', v', 1])_z.

        Raises:
            SpatialError: SIZE_MISMATCH when the depth is not of the source's size.
        """
        self._require_size(depth_m)
        known = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
        u, v = np.arange(self.target.width), np.arange(self.target.height)
        back = self._source_from_target
        if not self.is_turned:
            columns = _nearest(back[0, 0] * u + back[0, 2], self.source.width)
            rows = _nearest(back[1, 1] * v + back[1, 2], self.source.height)
            return known[rows[:, None], columns[None, :]]
        x, y, w = (row[0] * u[None, :] + (row[1] * v[:, None] + row[2]) for row in back)
        at = _nearest(y / w, self.source.height) * self.source.width + _nearest(x / w, self.source.width)
        return np.asarray(known.reshape(-1)[at] / w, np.float32)

    # -- inside -----------------------------------------------------------------------------------

    @cached_property
    def _source_from_target(self) -> Array:
        if not self.is_turned:
            return _over(self.source, self.target)
        return np.asarray(self.source.k @ self.rotation.T @ _inverse(self.target.k))

    @cached_property
    def _corners_in_source(self) -> tuple[Array, bool]:
        """(4, 2) source pixels of the new image's outer corners, and whether the source looks at them."""
        size = np.array([self.target.width, self.target.height])
        corners = (size - 1) / 2 + _CORNERS * size / 2
        back = corners @ self._source_from_target[:, :2].T + self._source_from_target[:, 2]
        in_front = bool((back[:, 2] > 0).all())
        return (back[:, :2] / back[:, 2:] if in_front else np.full((4, 2), np.nan)), in_front

    @cached_property
    def _whole_window(self) -> tuple[int, int, int, int] | None:
        """(x, y, width, height) of whole source pixels that become the new image; None where there is none."""
        if self.is_turned:
            return None
        edges = self._corners_in_source[0][[0, 2]] + 0.5
        whole = np.rint(edges)
        if np.abs(edges - whole).max() > _ROUNDING_PX:
            return None
        (left, top), (right, bottom) = whole.astype(int).tolist()
        return left, top, right - left, bottom - top

    @cached_property
    def _size_before_sampling(self) -> tuple[int, int]:
        """(width, height) to which the source is shrunk before it is sampled, never enlarged."""
        back = self._source_from_target
        x, y, w = back @ [(self.target.width - 1) / 2, (self.target.height - 1) / 2, 1.0]
        # source pixels passed per target pixel, along the source's axes, in the middle
        step_x = np.hypot(*(back[0, :2] * w - back[2, :2] * x)) / w**2
        step_y = np.hypot(*(back[1, :2] * w - back[2, :2] * y)) / w**2
        width = int(np.ceil(self.source.width / max(1.0, step_x)))
        return width, int(np.ceil(self.source.height / max(1.0, step_y)))

    def _require_size(self, image: NDArray) -> None:
        if image.shape[:2] != (self.source.height, self.source.width):
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH,
                f"an image of {image.shape[1]}x{image.shape[0]} px does not belong to a camera of "
                f"{self.source.width}x{self.source.height} px",
            )


def is_pinhole(camera: CameraModel) -> bool:
    """Whether the camera has no distortion; four zeros of an equidistant lens are an ideal fisheye, not a pinhole."""
    return not camera.d.size


def _largest_share(back: Array, centre: Array, size: Array) -> float:
    """The largest t <= 1 for which the window `centre` +- t size / 2 lies in the source; 0 for none.

    Args:
        back: (3, 3) source pixels from target pixels.

    Along a corner's way from the centre, homogeneous source pixels are q = a + t b. The corner is left
    of the source's right edge while (W - 1/2) q_z - q_x >= 0, and so on: one linear bound each.
    """
    a = back @ [*centre, 1.0]
    b = (_CORNERS * size / 2) @ back[:, :2].T
    width, height = size
    edges = np.array([[1, 0, 0.5], [-1, 0, width - 0.5], [0, 1, 0.5], [0, -1, height - 0.5], [0, 0, 1]])
    room, loss = edges @ a, -(edges @ b.T).T
    if (room <= 0).any():
        return 0.0
    bounds = np.where(loss > 0, room / np.where(loss > 0, loss, 1.0), np.inf)
    return float(min(1.0, bounds.min()))


def _over(one: CameraModel, other: CameraModel) -> Array:
    """K_one K_other^-1, without the rounding of a matrix product."""
    sx, sy = one.fx / other.fx, one.fy / other.fy
    return np.array([[sx, 0, one.cx - sx * other.cx], [0, sy, one.cy - sy * other.cy], [0, 0, 1.0]])


def _inverse(k: Array) -> Array:
    fx, fy, cx, cy = k[0, 0], k[1, 1], k[0, 2], k[1, 2]
    return np.array([[1 / fx, 0, -cx / fx], [0, 1 / fy, -cy / fy], [0, 0, 1.0]])


def _nearest(at_px: Array, count: int) -> NDArray[np.int64]:
    return np.clip(np.floor(at_px + 0.5), 0, count - 1).astype(np.int64)


def _resampled(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The image at (width, height): areas averaged along an axis that shrinks, bilinear along one that grows."""
    (height, width), (new_width, new_height) = image.shape[:2], size
    smaller = (min(width, new_width), min(height, new_height))
    out = np.ascontiguousarray(image)
    if smaller != (width, height):
        out = cv2.resize(out, smaller, interpolation=cv2.INTER_AREA)
    if smaller != size:
        out = cv2.resize(out, size, interpolation=cv2.INTER_LINEAR)
    return np.array(out) if out is image else np.asarray(out)
