"""Simulated scene files as scenes with exact objects and tracks; knows nothing about how they were drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.scenes.record import MAX_DEPTH_M, SceneRecord, is_thing
from spatial_mllm_training.scenes.split import seed_of
from spatial_mllm_training.sources.base import (
    PointTracks,
    Scene,
    SceneFrame,
    SceneObject,
    SceneProblem,
    SceneRef,
)
from spatial_mllm_training.sources.fuse import fuse_depth

SOURCE = "simulated"
_UPRIGHT_DEG = 1.0
# Things on tables are small: points 2 cm apart would not tell how long they are.
_SMALL_M = 0.4
_COARSE_VOXEL_M, _MOST_COARSE = 0.02, 150_000
_FINE_VOXEL_M, _MOST_FINE = 0.005, 50_000
_TRACKS_A_BODY = 40
_SEEN_M, _SEEN_RELATIVE = 0.01, 0.01  # how far a followed point may be from the depth at its pixel


def find_scenes(path: Path) -> list[SceneRef]:
    """Return the scenes of a folder that `make_scenes` wrote, in order of seeds, or one of its files.

    Raises:
        SceneProblem: there is none, or a file is not named after its seed, which decides its split.
    """
    files = [path] if path.is_file() else sorted(path.glob("scene_*.npz"))
    if not files:
        raise SceneProblem(path.name, str(path), "holds no scene_*.npz; run make_scenes")
    refs = []
    for file in files:
        try:
            seed = seed_of(file)
        except (ValueError, IndexError):
            raise SceneProblem(
                file.stem, str(file), "is not named scene_<seed>.npz; the seed decides its split"
            ) from None
        refs.append(SceneRef(file.stem, SOURCE, open_scene, (file, seed), seed))
    return refs


def open_scene(path: Path, seed: int) -> SimulatedScene:
    """Open the scene of `seed`; its pictures stay on disk until they are asked for.

    Raises:
        SceneProblem: the file is missing, truncated, not a scene, or of another seed.
    """
    try:
        arrays = map_npz(path)
        values = {f.name: arrays[f.name] for f in fields(SceneRecord)}
        record = SceneRecord(**{**values, "kind": str(values["kind"]), "seed": int(values["seed"])})
        record.validate()
    except Exception as error:  # zipfile and numpy raise a dozen kinds for a broken file
        raise SceneProblem(path.stem, str(path), f"is not a whole scene: {error}") from error
    if record.seed != seed:
        raise SceneProblem(path.stem, str(path), f"holds the scene of seed {record.seed}")
    return SimulatedScene(path.stem, record)


class SimulatedScene(Scene):
    """T steps seen by C still cameras: frame t C + c is camera c at step t, whose state is t."""

    source = SOURCE
    depth_is_noisy = False

    def __init__(self, name: str, record: SceneRecord) -> None:
        self.name, self.record = name, record
        self.world_up = np.array([0.0, 0.0, 1.0])
        self.skipped = []
        steps, cameras, height, width = record.depth_mm.shape
        self._camera = CameraModel.from_k(record.k, width, height)
        self.frames = [
            SceneFrame(
                f"t{step:02d}_c{view:02d}",
                self._camera,
                np.array(record.world_from_camera[view]),
                state=step,
                time_s=float(step),
            )
            for step in range(steps)
            for view in range(cameras)
        ]
        self.moving = bool((record.world_from_body != record.world_from_body[:1]).any())
        self._points: dict[int, tuple[NDArray[np.float32], NDArray[np.int64]]] = {}

    def image(self, index: int) -> NDArray[np.uint8]:
        return np.array(self.record.rgb[self._place(index)])

    def depth_m(self, index: int) -> NDArray[np.float32]:
        return self.record.depth_mm[self._place(index)].astype(np.float32) / np.float32(1000)

    def body_ids(self, index: int) -> NDArray[np.uint8]:
        """(H, W) the body at each pixel of frame `index`; 0 is the world that never moves."""
        return np.array(self.record.body_id[self._place(index)])

    def points_m(self, state: int) -> NDArray[np.float32]:
        """(P, 3) world points that the cameras see at step `state`.

        One a voxel of 2 cm, of 5 mm on bodies smaller than 40 cm; 200,000 at most.
        """
        return self._points_and_bodies(state)[0]

    def objects(self, state: int) -> list[SceneObject]:
        """Boxes of the upright bodies at step `state` that are seen, without robots and gantries."""
        _, bodies = self._points_and_bodies(state)
        record, found = self.record, []
        for body, category in enumerate(map(str, record.body_category)):
            world_from_body = np.array(record.world_from_body[state, body])
            upright = world_from_body[2, 2] >= np.cos(np.radians(_UPRIGHT_DEG))
            if not is_thing(category) or not upright:
                continue
            ids = np.flatnonzero(bodies == body)
            if len(ids):
                size_m = np.array(record.body_size_m[body])
                found.append(SceneObject(f"{category}_{body}", category, world_from_body, size_m, ids))
        return found

    @cached_property
    def tracks(self) -> PointTracks:
        """Up to 40 points of each body, drawn by the scene's seed and carried by the body's true poses."""
        body, in_body = self._surface_points()
        poses = np.asarray(self.record.world_from_body, np.float64)[:, body]
        in_world = np.einsum("tnij,nj->tni", poses[..., :3, :3], in_body) + poses[..., :3, 3]
        visible = np.stack([self._sees(i, in_world[f.state], body) for i, f in enumerate(self.frames)])
        return PointTracks(in_world, visible, body)

    def _place(self, index: int) -> tuple[int, int]:
        return divmod(index, self.record.depth_mm.shape[1])

    def _points_and_bodies(self, state: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if state not in self._points:
            small = self.record.body_size_m.max(axis=1) < _SMALL_M
            small[0] = False
            coarse = self._fused(state, ~small, _COARSE_VOXEL_M, _MOST_COARSE)
            fine = self._fused(state, small, _FINE_VOXEL_M, _MOST_FINE)
            self._points[state] = (np.concatenate([coarse[0], fine[0]]), np.concatenate([coarse[1], fine[1]]))
        return self._points[state]

    def _fused(
        self, state: int, wanted: NDArray[np.bool_], voxel_m: float, most: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return points and their bodies, of the bodies that are `wanted` (B,)."""
        indices = [i for i, frame in enumerate(self.frames) if frame.state == state]

        def depths_m() -> Iterator[NDArray[np.float32]]:
            for index in indices:
                mask = wanted[self.body_ids(index)].astype(np.uint8)
                # A pixel around the bodies stays, so that their outlines are not taken for edges of depth.
                yield self.depth_m(index) * cv2.dilate(mask, np.ones((3, 3), np.uint8))

        fused = fuse_depth(
            [self._camera] * len(indices),
            [self.frames[i].world_from_camera for i in indices],
            depths_m(),
            voxel_m=voxel_m,
            max_points=most,
            max_depth_m=MAX_DEPTH_M,
        )
        bodies = self.record.body_id[state, fused.frame, fused.row, fused.column].astype(np.int64)
        kept = wanted[bodies]
        return fused.points_m[kept], bodies[kept]

    def _surface_points(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return body (N,) and points (N, 3) in the body's axes, of pixels inside the bodies' outlines."""
        rng = np.random.default_rng(self.record.seed)
        from_frames: dict[int, list[NDArray[np.float64]]] = {}
        for index, frame in enumerate(self.frames):
            ids, depth_m = self.body_ids(index), self.depth_m(index)
            inner = _inner(ids) & (depth_m > 0)
            order = np.flatnonzero(inner)[rng.permutation(int(inner.sum()))]
            order = order[np.argsort(ids.ravel()[order], kind="stable")]
            of_body, starts = np.unique(ids.ravel()[order], return_index=True)
            for body, start, end in zip(of_body, starts, [*starts[1:], len(order)], strict=True):
                v, u = np.divmod(order[start : min(end, start + _TRACKS_A_BODY)], ids.shape[1])
                in_camera = self._camera.rays(np.column_stack([u, v]).astype(float)) * depth_m[v, u, None]
                pose = np.linalg.inv(self.record.world_from_body[frame.state, body]) @ frame.world_from_camera
                from_frames.setdefault(int(body), []).append(in_camera @ pose[:3, :3].T + pose[:3, 3])
        bodies, points = [], []
        for body in sorted(from_frames):
            pool = np.concatenate(from_frames[body])
            chosen = rng.permutation(len(pool))[:_TRACKS_A_BODY]
            points.append(pool[chosen])
            bodies.append(np.full(len(chosen), body, np.int64))
        if not points:
            return np.zeros(0, np.int64), np.zeros((0, 3))
        return np.concatenate(bodies), np.concatenate(points)

    def _sees(self, index: int, in_world: NDArray[np.float64], body: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return (N,) whether the pixel of each point shows its body at its depth."""
        pose = self.frames[index].world_from_camera
        in_camera = (in_world - pose[:3, 3]) @ pose[:3, :3]
        ahead = in_camera[:, 2] > 0.01
        pixels = np.full((len(body), 2), -1.0)
        pixels[ahead] = self._camera.project(in_camera[ahead])
        u, v = np.floor(pixels + 0.5).astype(np.int64).T
        inside = ahead & (u >= 0) & (v >= 0) & (u < self._camera.width) & (v < self._camera.height)
        seen = np.zeros(len(body), bool)
        u, v, z = u[inside], v[inside], in_camera[inside, 2]
        depth_m, ids = self.depth_m(index)[v, u], self.body_ids(index)[v, u]
        near = np.abs(z - depth_m) <= np.maximum(_SEEN_M, _SEEN_RELATIVE * z)
        seen[inside] = (depth_m > 0) & near & (ids == body[inside])
        return seen


def _inner(ids: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return (H, W) True where all eight neighbours show the same body; depth there is the body's own."""
    inner = np.zeros(ids.shape, bool)
    core = ids[1:-1, 1:-1]
    inner[1:-1, 1:-1] = True
    for dv in range(3):
        for du in range(3):
            inner[1:-1, 1:-1] &= ids[dv : dv + core.shape[0], du : du + core.shape[1]] == core
    return inner
