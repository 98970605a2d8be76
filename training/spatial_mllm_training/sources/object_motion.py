"""Folders recorded by a camera that stands still while things move; knows nothing about questions.

Two layouts. The world is the optical frame of the camera that shows the pictures, so that a
displacement in the world is one in the image's own axes; up is not known.

Recorded balls (the ReCoDE hand-eye recording): a depth camera watches two red balls on a robot arm.
    RGB/frame<i>.jpg, IR/frame<i>.jpg, depth_ir/frame<i>.png (uint16, 0.01 mm, 0 = none, IR pixels),
    K_rgb.txt, K_ir.txt (3x3), T_rgb_ir_mm.txt (rgb_from_ir 4x4, millimetres).
The tracks are the centres of the balls, fitted here as spheres of known radius to the depth; robot
kinematics and centres that lie beside are not read. Both balls sit on one shaft: one rigid body.

Your own recordings:
    images/ (JPEG or PNG), K.txt (3x3), optional depth/ (16-bit PNG, millimetres, same pixels and file stems),
    tracks.npz with points_in_camera_m (T, N, 3; NaN = unknown), visible (T, N) bool, optional body (N,).
"""

from __future__ import annotations

import zipfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.base import PointTracks, Scene, SceneFrame, SceneProblem, SceneRef
from spatial_mllm_training.sources.image_files import pictures_in, read_rgb, read_uint16
from spatial_mllm_training.sources.reading import camera_of, read_k, read_pose, safe_name, scene_folders
from spatial_mllm_training.sources.sphere_fit import fit_sphere

SOURCE = "object_motion"
BALL_RADII_M = (0.012, 0.010)
_DEPTH_UNIT_M = 1e-5
_MIN_PIXELS = 200
_RED = 40  # red exceeds green and blue by this, of 255
_RGB_DEPTH_SCALE = 2  # the IR depth is coarser than the colour image; at half size it leaves no holes


def find_scenes(
    path: Path,
    *,
    images: Literal["rgb", "ir"] = "rgb",
    ball_radii_m: tuple[float, ...] = BALL_RADII_M,
) -> list[SceneRef]:
    """Return the scene of a folder, or of each of its sub-folders that has one of the layouts.

    Args:
        images: of recorded balls: "rgb" shows colour, with depth moved into the colour camera; "ir"
            the grey infrared image with depth as measured.
        ball_radii_m: largest first.

    Raises:
        SceneProblem: there is none.
    """
    expected = "tracks.npz with images/, or depth_ir/ with RGB/ and IR/"
    folders = scene_folders(path, lambda folder: _layout(folder) != "", expected=expected)
    refs = []
    for folder in folders:
        if _layout(folder) == "tracks":
            refs.append(SceneRef(safe_name(folder.name), SOURCE, open_tracks, (folder,)))
        else:
            refs.append(
                SceneRef(safe_name(folder.name), SOURCE, open_balls, (folder, images, tuple(ball_radii_m)))
            )
    return refs


def _layout(folder: Path) -> str:
    if (folder / "tracks.npz").is_file():
        return "tracks"
    return "balls" if (folder / "depth_ir").is_dir() else ""


def open_tracks(folder: Path) -> TrackedFolder:
    """Open a folder of your own; raises SceneProblem."""
    return TrackedFolder(folder)


def open_balls(folder: Path, images: str, ball_radii_m: tuple[float, ...]) -> BallFolder:
    """Open a recording of balls; raises SceneProblem."""
    return BallFolder(folder, images, ball_radii_m)


class _StillCamera(Scene):
    """A picture per time step from one camera, which is the world."""

    source = SOURCE
    moving = True
    world_up = None

    def __init__(self, folder: Path, files: list[Path], k_file: Path) -> None:
        self.name, self.folder, self.skipped = safe_name(folder.name), folder, []
        self._files = files
        if not files:
            raise SceneProblem(self.name, str(folder), "holds no images")
        height, width = read_rgb(self.name, files[0]).shape[:2]
        self._camera = self._camera_model(k_file, width, height)
        self.frames = [
            SceneFrame(f"{step:04d}_{file.stem}", self._camera, np.eye(4), state=step)
            for step, file in enumerate(files)
        ]

    def image(self, index: int) -> NDArray[np.uint8]:
        rgb = read_rgb(self.name, self._files[index])
        self._check_size(rgb, self._files[index], self._camera)
        return rgb

    def _camera_model(self, k_file: Path, width: int, height: int) -> CameraModel:
        return camera_of(self.name, k_file, read_k(self.name, k_file), (width, height))

    def _check_size(self, pixels: NDArray[np.generic], file: Path, camera: CameraModel) -> None:
        if pixels.shape[:2] != (camera.height, camera.width):
            found = f"{pixels.shape[1]}x{pixels.shape[0]} px, expected {camera.width}x{camera.height}"
            raise SceneProblem(self.name, str(file), f"is of another size: {found}")


