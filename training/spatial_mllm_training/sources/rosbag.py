"""Recordings of a robot's own camera as scenes; knows nothing about questions.

A ROS 2 bag (or a ROS 1 one) with colour images, CameraInfo, depth in the colour camera's frame, and
either transforms or a pose topic. Visibility and answers use `SceneFrame.camera`, which keeps the lens
distortion of CameraInfo: the pictures are the recorded ones, never rectified here.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.bags import BagReader, open_bag
from spatial_mllm_core.bags.framing import is_rectified
from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.images import decode_any, decode_depth
from spatial_mllm_training.sources.bag_index import (
    FIELD_ERRORS,
    NO_DEPTH,
    BagIndex,
    BagOptions,
    Series,
    choose_topics,
    index_bag,
    pose_topics,
)
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneProblem, SceneRef
from spatial_mllm_training.sources.reading import safe_name
from spatial_mllm_training.sources.tf_tree import MissingTransformError

SOURCE = "rosbag"
_SUFFIXES = (".mcap", ".db3", ".bag")
#: Frames whose z axis is up by convention (REP-105, REP-103), the likeliest to be consistent first.
UPRIGHT_FRAMES = ("map", "odom", "world")
_DEPTH_TOLERANCE_NS = 20_000_000  # half a period at 25 Hz; the camera moves a few millimetres meanwhile
_TURN_RAD = np.deg2rad(5.0)
_SAME_K_PX = 0.5


def find_scenes(
    path: Path,
    *,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
    depth_camera_info: str | None = None,
    pose: str | None = None,
    fixed_frame: str | None = None,
    every: int = 1,
    min_baseline_m: float = 0.0,
    moving: bool = False,
    max_gap_s: float = 1.0,
) -> list[SceneRef]:
    """Return the scene of a bag, or of each bag directly in a folder; nothing is opened yet.

    A folder with metadata.yaml, or a file, is a bag. For the options see `BagOptions`.

    Raises:
        SceneProblem: there is no bag.
    """
    options = BagOptions(
        image,
        camera_info,
        depth,
        depth_camera_info,
        pose,
        fixed_frame,
        every,
        min_baseline_m,
        moving,
        max_gap_s,
    )
    path = Path(os.path.abspath(path))
    bags = [path] if _is_bag(path) else []
    if path.is_dir() and not bags:
        bags = sorted(child for child in path.iterdir() if _is_bag(child))
    if not bags:
        raise SceneProblem(
            path.name,
            str(path),
            "is no bag, and none lies in it (a folder with metadata.yaml, or a file .mcap, .db3 or .bag)",
        )
    return [SceneRef(_name(bag), SOURCE, open_scene, (bag, options)) for bag in bags]


def open_scene(path: Path, options: BagOptions) -> RosbagScene:
    """Read a bag once for what it holds; its pictures are read when they are asked for.

    Raises:
        SceneProblem: it cannot be read, or lacks images, calibration or poses.
    """
    return RosbagScene(path, options)


def _is_bag(path: Path) -> bool:
    return (path.is_file() and path.suffix in _SUFFIXES) or (path / "metadata.yaml").is_file()


def _name(bag: Path) -> str:
    return safe_name(bag.stem if bag.is_file() else bag.name)


class RosbagScene(Scene):
    """The frames of one camera of a bag; the bag stays open until `close`."""

    source = SOURCE

    def __init__(self, path: Path, options: BagOptions) -> None:
        self.name = _name(path)
        self.path, self.skipped, self.moving = path, [], options.moving
        self._options = options
        if options.every < 1:
            raise self._problem(f"cannot be read with every={options.every}; 1 is each image")
        self._models: dict[tuple[int, tuple[int, int]], CameraModel] = {}
        try:
            self._bag = open_bag(path)
        except SpatialError as error:
            raise self._problem(error.sentence) from error
        try:
            self._open(self._bag)
        except BaseException as error:
            self._bag.close()
            if isinstance(error, SpatialError):
                raise self._problem(error.sentence) from error
            raise

    def _open(self, bag: BagReader) -> None:
        options = self._options
        self._topics = choose_topics(bag, options)
        self._index = index_bag(bag, self._topics, max_gap_s=options.max_gap_s)
        if not bag.verdict.is_complete:
            self.skipped.append(str(self._problem(bag.verdict.sentence)))
        if not self._index.images.times_ns:
            raise self._problem(f"has no readable image on {self._topics.image}")
        self._check_depth_frame(self._index)
        self.fixed_frame = self._fixed_frame(self._index)
        upright = self.fixed_frame.rpartition("/")[2] in UPRIGHT_FRAMES
        self.world_up = np.array([0.0, 0.0, 1.0]) if upright else None
        self._depth_of: list[int] = []
        self.frames = []
        self._choose_frames()

    def image(self, index: int) -> NDArray[np.uint8]:
        rgb = self._read_rgb(int(self.frames[index].name))
        camera = self.frames[index].camera
        if rgb.shape[:2] != (camera.height, camera.width):
            raise self._problem(
                f"has an image of {rgb.shape[1]}x{rgb.shape[0]} px at {self.frames[index].name} ns, expected "
                f"{camera.width}x{camera.height}"
            )
        return rgb

    def depth_m(self, index: int) -> NDArray[np.float32]:
        if not self.has_depth:
            raise self._problem("was read without depth")
        depth_m = self._read_depth(self._depth_of[index])
        camera = self.frames[index].depth_camera or self.frames[index].camera
        if depth_m.shape != (camera.height, camera.width):
            raise self._problem(
                f"has depth of {depth_m.shape[1]}x{depth_m.shape[0]} px at {self._depth_of[index]} ns, expected "
                f"{camera.width}x{camera.height}"
            )
        return depth_m

    @property
    def has_depth(self) -> bool:
        return self._topics.depth is not None

    def close(self) -> None:
        self._bag.close()

    # ---- inside ---------------------------------------------------------------------------

    def _choose_frames(self) -> None:
        """Fill `frames`: each n-th image that has calibration, pose and, where the bag has it, depth."""
        left_out: dict[str, list[str]] = {}
        depth_stamps = np.array(sorted(self._index.depths.times_ns), np.int64)
        last: NDArray[np.float64] | None = None
        for stamp_ns in sorted(self._index.images.times_ns)[:: self._options.every]:
            try:
                pose = self._index.transforms.lookup(self.fixed_frame, self._index.images.frame_id, stamp_ns)
            except MissingTransformError as error:
                left_out.setdefault(error.edge, []).append(error.sentence)
                continue
            depth_ns = _nearest(depth_stamps, stamp_ns)
            if self.has_depth and (depth_ns is None or abs(depth_ns - stamp_ns) > _DEPTH_TOLERANCE_NS):
                left_out.setdefault("depth", []).append(
                    f"there is no depth within {_DEPTH_TOLERANCE_NS // 10**6} ms of the image at {stamp_ns} ns"
                )
                continue
            if last is not None and _is_near(last, pose, self._options.min_baseline_m):
                continue
            last = pose
            self.frames.append(
                SceneFrame(
                    str(stamp_ns),
                    self._camera(stamp_ns),
                    pose,
                    state=len(self.frames) if self.moving else 0,
                    time_s=stamp_ns / 1e9,
                    depth_camera=None if depth_ns is None else self._depth_camera(depth_ns, stamp_ns),
                )
            )
            self._depth_of.append(depth_ns if depth_ns is not None else 0)
        sentences = [
            group[0]
            + (f"; {len(group)} images are left out for this" if len(group) > 1 else "; it is left out")
            for group in left_out.values()
        ]
        if not self.frames:
            raise self._problem("gives no frame: " + "; ".join(group[0] for group in left_out.values()))
        if others := self._index.images.other_frames:
            sentences.append(
                f"{others} images of another frame than '{self._index.images.frame_id}' are left out"
            )
        self.skipped += [str(self._problem(sentence)) for sentence in sentences]

    def _fixed_frame(self, index: BagIndex) -> str:
        camera = index.images.frame_id
        try:
            above = index.transforms.chain(camera)
        except MissingTransformError as error:
            raise self._problem(error.sentence) from error
        if self._options.fixed_frame is not None:
            return self._options.fixed_frame.lstrip("/")
        if len(above) < 2:
            poses = pose_topics(self._bag.topics())
            raise self._problem(
                f"has no transform that leads to the camera's frame '{camera}'; record /tf and /tf_static too"
                + (f", or say which topic is the camera's pose: {', '.join(poses)}" if poses else "")
            )
        for name in UPRIGHT_FRAMES:
            for frame in above[1:]:
                if frame.rpartition("/")[2] == name:
                    return frame
        if all(index.transforms.is_static(frame) for frame in above[:-1]):
            raise self._problem(
                f"has only static transforms from '{camera}' up to '{above[-1]}'; record /tf too, name a pose topic, "
                f"or say fixed_frame={above[-1]} where the camera stood still"
            )
        return above[-1]

    def _check_depth_frame(self, index: BagIndex) -> None:
        if not self.has_depth:
            return
        if not index.depths.times_ns:
            raise self._problem(
                f"has no readable depth on {self._topics.depth}; depth={NO_DEPTH} reads without it"
            )
        if index.depths.frame_id != index.images.frame_id:
            raise self._problem(
                f"has depth of the frame '{index.depths.frame_id}' on {self._topics.depth} but images of "
                f"'{index.images.frame_id}'; record depth registered to the colour camera, or say depth={NO_DEPTH}"
            )

    def _camera(self, stamp_ns: int) -> CameraModel:
        info = self._index.infos.at(stamp_ns)
        if info is None:
            raise self._problem(f"has no CameraInfo for {self._topics.image}")
        if str(info.header.frame_id).lstrip("/") != self._index.images.frame_id:
            raise self._problem(
                f"has CameraInfo of '{info.header.frame_id}' on {self._topics.camera_info} but images of "
                f"'{self._index.images.frame_id}'"
            )
        return self._model(info, self._topics.image, self._image_size)

    def _depth_camera(self, depth_ns: int, stamp_ns: int) -> CameraModel | None:
        """Return the camera of the depth image, or None where it is the colour image's."""
        colour = self._camera(stamp_ns)
        info, size = self._index.depth_infos.at(depth_ns), self._depth_size
        if info is None:
            if size != (colour.width, colour.height):
                raise self._problem(
                    f"has depth of {size[0]}x{size[1]} px for images of {colour.width}x{colour.height} px and no "
                    "CameraInfo for the depth"
                )
            return None
        depth = self._model(info, str(self._topics.depth), size)
        same = size == (colour.width, colour.height) and np.abs(depth.k - colour.k).max() <= _SAME_K_PX
        return None if same else depth

    def _model(self, info: object, topic: str, size: tuple[int, int]) -> CameraModel:
        key = (id(info), size)  # infos live as long as the index
        if key not in self._models:
            self._models[key] = CameraModel.from_camera_info(
                info, image_size=size, rectified=is_rectified(topic)
            )
        return self._models[key]

    @cached_property
    def _image_size(self) -> tuple[int, int]:
        """(width, height) of the first image that opens."""
        rgb = self._first(self._index.images, self._read_rgb)
        return rgb.shape[1], rgb.shape[0]

    @cached_property
    def _depth_size(self) -> tuple[int, int]:
        depth_m = self._first(self._index.depths, self._read_depth)
        return depth_m.shape[1], depth_m.shape[0]

    def _first(self, series: Series, read: Callable[[int], NDArray[Any]]) -> NDArray[Any]:
        problem: SceneProblem | None = None
        for stamp_ns in series.times_ns:
            try:
                return read(stamp_ns)
            except SceneProblem as error:
                problem = error
        assert problem is not None  # an empty series is refused before
        raise problem

    def _read_rgb(self, stamp_ns: int) -> NDArray[np.uint8]:
        return self._read(self._topics.image, self._index.images, stamp_ns, decode_any)

    def _read_depth(self, stamp_ns: int) -> NDArray[np.float32]:
        depth_m = self._read(str(self._topics.depth), self._index.depths, stamp_ns, decode_depth)
        return np.nan_to_num(depth_m, copy=True, nan=0.0, posinf=0.0, neginf=0.0)

    def _read(self, topic: str, series: Series, stamp_ns: int, decode: Callable[[Any], Any]) -> Any:
        """Read and decode one message from where it lies in the bag."""
        log_time_ns = series.times_ns[stamp_ns]
        try:
            for stored in self._bag.messages([topic], start_ns=log_time_ns, stop_ns=log_time_ns + 1):
                if stamp_ns_of(stored.message) == stamp_ns:
                    return decode(stored.message)
        except SpatialError as error:
            raise self._problem(f"{error.sentence} ({topic} at {stamp_ns} ns)") from error
        except FIELD_ERRORS as error:
            raise self._problem(
                f"has a message of {topic} that is not what its type says ({error})"
            ) from error
        raise self._problem(f"no longer holds the message of {topic} at {stamp_ns} ns")

    def _problem(self, sentence: str) -> SceneProblem:
        return SceneProblem(self.name, str(self.path), sentence)


def _nearest(stamps: NDArray[np.int64], stamp_ns: int) -> int | None:
    if not len(stamps):
        return None
    after = int(np.searchsorted(stamps, stamp_ns))
    around = stamps[max(0, after - 1) : after + 1]
    return int(around[np.argmin(np.abs(around - stamp_ns))])


def _is_near(first: NDArray[np.float64], second: NDArray[np.float64], baseline_m: float) -> bool:
    cosine = (np.trace(first[:3, :3].T @ second[:3, :3]) - 1) / 2
    return bool(
        np.linalg.norm(first[:3, 3] - second[:3, 3]) < baseline_m
        and np.arccos(np.clip(cosine, -1, 1)) < _TURN_RAD
    )
