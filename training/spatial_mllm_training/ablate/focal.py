"""How predicted depth goes with the focal length: views of one image at other focal lengths, and the slope.

A crop that is enlarged to the same size is the picture of a camera at the same place with a longer focal
length, so the depth of its surface points does not change: the true slope of log z against log f is 0.
A model that is told no K takes the larger picture for a nearer thing, which gives -1. Knows no model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.images.resize import resized
from spatial_mllm_training.augment.warp import is_pinhole

SCALES = (0.7, 0.84, 1.0, 1.18, 1.4)
"""Focal scales; 1 is the middle window, so that 0.7 needs no pixel that was never taken."""


LEAST_VIEW_DEG = 30.0
"""Of the narrowest view: a narrower one shows too little to tell depth from."""


class Picture(Protocol):
    """What views are made of: (H, W, 3) uint8, its camera, and (H, W) z-depth, 0 or NaN = none."""

    @property
    def image_rgb(self) -> NDArray[np.uint8]: ...

    @property
    def camera(self) -> CameraModel: ...

    @property
    def true_m(self) -> NDArray[np.floating]: ...


Pictured = TypeVar("Pictured", bound=Picture)


@dataclass(frozen=True, eq=False)
class FocalView:
    """An image as if taken with another focal length.

    Attributes:
        scale: f in pixels of the view over that of the view at scale 1.
        image: (H, W, 3) uint8.  camera: of it.
        pixels: (P, 2) u, v of the surface points.
    """

    scale: float
    image: NDArray[np.uint8]
    camera: CameraModel
    pixels: NDArray[np.float64]


@dataclass(frozen=True)
class Slope:
    """Mean slope over images.

    Attributes:
        standard_error: of the mean, over images; NaN with fewer than two.
    """

    mean: float
    standard_error: float
    images: int


def views_of_each(
    images: Iterable[Pictured],
    *,
    size: tuple[int, int],
    points: int,
    rng: np.random.Generator,
    least_view_deg: float = LEAST_VIEW_DEG,
) -> Iterator[tuple[Pictured, list[FocalView]]]:
    """The images that are wide enough and have enough depth, each with its `focal_views`."""
    for image in images:
        if narrowest_view_deg(image.camera) < least_view_deg:
            continue
        views = focal_views(image.image_rgb, image.camera, image.true_m, size=size, points=points, rng=rng)
        if views:
            yield image, views


def focal_views(
    image: NDArray[np.uint8],
    camera: CameraModel,
    true_m: NDArray[np.floating],
    *,
    size: tuple[int, int],
    points: int,
    rng: np.random.Generator,
    scales: Sequence[float] = SCALES,
) -> list[FocalView]:
    """Views of the same surface points at focal scales; [] when too few points have a depth.

    Args:
        true_m: (H, W) z-depth, 0 or NaN = none; only says where there is a surface.
        size: (width, height) of every view, px.
        points: drawn in the narrowest window, at least two pixels of the view from its border.
    """
    windows = [_window(camera, min(scales) / scale) for scale in scales]
    narrow = windows[int(np.argmax(scales))]
    margin = 2
    x0, y0, x1, y1 = narrow[0] + margin, narrow[1] + margin, narrow[2] - margin, narrow[3] - margin
    inside = np.zeros(true_m.shape, bool)
    inside[max(y0, 0) : y1, max(x0, 0) : x1] = True
    found = np.flatnonzero(inside & np.isfinite(true_m) & (true_m > 0))
    if len(found) < points:
        return []
    v, u = np.divmod(rng.choice(found, points, replace=False), true_m.shape[1])
    reference = None
    views = []
    for (left, top, right, bottom), scale in zip(windows, scales, strict=True):
        window = np.ascontiguousarray(image[top:bottom, left:right])
        shown = resized(window, *size)
        of_view = camera.cropped(left, top, right - left, bottom - top).resized(*size)
        at = np.stack(
            [
                (u - left + 0.5) * size[0] / (right - left) - 0.5,
                (v - top + 0.5) * size[1] / (bottom - top) - 0.5,
            ],
            axis=1,
        )
        views.append(FocalView(scale, np.asarray(shown, np.uint8), of_view, at))
        if math.isclose(scale, 1.0):
            reference = of_view.k[0, 0]
    # windows are whole pixels: what counts is the focal length that came out
    base = reference if reference is not None else views[0].camera.k[0, 0] / views[0].scale
    return [FocalView(float(x.camera.k[0, 0] / base), x.image, x.camera, x.pixels) for x in views]


def narrowest_view_deg(camera: CameraModel) -> float:
    """Horizontal field of view of the narrowest focal view; 0 for a lens, whose crop is no longer focal length."""
    if not is_pinhole(camera):
        return 0.0
    share = min(SCALES) / max(SCALES)
    return float(2 * np.degrees(np.arctan(share * camera.width / 2 / camera.k[0, 0])))


def depths_at_points(views: Sequence[FocalView], maps: Sequence[NDArray[np.floating]]) -> NDArray[np.float64]:
    """(S, P) predicted z-depth of the surface points of S views.

    Args:
        maps: a depth map (h, w) of each view, over the whole of its image.
    """
    return np.array(
        [sample(m, v.pixels, (v.camera.width, v.camera.height)) for v, m in zip(views, maps, strict=True)],
        np.float64,
    )


def image_slope(scales: ArrayLike, depth_m: ArrayLike) -> float:
    """Slope b of log z = a_point + b log s by least squares, each point with its own depth.

    Args:
        scales: (S,) at least two different ones.
        depth_m: (S, P) predicted z-depth, positive.

    Raises:
        ValueError: other shapes, a depth that is not positive and finite, or one scale alone.
    """
    s, z = np.asarray(scales, np.float64), np.asarray(depth_m, np.float64)
    if z.ndim != 2 or s.shape != z.shape[:1] or not z.shape[1]:
        raise ValueError(f"depths (S, P) of S scales, found {z.shape} and {s.shape}")
    if not (np.isfinite(z).all() and (z > 0).all() and (s > 0).all()):
        raise ValueError("scales and depths must be positive and finite")
    x = np.log(s) - np.log(s).mean()
    if not (spread := float(x @ x)) > 1e-12:
        raise ValueError("one focal scale gives no slope")
    return float(np.mean(x @ np.log(z)) / spread)


def mean_slope(slopes: Sequence[float]) -> Slope:
    """Mean over images, which are independent, with its standard error."""
    values = np.asarray(slopes, np.float64)
    count = len(values)
    if not count:
        return Slope(math.nan, math.nan, 0)
    error = float(values.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan
    return Slope(float(values.mean()), error, count)


def sample(map_HW: NDArray[np.floating], pixels: NDArray[np.float64], size: tuple[int, int]) -> NDArray:
    """(P,) values of a map that covers an image of `size` (width, height), at its pixels, bilinear."""
    height, width = map_HW.shape
    u = (pixels[:, 0] + 0.5) * width / size[0] - 0.5
    v = (pixels[:, 1] + 0.5) * height / size[1] - 0.5
    found = cv2.remap(
        np.asarray(map_HW, np.float32),
        u.astype(np.float32)[None],
        v.astype(np.float32)[None],
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return found[0]


def _window(camera: CameraModel, share: float) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the centred part with sides of `share`."""
    width, height = max(2, round(camera.width * share)), max(2, round(camera.height * share))
    left, top = (camera.width - width) // 2, (camera.height - height) // 2
    return left, top, left + width, top + height
