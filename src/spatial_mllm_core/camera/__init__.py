"""Camera geometry: `CameraModel` is the only owner of intrinsics."""

from spatial_mllm_core.camera.model import CameraInfoFields, CameraModel

__all__ = ["CameraInfoFields", "CameraModel"]
