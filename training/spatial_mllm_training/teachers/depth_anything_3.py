"""Depth-Anything-3 as a teacher, through its public package.

Written against ByteDance-Seed/Depth-Anything-3 at 2c21ea8 (`DepthAnything3.inference`). Run once by
hand on depth-anything-3 0.1.1 with random weights of the Small and Metric-Large shapes (one to
three views, with poses and without), never with real ones; tests hold the conversion of its answers.
Its own ray decoder, fed our ray map with the channels swapped (`conventions.rays_from_da3`), gave
back pose and focal length to 3e-7.

Its answers are known up to one factor except those of the metric and nested checkpoints. The
package's ray map never leaves `inference`; rays come from its cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.teachers.base import (
    TeacherOutput,
    View,
    check_one_size,
    hash_of_weights,
    known_poses,
    published,
)
from spatial_mllm_training.teachers.conventions import (
    camera_from_corner_k,
    corner_k,
    extrinsics_from_poses,
    metres_from_da3_metric,
    poses_from_extrinsics,
)

DEFAULT_WEIGHTS = "depth-anything/DA3-BASE"
_LONGEST_SIDE_PX = 504


class DepthAnything3Teacher:
    """Args: weights, a checkpoint's name or folder; device, as torch names it.

    Where at least three cameras have poses and do not stand on one line, poses and intrinsics are given to the
    network (it aligns its scale to them, which fails for fewer). Otherwise it finds its own.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE when the package is not installed, MODEL_MISSING for weights that
            cannot be loaded.
    """

    name = "depth_anything_3"
    version = f"1/{_LONGEST_SIDE_PX}"

    def __init__(self, weights: str = DEFAULT_WEIGHTS, device: str = "cpu") -> None:
        try:
            from depth_anything_3.api import DepthAnything3
        except ImportError as error:
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                "teacher 'depth_anything_3' needs the package 'depth-anything-3', which cannot be imported "
                f"({error}); 'pip install depth-anything-3' (its checkpoints Small, Base, Mono-Large and "
                "Metric-Large are Apache-2.0; Large, Giant and Nested are CC BY-NC 4.0, not for commercial use)",
            ) from None
        self._model = published(self.name, weights, DepthAnything3.from_pretrained).to(device)

    def weights_hash(self) -> str:
        return hash_of_weights(self._model)

    def predict(self, views: Sequence[View]) -> TeacherOutput:
        check_one_size(self.name, views)
        kind = str(self._model.model_name).lower()
        mono = "nested" not in kind and ("metric" in kind or "mono" in kind)
        conditions: dict[str, Any] = {}
        if not mono and can_align(views):
            conditions = {
                "extrinsics": extrinsics_from_poses([v.world_from_camera for v in views]),
                "intrinsics": np.stack([corner_k(v.camera) for v in views if v.camera is not None]),
            }
        config = self._model.config
        last = int(config.get("anyview", config)["net"]["out_layers"][-1])
        prediction = self._model.inference(
            [v.image for v in views], process_res=_LONGEST_SIDE_PX, export_feat_layers=[last], **conditions
        )
        return from_da3(prediction, views, feature_layer=last, is_metric_series=mono and "metric" in kind)


def can_align(views: Sequence[View]) -> bool:
    """Whether the cameras are known and their centres span a plane (what its Sim(3) alignment needs)."""
    poses = known_poses(views)
    if poses is None or len(views) < 3 or any(v.camera is None for v in views):
        return False
    centres = poses[:, :3, 3] - poses[:, :3, 3].mean(axis=0)
    spread = np.linalg.svd(centres, compute_uv=False)
    return bool(spread[1] > 1e-3 * spread[0])


def from_da3(
    prediction: Any, views: Sequence[View], *, feature_layer: int, is_metric_series: bool
) -> TeacherOutput:
    """Its `Prediction` (depth (V, h, w), extrinsics (V, 3, 4) w2c, intrinsics (V, 3, 3)) as ours.

    The monocular checkpoints give no cameras; the data's stand in, and without them the depth of
    the metric one stays without a unit.
    """
    depth: NDArray[np.float32] = np.asarray(prediction.depth, np.float32)
    height, width = depth.shape[1:]
    if prediction.intrinsics is not None:
        cameras = tuple(camera_from_corner_k(k, width, height) for k in prediction.intrinsics)
        poses = poses_from_extrinsics(prediction.extrinsics)
        is_metric = bool(prediction.is_metric)
    else:
        cameras = tuple(None if v.camera is None else v.camera.resized(width, height) for v in views)
        known = [c for c in cameras if c is not None]
        is_metric = is_metric_series and len(known) == len(views)
        if is_metric:
            depth = np.stack([metres_from_da3_metric(d, c) for d, c in zip(depth, known, strict=True)])
        # poses in metres fit only a depth in metres
        poses = known_poses(views) if is_metric else None
    if prediction.sky is not None:
        depth = np.where(prediction.sky, np.float32(np.nan), depth)  # there the package invents a far depth
    features = np.asarray(prediction.aux[f"feat_layer_{feature_layer}"], np.float32)
    return TeacherOutput(
        depth=tuple(depth),
        cameras=cameras,
        first_from_camera=poses,
        confidence=None if prediction.conf is None else tuple(np.asarray(prediction.conf, np.float32)),
        features=tuple(features),
        is_metric=is_metric,
    )
