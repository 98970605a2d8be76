"""Picks pixels that can be asked about: inside the border, with depth, off the edges; knows no questions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.tasks.text import COORDINATE_SCALE
from spatial_mllm_training.multispa.draft import DraftPoint
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

BANDS_PER_OCTAVE = 2
"""Depth bands are as wide as sqrt(2) times their near end: about what the 20 % rule tells apart."""


@dataclass(frozen=True)
class FramePixels:
    """Some of the pixels of a frame that can be asked about, in random order.

    Attributes:
        uv_px: (n, 2) int64 raw colour pixels, each once.
        depth_m: (n,) float64, what the depth image holds there.
        band: (n,) int64 number of the depth band, see `band_name`.
    """

    uv_px: NDArray[np.int64]
    depth_m: NDArray[np.float64]
    band: NDArray[np.int64]


def frame_pixels(
    prepared: PreparedScene,
    frame: int,
    at_most: int,
    rng: np.random.Generator,
    *,
    without_px: ArrayLike = (),
) -> FramePixels:
    """At most so many of a frame's pixels, each as likely as any other.

    A few thousand stand for all, so that large images cost little more than small ones.

    Args:
        without_px: (k, 2) pixels inside the border that are not wanted.

    Raises:
        SceneProblem: the depth does not open.
    """
    edges, border = prepared.edge_mask(frame), prepared.config.points.border_px
    height, width = edges.shape
    inner = ~edges[border : height - border, border : width - border]
    u, v = np.asarray(without_px, np.int64).reshape(-1, 2).T - border
    inner[v, u] = False
    places = np.flatnonzero(inner)
    if len(places) > at_most:
        places = rng.choice(places, at_most, replace=False)
    else:
        places = rng.permutation(places)
    v, u = np.divmod(places, max(inner.shape[1], 1))
    uv_px = np.column_stack([u, v]) + border
    depth_m = prepared.sample_depth_m(frame, uv_px).astype(np.float64)
    uv_px, depth_m = uv_px[depth_m > 0], depth_m[depth_m > 0]
    return FramePixels(uv_px, depth_m, np.floor(BANDS_PER_OCTAVE * np.log2(depth_m)).astype(np.int64))


def depth_band(depth_m: float) -> int:
    """Number of the band that a depth lies in."""
    return math.floor(BANDS_PER_OCTAVE * math.log2(depth_m))


def band_name(band: int) -> str:
    """For example "depth 1-1.41 m"."""
    low, high = (2.0 ** (edge / BANDS_PER_OCTAVE) for edge in (band, band + 1))
    return f"depth {low:.3g}-{high:.3g} m"


def is_askable(prepared: PreparedScene, frame: int, uv_px: ArrayLike) -> NDArray[np.bool_]:
    """(n,) whether the pixels that hold the points (n, 2) lie inside the border and off the edges.

    Raises:
        SceneProblem: the depth does not open.
    """
    edges, border = prepared.edge_mask(frame), prepared.config.points.border_px
    height, width = edges.shape
    nearest = np.floor(np.asarray(uv_px, np.float64) + 0.5)
    with np.errstate(invalid="ignore"):  # NaN: behind the camera
        inside = ((nearest >= border) & (nearest < (width - border, height - border))).all(axis=1)
    u, v = nearest[inside].astype(np.int64).T
    inside[inside] = ~edges[v, u]
    return inside


def usable_frames(prepared: PreparedScene, rng: np.random.Generator) -> list[int]:
    """Frames with depth in random order."""
    frames = [frame for _, visible in sorted(prepared.states.items()) for frame in visible.frames]
    return [frames[i] for i in rng.permutation(len(frames))]


def no_pairs(scene: Scene) -> str:
    """Why there can be no pair of overlapping images in a scene, "" if there may be some."""
    if not scene.has_depth:
        return "the scene has no depth, so the overlap of images is unknown"
    if max(Counter(frame.state for frame in scene.frames).values(), default=0) < 2:
        return "no two images show the scene in the same state"
    return ""


def draft_points(
    prepared: PreparedScene,
    frame: int,
    uv_px: ArrayLike,
    depth_m: ArrayLike,
    *,
    image: int = 0,
    role: str = "asked",
) -> list[DraftPoint]:
    """The surface at pixels (n, 2) and z-depths (n,) of a frame, without letters.

    Args:
        image: which image of the question the frame is.
    """
    about, pose = prepared.scene.frames[frame], prepared.scene.frames[frame].world_from_camera
    uv_px, depth_m = np.asarray(uv_px, np.float64), np.asarray(depth_m, np.float64)
    in_world = about.camera.unproject(uv_px, depth_m) @ pose[:3, :3].T + pose[:3, 3]
    return [
        DraftPoint(image, u, v, z, (point[0], point[1], point[2]), role)
        for (u, v), z, point in zip(uv_px.tolist(), depth_m.tolist(), in_world.tolist(), strict=True)
    ]


def coordinate(prepared: PreparedScene, frame: int, point: DraftPoint) -> tuple[float, float]:
    """A point of a frame on the 0-1000 scale, not rounded."""
    camera = prepared.scene.frames[frame].camera
    return point.u_px / camera.width * COORDINATE_SCALE, point.v_px / camera.height * COORDINATE_SCALE


def in_turn(choices: Sequence[int], count: int, rng: np.random.Generator) -> list[int]:
    """`count` choices in random order, each as often as the others or once more."""
    rounds = math.ceil(count / len(choices))
    drawn = np.concatenate([rng.permutation(choices) for _ in range(rounds)]) if count else np.zeros(0, int)
    return [int(choice) for choice in drawn[:count]]
