"""TUM RGB-D sequences (Sturm et al., IROS 2012) as scenes; knows nothing about questions.

    rgb.txt, depth.txt   "timestamp file" a line
    groundtruth.txt      "timestamp tx ty tz qx qy qz qw" a line: world_from_camera of the colour camera
    K.txt                optional 3x3, px, without distortion

Depth is registered to the colour image, 5000 steps a metre, 0 = none. The world is that of the
motion capture system, whose z axis is up. An image takes the depth nearest in time, up to 20 ms
away, as the data set's own associate.py does; its pose is interpolated at the image's time.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from spatial_mllm_training.sources.base import SceneProblem, SceneRef
from spatial_mllm_training.sources.posed_files import DepthFormat, FrameFiles, Intrinsics, PosedFiles
from spatial_mllm_training.sources.reading import (
    check_stride,
    k_of,
    read_k,
    read_text,
    safe_name,
    scene_folders,
)

SOURCE = "tum"
MAX_DEPTH_OFFSET_S = 0.02
MAX_POSE_GAP_S = 0.1
_DEPTH_UNIT_M = 1 / 5000
_UNIT_TOLERANCE = 0.01
_ROS_DEFAULT = ((525.0, 525.0, 319.5, 239.5), ())
# K and distortion of the colour cameras, from the data set's page.
_CAMERAS: dict[str, tuple[tuple[float, float, float, float], tuple[float, ...]]] = {
    "freiburg1": (
        (517.306408, 516.469215, 318.643040, 255.313989),
        (0.262383, -0.953104, -0.005358, 0.002628, 1.163314),
    ),
    "freiburg2": (
        (520.908620, 521.007327, 325.141442, 249.701764),
        (0.231222, -0.784899, -0.003257, -0.000105, 0.917205),
    ),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
_PEOPLE = ("walking", "sitting", "with_person")


def find_scenes(
    path: Path,
    *,
    stride: int = 5,
    intrinsics: tuple[float, float, float, float] | None = None,
    moving: bool | None = None,
) -> list[SceneRef]:
    """Return the sequence that `path` is, or those in it; all of one laboratory are one place.

    Args:
        stride: use every n-th colour image; they were taken at 30 Hz.
        intrinsics: fx, fy, cx, cy, px, without distortion; default K.txt of the sequence, then the
            published ones of freiburg1 to 3 by the folder's name, then ROS's 525 525 319.5 239.5.
        moving: things move, so that no two images show the same world; default by the folder's name
            (sequences with people).

    Raises:
        SceneProblem: there is none.
    """
    check_stride(path, stride)
    refs = []
    for folder in scene_folders(path, _is_scene, expected="rgb.txt, depth.txt and groundtruth.txt"):
        name = safe_name(folder.name)
        moves = any(word in folder.name for word in _PEOPLE) if moving is None else moving
        place = _laboratory(folder)
        refs.append(
            SceneRef(name, SOURCE, open_scene, (folder, name, stride, intrinsics, moves), place=place)
        )
    return refs


def open_scene(
    folder: Path,
    name: str,
    stride: int,
    intrinsics: tuple[float, float, float, float] | None,
    moving: bool,
) -> PosedFiles:
    """Open one sequence. Raises SceneProblem."""
    rgb_s, rgb = _read_list(name, folder / "rgb.txt")
    depth_s, depth = _read_list(name, folder / "depth.txt")
    times_s, world_from_camera = _read_trajectory(name, folder / "groundtruth.txt")
    depth_of = dict(associate(rgb_s, depth_s))
    frames, left_out = [], []
    chosen = np.arange(len(rgb_s))[::stride]
    poses = poses_at(times_s, world_from_camera, rgb_s[chosen])
    for i, pose in zip(chosen.tolist(), poses, strict=True):
        if i not in depth_of:
            left_out.append(SceneProblem(name, str(folder / rgb[i]), "has no depth image within 20 ms"))
        elif np.isnan(pose).any():
            left_out.append(
                SceneProblem(name, str(folder / rgb[i]), "has no pose: groundtruth.txt has a gap over 0.1 s")
            )
        else:
            file = folder / rgb[i]
            state = len(frames) if moving else 0
            frame_name = safe_name(file.stem)
            frames.append(
                FrameFiles(frame_name, file, folder / depth[depth_of[i]], pose, state, float(rgb_s[i]))
            )
    return PosedFiles(
        name,
        SOURCE,
        folder,
        frames,
        _intrinsics(name, folder, intrinsics),
        DepthFormat(_DEPTH_UNIT_M),
        left_out=left_out,
        world_up=np.array([0.0, 0.0, 1.0]),
        moving=moving,
    )


def associate(
    first_s: NDArray[np.float64], second_s: NDArray[np.float64], max_offset_s: float = MAX_DEPTH_OFFSET_S
) -> list[tuple[int, int]]:
    """Pairs of indices nearest in time, each index once, the nearest pair first as in associate.py."""
    order = np.argsort(second_s, kind="stable")
    low = np.searchsorted(second_s[order], first_s - max_offset_s)
    high = np.searchsorted(second_s[order], first_s + max_offset_s, side="right")
    candidates = []
    for i, time_s in enumerate(first_s):
        for j in order[low[i] : high[i]].tolist():
            offset_s = abs(time_s - second_s[j])
            if offset_s < max_offset_s:
                candidates.append((offset_s, time_s, second_s[j], i, j))
    used_first: set[int] = set()
    used_second: set[int] = set()
    pairs = []
    for *_, i, j in sorted(candidates):
        if i not in used_first and j not in used_second:
            used_first.add(i)
            used_second.add(j)
            pairs.append((i, j))
    return sorted(pairs)


def poses_at(
    times_s: NDArray[np.float64], world_from_camera: NDArray[np.float64], wanted_s: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(M, 4, 4) poses at `wanted_s` (M,): rotations on the shortest arc, positions on a line.

    NaN outside the trajectory and between samples more than `MAX_POSE_GAP_S` apart.

    Args:
        times_s: (N,) rising; N at least 1.
        world_from_camera: (N, 4, 4).
    """
    poses = np.full((len(wanted_s), 4, 4), np.nan)
    after = np.searchsorted(times_s, wanted_s)  # first sample at or after
    exact = (after < len(times_s)) & (times_s[np.minimum(after, len(times_s) - 1)] == wanted_s)
    poses[exact] = world_from_camera[after[exact]]
    between = ~exact & (after > 0) & (after < len(times_s))
    between[between] = times_s[after[between]] - times_s[after[between] - 1] <= MAX_POSE_GAP_S
    if between.any():
        at = wanted_s[between]
        poses[between] = np.eye(4)
        poses[between, :3, :3] = Slerp(times_s, Rotation.from_matrix(world_from_camera[:, :3, :3]))(
            at
        ).as_matrix()
        poses[between, :3, 3] = np.column_stack(
            [np.interp(at, times_s, world_from_camera[:, axis, 3]) for axis in range(3)]
        )
    return poses


