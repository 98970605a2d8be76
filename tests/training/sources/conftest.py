"""A room with known surfaces, written in the layouts that the readers read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.sources import registry

ROOM_M = np.array([[-3.0, -2.5, 0.0], [3.0, 2.5, 2.6]])
BOX_M = np.array([[0.4, -0.3, 0.0], [1.2, 0.5, 0.9]])
K = np.array([[80.0, 0, 47], [0, 82.0, 36.5], [0, 0, 1]])
SIZE = (96, 72)
FRAMES = 6
# ScanNet: colour finer than depth, and a world that is not aligned.
COLOUR_K, COLOUR_SIZE = np.array([[111.0, 0, 66], [0, 113.0, 50], [0, 0, 1]]), (130, 98)
ALIGNED_FROM_SCAN = np.eye(4)
ALIGNED_FROM_SCAN[:3, :3] = Rotation.from_euler("z", 37, degrees=True).as_matrix()
ALIGNED_FROM_SCAN[:3, 3] = (-2.1, 0.7, 0.05)


class Room:
    """Walls, a floor and a box on it; the colour of a point is where it is (x red, y green, z blue)."""

    k, size, room_m, box_m, aligned_from_scan = K, SIZE, ROOM_M, BOX_M, ALIGNED_FROM_SCAN

    def pose_at(self, time_s: float) -> np.ndarray:
        """world_from_camera of a camera that moves on a line and turns evenly about the vertical."""
        pose = np.eye(4)
        forward = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])  # looks along world x, level
        tilted = Rotation.from_euler("z", 20 * time_s - 20, degrees=True) * forward
        pose[:3, :3] = (tilted * Rotation.from_euler("x", -12, degrees=True)).as_matrix()
        pose[:3, 3] = (-1.8 + 0.1 * time_s, -0.6 + 0.3 * time_s, 1.4 - 0.1 * time_s)
        return pose

    @property
    def poses(self) -> list[np.ndarray]:
        return [self.pose_at(0.4 * i) for i in range(FRAMES)]

    def render(self, k, size, world_from_camera, d=()) -> tuple[np.ndarray, np.ndarray]:
        """(H, W, 3) RGB and (H, W) z-depth by intersecting each pixel's ray with every face."""
        width, height = size
        v, u = np.mgrid[:height, :width].astype(np.float64)
        pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2)
        ideal = cv2.undistortPoints(pixels, np.asarray(k, np.float64), np.array(d, np.float64))[:, 0]
        rays = np.column_stack([ideal, np.ones(len(ideal))]) @ world_from_camera[:3, :3].T
        origin = world_from_camera[:3, 3]
        with np.errstate(divide="ignore", invalid="ignore"):
            walls = np.maximum(*((ROOM_M - origin)[:, None] / rays)).min(axis=1)
            hits = (BOX_M - origin)[:, None] / rays
            enter, leave = np.minimum(*hits).max(axis=1), np.maximum(*hits).min(axis=1)
        depth_m = np.where((enter > 0) & (enter < leave), enter, walls)
        points = origin + rays * depth_m[:, None]
        rgb = 255 * (points - ROOM_M[0]) / (ROOM_M[1] - ROOM_M[0])
        return (
            np.clip(np.round(rgb), 0, 255).astype(np.uint8).reshape(height, width, 3),
            depth_m.reshape(height, width),
        )

    def assert_shown(self, scene, *, depth_unit_m=0.001, colour_tolerance=1) -> None:
        """What the scene returns is what its own poses and cameras see of this room."""
        assert scene.frames
        for index, frame in enumerate(scene.frames):
            camera, depth_camera = frame.camera, frame.depth_camera or frame.camera
            rgb, _ = self.render(camera.k, (camera.width, camera.height), frame.world_from_camera, camera.d)
            _, depth_m = self.render(
                depth_camera.k,
                (depth_camera.width, depth_camera.height),
                frame.world_from_camera,
                depth_camera.d,
            )
            error = np.abs(scene.image(index).astype(int) - rgb)
            assert error.mean() < colour_tolerance and np.percentile(error, 95) <= 3 * colour_tolerance
            # Written poses are rounded: a ray that grazes an edge of the box may fall on its other side.
            wrong = np.abs(scene.depth_m(index) - depth_m) > depth_unit_m
            assert scene.depth_m(index).dtype == np.float32 and wrong.mean() < 0.002


@dataclass
class Written:
    """A room on disk in one layout; `set_pose(i, None)` removes what holds the pose of frame i."""

    kind: str
    folder: Path
    images: list[Path]
    depths: list[Path]
    set_pose: Callable[[int, np.ndarray | None], None]
    k_file: Path | None
    options: dict[str, object] = field(default_factory=dict)

    def open(self, **options):
        (ref,) = registry.find_scenes(self.kind, self.folder, **{"stride": 1, **self.options, **options})
        return ref.open(*ref.arguments)


