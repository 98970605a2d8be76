"""One scene on disk: pictures, depth, ids, cameras, bodies; knows nothing about how they were made."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError

MAX_DEPTH_M = 20.0
_MACHINES = ("robot", "gantry")


def is_thing(category: str) -> bool:
    """Whether a body is neither the world nor part of the machine that moves the others."""
    return category != "world" and not category.startswith(_MACHINES)


@dataclass(frozen=True)
class SceneRecord:
    """T time steps seen by C cameras that stand still, with B bodies (the first is the world).

    Attributes:
        rgb: (T, C, H, W, 3) uint8.
        depth_mm: (T, C, H, W) uint16 z-depth in millimetres; 0 where there is none within 20 m.
        body_id: (T, C, H, W) uint8, index into the bodies; 0 is the static world.
        k: (3, 3) float64 pinhole matrix; integer pixel coordinates are pixel centres.
        world_from_camera: (C, 4, 4) float64; optical axes x right, y down, z forward; world z up.
        world_from_body: (T, B, 4, 4) float64; index 0 is the identity.
        body_size_m: (B, 3) float64, box size along the body's axes (its origin is the box's centre).
        body_category: (B,) unicode.
        kind: tabletop or indoor.
        seed: what the scene was made from.
    """

    rgb: NDArray[np.uint8]
    depth_mm: NDArray[np.uint16]
    body_id: NDArray[np.uint8]
    k: NDArray[np.float64]
    world_from_camera: NDArray[np.float64]
    world_from_body: NDArray[np.float64]
    body_size_m: NDArray[np.float64]
    body_category: NDArray[np.str_]
    kind: str
    seed: int

    def validate(self) -> None:
        """Check shapes, types and finite values.

        Raises:
            ValueError: one sentence that names the field.
        """
        if self.rgb.ndim != 5 or self.rgb.shape[-1] != 3:
            raise ValueError(f"rgb has shape {self.rgb.shape}, expected (T, C, H, W, 3)")
        steps, cameras, height, width, _ = self.rgb.shape
        bodies = len(self.body_category)
        expected: dict[str, tuple[type, tuple[int, ...]]] = {
            "rgb": (np.uint8, (steps, cameras, height, width, 3)),
            "depth_mm": (np.uint16, (steps, cameras, height, width)),
            "body_id": (np.uint8, (steps, cameras, height, width)),
            "k": (np.float64, (3, 3)),
            "world_from_camera": (np.float64, (cameras, 4, 4)),
            "world_from_body": (np.float64, (steps, bodies, 4, 4)),
            "body_size_m": (np.float64, (bodies, 3)),
        }
        for name, (dtype, shape) in expected.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}")
            if array.dtype == np.float64 and not np.isfinite(array).all():
                raise ValueError(f"{name} holds values that are not finite")
        if self.body_id.size and int(self.body_id.max()) >= bodies:
            raise ValueError(f"body_id names body {int(self.body_id.max())} but there are {bodies}")
        if self.k[0, 0] <= 0 or self.k[1, 1] <= 0:
            raise ValueError("k has a focal length that is not positive")

    def save(self, path: Path) -> None:
        """Write the scene under a temporary name, then rename it to `path`."""
        self.validate()
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as stream:
                np.savez(stream, **{f.name: np.asarray(getattr(self, f.name)) for f in fields(self)})
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: Path) -> SceneRecord:
        """Read and check a scene.

        Raises:
            SpatialError: NOT_READY when the file is missing, truncated or not a scene.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                values = {f.name: file[f.name] for f in fields(cls)}
            record = cls(**{**values, "kind": str(values["kind"]), "seed": int(values["seed"])})
            record.validate()
        except Exception as error:  # numpy and zipfile raise a dozen kinds for a broken file
            raise SpatialError(ErrorCode.NOT_READY, f"{path.name} is not a whole scene: {error}") from error
        return record
