"""A frame of a scene file as an image shows it: which pixel lies where, what moved; knows no question and no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.tasks.text import pixel_to_coordinate
from spatial_mllm_training.data.views import Crop
from spatial_mllm_training.scenes.record import is_thing

_HIDDEN_M, _HIDDEN_SHARE = 0.02, 0.02
"""A point is seen where the depth measured there is not off by more than the larger of the two."""


@dataclass(frozen=True, eq=False)
class SceneView:
    """A frame of a scene, and the window of it that an image of `width` times `height` pixels shows."""

    scene: dict[str, np.ndarray]
    time: int
    camera: int
    crop: Crop
    width: int
    height: int

    @property
    def depth_mm(self) -> NDArray[np.integer]:
        return np.asarray(self.scene["depth_mm"][self.time, self.camera])

    @property
    def body_id(self) -> NDArray[np.integer]:
        return np.asarray(self.scene["body_id"][self.time, self.camera])

    @property
    def world_from_camera(self) -> NDArray[np.float64]:
        return np.asarray(self.scene["world_from_camera"][self.camera], np.float64)

    @property
    def world_from_body(self) -> NDArray[np.float64]:
        return np.asarray(self.scene["world_from_body"][self.time], np.float64)

    @property
    def source_camera(self) -> CameraModel:
        """Of the whole frame."""
        height, width = self.scene["depth_mm"].shape[2:]
        return CameraModel.from_k(np.asarray(self.scene["k"], np.float64), width, height)

    def image(self) -> NDArray[np.uint8]:
        """(height, width, 3) what the window shows, without dots."""
        return self.crop.image(np.asarray(self.scene["rgb"][self.time, self.camera]), self.width, self.height)

    def cells(self, of_frame: NDArray, rows: int, columns: int) -> NDArray:
        """(rows, columns) of an array of the frame, nearest to the middles of so many cells of the window."""
        return self.crop.nearest(of_frame, columns, rows)

    def pick(self, rng: np.random.Generator, mask: NDArray[np.bool_], count: int) -> NDArray[np.int64]:
        """(count, 2) pixels (u, v) of the frame inside the window where `mask` holds; none when there are none."""
        crop = self.crop
        window = mask[crop.y : crop.y + crop.height, crop.x : crop.x + crop.width]
        flat = np.flatnonzero(window)
        if flat.size == 0:
            return np.empty((0, 2), np.int64)
        v, u = np.divmod(flat[rng.integers(flat.size, size=count)], crop.width)
        return np.stack([u + crop.x, v + crop.y], axis=1)

    def shown_at(self, pixels: NDArray[np.floating | np.integer]) -> NDArray[np.float64]:
        """(N, 2) pixels of the image that lie at pixels of the frame."""
        u, v = self.crop.to_output(pixels[:, 0], pixels[:, 1], self.width, self.height)
        return np.stack([u, v], axis=1).astype(np.float64)

    def coordinates(self, pixels: NDArray[np.int64]) -> list[tuple[int, int]]:
        """Where pixels of the frame lie in the image, as questions say it."""
        return [
            pixel_to_coordinate((u, v), self.width, self.height) for u, v in self.shown_at(pixels).tolist()
        ]

    @property
    def is_thing(self) -> NDArray[np.bool_]:
        """(B,) which bodies are things; all where a scene has no words for them."""
        if "body_category" not in self.scene:
            return np.ones(256, bool)
        return np.array([is_thing(str(category)) for category in self.scene["body_category"]])

    def in_world(self, pixels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(N, 3) points of the world that pixels of the frame show, metres, and (N,) the body of each."""
        depths_m = self.depth_mm[pixels[:, 1], pixels[:, 0]] / 1e3
        in_camera = self.source_camera.rays(pixels.astype(np.float64)) * depths_m[:, None]
        pose = self.world_from_camera
        body = self.body_id[pixels[:, 1], pixels[:, 0]].astype(np.int64)
        return in_camera @ pose[:3, :3].T + pose[:3, 3], body

    def sees(self, in_world: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """(N,) which points of the world the image shows, nothing before them, and (N, 2) at which of its pixels."""
        pose = self.world_from_camera
        in_camera = (in_world - pose[:3, 3]) @ pose[:3, :3]
        z = in_camera[:, 2]
        seen_at = self.source_camera.project(in_camera)
        shown_at = self.shown_at(seen_at)
        depth_mm = self.depth_mm
        inside = (z > 0) & ((shown_at >= 0) & (shown_at <= (self.width - 1, self.height - 1))).all(axis=1)
        nearest = np.zeros(seen_at.shape, np.int64)
        nearest[inside] = np.rint(seen_at[inside]).astype(np.int64)
        nearest = np.clip(nearest, 0, (depth_mm.shape[1] - 1, depth_mm.shape[0] - 1))
        off = np.abs(depth_mm[nearest[:, 1], nearest[:, 0]] / 1e3 - z)
        return inside & (off <= np.maximum(_HIDDEN_M, _HIDDEN_SHARE * z)), shown_at


def carried(
    first: SceneView, second: SceneView, in_world: NDArray[np.float64], body: NDArray[np.int64]
) -> NDArray[np.float64]:
    """(N, 3) where points of bodies are at the second frame's time."""
    change = second.world_from_body[body] @ np.linalg.inv(first.world_from_body[body])
    return np.einsum("nij,nj->ni", change[:, :3, :3], in_world) + change[:, :3, 3]


def moved_bodies(first: SceneView, second: SceneView) -> NDArray[np.int64]:
    """Numbers of the bodies that are elsewhere at the second frame's time."""
    change = np.abs(first.world_from_body - second.world_from_body).max(axis=(1, 2))
    return np.flatnonzero(change > 1e-4)