def write_matrix(file: Path, matrix) -> None:
    file.write_text("\n".join(" ".join(f"{x:.7g}" for x in row) for row in np.atleast_2d(matrix)) + "\n")


def write_rgb(file: Path, rgb: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])


def write_depth(file: Path, depth_m: np.ndarray, unit_m: float = 0.001) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), np.round(depth_m / unit_m).astype(np.uint16))


def write_pose(file: Path, pose: np.ndarray | None) -> None:
    if pose is None:
        file.unlink()
    else:
        write_matrix(file, pose)


@pytest.fixture(scope="session")
def room() -> Room:
    return Room()


@pytest.fixture
def write_posed_rgbd(room, tmp_path):
    def write(folder: Path = tmp_path / "kitchen") -> Written:
        folder.mkdir(parents=True)
        images = [folder / "images" / f"{i}.png" for i in range(8, 8 + FRAMES)]  # 10 comes after 9
        depths = [folder / "depth" / f"{i}.png" for i in range(8, 8 + FRAMES)]
        lines: list[np.ndarray | None] = list(room.poses)
        for image, depth, pose in zip(images, depths, room.poses, strict=True):
            rgb, depth_m = room.render(K, SIZE, pose)
            write_rgb(image, rgb)
            write_depth(depth, depth_m)

        def set_pose(index: int, pose: np.ndarray | None) -> None:
            lines[index] = pose
            write_matrix(folder / "poses.txt", [line.ravel() for line in lines if line is not None])

        set_pose(0, lines[0])
        write_matrix(folder / "K.txt", K)
        return Written("posed_rgbd", folder, images, depths, set_pose, folder / "K.txt")

    return write


@pytest.fixture
def write_seven_scenes(room, tmp_path):
    def write(folder: Path = tmp_path / "chess" / "seq-01") -> Written:
        folder.mkdir(parents=True)
        stems = [folder / f"frame-{i:06d}" for i in range(FRAMES)]
        for stem, pose in zip(stems, room.poses, strict=True):
            rgb, depth_m = room.render(K, SIZE, pose)
            write_rgb(Path(f"{stem}.color.png"), rgb)
            depth_m[:4, :5] = 65.535  # "no depth" of this data set
            write_depth(Path(f"{stem}.depth.png"), depth_m)
            write_pose(Path(f"{stem}.pose.txt"), pose)
        return Written(
            "seven_scenes",
            folder,
            [Path(f"{stem}.color.png") for stem in stems],
            [Path(f"{stem}.depth.png") for stem in stems],
            lambda i, pose: write_pose(Path(f"{stems[i]}.pose.txt"), pose),
            None,
            {"intrinsics": (K[0, 0], K[1, 1], K[0, 2], K[1, 2])},
        )

    return write


@pytest.fixture
def write_tum(room, tmp_path):
    """Poses at 100 Hz that fall between the images' times; depth 4 ms after colour."""

    def write(folder: Path = tmp_path / "rgbd_dataset_own_desk", *, k=K, size=SIZE, d=()) -> Written:
        folder.mkdir(parents=True)
        start_s = 1305031102.0
        times_s = [0.4 * i for i in range(FRAMES)]
        images = [folder / "rgb" / f"{start_s + t:.6f}.png" for t in times_s]
        depths = [folder / "depth" / f"{start_s + t + 0.004:.6f}.png" for t in times_s]
        samples = {float(t): room.pose_at(t) for t in np.arange(-0.4, 0.4 * FRAMES, 0.01) + 0.0033}
        for t, image, depth in zip(times_s, images, depths, strict=True):
            rgb, depth_m = room.render(k, size, room.pose_at(t), d)
            write_rgb(image, rgb)
            write_depth(depth, depth_m, 1 / 5000)
        for name, files in (("rgb", images), ("depth", depths)):
            lines = [f"{file.stem} {name}/{file.name}" for file in files]
            (folder / f"{name}.txt").write_text("\n".join([f"# {name} images", *lines]) + "\n")

        def write_trajectory() -> None:
            lines = ["# timestamp tx ty tz qx qy qz qw"]
            for t, pose in samples.items():
                numbers = [*pose[:3, 3]]
                if np.isfinite(pose).all():
                    numbers += [*Rotation.from_matrix(pose[:3, :3]).as_quat()]
                else:
                    numbers = [np.nan] * 7
                lines.append(f"{start_s + t:.4f} " + " ".join(f"{x:.8f}" for x in numbers))
            (folder / "groundtruth.txt").write_text("\n".join(lines) + "\n")

        def set_pose(index: int, pose: np.ndarray | None) -> None:
            for t in [t for t in samples if abs(t - times_s[index]) < 0.15]:
                if pose is None:
                    del samples[t]
                else:
                    samples[t] = pose
            write_trajectory()

        write_trajectory()
        write_matrix(folder / "K.txt", k)
        return Written("tum", folder, images, depths, set_pose, folder / "K.txt")

    return write


