"""Corresponding pixels against OpenCV's projection, distorted lenses included."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.tasks import correspondence

FIRST = CameraModel.from_k(
    np.array([[520.0, 0, 322.5], [0, 515.0, 236.0], [0, 0, 1]]),
    640,
    480,
    distortion_model="plumb_bob",
    d=[0.08, -0.15, 0.001, -0.0007, 0.02],
)
SECOND = CameraModel.from_k(np.array([[610.0, 0, 500.0], [0, 612.0, 380.0], [0, 0, 1]]), 1000, 750)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    first, second = np.eye(4), np.eye(4)
    first[:3, :3] = cv2.Rodrigues(np.array([0.4, -0.2, 0.9]))[0]
    first[:3, 3] = (0.3, 1.0, -2.0)
    second[:3, :3] = first[:3, :3] @ cv2.Rodrigues(np.array([0.02, 0.15, -0.05]))[0]
    second[:3, 3] = first[:3, 3] + (0.2, -0.1, 0.05)
    return first, second


def in_camera(world_from_camera, points_m, camera):
    """Pixels and z-depths by OpenCV's own projection, forward only."""
    camera_from_world = np.linalg.inv(world_from_camera)
    rotation, position = cv2.Rodrigues(camera_from_world[:3, :3])[0], camera_from_world[:3, 3]
    pixels = cv2.projectPoints(points_m, rotation, position, camera.k, camera.d)[0][:, 0]
    return pixels, cv2.transform(points_m[:, None], camera_from_world[:3])[:, 0, 2]


def test_pixels_equal_opencvs_projection_of_the_same_points(pair):
    first, second = pair
    points = np.random.default_rng(0).uniform((-0.8, -0.6, 1.2), (0.8, 0.6, 4.0), (300, 3))
    points = cv2.transform(points[:, None], first[:3])[:, 0]
    pixels, depths = in_camera(first, points, FIRST)
    expected, expected_z = in_camera(second, points, SECOND)
    ours, z = correspondence.corresponding_pixels(pixels, depths, FIRST, first, SECOND, second)
    seen = ((pixels >= 0) & (pixels < (640, 480))).all(axis=1)
    assert seen.sum() > 150
    np.testing.assert_allclose(ours[seen], expected[seen], atol=1e-4)
    np.testing.assert_allclose(z[seen], expected_z[seen], atol=1e-6)


def test_there_and_back_is_the_same_pixel(pair):
    first, second = pair
    pixels, depths = np.array([[100.0, 80.0], [600.0, 400.0]]), np.array([1.5, 3.0])
    there, z = correspondence.corresponding_pixels(pixels, depths, FIRST, first, SECOND, second)
    back, depth_again = correspondence.corresponding_pixels(there, z, SECOND, second, FIRST, first)
    np.testing.assert_allclose(back, pixels, atol=1e-6)
    np.testing.assert_allclose(depth_again, depths, atol=1e-9)


def test_a_point_behind_the_second_camera_has_no_pixel():
    behind = np.diag([-1.0, 1.0, -1.0, 1.0])
    pixels, z = correspondence.corresponding_pixels(
        np.array([[320.0, 240.0]]), np.array([2.0]), FIRST, np.eye(4), SECOND, behind
    )
    assert np.isnan(pixels).all()
    assert z[0] == pytest.approx(-2.0)


def test_the_truth_is_the_second_images_own_share_of_width_and_height():
    truth = correspondence.coordinate_truth((250.0, 600.0), SECOND.width, SECOND.height)
    assert truth.values == pytest.approx((250.0, 800.0))
    assert correspondence.CORRESPONDENCE.gt_value(truth) == [250, 800]
    assert correspondence.CORRESPONDENCE.answer_image == 1


def test_letters_count_from_a():
    letters = [correspondence.letter_truth(i).label for i in range(4)]
    assert letters == ["A", "B", "C", "D"]
