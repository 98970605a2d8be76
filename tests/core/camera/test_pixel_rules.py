"""The exact resize rule and the CameraInfo binning rule, each against what it claims to follow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.camera.pixel_rules import bin_axis, resize_axis

focals = st.floats(1, 1e4)
centres = st.floats(-1e3, 1e4)


@given(focals, centres, st.integers(2, 4096), st.integers(2, 4096))
def test_resize_keeps_the_ray_of_every_edge(f, c, old, new):
    """An image edge stays the image edge, so the rays through both edges must not change."""
    f2, c2 = resize_axis(f, c, new / old)
    for old_edge, new_edge in ((-0.5, -0.5), (old - 0.5, new - 0.5)):
        np.testing.assert_allclose((new_edge - c2) / f2, (old_edge - c) / f, rtol=1e-9, atol=1e-9)


def test_resize_agrees_with_opencvs_pixel_areas():
    """Averaging pairs of pixels puts new pixel j at old coordinate 2 j + 0.5."""
    import cv2

    ramp = np.arange(64, dtype=np.float32)[None, :].repeat(4, axis=0)
    half = cv2.resize(ramp, (32, 2), interpolation=cv2.INTER_AREA)[0]
    f, c = resize_axis(100.0, 20.0, 0.5)
    np.testing.assert_allclose((np.arange(32) - c) / f, (half - 20.0) / 100.0, atol=1e-6)


@given(focals, centres, st.integers(0, 500), st.integers(1, 8))
def test_binning_is_the_formula_written_in_image_geometry(f, c, offset, binning):
    # vision_opencv, cameramodels.py: K[0,0] /= binning_x; K[0,2] = (K[0,2] - x_offset) / binning_x
    assert bin_axis(f, c, offset, binning) == (f / binning, (c - offset) / binning)


@pytest.mark.parametrize("binning", [1, 2, 3, 4])
def test_the_two_rules_differ_by_less_than_half_a_pixel(binning):
    _, exact = resize_axis(500.0, 330.0, 1 / binning)
    _, ros = bin_axis(500.0, 330.0, 0.0, binning)
    assert ros - exact == pytest.approx(0.5 * (1 - 1 / binning))
    assert abs(ros - exact) < 0.5
