"""VGGT as a teacher, through its public package (transformers 5.23 has no VGGT of its own).

Written against facebookresearch/vggt (README "Detailed Usage"). Run once by hand on a fork of it with
the same interface and random weights, where our points equalled its own unprojection to 3e-7;
never with real ones. Tests hold the conversion of its answers.

Its answers are known up to one factor. Images are resized as its loader does, longest side 518 px
and both sides multiples of 14, except that tall images are not cropped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.teachers.base import (
    TeacherOutput,
    View,
    check_one_size,
    hash_of_weights,
    published,
)
from spatial_mllm_training.teachers.conventions import poses_from_extrinsics

DEFAULT_WEIGHTS = "facebook/VGGT-1B"
_LONGEST_SIDE_PX = 518
_PATCH_PX = 14


class VGGTTeacher:
    """Args: weights, a checkpoint's name or folder; device, as torch names it.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE when the package is not installed, MODEL_MISSING for weights that
            cannot be loaded.
    """

    name = "vggt"
    version = f"1/{_LONGEST_SIDE_PX}"

    def __init__(self, weights: str = DEFAULT_WEIGHTS, device: str = "cpu") -> None:
        try:
            from vggt.models.vggt import VGGT
            from vggt.utils.pose_enc import pose_encoding_to_extri_intri
        except ImportError as error:
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"teacher 'vggt' needs the package 'vggt', which cannot be imported ({error}); run 'pip install .' "
                "in a clone of facebookresearch/vggt (its checkpoint VGGT-1B is CC BY-NC 4.0, not for "
                "commercial use; VGGT-1B-Commercial has a licence of its own)",
            ) from None
        self._model = published(self.name, weights, VGGT.from_pretrained).to(device).eval()
        self._cameras_of = pose_encoding_to_extri_intri
        self._device = torch.device(device)

    def weights_hash(self) -> str:
        return hash_of_weights(self._model)

    @torch.no_grad()
    def predict(self, views: Sequence[View]) -> TeacherOutput:
        width, height = input_size(*check_one_size(self.name, views))
        images = torch.from_numpy(np.stack([v.image for v in views])).to(self._device)
        images = images.permute(0, 3, 1, 2).float() / 255.0
        images = F.interpolate(images, size=(height, width), mode="bicubic", antialias=True)
        images = images.clamp(0.0, 1.0)[None]
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type == "cuda"):
            layers, first_patch = self._model.aggregator(images)
        with torch.autocast(self._device.type, enabled=False):
            pose = self._model.camera_head(layers)[-1]
            extrinsics, intrinsics = self._cameras_of(pose, images.shape[-2:])
            depth, confidence = self._model.depth_head(layers, images=images, patch_start_idx=first_patch)
        tokens = layers[-1][0, :, first_patch:]
        features = tokens.reshape(len(views), height // _PATCH_PX, width // _PATCH_PX, -1)
        arrays = (x.float().cpu().numpy() for x in (depth[0], confidence[0], extrinsics[0], intrinsics[0]))
        return from_vggt(*arrays, features.float().cpu().numpy())


def input_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) at which VGGT looks at an image: longest side 518, the other to the nearest 14."""
    scale = _LONGEST_SIDE_PX / max(width, height)
    w, h = (max(1, round(side * scale / _PATCH_PX)) * _PATCH_PX for side in (width, height))
    return w, h


def from_vggt(
    depth_VHW1: ArrayLike,
    confidence_VHW: ArrayLike,
    extrinsics_V34: ArrayLike,
    intrinsics_V33: ArrayLike,
    features: NDArray[np.float32],
) -> TeacherOutput:
    """Its depth head's and camera head's answers as ours."""
    depth = np.asarray(depth_VHW1, np.float32)[..., 0]
    height, width = depth.shape[1:]
    return TeacherOutput(
        depth=tuple(depth),
        cameras=tuple(CameraModel.from_k(k, width, height) for k in np.asarray(intrinsics_V33)),
        first_from_camera=poses_from_extrinsics(extrinsics_V34),
        confidence=tuple(np.asarray(confidence_VHW, np.float32)),
        features=tuple(features),
        is_metric=False,
    )
