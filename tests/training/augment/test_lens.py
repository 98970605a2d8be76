"""Rectification against OpenCV's undistort; no pixel of a rectified image is made up."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.augment.lens import rectified

K = np.array([[90.0, 0, 62.0], [0, 92.0, 50.0], [0, 0, 1]])
LENSES = {
    "barrel": ("plumb_bob", [-0.25, 0.06, 0.001, -0.001, 0.0]),
    "pincushion": ("plumb_bob", [0.15, 0.02, 0.0, 0.001, 0.0]),
    "rational": ("rational_polynomial", [0.3, -0.1, 0.0005, 0.0, 0.01, 0.5, -0.05, 0.0]),
}


@pytest.mark.parametrize("name", LENSES)
def test_image_and_points_are_opencvs(name):
    model, d = LENSES[name]
    camera = CameraModel.from_k(K, 128, 96, d=d, distortion_model=model)
    lens = rectified(camera)
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), 1.5)
    whole = cv2.undistort(image, K, np.array(d))
    x, y = lens.x, lens.y
    expected = whole[y : y + lens.camera.height, x : x + lens.camera.width]
    assert np.abs(lens.image(image)[1:-1, 1:-1].astype(int) - expected[1:-1, 1:-1]).max() <= 3
    assert lens.camera == CameraModel.from_k(K, 128, 96).cropped(x, y, lens.camera.width, lens.camera.height)
    pixels = np.array([[30.0, 20.0], [90.0, 70.0], [62.0, 50.0]])
    ideal = cv2.undistortPoints(pixels[:, None], K, np.array(d), P=K)[:, 0]
    np.testing.assert_allclose(lens.points(pixels), ideal - (x, y), atol=2e-2)


@pytest.mark.parametrize("name", LENSES)
def test_only_pixels_that_were_taken_are_shown(name):
    model, d = LENSES[name]
    lens = rectified(CameraModel.from_k(K, 128, 96, d=d, distortion_model=model))
    assert lens.map_x.min() >= -0.5 and lens.map_x.max() <= 127.5
    assert lens.map_y.min() >= -0.5 and lens.map_y.max() <= 95.5
    assert lens.camera.width > 80 and lens.camera.height > 60
    if name == "barrel":  # what K keeps of a wide lens is less than the lens saw
        assert (lens.camera.width, lens.camera.height) == (128, 96)
    assert 0.7 < lens.kept_share < 1.0


def test_far_rays_that_a_folded_lens_maps_back_into_the_image_are_not_shown():
    # the radius grows until r^2 = 1 / (3 * 0.5) and shrinks beyond, all of it inside the image
    camera = CameraModel.from_k([40.0, 0, 63.5, 0, 40.0, 47.5, 0, 0, 1], 128, 96, d=[-0.5, 0, 0, 0, 0])
    lens = rectified(camera)
    far = np.array([[0, 0], [lens.camera.width - 1, 0], [0, lens.camera.height - 1]]) + (lens.x, lens.y)
    radius = np.linalg.norm((far - camera.k[:2, 2]) / 40.0, axis=1)
    assert (radius**2 < 1 / 1.5 + 0.01).all()
    assert lens.kept_share > 0.1  # of a lens that folds 22 px from its middle


def test_a_lens_without_any_rectified_image_is_refused():
    camera = CameraModel.from_k([400.0, 0, 2000.0, 0, 400.0, 40.0, 0, 0, 1], 64, 48, d=[-0.3, 0.05, 0, 0, 0])
    with pytest.raises(SpatialError, match="leaves no rectified image") as caught:
        rectified(camera)
    assert caught.value.code == ErrorCode.BAD_DISTORTION
