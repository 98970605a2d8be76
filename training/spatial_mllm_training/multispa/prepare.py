"""A scene with its visible points and depth samples at hand, as all generators need it; asks nothing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.visibility import VisiblePoints
from spatial_mllm_training.sources.base import Scene, SceneProblem
from spatial_mllm_training.sources.fuse import depth_edges, fuse_depth

#: Depth images and edge masks that stay in memory.
CACHE_MIB = 96
#: A scene of many states fuses at most this many times `max_points` over all of them.
STATE_SHARE, MIN_STATE_POINTS = 4, 1000


class PreparedScene:
    """What generators ask about: a scene, its visible points per state, its depth.

    Attributes:
        scene, config: as given to `prepare`.
        states: visible points by state; {} for a scene without depth.
        skipped: sentences about frames that were left out, those of the scene's reader first.
    """

    def __init__(
        self, scene: Scene, config: MultispaConfig, states: Mapping[int, VisiblePoints], skipped: list[str]
    ) -> None:
        self.scene, self.config, self.skipped = scene, config, skipped
        self.states = dict(states)
        self._kept = _Recent(CACHE_MIB << 20)

    def state_of(self, frame: int) -> int:
        return self.scene.frames[frame].state

    def sample_depth_m(self, frame: int, uv_px: ArrayLike) -> NDArray[np.float32]:
        """(N,) nearest depth sample at raw colour pixels (N, 2); 0 where there is none.

        Raises:
            SceneProblem: the depth does not open.
        """
        pixels = np.asarray(uv_px, dtype=np.float64).reshape(-1, 2)
        about = self.scene.frames[frame]
        depth_m = self._depth_m(frame)
        if about.depth_camera is not None:
            pixels = about.depth_camera.project(about.camera.rays(pixels))
        return _picked(depth_m, pixels)

    def edge_mask(self, frame: int) -> NDArray[np.bool_]:
        """(H, W) of the colour image: True where depth is missing or steps in the 3x3 neighbourhood.

        What a step is says `PointConfig`. Where depth has another size, the neighbourhood is 3x3
        of the coarser pixels. Read-only.

        Raises:
            SceneProblem: the depth does not open.
        """
        return self._kept.get(("edges", frame), lambda: self._find_edges(frame))

    def _depth_m(self, frame: int) -> NDArray[np.float32]:
        return self._kept.get(("depth", frame), lambda: read_depth_m(self.scene, frame, self._max_depth_m))

    @property
    def _max_depth_m(self) -> float:
        return self.config.visibility.max_depth_m

    def _find_edges(self, frame: int) -> NDArray[np.bool_]:
        about, points = self.scene.frames[frame], self.config.points
        depth_m = self._depth_m(frame)
        if about.depth_camera is None:
            return depth_edges(depth_m, points.edge_m, points.edge_relative)
        reach = -(-depth_m.shape[1] // about.camera.width)  # depth pixels per colour pixel, at least 1
        edges = depth_edges(depth_m, points.edge_m, points.edge_relative, size=2 * reach + 1)
        at = _depth_pixels(about.camera, about.depth_camera)
        return np.where(at >= 0, edges.reshape(-1)[at], True)


def prepare(scene: Scene, config: MultispaConfig, rng: np.random.Generator) -> PreparedScene:
    """Find the visible points of every state of a scene.

    Points are the source's own, or fused from depth where it has none. Own points beyond
    `max_points` are thinned by chance, but not in a scene with objects, which need them all.
    A frame whose depth does not open, or is empty, is left out with a sentence.

    Raises:
        SceneProblem: no frame of a scene with depth remains.
    """
    skipped = list(scene.skipped)
    states: dict[int, VisiblePoints] = {}
    if not scene.has_depth:
        return PreparedScene(scene, config, states, skipped)
    frames_of: dict[int, list[int]] = {}
    for index, frame in enumerate(scene.frames):
        frames_of.setdefault(frame.state, []).append(index)
    problems: dict[int, SceneProblem] = {}
    for state, indices in sorted(frames_of.items()):
        visible = _prepare_state(scene, state, indices, config, len(frames_of), rng, problems)
        if visible.frames:
            states[state] = visible
    skipped += [str(problem) for problem in problems.values()]
    if not states:
        first = next(iter(problems.values()), None)
        raise first or SceneProblem(scene.name, "its frames", "there is not one frame")
    return PreparedScene(scene, config, states, skipped)


def _prepare_state(
    scene: Scene,
    state: int,
    indices: list[int],
    config: MultispaConfig,
    state_count: int,
    rng: np.random.Generator,
    problems: dict[int, SceneProblem],
) -> VisiblePoints:
    numbers = config.visibility

    def depths(none_for_unreadable: bool) -> Iterator[tuple[int, NDArray[np.float32]]]:
        for index in indices:
            if index not in problems:
                try:
                    yield index, read_depth_m(scene, index, numbers.max_depth_m)
                    continue
                except SceneProblem as problem:
                    problems[index] = problem
            if none_for_unreadable:
                camera = _depth_camera(scene, index)
                yield index, np.zeros((camera.height, camera.width), np.float32)

    points_m, tested = scene.points_m(state), None
    if points_m is None:
        limit = min(
            numbers.max_points, max(MIN_STATE_POINTS, STATE_SHARE * numbers.max_points // state_count)
        )
        points_m = fuse_depth(
            (_depth_camera(scene, index) for index in indices),
            (scene.frames[index].world_from_camera for index in indices),
            (depth_m for _, depth_m in depths(True)),
            voxel_m=numbers.voxel_m,
            max_points=limit,
            max_depth_m=numbers.max_depth_m,
        ).points_m
    elif len(points_m) > numbers.max_points and not scene.objects(state):
        tested = np.sort(rng.choice(len(points_m), numbers.max_points, replace=False))
    views = ((index, scene.frames[index], depth_m) for index, depth_m in depths(False))
    return VisiblePoints(points_m, views, numbers, tested=tested)


def read_depth_m(scene: Scene, frame: int, max_depth_m: float) -> NDArray[np.float32]:
    """(h, w) z-depth of a frame, 0 = none or farther than `max_depth_m`; read-only.

    Raises:
        SceneProblem: it does not open, has not the size of its camera, or holds no depth.
    """
    name = f"frame {scene.frames[frame].name}"
    depth_m = np.asarray(scene.depth_m(frame), dtype=np.float32)
    camera = _depth_camera(scene, frame)
    if depth_m.shape != (camera.height, camera.width):
        found = "x".join(str(side) for side in depth_m.shape[::-1])
        raise SceneProblem(
            scene.name,
            name,
            f"the depth is {found} px but its camera is for {camera.width}x{camera.height} px",
        )
    usable = (depth_m > 0) & (depth_m <= max_depth_m)
    if not usable.any():
        raise SceneProblem(
            scene.name, name, f"the depth image holds no depth between 0 and {max_depth_m:g} m"
        )
    depth_m = np.where(usable, depth_m, np.float32(0))
    depth_m.setflags(write=False)
    return depth_m


def _depth_camera(scene: Scene, frame: int) -> CameraModel:
    about = scene.frames[frame]
    return about.camera if about.depth_camera is None else about.depth_camera


def _picked(depth_m: NDArray[np.float32], pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    height, width = depth_m.shape
    u, v = pixels.T
    with np.errstate(invalid="ignore"):
        inside = (u >= -0.5) & (u < width - 0.5) & (v >= -0.5) & (v < height - 0.5)
    out = np.zeros(len(pixels), np.float32)
    rows, columns = (np.floor(axis[inside] + 0.5).astype(np.int64) for axis in (v, u))
    out[inside] = depth_m[rows, columns]
    return out


@lru_cache(maxsize=4)
def _depth_pixels(camera: CameraModel, depth_camera: CameraModel) -> NDArray[np.int32]:
    """(H, W) flat index of the depth pixel that each colour pixel looks at, -1 where there is none."""
    v, u = np.mgrid[: camera.height, : camera.width]
    pixels = depth_camera.project(camera.rays(np.stack([u, v], axis=-1).reshape(-1, 2)))
    numbers = np.arange(depth_camera.height * depth_camera.width, dtype=np.float32) + 1
    at = _picked(numbers.reshape(depth_camera.height, depth_camera.width), pixels)
    return (at.astype(np.int32) - 1).reshape(camera.height, camera.width)


class _Recent:
    """The arrays that were asked for last, up to a size; read-only."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes = max_bytes, 0
        self._arrays: OrderedDict[tuple[str, int], NDArray[Any]] = OrderedDict()

    def get(self, key: tuple[str, int], make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        if key in self._arrays:
            self._arrays.move_to_end(key)
            return self._arrays[key]
        array = make()
        array.setflags(write=False)
        self._arrays[key] = array
        self._bytes += array.nbytes
        while self._bytes > self._max_bytes and len(self._arrays) > 1:
            self._bytes -= self._arrays.popitem(last=False)[1].nbytes
        return array