def _is_scene(folder: Path) -> bool:
    return (folder / "rgb.txt").is_file() or (folder / "groundtruth.txt").is_file()


def _laboratory(folder: Path) -> str:
    found = re.search(r"freiburg[123]", folder.name)
    return found.group() if found else ""


def _intrinsics(scene: str, folder: Path, given: tuple[float, float, float, float] | None) -> Intrinsics:
    if given is not None:
        return Intrinsics(k_of(*given), folder)
    if (folder / "K.txt").is_file():
        return Intrinsics(read_k(scene, folder / "K.txt"), folder / "K.txt")
    numbers, d = _CAMERAS.get(_laboratory(folder), _ROS_DEFAULT)
    return Intrinsics(k_of(*numbers), folder, d)


def _lines(scene: str, file: Path) -> list[tuple[int, list[str]]]:
    """Number and words of each line that is no comment."""
    numbered = enumerate(read_text(scene, file).splitlines(), 1)
    return [(n, line.replace(",", " ").split()) for n, line in numbered if line.strip() and line[0] != "#"]


def _read_list(scene: str, file: Path) -> tuple[NDArray[np.float64], list[str]]:
    """Times (N,) and files, in order of time."""
    entries = []
    for number, words in _lines(scene, file):
        try:
            time_s, name = float(words[0]), words[1]
            if not np.isfinite(time_s):
                raise ValueError
        except (ValueError, IndexError):
            raise SceneProblem(scene, str(file), f"line {number} should be a timestamp and a file") from None
        entries.append((time_s, name))
    if not entries:
        raise SceneProblem(scene, str(file), "names no images")
    entries.sort()
    return np.array([time_s for time_s, _ in entries]), [name for _, name in entries]


def _read_trajectory(scene: str, file: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times (N,) and world_from_camera (N, 4, 4), without the samples that are lost (NaN)."""
    rows = []
    for number, words in _lines(scene, file):
        try:
            rows.append([float(word) for word in words])
            if len(words) != 8:
                raise ValueError
        except ValueError:
            raise SceneProblem(
                scene, str(file), f"line {number} should be timestamp tx ty tz qx qy qz qw"
            ) from None
    samples = np.array(rows).reshape(-1, 8)
    samples = samples[np.isfinite(samples).all(axis=1)]
    if not len(samples):
        raise SceneProblem(scene, str(file), "holds no pose that is not NaN")
    _, first = np.unique(samples[:, 0], return_index=True)
    samples = samples[first]
    if (np.abs(np.linalg.norm(samples[:, 4:], axis=1) - 1) > _UNIT_TOLERANCE).any():
        raise SceneProblem(scene, str(file), "holds quaternions that are not of length 1: no rotations")
    poses = np.tile(np.eye(4), (len(samples), 1, 1))
    poses[:, :3, :3] = Rotation.from_quat(samples[:, 4:]).as_matrix()
    poses[:, :3, 3] = samples[:, 1:4]
    return samples[:, 0], poses
