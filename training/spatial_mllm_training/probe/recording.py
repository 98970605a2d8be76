"""Rerun recordings of lifted images beside the truth; rerun is imported only when one is asked for.

Entities, on the timeline `image`: world/camera (pose and pinhole), world/camera/image, world/predicted
and world/true (points), and as flat pictures pictures/predicted, pictures/true, pictures/confidence.
Depth pictures stand outside of the camera: under a pinhole rerun would lift them itself, without
the lens, on top of the points.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.colours import confidence_scale
from spatial_mllm_training.probe.lifted import Lifted
from spatial_mllm_training.probe.point_cloud import Cloud, cloud

_MOST_POINTS = 60_000


def import_rerun() -> ModuleType:
    """The package.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE when it is not installed.
    """
    try:
        import rerun
    except ImportError as error:
        raise SpatialError(
            ErrorCode.BACKEND_UNAVAILABLE,
            "recordings need rerun (Python 3.11 or later); install the extra: "
            f"pip install 'spatial-mllm-training[look]' ({error})",
        ) from None
    return rerun


def write_recording(path: Path, lifted: Sequence[Lifted], name: str) -> None:
    """Write a recording; an older file is replaced when the new one is whole.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE; NOT_WRITABLE.
    """
    rr = import_rerun()
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        recording = rr.RecordingStream("spatial_mllm_probe", recording_id=name)
        recording.save(str(part))
        _log(rr, recording, lifted)
        recording.flush()
        recording.disconnect()
        os.replace(part, path)
    except OSError as error:
        raise SpatialError(
            ErrorCode.NOT_WRITABLE, f"'{path}' cannot be written ({error.strerror or error})"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _log(rr: ModuleType, recording: object, lifted: Sequence[Lifted]) -> None:
    log = recording.log  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    for number, one in enumerate(lifted):
        recording.set_time("image", sequence=number)  # type: ignore[attr-defined]
        image, pose = one.image, one.image.world_from_camera
        log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
        log(
            "world/camera",
            rr.Pinhole(
                image_from_camera=image.camera.k,
                resolution=[image.camera.width, image.camera.height],
                camera_xyz=rr.ViewCoordinates.RDF,
            ),
        )
        log("world/camera/image", rr.Image(image.image_rgb))
        for entity, depth_m in (("predicted", one.depth_m), ("true", image.true_m)):
            log(f"pictures/{entity}", rr.DepthImage(depth_m, meter=1.0))
        log("pictures/confidence", rr.Image(confidence_scale().paint(one.confidence)))
        about = (image.camera, pose)
        for entity, points in (
            ("predicted", cloud(*about, one.depth_m, image.image_rgb, one.confidence)),
            ("true", cloud(*about, image.true_m, image.image_rgb)),
        ):
            kept = _some(points, rng)
            log(f"world/{entity}", rr.Points3D(points.points_m[kept], colors=points.rgb[kept]))


def _some(points: Cloud, rng: np.random.Generator) -> np.ndarray:
    if len(points) <= _MOST_POINTS:
        return np.arange(len(points))
    return np.sort(rng.choice(len(points), _MOST_POINTS, replace=False))
