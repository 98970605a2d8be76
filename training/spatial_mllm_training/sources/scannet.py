"""ScanNet scans exported with its SensReader as scenes; knows nothing about questions.

    <scan>/color/*.jpg, depth/*.png     uint16 millimetres, 0 = none; depth has its own size
           pose/*.txt                   world_from_camera; -inf where the tracking was lost
           intrinsic/intrinsic_color.txt, intrinsic_depth.txt, extrinsic_color.txt, extrinsic_depth.txt
           <scan>.txt                   optional: axisAlignment, colorWidth, ...
           <scan>_vh_clean_2.ply        optional: the mesh
           <scan>_vh_clean_2.0.010000.segs.json, <scan>.aggregation.json   optional: objects

The world is turned by axisAlignment, as published, so that walls follow x and y; scans without it
keep their own axes. z is up in both.
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.sources.base import SceneObject, SceneProblem, SceneRef
from spatial_mllm_training.sources.image_files import pictures_in
from spatial_mllm_training.sources.ply import read_vertices_m
from spatial_mllm_training.sources.posed_files import (
    DepthFormat,
    FrameFiles,
    Intrinsics,
    PosedFiles,
    each_pose,
    strided,
)
from spatial_mllm_training.sources.reading import (
    check_stride,
    checked_pose,
    read_k,
    read_pose,
    read_text,
    safe_name,
    scene_folders,
)
from spatial_mllm_training.sources.scannet_objects import read_objects

SOURCE = "scannet"
_SAME_FRAME_M, _SAME_FRAME = 1e-3, 1e-3  # metres; entries of a rotation, about 0.06 deg


def find_scenes(path: Path, *, stride: int = 5) -> list[SceneRef]:
    """Return the scan that `path` is, those in it, or those in its scans/ folders; scans of a room are one place.

    Args:
        stride: use every n-th frame, counted by the numbers in the files' names; 5 as published.

    Raises:
        SceneProblem: there is none.
    """
    check_stride(path, stride)
    expected = "color/, depth/, pose/ and intrinsic/ as SensReader exports them from a .sens file"
    return [
        SceneRef(
            safe_name(folder.name),
            SOURCE,
            open_scene,
            (folder, stride),
            place=re.sub(r"^(scene\d+)_\d+$", r"\1", folder.name),
        )
        for folder in scene_folders(path, _is_scene, levels=2, expected=expected)
    ]


def open_scene(folder: Path, stride: int) -> ScanNetScene:
    """Open one scan. Raises SceneProblem."""
    return ScanNetScene(folder, stride)


class ScanNetScene(PosedFiles):
    """A scan with, where they were downloaded, its mesh and objects."""

    def __init__(self, folder: Path, stride: int) -> None:
        name, facts_file = safe_name(folder.name), folder / f"{folder.name}.txt"
        facts = _read_facts(name, facts_file) if facts_file.is_file() else {}
        self._aligned_from_scan = _alignment(name, facts_file, facts)
        _check_one_optical_frame(name, folder / "intrinsic")
        images = pictures_in(folder / "color")
        if not images:
            raise SceneProblem(name, str(folder / "color"), "holds no JPEG or PNG images")
        poses, left_out = each_pose(
            strided(images, stride), lambda image: read_pose(name, folder / "pose" / f"{image.stem}.txt")
        )
        frames = [
            FrameFiles(
                safe_name(image.stem),
                image,
                folder / "depth" / f"{image.stem}.png",
                self._aligned_from_scan @ pose,
            )
            for image, pose in poses.items()
        ]
        super().__init__(
            name,
            SOURCE,
            folder,
            frames,
            _intrinsics(name, folder, "color", facts),
            DepthFormat(intrinsics=_intrinsics(name, folder, "depth", facts)),
            left_out=left_out,
            world_up=np.array([0.0, 0.0, 1.0]),
        )
        self.objects(0)  # a broken mesh or annotation is to be named when the scene is opened

    def points_m(self, state: int) -> NDArray[np.float32] | None:
        """(P, 3) vertices of the mesh in the aligned world, None where there is no mesh."""
        return self._mesh_m

    def objects(self, state: int) -> list[SceneObject]:
        """Boxes along the axes of the world around the annotated instances, [] without annotation."""
        return self._objects

    @cached_property
    def _mesh_m(self) -> NDArray[np.float32] | None:
        file = self.folder / f"{self.folder.name}_vh_clean_2.ply"
        if not file.is_file():
            return None
        aligned = self._aligned_from_scan
        points_m = read_vertices_m(self.name, file).astype(np.float64) @ aligned[:3, :3].T + aligned[:3, 3]
        return points_m.astype(np.float32)

    @cached_property
    def _objects(self) -> list[SceneObject]:
        if self._mesh_m is None:
            return []
        return read_objects(self.name, self.folder, self._mesh_m)


def _is_scene(folder: Path) -> bool:
    return (folder / "color").is_dir() or (folder / "pose").is_dir()


def _read_facts(scene: str, file: Path) -> dict[str, list[float]]:
    """The lines "name = numbers" of <scan>.txt; those of words are left out."""
    facts = {}
    for line in read_text(scene, file).splitlines():
        name, equals, text = line.partition("=")
        try:
            if equals:
                facts[name.strip()] = [float(word) for word in text.split()]
        except ValueError:
            continue
    return facts


def _alignment(scene: str, file: Path, facts: dict[str, list[float]]) -> NDArray[np.float64]:
    numbers = facts.get("axisAlignment")
    if numbers is None:
        return np.eye(4)
    if len(numbers) != 16:
        raise SceneProblem(scene, str(file), f"axisAlignment should be 16 numbers, found {len(numbers)}")
    try:
        return checked_pose(scene, file, np.reshape(numbers, (4, 4)))
    except SceneProblem as problem:
        raise SceneProblem(scene, str(file), f"axisAlignment {problem.sentence}") from None


def _intrinsics(scene: str, folder: Path, which: str, facts: dict[str, list[float]]) -> Intrinsics:
    file = folder / "intrinsic" / f"intrinsic_{which}.txt"
    width, height = facts.get(f"{which}Width"), facts.get(f"{which}Height")
    stated = (int(width[0]), int(height[0])) if width and height else None
    return Intrinsics(read_k(scene, file), file, stated_size=stated)


def _check_one_optical_frame(scene: str, folder: Path) -> None:
    """Refuse colour and depth cameras that stand apart; SensReader's exports have them in one place."""
    files = [folder / f"extrinsic_{which}.txt" for which in ("color", "depth")]
    if not all(file.is_file() for file in files):
        return
    colour, depth = (read_pose(scene, file) for file in files)
    apart = np.linalg.inv(colour) @ depth
    if np.linalg.norm(apart[:3, 3]) > _SAME_FRAME_M or np.abs(apart[:3, :3] - np.eye(3)).max() > _SAME_FRAME:
        raise SceneProblem(
            scene, str(files[1]), "depth and colour are of different places; register depth to colour first"
        )
