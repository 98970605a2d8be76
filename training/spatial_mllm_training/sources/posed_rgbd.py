"""Plain folders of posed RGB-D, the layout to bring your own data in; knows nothing about questions.

    images/     JPEG or PNG, in natural order of names
    depth/      16-bit PNG of the same stems, z-depth; 0 = none
    poses.txt   a line per image: world_from_camera 4x4, row by row, metres, optical axes
    K.txt       3x3, px; K_depth.txt where depth has another size (same optical frame)
    scene.json  optional: {"name": "kitchen", "place": "flat_1", "world_up": [0, 0, 1],
                "depth_scale": 0.001, "image_size": [640, 480]}; "image_size" says what K is for

Nothing in images and poses tells which way is up. An option `world_up` is believed first (it holds
for all scenes of the path), then scene.json; without both it is unknown, and the scene gives no
yaw and pitch questions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.sources.base import SceneProblem, SceneRef
from spatial_mllm_training.sources.image_files import pictures_in
from spatial_mllm_training.sources.posed_files import DepthFormat, FrameFiles, Intrinsics, PosedFiles
from spatial_mllm_training.sources.reading import (
    check_stride,
    checked_pose,
    read_json,
    read_k,
    read_text,
    safe_name,
    scene_folders,
    unit_up,
)

SOURCE = "posed_rgbd"
_SCENE_KEYS = ("name", "place", "world_up", "depth_scale", "image_size")
_MILLIMETRES = 0.001


def find_scenes(
    path: Path,
    *,
    world_up: tuple[float, float, float] | None = None,
    depth_scale: float | None = None,
    stride: int = 1,
) -> list[SceneRef]:
    """Return the scene of a folder, or of each of its sub-folders that has the layout.

    Args:
        world_up: against gravity, in the world of the poses.
        depth_scale: metres of one step of the depth images; default as scene.json says, else 0.001.
        stride: use every n-th image.

    Raises:
        SceneProblem: there is none.
    """
    check_stride(path, stride)
    folders = scene_folders(path, _is_scene, expected="images/, depth/, poses.txt and K.txt")
    refs = []
    for folder in folders:
        try:
            about = _about(folder)
        except SceneProblem:  # that scene alone fails, when it is opened
            about = {}
        name = safe_name(str(about.get("name") or folder.name))
        place = str(about.get("place") or "")
        refs.append(
            SceneRef(name, SOURCE, open_scene, (folder, name, world_up, depth_scale, stride), place=place)
        )
    return refs


def open_scene(
    folder: Path,
    name: str,
    world_up: tuple[float, float, float] | None,
    depth_scale: float | None,
    stride: int,
) -> PosedFiles:
    """Open one folder. Raises SceneProblem."""
    about, about_file = _about(folder), folder / "scene.json"
    images = pictures_in(folder / "images")
    if not images:
        raise SceneProblem(name, str(folder / "images"), "holds no JPEG or PNG images")
    scale = _depth_scale(
        name, about_file, about.get("depth_scale", _MILLIMETRES) if depth_scale is None else depth_scale
    )
    rows = _pose_rows(name, folder / "poses.txt", len(images))
    frames, left_out = [], []
    for image, row in list(zip(images, rows, strict=True))[::stride]:
        try:
            pose = checked_pose(name, folder / "poses.txt", row)
        except SceneProblem as problem:
            left_out.append(SceneProblem(name, f"{problem.file} of image {image.name}", problem.sentence))
            continue
        frames.append(FrameFiles(safe_name(image.stem), image, folder / "depth" / f"{image.stem}.png", pose))
    depth_k = folder / "K_depth.txt"
    return PosedFiles(
        name,
        SOURCE,
        folder,
        frames,
        Intrinsics(
            read_k(name, folder / "K.txt"),
            folder / "K.txt",
            stated_size=_image_size(name, about_file, about.get("image_size")),
        ),
        DepthFormat(
            scale, intrinsics=Intrinsics(read_k(name, depth_k), depth_k) if depth_k.is_file() else None
        ),
        left_out=left_out,
        world_up=unit_up(name, about_file, about.get("world_up") if world_up is None else world_up),
    )


def _is_scene(folder: Path) -> bool:
    return (folder / "images").is_dir() or (folder / "poses.txt").is_file()


def _about(folder: Path) -> dict[str, object]:
    """What scene.json says, {} without one."""
    file = folder / "scene.json"
    if not file.is_file():
        return {}
    about = read_json(folder.name, file)
    unknown = sorted(set(about) - set(_SCENE_KEYS))
    if unknown:
        raise SceneProblem(
            folder.name,
            str(file),
            f"has unknown names {', '.join(unknown)}; known are {', '.join(_SCENE_KEYS)}",
        )
    return about


def _depth_scale(scene: str, file: Path, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise SceneProblem(
            scene, str(file), f"depth_scale should be metres per step, above 0 and up to 1, found {value}"
        )
    return float(value)


def _image_size(scene: str, file: Path, value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(side, int) for side in value):
        raise SceneProblem(scene, str(file), f"image_size should be [width, height] in px, found {value}")
    return value[0], value[1]


def _pose_rows(scene: str, file: Path, image_count: int) -> list[NDArray[np.float64]]:
    """(4, 4) of each line, one line per image; what they hold is not checked yet."""
    lines = [
        line for line in read_text(scene, file).splitlines() if line.strip() and not line.startswith("#")
    ]
    if len(lines) != image_count:
        raise SceneProblem(
            scene, str(file), f"has {len(lines)} poses for {image_count} images, so that none can be trusted"
        )
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(np.array(line.split(), np.float64).reshape(4, 4))
        except ValueError:
            raise SceneProblem(
                scene, str(file), f"pose {number} should be 16 numbers, found '{line[:60]}'"
            ) from None
    return rows