class TrackedFolder(_StillCamera):
    """Pictures, K and tracks of your own; depth where there is a depth/ folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, pictures_in(folder / "images"), folder / "K.txt")
        self._depth = folder / "depth" if (folder / "depth").is_dir() else None
        self.tracks  # noqa: B018 - a broken file is to be named when the scene is opened

    @property
    def has_depth(self) -> bool:
        return self._depth is not None

    def depth_m(self, index: int) -> NDArray[np.float32]:
        if self._depth is None:
            raise SceneProblem(
                self.name, str(self.folder / "depth"), "does not exist; the scene has no depth"
            )
        file = self._depth / f"{self._files[index].stem}.png"
        depth_mm = read_uint16(self.name, file)
        self._check_size(depth_mm, file, self._camera)
        return depth_mm.astype(np.float32) / np.float32(1000)

    @cached_property
    def tracks(self) -> PointTracks:
        file, steps = self.folder / "tracks.npz", len(self._files)
        try:
            with np.load(file, allow_pickle=False) as arrays:
                points_m = np.asarray(arrays["points_in_camera_m"], np.float64)
                visible = np.asarray(arrays["visible"])
                body = np.asarray(arrays["body"], np.int64) if "body" in arrays else None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise SceneProblem(self.name, str(file), f"is not a whole file of tracks: {error}") from error
        if points_m.ndim != 3 or points_m.shape[2] != 3 or len(points_m) != steps:
            raise SceneProblem(
                self.name,
                str(file),
                f"points_in_camera_m is {points_m.shape}, expected ({steps}, N, 3) for {steps} images",
            )
        if visible.dtype != np.bool_ or visible.shape != points_m.shape[:2]:
            raise SceneProblem(
                self.name,
                str(file),
                f"visible is {visible.dtype} {visible.shape}, expected bool {points_m.shape[:2]}",
            )
        if body is not None and body.shape != points_m.shape[1:2]:
            raise SceneProblem(self.name, str(file), f"body is {body.shape}, expected ({points_m.shape[1]},)")
        return PointTracks(points_m, visible & np.isfinite(points_m).all(axis=2), body)


class BallFolder(_StillCamera):
    """Red balls seen by a depth camera; the tracks are fitted when they are first asked for."""

    def __init__(self, folder: Path, images: str, ball_radii_m: tuple[float, ...]) -> None:
        if images not in ("rgb", "ir"):
            raise SceneProblem(
                safe_name(folder.name), str(folder), f"can show images 'rgb' or 'ir', not '{images}'"
            )
        shown = folder / images.upper()
        depth_files = {f.stem: f for f in pictures_in(folder / "depth_ir")}
        files = [f for f in pictures_in(shown) if f.stem in depth_files]
        super().__init__(folder, files, folder / f"K_{images}.txt")
        self.skipped = [
            str(SceneProblem(self.name, str(f), "has no depth image of its name and is left out"))
            for f in pictures_in(shown)
            if f.stem not in depth_files
        ]
        self._depth_files = [depth_files[f.stem] for f in files]
        self._radii_m = ball_radii_m
        if images == "ir":
            self._ir_camera = self._camera
            self._shown_from_ir = np.eye(4)
        else:
            height, width = read_uint16(self.name, self._depth_files[0]).shape
            self._ir_camera = self._camera_model(folder / "K_ir.txt", width, height)
            self._shown_from_ir = read_pose(self.name, folder / "T_rgb_ir_mm.txt")
            self._shown_from_ir[:3, 3] /= 1000
            coarse = self._camera.resized(
                self._camera.width // _RGB_DEPTH_SCALE, self._camera.height // _RGB_DEPTH_SCALE
            )
            self.frames = [replace(frame, depth_camera=coarse) for frame in self.frames]
        self._is_colour = images == "rgb"

    def depth_m(self, index: int) -> NDArray[np.float32]:
        """As measured for infrared images; for colour images moved into the colour camera at half size."""
        camera = self.frames[index].depth_camera
        if camera is None:
            return self._measured_m(index)
        _, points_m = self._cloud(index)
        points_m = points_m @ self._shown_from_ir[:3, :3].T + self._shown_from_ir[:3, 3]
        moved = np.full((camera.height, camera.width), np.inf, np.float32)
        inside, u, v = _seen_pixels(camera, points_m)
        np.minimum.at(moved, (v, u), points_m[inside, 2].astype(np.float32))
        moved[np.isinf(moved)] = 0
        return moved

    @cached_property
    def tracks(self) -> PointTracks:
        """The balls' centres, largest ball first; a ball that was not found is NaN and not visible."""
        centres_m = np.full((len(self.frames), len(self._radii_m), 3), np.nan)
        for index in range(len(self.frames)):
            for ball, points_m in enumerate(self._balls(index)):
                fit = fit_sphere(points_m, self._radii_m[ball])
                if fit is not None and fit.inliers >= _MIN_PIXELS:
                    centres_m[index, ball] = fit.centre_m
        centres_m = centres_m @ self._shown_from_ir[:3, :3].T + self._shown_from_ir[:3, 3]
        visible, _, _ = _seen_pixels(self._camera, centres_m.reshape(-1, 3))
        return PointTracks(
            centres_m, visible.reshape(centres_m.shape[:2]), np.zeros(len(self._radii_m), np.int64)
        )

    def _measured_m(self, index: int) -> NDArray[np.float32]:
        samples = read_uint16(self.name, self._depth_files[index])
        self._check_size(samples, self._depth_files[index], self._ir_camera)
        return samples.astype(np.float32) * np.float32(_DEPTH_UNIT_M)

    def _cloud(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Return where depth was measured (h, w) and the points (N, 3) in IR axes, row by row."""
        depth_m = self._measured_m(index)
        measured = depth_m > 0
        v, u = np.nonzero(measured)
        rays = self._ir_camera.rays(np.column_stack([u, v]).astype(np.float64))
        return measured, rays * depth_m[v, u, None].astype(np.float64)

    def _balls(self, index: int) -> list[NDArray[np.float64]]:
        """Return the measured points of each ball, largest ball first; [] unless all are seen.

        A ball is a patch of connected measurements, red where the picture is coloured. Patches are
        ordered by their area in square metres; of a single patch nobody could say which ball it is.
        """
        measured, points_m = self._cloud(index)
        patch = np.asarray(cv2.connectedComponents(measured.astype(np.uint8), connectivity=8)[1])[measured]
        red = self._is_red(index, points_m)
        found = []
        for number in np.unique(patch):
            members = points_m[(patch == number) & red]
            if len(members) >= _MIN_PIXELS:
                found.append((float((members[:, 2] ** 2).sum()), members))
        found.sort(key=lambda item: -item[0])
        if len(found) < len(self._radii_m):
            return []
        return [members for _, members in found[: len(self._radii_m)]]

    def _is_red(self, index: int, points_m: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (N,) whether the picture shows red at each point; True throughout without colour."""
        if not self._is_colour or not len(points_m):
            return np.ones(len(points_m), bool)
        rgb = self.image(index).astype(np.int16)
        in_rgb = points_m @ self._shown_from_ir[:3, :3].T + self._shown_from_ir[:3, 3]
        inside, u, v = _seen_pixels(self._camera, in_rgb)
        red = np.zeros(len(points_m), bool)
        colours = rgb[v, u]
        red[inside] = colours[:, 0] - colours[:, 1:].max(axis=1) >= _RED
        return red


def _seen_pixels(
    camera: CameraModel, points_m: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]:
    """Return (N,) which points fall into the image, and column and row of those."""
    pixels = camera.project(points_m)
    with np.errstate(invalid="ignore"):
        inside = ((pixels >= -0.5) & (pixels < (camera.width - 0.5, camera.height - 0.5))).all(axis=1)
    u, v = np.floor(pixels[inside] + 0.5).astype(np.int64).T
    return inside, u, v
