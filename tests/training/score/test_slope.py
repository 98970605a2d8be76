"""A predictor whose depth goes with a power of its focal length has that power as its slope."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_training.score.depth import BlindDepth
from spatial_mllm_training.score.slope import figure, judge

SIZE = (192, 144)


def _plane(posed_image, scene="a", **options):
    return posed_image(scene, np.full((192, 256), 2.0), **options)


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.3])
def test_a_law_of_the_focal_length_is_found_again(posed_image, power):
    def predict(image, camera):
        assert image.shape == (SIZE[1], SIZE[0], 3)
        return np.full(image.shape[:2], 2.0 * camera.k[0, 0] ** power)

    found = judge([_plane(posed_image, s) for s in "ab"], predict, None, size=SIZE, limit=9)
    line = figure(found, "k", "here")
    assert line.value == pytest.approx(power, abs=1e-6)
    assert line.standard_error == pytest.approx(0, abs=1e-6)
    assert (line.verdict == "met") == (power == 0.0)
    assert line.of_words == "2 images, 2 scenes" and np.isnan(line.blind)


def test_the_blind_map_is_measured_on_the_same_views(posed_image):
    image = _plane(posed_image)
    ramp = np.repeat(np.linspace(4.0, 1.0, 48, dtype=np.float32)[:, None], 64, axis=1)
    blind = BlindDepth(2.0, ramp, None)
    line = figure(
        judge([image], lambda i, _: np.ones(i.shape[:2]), blind.predict, size=SIZE, limit=1), "k", "h"
    )
    assert line.value == pytest.approx(0, abs=1e-12)
    assert abs(line.blind) > 1e-3, "points move in the image as it is cut, and the map is no constant"


def test_narrow_images_are_passed_over_and_the_limit_is_kept(posed_image):
    wide = [_plane(posed_image, s) for s in "abc"]
    narrow = _plane(posed_image, "n", hfov_deg=50.0)  # half of it is 26 degrees wide
    told = lambda image, camera: np.ones(image.shape[:2])  # noqa: E731
    found = judge([narrow, *wide], told, None, size=SIZE, limit=2)
    assert set(found.slopes) == {"a", "b"}
    nothing = figure(judge([narrow], told, None, size=SIZE, limit=2), "k", "here")
    assert nothing.verdict == "not measured" and "wide" in nothing.note
