"""Points of lifted images in the world, and PLY files of them; knows neither models nor scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.probe.lifted import Lifted

_VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
    ]
)
_GAP = 0.1  # of the cloud's width, between two clouds side by side


@dataclass(frozen=True)
class Cloud:
    """Coloured points.

    Attributes:
        points_m: (P, 3) float32 in the world.
        rgb: (P, 3) uint8.
        confidence: (P,) float32 in [0, 1]; 1 for true points.
    """

    points_m: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    confidence: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points_m)


def cloud(
    camera: CameraModel,
    world_from_camera: NDArray[np.float64],
    depth_m: NDArray[np.float32],
    image_rgb: NDArray[np.uint8],
    confidence: NDArray[np.float32] | None = None,
) -> Cloud:
    """The pixels of one image with a positive depth whose ray the lens model knows.

    Args:
        depth_m: (H, W) z-depth of the camera's size; 0 and NaN = none.
    """
    known = np.isfinite(depth_m) & (depth_m > 0)
    in_camera = camera.point_map(np.where(known, depth_m, np.float32(0)))
    known &= np.isfinite(in_camera).all(axis=-1)
    points = in_camera[known].astype(np.float64) @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
    sure = np.ones(len(points)) if confidence is None else confidence[known]
    return Cloud(points.astype(np.float32), image_rgb[known], np.asarray(sure, np.float32))


def clouds(lifted: Sequence[Lifted], *, most: int, seed: int = 0) -> tuple[Cloud, Cloud]:
    """(predicted, true) points of images of one scene, each thinned by chance to at most `most`."""
    share = max(1, most // max(1, len(lifted)))
    predicted, true = [], []
    for number, one in enumerate(lifted):
        image = one.image
        about = (image.camera, image.world_from_camera)
        rng = np.random.default_rng([seed, number])
        predicted.append(_thinned(cloud(*about, one.depth_m, image.image_rgb, one.confidence), share, rng))
        true.append(_thinned(cloud(*about, image.true_m, image.image_rgb), share, rng))
    return _joined(predicted), _joined(true)


def side_by_side(left: Cloud, right: Cloud) -> tuple[Cloud, float]:
    """Both as one cloud, and the metres by which the right one was moved along the world's x axis."""
    if not len(left) or not len(right):
        return _joined([left, right]), 0.0
    width = float(np.ptp(left.points_m[:, 0]))
    shift = float(left.points_m[:, 0].max() - right.points_m[:, 0].min()) + _GAP * max(width, 0.1)
    moved = Cloud(right.points_m + np.array([shift, 0, 0], np.float32), right.rgb, right.confidence)
    return _joined([left, moved]), shift


def write_ply(path: Path, points: Cloud, comment: str) -> None:
    """Binary little-endian PLY with x, y, z, red, green, blue, confidence; replaces an older file.

    Raises:
        SpatialError: NOT_WRITABLE.
    """
    table = np.zeros(len(points), _VERTEX)
    for axis, name in enumerate("xyz"):
        table[name] = points.points_m[:, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        table[name] = points.rgb[:, channel]
    table["confidence"] = points.confidence
    kinds = {"<f4": "float", "|u1": "uchar"}
    properties = [f"property {kinds[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    said = comment.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")
    head = ["ply", "format binary_little_endian 1.0", f"comment {said}", f"element vertex {len(points)}"]
    text = "\n".join([*head, *properties, "end_header", ""])
    write_atomically(path, text.encode() + table.tobytes(), replace=True)


def _thinned(points: Cloud, most: int, rng: np.random.Generator) -> Cloud:
    if len(points) <= most:
        return points
    kept = np.sort(rng.choice(len(points), most, replace=False))
    return Cloud(points.points_m[kept], points.rgb[kept], points.confidence[kept])


def _joined(parts: Sequence[Cloud]) -> Cloud:
    return Cloud(
        np.concatenate([p.points_m for p in parts]),
        np.concatenate([p.rgb for p in parts]),
        np.concatenate([p.confidence for p in parts]),
    )
