"""7-Scenes sequences (Shotton et al., CVPR 2013) as scenes; knows nothing about questions.

    <scene>/seq-01/frame-000000.{color.png, depth.png, pose.txt}

Poses are world_from_camera, metres; depth is millimetres, 65535 and 0 = none. The data set names
no intrinsics but these for depth, 585 585 320 240, and colour is not registered to depth: as is
usual with these data both are taken as one camera, which is off by a few pixels near things. The
world is that of the first camera of a KinectFusion run: which way is up must be given.
"""

from __future__ import annotations

import re
from pathlib import Path

from spatial_mllm_training.sources.base import SceneProblem, SceneRef
from spatial_mllm_training.sources.image_files import natural
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
    k_of,
    read_pose,
    safe_name,
    scene_folders,
    unit_up,
)

SOURCE = "seven_scenes"
KINECT = (585.0, 585.0, 320.0, 240.0)
_COLOUR = ".color.png"
_NO_DEPTH = 65535


def find_scenes(
    path: Path,
    *,
    world_up: tuple[float, float, float] | None = None,
    intrinsics: tuple[float, float, float, float] = KINECT,
    stride: int = 5,
) -> list[SceneRef]:
    """Return the sequences of a data set, of one of its scenes, or the one that `path` is.

    The sequences of a scene are one place.

    Args:
        world_up: against gravity, in the world of the poses.
        intrinsics: fx, fy, cx, cy, px, of colour and depth.
        stride: use every n-th frame; they were taken at 30 Hz.

    Raises:
        SceneProblem: there is none.
    """
    check_stride(path, stride)
    folders = scene_folders(path, _is_scene, levels=2, expected="frame-000000.color.png in seq-01/")
    refs = []
    for folder in folders:
        is_numbered = re.fullmatch(r"seq-?\d+", folder.name) is not None
        name = safe_name(f"{folder.parent.name}_{folder.name}" if is_numbered else folder.name)
        place = folder.parent.name if is_numbered else ""
        refs.append(
            SceneRef(name, SOURCE, open_scene, (folder, name, world_up, intrinsics, stride), place=place)
        )
    return refs


def open_scene(
    folder: Path,
    name: str,
    world_up: tuple[float, float, float] | None,
    intrinsics: tuple[float, float, float, float],
    stride: int,
) -> PosedFiles:
    """Open one sequence. Raises SceneProblem."""
    images = sorted(folder.glob(f"frame-*{_COLOUR}"), key=natural)
    if not images:
        raise SceneProblem(name, str(folder), f"holds no frame-*{_COLOUR}")
    images = strided(images, stride)
    poses, left_out = each_pose(images, lambda image: read_pose(name, _beside(image, ".pose.txt")))
    frames = [
        FrameFiles(safe_name(_beside(image, "").name), image, _beside(image, ".depth.png"), pose)
        for image, pose in poses.items()
    ]
    return PosedFiles(
        name,
        SOURCE,
        folder,
        frames,
        Intrinsics(k_of(*intrinsics), folder),
        DepthFormat(none=(_NO_DEPTH,)),
        left_out=left_out,
        world_up=unit_up(name, folder, world_up),
    )


def _is_scene(folder: Path) -> bool:
    return next(folder.glob("frame-*"), None) is not None


def _beside(image: Path, ending: str) -> Path:
    return image.with_name(image.name[: -len(_COLOUR)] + ending)
