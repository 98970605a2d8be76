"""The slope against scipy and least squares with a constant per point; views against OpenCV's projection."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import stats

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.ablate.focal import SCALES, focal_views, image_slope, mean_slope, sample

CAMERA = CameraModel.from_k([180.0, 0, 131.2, 0, 186.0, 90.4, 0, 0, 1], 256, 192)


def test_the_slope_of_one_point_is_scipys():
    rng = np.random.default_rng(0)
    depth_m = np.exp(rng.normal(size=(5, 1)))
    expected = stats.linregress(np.log(SCALES), np.log(depth_m[:, 0])).slope
    assert image_slope(SCALES, depth_m) == pytest.approx(expected, abs=1e-12)


def test_the_slope_of_many_points_is_least_squares_with_a_constant_each():
    rng = np.random.default_rng(1)
    scales = np.exp(rng.normal(size=6))
    depth_m = np.exp(rng.normal(size=(6, 9)))
    design = np.zeros((54, 10))
    design[:, 0] = np.repeat(np.log(scales), 9)
    design[np.arange(54), 1 + np.tile(np.arange(9), 6)] = 1.0
    expected = np.linalg.lstsq(design, np.log(depth_m).reshape(-1), rcond=None)[0][0]
    assert image_slope(scales, depth_m) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("slope", [-1.0, 0.0, 0.4])
def test_a_law_is_found_again(slope):
    scales = np.array(SCALES)
    depth_m = np.array([0.5, 1.0, 3.0]) * scales[:, None] ** slope
    assert image_slope(scales, depth_m) == pytest.approx(slope, abs=1e-12)


@pytest.mark.parametrize(
    ("scales", "depth_m"),
    [([1.0, 1.0], np.ones((2, 3))), ([1.0, 2.0], np.zeros((2, 3))), ([1.0, 2.0], np.ones(2))],
)
def test_what_gives_no_slope_is_refused(scales, depth_m):
    with pytest.raises(ValueError, match=r"slope|positive|depths"):
        image_slope(scales, depth_m)


def test_the_mean_has_scipys_standard_error():
    slopes = [-0.9, -1.2, -0.4, 0.1]
    found = mean_slope(slopes)
    assert found.mean == pytest.approx(np.mean(slopes))
    assert found.standard_error == pytest.approx(stats.sem(slopes))
    assert np.isnan(mean_slope([1.0]).standard_error) and mean_slope([]).images == 0


def test_the_same_surface_points_are_seen_in_every_view():
    """Points taken from the first view, at one depth, project to where the other views have them."""
    rng = np.random.default_rng(2)
    views = focal_views(
        np.zeros((192, 256, 3), np.uint8),
        CAMERA,
        np.full((192, 256), 2.0),
        size=(128, 96),
        points=30,
        rng=rng,
    )
    assert [v.scale for v in views] == pytest.approx(SCALES, rel=0.03)
    in_camera = views[0].camera.rays(views[0].pixels) * 2.0
    for view in views:
        assert (view.camera.width, view.camera.height) == (128, 96)
        expected, _ = cv2.projectPoints(in_camera, np.zeros(3), np.zeros(3), view.camera.k, None)
        np.testing.assert_allclose(view.pixels, expected[:, 0], atol=1e-6)
        assert (view.pixels > 1).all() and (view.pixels < [126, 94]).all()


def test_the_picture_goes_with_the_camera():
    """A bright square stays under its pixels, and grows as f does."""
    image = np.zeros((192, 256, 3), np.uint8)
    image[90:102, 122:134] = 255
    true_m = np.zeros((192, 256))
    true_m[94:98, 126:130] = 1.5
    views = focal_views(image, CAMERA, true_m, size=(256, 192), points=10, rng=np.random.default_rng(0))
    areas = []
    for view in views:
        assert sample(view.image[..., 0], view.pixels, (256, 192)).min() > 250
        areas.append((view.image[..., 0] > 127).sum())
    np.testing.assert_allclose(np.sqrt(np.divide(areas, areas[2])), [v.scale for v in views], rtol=0.04)


def test_too_few_depths_give_no_view():
    image, nothing = np.zeros((192, 256, 3), np.uint8), np.zeros((192, 256))
    assert focal_views(image, CAMERA, nothing, size=(64, 48), points=3, rng=np.random.default_rng(0)) == []
