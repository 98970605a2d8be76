"""Posed images of scenes with their true depth at their pixels; knows no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneProblem, SceneRef


@dataclass(frozen=True)
class Place:
    """Where an image stands: `position` in the scene's list of frames."""

    scene: str
    frame: str
    position: int
    split: str


@dataclass(frozen=True)
class PosedImage:
    """An image that was read.

    Attributes:
        image_rgb: (H, W, 3) uint8.
        true_m: (H, W) float32 z-depth at the pixels of the colour image, 0 = none.
        world_from_camera: (4, 4) float64.
    """

    place: Place
    image_rgb: NDArray[np.uint8]
    camera: CameraModel
    world_from_camera: NDArray[np.float64]
    true_m: NDArray[np.float32]


def read(
    picked: Sequence[tuple[SceneRef, list[Place]]], problems: list[str]
) -> Iterator[tuple[Place, PosedImage | None]]:
    """The images in order, one at a time; None, and a sentence in `problems`, where one does not open."""
    for ref, places in picked:
        try:
            scene = ref.open(*ref.arguments)
        except SceneProblem as problem:
            problems.append(str(problem))
            yield from ((place, None) for place in places)
            continue
        try:
            for place in places:
                try:
                    yield place, _read_one(scene, place)
                except SceneProblem as problem:
                    problems.append(str(problem))
                    yield place, None
        finally:
            scene.close()


def _read_one(scene: Scene, place: Place) -> PosedImage:
    frame = scene.frames[place.position]
    true_m = depth_in_colour(frame, scene.depth_m(place.position))
    return PosedImage(place, scene.image(place.position), frame.camera, frame.world_from_camera, true_m)


def depth_in_colour(frame: SceneFrame, depth_m: NDArray[np.float32]) -> NDArray[np.float32]:
    """(H, W) the nearest depth sample at every pixel of the colour image; 0 = none, NaN included."""
    known_m = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0).astype(np.float32)
    camera = frame.camera
    if frame.depth_camera is None and known_m.shape == (camera.height, camera.width):
        return known_m
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float64)
    if frame.depth_camera is not None:
        pixels = frame.depth_camera.project(camera.rays(pixels))
    else:
        sizes = np.array([known_m.shape[1] / camera.width, known_m.shape[0] / camera.height])
        pixels = (pixels + 0.5) * sizes - 0.5
    return nearest(known_m, pixels[:, 0], pixels[:, 1]).reshape(camera.height, camera.width)


def nearest(image: NDArray[np.float32], u_px: NDArray, v_px: NDArray) -> NDArray[np.float32]:
    """The samples at pixels u, v of any equal shape; 0 outside of the image and at NaN."""
    height, width = image.shape
    with np.errstate(invalid="ignore"):
        inside = (u_px >= -0.5) & (u_px < width - 0.5) & (v_px >= -0.5) & (v_px < height - 0.5)
    out = np.zeros(u_px.shape, np.float32)
    rows, columns = (np.floor(axis[inside] + 0.5).astype(np.int64) for axis in (v_px, u_px))
    out[inside] = image[rows, columns]
    return out
