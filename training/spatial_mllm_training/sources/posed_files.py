"""Scenes whose frames are an image file, a depth file and a pose each; knows no folder layout."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneProblem
from spatial_mllm_training.sources.image_files import read_rgb, read_uint16
from spatial_mllm_training.sources.reading import camera_of, summarise

_WHOLE_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # of a JPEG, of a PNG


@dataclass(frozen=True)
class FrameFiles:
    """One frame on disk; fields as of `SceneFrame`."""

    name: str
    image: Path
    depth: Path
    world_from_camera: NDArray[np.float64]
    state: int = 0
    time_s: float = float("nan")


@dataclass(frozen=True)
class Intrinsics:
    """K as a layout gives it, before the size of the images is known.

    Attributes:
        k: (3, 3) px.
        file: where it was read.
        d: plumb_bob coefficients, () for none.
        stated_size: (width, height) that K is said to be for, None where nothing says so.
    """

    k: NDArray[np.float64]
    file: Path
    d: tuple[float, ...] = ()
    stated_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class DepthFormat:
    """What the samples of a 16-bit depth image mean.

    Attributes:
        unit_m: metres of one step.
        none: samples that mean "no depth" beside 0.
        intrinsics: of the depth images, None where depth is registered pixel by pixel.
    """

    unit_m: float = 0.001
    none: tuple[int, ...] = field(default=())
    intrinsics: Intrinsics | None = None


class PosedFiles(Scene):
    """A scene of files. One camera took all images; pictures are read when they are asked for.

    A frame whose image or depth is missing or cut short is left out with a sentence.

    Raises:
        SceneProblem: no frame remains, two have one name, K does not fit the images, or depth has
            another size than colour and no intrinsics of its own.
    """

    def __init__(
        self,
        name: str,
        source: str,
        folder: Path,
        frames: Sequence[FrameFiles],
        intrinsics: Intrinsics,
        depth: DepthFormat,
        *,
        left_out: Sequence[SceneProblem] = (),
        world_up: NDArray[np.float64] | None = None,
        moving: bool = False,
    ) -> None:
        self.name, self.source, self.folder = name, source, folder
        self.world_up, self.moving = world_up, moving
        self._depth = depth
        self._check_names(frames)
        problems = list(left_out)
        self._files = [frame for frame in frames if not self._is_broken(frame, problems)]
        rgb_size, depth_size = self._sizes(problems)
        if not self._files:
            if not problems:
                raise SceneProblem(name, str(folder), "holds no frames")
            first = problems[0]
            raise SceneProblem(name, first.file, f"{first.sentence}; no frame of the scene can be used")
        self.skipped = summarise(problems)
        camera = self._camera(intrinsics, rgb_size)
        depth_camera = self._depth_camera(camera, depth_size)
        self.frames = [
            SceneFrame(f.name, camera, f.world_from_camera, f.state, f.time_s, depth_camera)
            for f in self._files
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        file = self._files[index].image
        rgb = read_rgb(self.name, file)
        self._check_size(file, rgb, self.frames[index].camera)
        return rgb

    def depth_m(self, index: int) -> NDArray[np.float32]:
        """(h, w) z-depth, 0 = none; raises SceneProblem, also when there is none at all."""
        file, frame = self._files[index].depth, self.frames[index]
        samples = read_uint16(self.name, file)
        self._check_size(file, samples, frame.depth_camera or frame.camera)
        for none in self._depth.none:
            samples[samples == none] = 0
        if not samples.any():
            raise SceneProblem(self.name, str(file), "holds no depth at all, every pixel is empty")
        return samples * np.float32(self._depth.unit_m)

    def _check_names(self, frames: Sequence[FrameFiles]) -> None:
        seen: dict[str, Path] = {}
        for frame in frames:
            other = seen.setdefault(frame.name, frame.image)
            if other != frame.image:
                raise SceneProblem(
                    self.name, str(frame.image), f"has the same name as {other.name}, apart from its ending"
                )

    def _is_broken(self, frame: FrameFiles, problems: list[SceneProblem]) -> bool:
        """Whether a file of the frame is missing or cut short; its whole content is not read for that."""
        for file, read in ((frame.image, read_rgb), (frame.depth, read_uint16)):
            try:
                if not _ends_whole(file):
                    read(self.name, file)
            except SceneProblem as problem:
                problems.append(problem)
                return True
        return False

    def _sizes(self, problems: list[SceneProblem]) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width, height) of colour and depth in the first frame that opens; those before it are dropped."""
        while self._files:
            try:
                rgb = read_rgb(self.name, self._files[0].image)
                samples = read_uint16(self.name, self._files[0].depth)
                return _size(rgb), _size(samples)
            except SceneProblem as problem:
                problems.append(problem)
                self._files.pop(0)
        return (0, 0), (0, 0)

    def _camera(self, intrinsics: Intrinsics, size: tuple[int, int]) -> CameraModel:
        return camera_of(
            self.name,
            intrinsics.file,
            intrinsics.k,
            size,
            d=intrinsics.d,
            stated_size=intrinsics.stated_size,
        )

    def _depth_camera(self, camera: CameraModel, size: tuple[int, int]) -> CameraModel | None:
        if self._depth.intrinsics is not None:
            own = self._camera(self._depth.intrinsics, size)
            return None if own == camera else own
        if size != (camera.width, camera.height):
            raise SceneProblem(
                self.name,
                str(self._files[0].depth),
                f"is {size[0]}x{size[1]} px, but the colour image is {camera.width}x{camera.height} px, and "
                "there are no intrinsics of the depth camera",
            )
        return None

    def _check_size(self, file: Path, pixels: NDArray[np.generic], camera: CameraModel) -> None:
        if _size(pixels) != (camera.width, camera.height):
            found = "x".join(map(str, _size(pixels)))
            raise SceneProblem(
                self.name,
                str(file),
                f"is {found} px, expected {camera.width}x{camera.height} as in other frames",
            )


def strided(files: Sequence[Path], stride: int) -> list[Path]:
    """Every `stride`-th frame by the last number in its name, counted from the first file's.

    So an export that left out frames already loses no more of them. Names without a number count
    by their place.
    """
    numbers = [re.findall(r"\d+", file.name.split(".")[0]) for file in files]
    if not all(numbers):
        return list(files[::stride])
    first = int(numbers[0][-1]) if numbers else 0
    return [file for file, n in zip(files, numbers, strict=True) if (int(n[-1]) - first) % stride == 0]


def each_pose(
    files: Sequence[Path], read: Callable[[Path], NDArray[np.float64]]
) -> tuple[dict[Path, NDArray[np.float64]], list[SceneProblem]]:
    """The pose of each file that has one, and why the others have none."""
    poses: dict[Path, NDArray[np.float64]] = {}
    problems: list[SceneProblem] = []
    for file in files:
        try:
            poses[file] = read(file)
        except SceneProblem as problem:
            problems.append(problem)
    return poses, problems


def _ends_whole(file: Path) -> bool:
    """Whether a JPEG or PNG has its end mark; False asks for a closer look."""
    try:
        with file.open("rb") as opened:
            opened.seek(-8, 2)
            return opened.read().endswith(_WHOLE_ENDS)
    except OSError:
        return False


def _size(pixels: NDArray[np.generic]) -> tuple[int, int]:
    return pixels.shape[1], pixels.shape[0]
