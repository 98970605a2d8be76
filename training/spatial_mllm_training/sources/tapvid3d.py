"""TAPVid-3D files (ADT, Panoptic Studio, DriveTrack) as scenes with tracks; knows nothing about questions.

Layout, as the scripts of google-deepmind/tapnet (tapvid3d/annotation_generation) write and its notebook
reads it: one .npz a video with
    tracks_XYZ (T, N, 3)      metres, in the optical frame of the camera at that time,
    visibility (T, N) bool,
    fx_fy_cx_cy (4,)          pixels counted from the image's corner (pixel centres at +0.5),
    images_jpeg_bytes (T,)    fixed-width byte strings; without it, JPEGs in a folder named like the file,
    extrinsics_w2c (T, 4, 4)  camera_from_world. Older ADT files lack it, and then nobody can tell what
                              moved: they are refused. The cameras of Panoptic Studio stand still.
The axes of the world are not documented, so that up is unknown unless it is given.
"""

from __future__ import annotations

import os
import zipfile
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.sources.base import PointTracks, Scene, SceneFrame, SceneProblem, SceneRef
from spatial_mllm_training.sources.image_files import decode_rgb, pictures_in, read_rgb
from spatial_mllm_training.sources.reading import (
    camera_of,
    checked_pose,
    k_of,
    safe_name,
    summarise,
    unit_up,
)

SOURCE = "tapvid3d"
_PSTUDIO = ("basketball", "boxes", "football", "juggle", "softball", "tennis")
_IMAGES = "images_jpeg_bytes"
_SMALL = ("tracks_XYZ", "visibility", "fx_fy_cx_cy", "extrinsics_w2c")


def find_scenes(
    path: Path,
    *,
    world_up: tuple[float, float, float] | None = None,
    still_camera: bool = False,
) -> list[SceneRef]:
    """Return the scenes of an .npz, or of all below a folder (`tmp/` holds the generators' inputs).

    The chunks of an ADT recording, and the cameras of a Panoptic Studio one, are one place.

    Args:
        world_up: against gravity, in the world of extrinsics_w2c.
        still_camera: take the camera as still where a file has no extrinsics.

    Raises:
        SceneProblem: there is none.
    """
    path = Path(os.path.abspath(path))
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*.npz") if f.parent.name != "tmp")
    if not files:
        raise SceneProblem(path.name, str(path), "holds no .npz file of TAPVid-3D")
    return [
        SceneRef(safe_name(f.stem), SOURCE, open_scene, (f, world_up, still_camera), place=_place(f))
        for f in files
    ]


def _place(file: Path) -> str:
    return safe_name(file.stem.rpartition("_")[0] or file.stem)


def open_scene(path: Path, world_up: tuple[float, float, float] | None, still_camera: bool) -> TapVid3dScene:
    """Open one file; its pictures stay on disk until they are asked for. Raises SceneProblem."""
    return TapVid3dScene(path, world_up, still_camera)


