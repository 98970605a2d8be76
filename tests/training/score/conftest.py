"""Images of a plane at a known depth, and small figures, without a renderer."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.posed_images import Place, PosedImage


def _image(scene: str, true_m, *, frame: str = "0", hfov_deg: float = 90.0) -> PosedImage:
    true_m = np.asarray(true_m, np.float32)
    height, width = true_m.shape
    rng = np.random.default_rng(len(scene) + len(frame))
    return PosedImage(
        Place(scene, frame, 0, "benchmark"),
        rng.integers(0, 255, (height, width, 3), dtype=np.uint8),
        CameraModel.from_fov(width, height, hfov_rad=np.radians(hfov_deg)),
        np.eye(4),
        true_m,
    )


@pytest.fixture(scope="session")
def posed_image():
    """A function (scene, (H, W) true depth, ...) -> PosedImage of noise."""
    return _image