@pytest.fixture
def write_scannet(room, tmp_path):
    """With mesh, objects and a world that is not aligned with the walls; colour finer than depth."""

    def write(folder: Path = tmp_path / "scans" / "scene0000_00") -> Written:
        for name in ("color", "depth", "pose", "intrinsic"):
            (folder / name).mkdir(parents=True)
        scan_from_aligned = np.linalg.inv(ALIGNED_FROM_SCAN)
        for i, pose in enumerate(room.poses):
            rgb, _ = room.render(COLOUR_K, COLOUR_SIZE, pose)
            _, depth_m = room.render(K, SIZE, pose)
            write_rgb(folder / "color" / f"{i}.jpg", rgb)
            write_depth(folder / "depth" / f"{i}.png", depth_m)
            write_matrix(folder / "pose" / f"{i}.txt", scan_from_aligned @ pose)
        for name, k in (("color", COLOUR_K), ("depth", K)):
            whole = np.eye(4)
            whole[:3, :3] = k
            write_matrix(folder / "intrinsic" / f"intrinsic_{name}.txt", whole)
            write_matrix(folder / "intrinsic" / f"extrinsic_{name}.txt", np.eye(4))
        numbers = " ".join(f"{x:.7f}" for x in ALIGNED_FROM_SCAN.ravel())
        (folder / f"{folder.name}.txt").write_text(
            f"appVersionId = v1.7\naxisAlignment = {numbers} \ncolorHeight = {COLOUR_SIZE[1]}\n"
            f"colorWidth = {COLOUR_SIZE[0]}\ndepthHeight = {SIZE[1]}\ndepthWidth = {SIZE[0]}\nsceneType = Kitchen\n"
        )
        _write_annotated_mesh(folder)
        return Written(
            "scannet",
            folder,
            [folder / "color" / f"{i}.jpg" for i in range(FRAMES)],
            [folder / "depth" / f"{i}.png" for i in range(FRAMES)],
            lambda i, pose: write_pose(folder / "pose" / f"{i}.txt", pose),
            folder / "intrinsic" / "intrinsic_color.txt",
        )

    return write


def _write_annotated_mesh(folder: Path) -> None:
    """The floor (segment 7) and the box (segments 21 and 22, its lower and upper half)."""
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(-3, 3, 31), np.linspace(-2.5, 2.5, 26)))
    floor = np.column_stack([x, y, np.zeros_like(x)])
    grid = np.stack(np.meshgrid(*np.linspace(*BOX_M, 9).T, indexing="ij"), axis=-1).reshape(-1, 3)
    box = grid[((grid == BOX_M[0]) | (grid == BOX_M[1])).any(axis=1)]
    points = np.concatenate([floor, box])
    scan_from_aligned = np.linalg.inv(ALIGNED_FROM_SCAN)
    vertices = np.zeros(
        len(points), [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgba", "u1", 4)]
    )  # as in ScanNet
    for axis, column in zip(
        "xyz", (points @ scan_from_aligned[:3, :3].T + scan_from_aligned[:3, 3]).T, strict=True
    ):
        vertices[axis] = column
    header = (
        "ply\nformat binary_little_endian 1.0\ncomment MLIB generated\n"
        f"element vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nproperty uchar alpha\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    face = b"\x03" + np.arange(3, dtype="<i4").tobytes()
    (folder / f"{folder.name}_vh_clean_2.ply").write_bytes(header.encode() + vertices.tobytes() + face)
    segments = [7] * len(floor) + [21 if z < 0.45 else 22 for z in box[:, 2]]
    (folder / f"{folder.name}_vh_clean_2.0.010000.segs.json").write_text(
        json.dumps({"sceneId": folder.name, "segIndices": segments})
    )
    groups = [
        {"id": 0, "objectId": 0, "segments": [7], "label": "floor"},
        {"id": 1, "objectId": 1, "segments": [21, 22], "label": "Trash can "},
    ]
    (folder / f"{folder.name}.aggregation.json").write_text(json.dumps({"segGroups": groups}))


@pytest.fixture(params=["posed_rgbd", "seven_scenes", "tum", "scannet"])
def written(request) -> Written:
    """The room in each layout."""
    return request.getfixturevalue(f"write_{request.param}")()