class TapVid3dScene(Scene):
    """A video with points followed through it; frame t has state t."""

    source = SOURCE
    moving = True

    def __init__(self, path: Path, world_up: tuple[float, float, float] | None, still_camera: bool) -> None:
        self.name, self.path, self.skipped = safe_name(path.stem), path, []
        self.world_up = unit_up(self.name, path, world_up)
        small = self._load()
        tracks, visible = small["tracks_XYZ"], small["visibility"]
        if tracks.ndim != 3 or tracks.shape[2] != 3 or visible.shape != tracks.shape[:2]:
            raise self._problem(
                f"has tracks_XYZ {tracks.shape} and visibility {visible.shape}, expected (T, N, 3) and (T, N)"
            )
        if len(self._images) != len(tracks):
            raise self._problem(f"has {len(tracks)} rows of tracks for {len(self._images)} images")
        self._in_camera_m = tracks.astype(np.float64)
        self._visible = visible.astype(bool)
        self._camera = self._camera_model(small["fx_fy_cx_cy"])
        poses = self._camera_from_world(small.get("extrinsics_w2c"), still_camera)
        self.frames, without_pose = [], []
        for step, camera_from_world in enumerate(poses):
            try:
                pose = np.linalg.inv(checked_pose(self.name, self.path, camera_from_world))
            except SceneProblem as problem:
                without_pose.append(SceneProblem(self.name, str(path), f"extrinsics_w2c {problem.sentence}"))
                continue
            self.frames.append(SceneFrame(f"{step:04d}", self._camera, pose, state=step))
        self.skipped += summarise(without_pose)
        if not self.frames:
            raise self._problem("has no frame with a valid pose")

    def image(self, index: int) -> NDArray[np.uint8]:
        rgb = self._picture(self.frames[index].state)
        if rgb.shape[:2] != (self._camera.height, self._camera.width):
            raise self._problem(f"image {self.frames[index].state} is of another size than the first")
        return rgb

    def depth_m(self, index: int) -> NDArray[np.float32]:
        raise self._problem("holds tracks but no depth")

    @property
    def has_depth(self) -> bool:
        return False

    @cached_property
    def tracks(self) -> PointTracks:
        """The points in the world; rows of frames without a pose are NaN."""
        in_world_m = np.full(self._in_camera_m.shape, np.nan)
        for frame in self.frames:
            pose = frame.world_from_camera
            in_world_m[frame.state] = self._in_camera_m[frame.state] @ pose[:3, :3].T + pose[:3, 3]
        steps = [frame.state for frame in self.frames]
        return PointTracks(in_world_m, self._visible[steps] & np.isfinite(in_world_m[steps]).all(axis=2))

    def _load(self) -> dict[str, NDArray[np.generic]]:
        """Read the small arrays, and place the images without reading them where the file allows it."""
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise self._problem("is not an .npz archive")
                small = {name: archive[name] for name in _SMALL if name in archive.files}
                has_images = _IMAGES in archive.files
                self._images = self._jpegs(archive) if has_images else pictures_in(self.path.with_suffix(""))
        except SceneProblem:
            raise
        except Exception as error:  # zipfile, zlib and numpy raise a dozen kinds for a broken file
            if "allow_pickle" in str(error) or "Python objects" in str(error):
                raise self._problem(
                    "holds Python objects, which could run code when they are read; where you trust its source, "
                    "write it again with fixed-width strings: np.savez(new, **{**old, "
                    f"'{_IMAGES}': np.array(list(old['{_IMAGES}']))}})"
                ) from None
            raise self._problem(f"is not a whole .npz file: {error}") from error
        missing = [name for name in _SMALL[:3] if name not in small]
        if missing:
            raise self._problem(f"has no {', '.join(missing)}; it is not a finished file of TAPVid-3D")
        for name, array in small.items():
            if array.dtype.kind not in "bfiu":
                raise self._problem(f"holds no numbers in {name}")
        if not len(self._images):
            raise self._problem(
                f"has no {_IMAGES}, and there is no folder of JPEGs '{self.path.with_suffix('').name}' beside it"
            )
        return small

    def _jpegs(self, archive: np.lib.npyio.NpzFile) -> NDArray[np.bytes_]:
        """The encoded images: mapped from disk as np.savez stores them, in memory from a compressed file."""
        compressed = any(info.compress_type != zipfile.ZIP_STORED for info in archive.zip.infolist())
        images = archive[_IMAGES] if compressed else map_npz(self.path)[_IMAGES]
        if images.ndim != 1 or images.dtype.kind != "S":
            raise self._problem(f"has {_IMAGES} of {images.dtype} {images.shape}, expected byte strings")
        return images

    def _picture(self, step: int) -> NDArray[np.uint8]:
        data = self._images[step]
        if isinstance(data, Path):
            return read_rgb(self.name, data)
        return decode_rgb(self.name, f"{self.path}, image {step}", bytes(data))

    def _camera_model(self, numbers: NDArray[np.generic]) -> CameraModel:
        height, width = self._picture(0).shape[:2]
        if numbers.shape != (4,):
            raise self._problem(f"has fx_fy_cx_cy of shape {numbers.shape}, expected (4,)")
        fx, fy, cx, cy = (float(x) for x in numbers)
        return camera_of(self.name, self.path, k_of(fx, fy, cx - 0.5, cy - 0.5), (width, height))

    def _camera_from_world(
        self, extrinsics: NDArray[np.generic] | None, still_camera: bool
    ) -> NDArray[np.float64]:
        steps = len(self._in_camera_m)
        if extrinsics is not None:
            if extrinsics.shape != (steps, 4, 4):
                raise self._problem(
                    f"has extrinsics_w2c of shape {extrinsics.shape}, expected ({steps}, 4, 4)"
                )
            return extrinsics.astype(np.float64)
        if not still_camera and self.path.stem.rpartition("_")[0] not in _PSTUDIO:
            raise self._problem(
                "has no extrinsics_w2c, so that the camera's motion cannot be told from the points'; take them "
                "over from the annotation file, or say still_camera where the camera stood still"
            )
        return np.tile(np.eye(4), (steps, 1, 1))

    def _problem(self, sentence: str) -> SceneProblem:
        return SceneProblem(self.name, str(self.path), sentence)
