"""Lens models against OpenCV, both ways, over random coefficients, and where they cannot be undone."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spatial_mllm_core.camera import distortion
from spatial_mllm_core.errors import ErrorCode, SpatialError

small = st.floats(-0.05, 0.05)
tiny = st.floats(-0.003, 0.003)


def grid(extent=0.7, n=9):
    axis = np.linspace(-extent, extent, n)
    return np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)


def opencv_distort(model, d, xy):
    points = np.column_stack([xy, np.ones(len(xy))])
    if model == "equidistant":
        return cv2.fisheye.projectPoints(points[None], np.zeros(3), np.zeros(3), np.eye(3), d)[0][0]
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3), d)[0][:, 0]


@st.composite
def lenses(draw):
    """A lens of any supported kind, strong enough to matter and one to one over the grid."""
    model, n = draw(
        st.sampled_from(
            [
                ("plumb_bob", 4),
                ("plumb_bob", 5),
                ("rational_polynomial", 5),
                ("rational_polynomial", 8),
                ("rational_polynomial", 12),
                ("rational_polynomial", 14),
                ("equidistant", 4),
            ]
        )
    )
    if model == "equidistant":
        return model, np.array([draw(small) for _ in range(4)])
    d = [draw(st.floats(-0.25, 0.3)), draw(small), draw(tiny), draw(tiny), draw(small)]
    d += [draw(small), draw(small), draw(small)]
    d += [draw(tiny) for _ in range(6)]
    d = np.array(d[:n])
    assume(one_to_one(model, d))
    return model, d


def one_to_one(model, d):
    """Whether radii up to the grid's corner keep growing in every direction, by OpenCV's numbers."""
    radii = np.linspace(0.0, 1.05, 40)
    for angle in np.linspace(0, 2 * np.pi, 12, endpoint=False):
        ray = radii[:, None] * [np.cos(angle), np.sin(angle)]
        seen = opencv_distort(model, d, ray)
        if (np.diff(np.hypot(*(seen - seen[0]).T)) < 0.1 * radii[1]).any():
            return False
    return True


@settings(max_examples=150, deadline=None)
@given(lenses())
def test_distort_is_opencvs_projection(lens):
    model, d = lens
    xy = grid()
    np.testing.assert_allclose(
        distortion.distort(model, d, xy), opencv_distort(model, d, xy), rtol=0, atol=1e-12
    )


@settings(max_examples=150, deadline=None)
@given(lenses())
def test_undistort_undoes_distort(lens):
    model, d = lens
    xy = grid()
    back = distortion.undistort(model, d, distortion.distort(model, d, xy))
    np.testing.assert_allclose(back, xy, rtol=0, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(lenses())
def test_undistort_is_opencvs_undistort_carried_to_convergence(lens):
    model, d = lens
    xy = opencv_distort(model, d, grid(0.5, 7))
    until = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 500, 1e-13)
    if model == "equidistant":
        expected = cv2.fisheye.undistortPoints(xy[None], np.eye(3), d, criteria=until)[0]
    elif hasattr(cv2, "undistortPointsIter"):  # OpenCV 4
        expected = cv2.undistortPointsIter(xy[:, None], np.eye(3), d, None, None, until)[:, 0]
    else:
        expected = cv2.undistortPoints(xy[:, None], np.eye(3), d, criteria=until)[:, 0]
    np.testing.assert_allclose(distortion.undistort(model, d, xy), expected, rtol=0, atol=1e-7)


def test_a_strong_real_lens_is_undone_where_five_iterations_are_not_enough():
    """A 120-degree action camera's plumb_bob: OpenCV's default stops far from the answer."""
    d = np.array([-0.30, 0.11, 0.0002, 0.0003, -0.018])
    xy = np.array([[1.1, 0.5], [-1.0, 0.6], [0.9, -0.7]])
    seen = opencv_distort("plumb_bob", d, xy)
    back = distortion.undistort("plumb_bob", d, seen)
    np.testing.assert_allclose(back, xy, atol=1e-9)
    default = cv2.undistortPoints(seen[:, None], np.eye(3), d)[:, 0]
    assert np.abs(default - xy).max() > 1e-4


def test_a_place_the_lens_cannot_reach_is_nan_not_a_guess():
    # with k1 = -0.5 the distorted radius r - 0.5 r^3 peaks at 0.544
    d = np.array([-0.5, 0.0, 0.0, 0.0, 0.0])
    out = distortion.undistort("plumb_bob", d, np.array([[0.2, 0.1], [0.6, 0.0], [0.0, 0.9]]))
    assert np.isfinite(out[0]).all()
    assert np.isnan(out[1:]).all()


def test_the_answer_stays_on_the_near_side_of_a_fold():
    """r - 0.3 r^3 takes each value twice; only the radius before the fold is one a lens shows."""
    d = np.array([-0.3, 0.0, 0.0, 0.0, 0.0])
    fold = 1 / np.sqrt(0.9)
    radii = np.linspace(0.0, 0.995 * fold, 40)
    seen = radii - 0.3 * radii**3
    out = distortion.undistort("plumb_bob", d, np.column_stack([seen, np.zeros_like(seen)]))
    np.testing.assert_allclose(out[:, 0], radii, atol=1e-8)


def test_nan_pixels_stay_nan():
    for model, d in (("plumb_bob", [0.1, 0, 0, 0, 0]), ("equidistant", [0.01, 0, 0, 0])):
        out = distortion.undistort(model, np.array(d, float), np.array([[np.nan, 0.1], [0.1, 0.1]]))
        assert np.isnan(out[0]).any()
        assert np.isfinite(out[1]).all()


def test_fisheye_angle_reaches_beyond_ninety_degrees_and_stops_at_its_fold():
    ideal = np.zeros(4)
    np.testing.assert_allclose(distortion.undistort_theta(ideal, np.array([2.0])), [2.0])
    folding = np.array([-0.2, 0.0, 0.0, 0.0])  # grows up to theta = sqrt(1 / 0.6)
    limit = distortion.theta_limit(folding)
    assert limit == pytest.approx(np.sqrt(1 / 0.6))
    peak = limit - 0.2 * limit**3
    theta = distortion.undistort_theta(folding, np.array([0.5 * peak, 1.01 * peak]))
    assert 0 < theta[0] < limit
    assert np.isnan(theta[1])


def test_a_coefficient_that_is_almost_zero_does_no_harm():
    d = np.array([0.0, 0.03, 0.004, 1.2e-38])
    xy = grid(0.5, 5)
    np.testing.assert_allclose(
        distortion.undistort("equidistant", d, distortion.distort("equidistant", d, xy)), xy, atol=1e-9
    )


@pytest.mark.parametrize(
    ("model", "n"),
    [("plumb_bob", 3), ("plumb_bob", 8), ("rational_polynomial", 6), ("equidistant", 5)],
)
def test_b25_wrong_number_of_coefficients(model, n):
    with pytest.raises(SpatialError) as caught:
        distortion.checked(model, np.full(n, 0.01))
    assert caught.value.code == ErrorCode.BAD_DISTORTION
    assert f"found {n}" in caught.value.sentence


@pytest.mark.parametrize("model", ["Plumb_Bob", "omni", "x" * 10_000, "plumb_bob\x00", "a\nb"])
def test_b25_unknown_model(model):
    with pytest.raises(SpatialError) as caught:
        distortion.checked(model, np.full(5, 0.01))
    assert caught.value.code == ErrorCode.UNKNOWN_DISTORTION_MODEL
    assert "\n" not in caught.value.sentence
    assert len(caught.value.sentence) <= 400


def test_b25_librealsenses_names_of_the_same_models():
    d = np.array([0.1, 0.01, 0.001, 0.002, 0.003])
    assert distortion.checked("Brown Conrady", d)[0] == "plumb_bob"
    assert distortion.checked("Kannala Brandt4", d[:4])[0] == "equidistant"


@pytest.mark.parametrize("model", ["", "pinhole", "Inverse Brown Conrady"])
def test_b25_coefficients_without_a_model_that_uses_them(model):
    with pytest.raises(SpatialError) as caught:
        distortion.checked(model, np.array([0.1, 0, 0, 0, 0]))
    assert caught.value.code == ErrorCode.UNKNOWN_DISTORTION_MODEL


def test_b25_nan_coefficient():
    with pytest.raises(SpatialError) as caught:
        distortion.checked("plumb_bob", np.array([0.1, np.nan, 0, 0, 0]))
    assert caught.value.code == ErrorCode.BAD_DISTORTION


@pytest.mark.parametrize(
    "model",
    ["", "plumb_bob", "rational_polynomial", "pinhole", "None", "Brown Conrady", "Inverse Brown Conrady"],
)
def test_b25_empty_and_zero_coefficients_mean_no_distortion(model):
    for d in (np.zeros(0), np.zeros(5)):
        _, kept = distortion.checked(model, d)
        assert kept.size == 0


def test_b26_four_zeros_of_a_fisheye_are_not_a_pinhole():
    model, d = distortion.checked("fisheye", np.zeros(4))
    assert model == "equidistant"
    out = distortion.distort(model, d, np.array([[1.0, 0.0]]))
    assert out[0, 0] == pytest.approx(np.pi / 4)
