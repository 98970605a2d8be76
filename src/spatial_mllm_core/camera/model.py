"""CameraModel: from a pixel to a ray and back, through every resize; knows neither ROS nor images.

Integer pixel coordinates are pixel centres (ROS, OpenCV). "Raw" pixels are those of the image
this model belongs to, lens distortion included; "ideal" pixels are those of a pinhole with the
same K. Camera coordinates are the optical frame of REP-103: x right, y down, z forward, metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import distortion
from spatial_mllm_core.camera.pixel_rules import bin_axis, resize_axis
from spatial_mllm_core.errors import ErrorCode, SpatialError

Array = NDArray[np.float64]

#: Largest side of an image a camera may claim; beyond it the message is corrupt, not ambitious.
MAX_SIDE_PX = 65_535

#: Slope given to fisheye tokens at and beyond 84 degrees, where x/z grows without bound.
MAX_TOKEN_SLOPE = 10.0


@dataclass(frozen=True)
class CameraInfoFields:
    """The fields of a sensor_msgs/CameraInfo for one image: binning 1, region of interest full."""

    width: int
    height: int
    distortion_model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class CameraModel:
    """Intrinsics of one image.

    Attributes:
        width, height: size of the image this model belongs to, px.
        k: (3, 3) float64 [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] of the raw image.
        distortion_model: "plumb_bob", "rational_polynomial" or "equidistant".
        d: its coefficients; empty means none.
        r: (3, 3) rectification rotation, carried for output.
        p: (3, 4) projection of the rectified image, carried for output; p[0, 3] = -fx' B of a
            stereo right camera is kept.
        frame_id: optical frame.

    Raises:
        SpatialError: UNCALIBRATED, BAD_INTRINSICS, UNKNOWN_DISTORTION_MODEL, BAD_DISTORTION,
            SIZE_MISMATCH (no size).
    """

    width: int
    height: int
    k: Array
    distortion_model: str = "plumb_bob"
    d: Array = field(default_factory=lambda: np.zeros(0))
    r: Array = field(default_factory=lambda: np.eye(3))
    p: Array | None = None
    frame_id: str = ""

    def __post_init__(self) -> None:
        width, height = int(self.width), int(self.height)
        if not (0 < width <= MAX_SIDE_PX and 0 < height <= MAX_SIDE_PX):
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH, f"a camera cannot have an image of {width}x{height} px"
            )
        k = _matrix(self.k, (3, 3), "K")
        check_intrinsics(k)
        d = np.array(self.d, dtype=np.float64).reshape(-1)
        model, d = distortion.checked(self.distortion_model, d)
        r = _matrix(self.r, (3, 3), "R")
        if not r.any():
            r = np.eye(3)
        p = np.zeros((3, 4)) if self.p is None else _matrix(self.p, (3, 4), "P")
        if not p.any():
            p[:, :3] = k
        if not (np.isfinite(r).all() and np.isfinite(p).all()):
            raise SpatialError(ErrorCode.BAD_INTRINSICS, "R or P contains NaN or infinity")
        for name, value in (("k", k), ("d", d), ("r", r), ("p", p)):
            value.setflags(write=False)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "height", height)
        object.__setattr__(self, "distortion_model", model)

    # ---- building -------------------------------------------------------------------------

    @classmethod
    def from_k(
        cls,
        k: ArrayLike,
        width: int,
        height: int,
        *,
        d: ArrayLike = (),
        distortion_model: str = "plumb_bob",
        frame_id: str = "",
    ) -> CameraModel:
        """Build from a 3x3 K (or its nine numbers, row by row)."""
        return cls(
            width=width,
            height=height,
            k=_matrix(k, (3, 3), "K"),
            distortion_model=distortion_model,
            d=np.asarray(d, dtype=np.float64),
            frame_id=frame_id,
        )

    @classmethod
    def from_fov(
        cls,
        width: int,
        height: int,
        hfov_rad: float,
        *,
        vfov_rad: float | None = None,
        frame_id: str = "",
    ) -> CameraModel:
        """Build a centred pinhole from its field of view, edge to edge; square pixels by default.

        Raises:
            SpatialError: BAD_INTRINSICS for an angle outside (0, pi).
        """
        for angle in (hfov_rad, hfov_rad if vfov_rad is None else vfov_rad):
            if not 0.0 < angle < np.pi:
                raise SpatialError(
                    ErrorCode.BAD_INTRINSICS,
                    f"a pinhole's field of view lies between 0 and pi rad, found {angle:g}",
                )
        fx = 0.5 * width / np.tan(0.5 * hfov_rad)
        fy = fx if vfov_rad is None else 0.5 * height / np.tan(0.5 * vfov_rad)
        k = [[fx, 0, 0.5 * (width - 1)], [0, fy, 0.5 * (height - 1)], [0, 0, 1]]
        return cls.from_k(k, width, height, frame_id=frame_id)

    @classmethod
    def from_camera_info(
        cls,
        info: Any,
        *,
        image_size: tuple[int, int] | None = None,
        rectified: bool = False,
    ) -> CameraModel:
        """Build from anything shaped like a sensor_msgs/CameraInfo (ROS 1 or 2 field names).

        Binning and region of interest are applied as image_geometry does. When the actual image
        has another size of exactly the same shape, the model is scaled to it.

        Args:
            info: k, d, r, p (or K, D, R, P), width, height, binning_x, binning_y, roi, header.
            image_size: (width, height) of the image at hand; None = as CameraInfo says.
            rectified: the image is already rectified (an `image_rect` topic): P is its K and
                there is no distortion. Otherwise K and D are used.

        Raises:
            SpatialError: UNCALIBRATED, BAD_INTRINSICS, SIZE_MISMATCH, UNKNOWN_DISTORTION_MODEL,
                BAD_DISTORTION, BAD_ROI.
        """
        k = _matrix(_either(info, "k", "K"), (3, 3), "K")
        r = _matrix(_either(info, "r", "R"), (3, 3), "R")
        p = _matrix(_either(info, "p", "P"), (3, 4), "P")
        d = _numbers(_either(info, "d", "D"))
        frame_id = str(getattr(getattr(info, "header", None), "frame_id", ""))
        if rectified:
            if not p.any() and d.any():
                raise SpatialError(
                    ErrorCode.UNCALIBRATED,
                    f"the image of '{frame_id}' is declared rectified but P of its CameraInfo is all zero",
                )
            # without distortion and without P, rectification was the identity
            k, d, r = (p[:, :3].copy() if p.any() else k), np.zeros(0), np.eye(3)
        check_intrinsics(k)  # before the size: an uncalibrated driver often publishes neither
        full_w, full_h = int(info.width), int(info.height)
        if full_w <= 0 or full_h <= 0:
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH,
                f"CameraInfo of '{frame_id}' has K but says the image is {full_w}x{full_h} px; "
                "expected the size K was calibrated for",
            )
        model = cls(
            width=full_w,
            height=full_h,
            k=k,
            distortion_model="plumb_bob" if rectified else str(info.distortion_model),
            d=d,
            r=r,
            p=p,
            frame_id=frame_id,
        )
        x, y, w, h = _roi(info, full_w, full_h)
        bin_x = max(1, int(getattr(info, "binning_x", 0)))
        bin_y = max(1, int(getattr(info, "binning_y", 0)))
        whole = (x, y, w, h) == (0, 0, full_w, full_h)
        if image_size is not None and tuple(image_size) == (full_w, full_h) and whole:
            return model  # a driver that reports binning but publishes the full image
        if bin_x > w or bin_y > h:
            raise SpatialError(
                ErrorCode.BAD_ROI,
                f"binning {bin_x}x{bin_y} leaves nothing of a {w}x{h} px region of interest",
            )
        model = model._cut_and_binned(x, y, w, h, bin_x, bin_y)
        if image_size is None or tuple(image_size) == (model.width, model.height):
            return model
        width, height = int(image_size[0]), int(image_size[1])
        same_shape = width * model.height == height * model.width and width > 0
        # A full-size image beside a partial region: did the driver enlarge it or ignore it?
        ambiguous = not whole and (width, height) == (full_w, full_h)
        if not same_shape or ambiguous:
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH,
                f"the image of '{frame_id}' is {width}x{height} px but its CameraInfo is for "
                f"{model.width}x{model.height} px"
                + ("" if whole else f" (region of interest of {full_w}x{full_h})")
                + "; publish the CameraInfo of this very image",
            )
        return model.resized(width, height)

    # ---- properties -----------------------------------------------------------------------

    @property
    def fx(self) -> float:
        """Focal length along x, px."""
        return float(self.k[0, 0])

    @property
    def fy(self) -> float:
        """Focal length along y, px."""
        return float(self.k[1, 1])

    @property
    def cx(self) -> float:
        """Principal point, px; may lie outside the image (a crop)."""
        return float(self.k[0, 2])

    @property
    def cy(self) -> float:
        """Principal point, px; may lie outside the image (a crop)."""
        return float(self.k[1, 2])

    @property
    def hfov_rad(self) -> float:
        """Angle between the left and the right edge at the height of the principal point, rad."""
        left, right = self._edge_angles_rad()
        return right - left

    @property
    def principal_point_inside(self) -> bool:
        """Whether the principal point lies in the image; outside is legal but worth a warning."""
        return -0.5 <= self.cx <= self.width - 0.5 and -0.5 <= self.cy <= self.height - 0.5

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CameraModel):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    # ---- new images of the same camera ----------------------------------------------------

    def resized(self, width: int, height: int) -> CameraModel:
        """Return the model of the image resampled to width x height (pixel-centre rule)."""
        sx, sy = width / self.width, height / self.height
        k, p = self.k.copy(), self._p().copy()
        for m in (k, p):
            m[0, 0], m[0, 2] = resize_axis(m[0, 0], m[0, 2], sx)
            m[1, 1], m[1, 2] = resize_axis(m[1, 1], m[1, 2], sy)
        p[0, 3] *= sx
        p[1, 3] *= sy
        return replace(self, width=width, height=height, k=k, p=p)

    def cropped(self, x: int, y: int, width: int, height: int) -> CameraModel:
        """Return the model of the part whose top-left pixel is (x, y).

        Raises:
            SpatialError: BAD_ROI when the part does not lie in the image.
        """
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise SpatialError(ErrorCode.BAD_ROI, f"cannot crop {width}x{height} px at ({x}, {y})")
        if x + width > self.width or y + height > self.height:
            raise SpatialError(
                ErrorCode.BAD_ROI,
                f"a crop of {width}x{height} px at ({x}, {y}) leaves the image of "
                f"{self.width}x{self.height} px",
            )
        return self._cut_and_binned(x, y, width, height, 1, 1)

    def binned(self, bin_x: int, bin_y: int) -> CameraModel:
        """Return the model after CameraInfo binning (image_geometry's rule, not `resized`'s).

        Raises:
            SpatialError: BAD_ROI when a bin is larger than the image.
        """
        if not (1 <= bin_x <= self.width and 1 <= bin_y <= self.height):
            raise SpatialError(
                ErrorCode.BAD_ROI,
                f"cannot bin an image of {self.width}x{self.height} px by {bin_x}x{bin_y}",
            )
        return self._cut_and_binned(0, 0, self.width, self.height, bin_x, bin_y)

    def rectified(self) -> CameraModel:
        """Return the distortion-free camera with the same K: the one of `undistort_pixels`."""
        return replace(self, d=np.zeros(0), distortion_model="plumb_bob", r=np.eye(3), p=None)

    # ---- pixels, rays, points -------------------------------------------------------------

    def undistort_pixels(self, pixels: ArrayLike) -> Array:
        """Map raw pixels (N, 2) to ideal pixels (N, 2); NaN where the lens model cannot be undone."""
        return self._to_pixels(self.rays(pixels)[:, :2])

    def distort_pixels(self, pixels: ArrayLike) -> Array:
        """Map ideal pixels (N, 2) to raw pixels (N, 2)."""
        xy = self._to_plane(_points(pixels, 2))
        return self._to_pixels(distortion.distort(self.distortion_model, self.d, xy))

    def rays(self, pixels: ArrayLike) -> Array:
        """Return (N, 3) points of the z = 1 plane seen at raw pixels (N, 2), optical frame.

        A row is NaN where the lens model cannot be undone (or looks 90 degrees or more aside).
        """
        plane = self._to_plane(_points(pixels, 2))
        xy = distortion.undistort(self.distortion_model, self.d, plane)
        out = np.ones((len(xy), 3))
        out[:, :2] = xy
        out[~np.isfinite(xy).all(axis=1)] = np.nan
        return out

    def project(self, points_m: ArrayLike) -> Array:
        """Return raw pixels (N, 2) of points (N, 3) in the optical frame; NaN at or behind z = 0."""
        points = _points(points_m, 3)
        z = points[:, 2:]
        with np.errstate(invalid="ignore", divide="ignore"):
            xy = np.where(z > 0, points[:, :2] / z, np.nan)
        return self._to_pixels(distortion.distort(self.distortion_model, self.d, xy))

    def unproject(self, pixels: ArrayLike, z_depth_m: ArrayLike) -> Array:
        """Return points (N, 3), metres, optical frame, at raw pixels (N, 2) and z-depths (N,)."""
        z = np.asarray(z_depth_m, dtype=np.float64).reshape(-1, 1)
        return np.asarray(self.rays(pixels) * z)

    def point_map(self, depth_m: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return (H, W, 3) float32 points, metres, optical frame, of a z-depth image of this size.

        Raises:
            SpatialError: SIZE_MISMATCH when the depth has another size than the camera.
        """
        if depth_m.shape != (self.height, self.width):
            raise SpatialError(
                ErrorCode.SIZE_MISMATCH,
                f"depth of {depth_m.shape[1]}x{depth_m.shape[0]} px does not belong to a camera "
                f"of {self.width}x{self.height} px",
            )
        z = depth_m.astype(np.float32, copy=False)
        slope_x, slope_y = _slope_maps(self)
        out = np.empty((self.height, self.width, 3), dtype=np.float32)
        np.multiply(slope_x, z, out=out[..., 0])
        np.multiply(slope_y, z, out=out[..., 1])
        out[..., 2] = z
        return out

    def token_rays(self, grid_w: int, grid_h: int) -> NDArray[np.float32]:
        """Return (grid_h, grid_w, 4) float32 [x/z, y/z, log(fx/pitch_x), log(fy/pitch_y)].

        The grid covers the image evenly; token (i, j) sits at u = pitch_x (j + 0.5) - 0.5,
        v = pitch_y (i + 0.5) - 0.5, so the values do not depend on the resolution at which the
        model looks at the image. The array is shared and read-only.

        Raises:
            SpatialError: BAD_DISTORTION when the lens model cannot be undone inside the image.
        """
        return _token_rays(self, int(grid_w), int(grid_h))

    # ---- output ---------------------------------------------------------------------------

    def camera_info_fields(self) -> CameraInfoFields:
        """Return the CameraInfo of exactly this image."""
        return CameraInfoFields(
            width=self.width,
            height=self.height,
            distortion_model=self.distortion_model,
            d=tuple(self.d.tolist()) or _no_distortion(self.distortion_model),
            k=tuple(self.k.ravel().tolist()),
            r=tuple(self.r.ravel().tolist()),
            p=tuple(self._p().ravel().tolist()),
        )

    # ---- inside ---------------------------------------------------------------------------

    def _p(self) -> Array:
        assert self.p is not None  # filled in __post_init__
        return self.p

    def _key(self) -> tuple[Any, ...]:
        arrays = (self.k, self.d, self.r, self._p())
        return (
            self.width,
            self.height,
            self.distortion_model,
            self.frame_id,
            *(a.tobytes() for a in arrays),
        )

    def _cut_and_binned(self, x: int, y: int, width: int, height: int, bin_x: int, bin_y: int) -> CameraModel:
        k, p = self.k.copy(), self._p().copy()
        for m in (k, p):
            m[0, 0], m[0, 2] = bin_axis(m[0, 0], m[0, 2], x, bin_x)
            m[1, 1], m[1, 2] = bin_axis(m[1, 1], m[1, 2], y, bin_y)
        p[0, 3] /= bin_x
        p[1, 3] /= bin_y
        return replace(self, width=width // bin_x, height=height // bin_y, k=k, p=p)

    def _to_plane(self, pixels: Array) -> Array:
        return np.asarray((pixels - self.k[:2, 2]) / (self.fx, self.fy))

    def _to_pixels(self, xy: Array) -> Array:
        return np.asarray(xy * (self.fx, self.fy) + self.k[:2, 2])

    def _edge_angles_rad(self) -> tuple[float, float]:
        edges = np.array([[-0.5, self.cy], [self.width - 0.5, self.cy]])
        plane = self._to_plane(edges)
        if self.distortion_model == "equidistant" and self.d.size:
            theta = distortion.undistort_theta(self.d, np.hypot(plane[:, 0], plane[:, 1]))
            angles = np.sign(plane[:, 0]) * theta
        else:
            angles = np.arctan(distortion.undistort(self.distortion_model, self.d, plane)[:, 0])
        return float(angles[0]), float(angles[1])


def check_intrinsics(k: Array) -> None:
    """Raise UNCALIBRATED for K[0] == 0 and BAD_INTRINSICS for anything that is no K."""
    if not bool(np.isfinite(k).all()):
        raise SpatialError(ErrorCode.BAD_INTRINSICS, f"K contains NaN or infinity ({_row(k)})")
    if k[0, 0] == 0.0:
        raise SpatialError(
            ErrorCode.UNCALIBRATED,
            "K[0] is 0, which means an uncalibrated camera; calibrate it and publish its K",
        )
    if k[0, 0] < 0 or k[1, 1] <= 0:
        raise SpatialError(
            ErrorCode.BAD_INTRINSICS,
            f"focal lengths must be positive, found fx {k[0, 0]:g}, fy {k[1, 1]:g}",
        )
    skew = abs(k[0, 1]) > 1e-6 * k[0, 0] or k[1, 0] != 0.0
    if skew or k[2, 0] != 0.0 or k[2, 1] != 0.0 or k[2, 2] != 1.0:
        raise SpatialError(
            ErrorCode.BAD_INTRINSICS,
            f"K must be [fx 0 cx 0 fy cy 0 0 1] row by row, found [{_row(k)}]",
        )


@lru_cache(maxsize=64)
def _token_rays(model: CameraModel, grid_w: int, grid_h: int) -> NDArray[np.float32]:
    if grid_w < 1 or grid_h < 1:
        raise ValueError(f"a token grid needs at least one token, found {grid_w}x{grid_h}")
    pitch_x, pitch_y = model.width / grid_w, model.height / grid_h
    u = pitch_x * (np.arange(grid_w) + 0.5) - 0.5
    v = pitch_y * (np.arange(grid_h) + 0.5) - 0.5
    pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
    xy = model.rays(pixels)[:, :2]
    if model.distortion_model == "equidistant" and model.d.size:
        aside = model._to_plane(pixels)
        slope = np.hypot(xy[:, 0], xy[:, 1])
        wide = ~(slope < MAX_TOKEN_SLOPE)  # NaN included: 90 degrees and beyond
        aside = aside[wide]
        xy[wide] = aside / np.hypot(aside[:, 0], aside[:, 1])[:, None] * MAX_TOKEN_SLOPE
    lost = ~np.isfinite(xy).all(axis=1)
    if lost.any():
        at = pixels[np.argmax(lost)]
        raise SpatialError(
            ErrorCode.BAD_DISTORTION,
            f"the lens model of '{model.frame_id}' cannot be undone at {int(lost.sum())} of "
            f"{len(xy)} places of its image, first at pixel ({at[0]:.1f}, {at[1]:.1f}); calibrate "
            "again with points near the corners, or feed the rectified image",
        )
    out = np.empty((grid_h, grid_w, 4), dtype=np.float32)
    out[..., :2] = xy.reshape(grid_h, grid_w, 2)
    out[..., 2] = np.log(model.fx / pitch_x)
    out[..., 3] = np.log(model.fy / pitch_y)
    out.setflags(write=False)
    return out


@lru_cache(maxsize=4)
def _slope_maps(model: CameraModel) -> NDArray[np.float32]:
    """(2, H, W) float32 x/z and y/z of every pixel; kept because inverting a lens per frame is slow."""
    u, v = np.meshgrid(np.arange(model.width), np.arange(model.height))
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2)
    slopes = model.rays(pixels)[:, :2].astype(np.float32)
    out = np.ascontiguousarray(slopes.T).reshape(2, model.height, model.width)
    out.setflags(write=False)
    return out


