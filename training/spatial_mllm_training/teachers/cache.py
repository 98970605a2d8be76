"""A teacher's answers kept on disk, one safetensors file per row of images.

The key is teacher, version, hash of the weights, and of every view its pixels, size, camera and pose. Files are
written whole or not at all; one that cannot be read is computed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.teachers.base import Teacher, TeacherOutput, View

_FORMAT = "1"


class CachedTeacher:
    """`teacher` behind a folder; equal views are predicted once, in whatever run or process."""

    def __init__(self, teacher: Teacher, folder: Path) -> None:
        self.teacher = teacher
        self.folder = folder
        self.name = teacher.name
        self.version = teacher.version
        self._weights_hash = teacher.weights_hash()

    def weights_hash(self) -> str:
        return self._weights_hash

    def path(self, views: Sequence[View]) -> Path:
        """Where the answer to these views lies or will lie."""
        identity = [_FORMAT, self.name, self.version, self._weights_hash, [_identity(v) for v in views]]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()
        return self.folder / self.name / key[:2] / f"{key}.safetensors"

    def predict(self, views: Sequence[View]) -> TeacherOutput:
        path = self.path(views)
        try:
            return _read(path)
        except (OSError, SafetensorError, KeyError, ValueError):
            pass  # not there yet, or torn
        output = self.teacher.predict(views)
        write_atomically(path, _packed(output), replace=True)
        return output


def _identity(view: View) -> list[Any]:
    pose = view.world_from_camera
    return [
        list(view.image.shape),
        hashlib.sha256(np.ascontiguousarray(view.image).tobytes()).hexdigest(),
        _camera_fields(view.camera),
        None if pose is None else np.asarray(pose, np.float64).ravel().tolist(),
    ]


def _camera_fields(camera: CameraModel | None) -> dict[str, Any] | None:
    if camera is None:
        return None
    return {
        "k": camera.k.ravel().tolist(),
        "width": camera.width,
        "height": camera.height,
        "d": camera.d.tolist(),
        "distortion_model": camera.distortion_model,
    }


def _packed(output: TeacherOutput) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    for name in ("depth", "confidence", "features"):
        for i, array in enumerate(getattr(output, name) or ()):
            arrays[f"{name}/{i}"] = np.ascontiguousarray(array)
    if output.first_from_camera is not None:
        arrays["first_from_camera"] = np.ascontiguousarray(output.first_from_camera)
    description = {
        "views": len(output.depth),
        "is_metric": output.is_metric,
        "cameras": [_camera_fields(c) for c in output.cameras],
    }
    return save(arrays, metadata={"teacher_output": json.dumps(description)})


def _read(path: Path) -> TeacherOutput:
    with safe_open(str(path), framework="np") as file:
        description = json.loads((file.metadata() or {})["teacher_output"])
        names = set(file.keys())

        def arrays(name: str) -> tuple[np.ndarray, ...] | None:
            if f"{name}/0" not in names:
                return None
            return tuple(file.get_tensor(f"{name}/{i}") for i in range(description["views"]))

        depth = arrays("depth")
        if depth is None:
            raise KeyError("depth/0")
        poses = file.get_tensor("first_from_camera") if "first_from_camera" in names else None
        return TeacherOutput(
            depth=depth,
            cameras=tuple(None if c is None else CameraModel.from_k(**c) for c in description["cameras"]),
            first_from_camera=poses,
            confidence=arrays("confidence"),
            features=arrays("features"),
            is_metric=description["is_metric"],
        )
