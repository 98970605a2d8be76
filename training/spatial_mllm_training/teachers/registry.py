"""Teachers by name; a package that only one of them needs is imported when that one is built."""

from __future__ import annotations

from pathlib import Path

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.teachers.base import Teacher
from spatial_mllm_training.teachers.depth_anything_3 import DEFAULT_WEIGHTS as DA3_WEIGHTS
from spatial_mllm_training.teachers.depth_anything_3 import DepthAnything3Teacher
from spatial_mllm_training.teachers.ground_truth import GroundTruth
from spatial_mllm_training.teachers.specialist import SpecialistTeacher
from spatial_mllm_training.teachers.vggt import DEFAULT_WEIGHTS as VGGT_WEIGHTS
from spatial_mllm_training.teachers.vggt import VGGTTeacher

TEACHERS = ("ground_truth", "depth_anything_3", "vggt", "specialist")


def build_teacher(name: str, *, weights: str = "", device: str = "cpu") -> Teacher:
    """The named teacher. `weights` is a checkpoint's name or path; "" = the published default.

    Raises:
        SpatialError: BACKEND_UNAVAILABLE for an unknown name or a package that is not installed,
            MODEL_MISSING or MODEL_SIGNATURE for weights that cannot be used.
    """
    if name == "ground_truth":
        return GroundTruth()
    if name == "depth_anything_3":
        return DepthAnything3Teacher(weights or DA3_WEIGHTS, device)
    if name == "vggt":
        return VGGTTeacher(weights or VGGT_WEIGHTS, device)
    if name == "specialist":
        if not weights:
            raise SpatialError(
                ErrorCode.MODEL_MISSING,
                "teacher 'specialist' has no published weights: give its file, which "
                "'python -m spatial_mllm_training.train_teacher' makes",
            )
        return SpecialistTeacher.load(Path(weights), device)
    raise SpatialError(
        ErrorCode.BACKEND_UNAVAILABLE, f"there is no teacher '{name}'; known are {', '.join(TEACHERS)}"
    )