def _no_distortion(model: str) -> tuple[float, ...]:
    # image_proc and rviz expect five numbers of plumb_bob even when they are zero
    return (0.0,) * {"plumb_bob": 5, "rational_polynomial": 8}.get(model, 0)


def _either(info: Any, lower: str, upper: str) -> Any:
    value = getattr(info, lower, None)
    return getattr(info, upper) if value is None else value


def _numbers(values: ArrayLike | Sequence[float]) -> Array:
    return np.array(values, dtype=np.float64).reshape(-1)


def _matrix(values: ArrayLike, shape: tuple[int, int], name: str) -> Array:
    flat = _numbers(values)
    if flat.size != shape[0] * shape[1]:
        raise SpatialError(
            ErrorCode.BAD_INTRINSICS,
            f"{name} needs {shape[0] * shape[1]} numbers, found {flat.size}",
        )
    return flat.reshape(shape)


def _points(values: ArrayLike, columns: int) -> Array:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != columns:
        raise ValueError(f"expected an array of shape (N, {columns}), found {points.shape}")
    return points


def _row(k: Array) -> str:
    return " ".join(f"{v:g}" for v in k.ravel())


def _roi(info: Any, full_w: int, full_h: int) -> tuple[int, int, int, int]:
    """Return (x, y, width, height) in unbinned pixels; all zero means the full image."""
    roi = getattr(info, "roi", None)
    if roi is None:
        return 0, 0, full_w, full_h
    x, y, w, h = int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)
    if (x, y, w, h) == (0, 0, 0, 0):
        return 0, 0, full_w, full_h
    if x < 0 or y < 0 or w < 1 or h < 1 or x + w > full_w or y + h > full_h:
        raise SpatialError(
            ErrorCode.BAD_ROI,
            f"region of interest {w}x{h} px at ({x}, {y}) does not lie in the image of {full_w}x{full_h} px",
        )
    return x, y, w, h
