"""Depth figures against formulas, blind depth against brute force, the runtime's own depth bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.score.depth import MAP_SIZE, BlindDepth, figures, judge, predictor
from spatial_mllm_training.score.images import Domain

BUNDLE = Path(__file__).parents[3] / "models" / "spatial-mllm-mini"


def _truth(seed: int, low: float = 1.0, high: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, (48, 64)).astype(np.float32)


@pytest.mark.parametrize(("factor", "abs_rel", "delta1"), [(1.0, 0, 1), (1.2, 0.2, 1), (1.3, 0.3, 0)])
def test_a_wrong_scale_gives_its_own_error(posed_image, factor, abs_rel, delta1):
    images = [posed_image("a", _truth(0)), posed_image("b", _truth(1))]
    depths = iter([factor * i.true_m for i in images])
    lines = figures(judge(images, lambda *_: next(depths), None), "k", "here", has_goal=True)
    assert [line.value for line in lines] == pytest.approx([abs_rel, delta1], abs=1e-5)
    assert [line.verdict == "met" for line in lines] == [abs_rel <= 0.08, delta1 >= 0.95]
    assert all(np.isnan(line.blind) for line in lines)


def test_a_scene_with_more_images_weighs_no_more(posed_image):
    images = [posed_image("a", _truth(i)) for i in range(3)] + [posed_image("b", _truth(3))]
    depths = iter(
        [1.1 * images[0].true_m, 1.1 * images[1].true_m, 1.1 * images[2].true_m, 1.5 * images[3].true_m]
    )
    line = figures(judge(images, lambda *_: next(depths), None), "k", "here", has_goal=True)[0]
    assert line.value == pytest.approx((0.1 + 0.5) / 2, abs=1e-5)
    assert line.standard_error == pytest.approx(np.std([0.1, 0.5], ddof=1) / np.sqrt(2), abs=1e-5)
    assert line.of_words == "4 images, 2 scenes"


def test_blind_depth_is_median_and_geometric_mean_of_the_place(posed_image):
    truths = [_truth(i, 0.5, 8.0) for i in range(4)]
    truths[1][:10] = 0  # no depth
    truths[2][:10] = np.nan
    fitted = BlindDepth.fit(posed_image(f"s{i}", t) for i, t in enumerate(truths))
    stack = np.where(np.nan_to_num(truths) > 0, truths, np.nan)
    assert stack.shape[1:] == MAP_SIZE[::-1]  # of the map's size, so that no cell is resampled
    assert fitted.map_m == pytest.approx(np.exp(np.nanmean(np.log(stack), axis=0)), rel=1e-4)
    assert fitted.constant_m == pytest.approx(np.nanmedian(stack), rel=0.1)
    assert fitted.domain.words.startswith("90° wide, ")
    assert np.percentile(fitted.domain.true_m, [5, 95]) == pytest.approx(
        np.nanpercentile(stack, [5, 95]), rel=0.1
    )
    assert BlindDepth.fit([posed_image("a", np.zeros((48, 64)))]) is None


def test_the_better_blind_answer_stands_beside_the_figure(posed_image):
    """A floor that is always below: the map knows it, the constant does not."""
    floor = np.repeat(np.linspace(6.0, 1.0, 48, dtype=np.float32)[:, None], 64, axis=1)
    blind = BlindDepth.fit([posed_image("t", floor)])
    found = judge([posed_image("a", floor)], lambda *_: floor, blind)
    abs_rel, delta1 = figures(found, "k", "here", has_goal=False)
    assert abs_rel.blind == pytest.approx(0, abs=1e-5) and delta1.blind == 1.0
    constant = np.abs(blind.constant_m / floor - 1).mean()
    assert abs_rel.note.endswith(f"median depth of training images: {constant:.3f}")
    assert abs_rel.goal is None and abs_rel.verdict == ""
    far = BlindDepth(2.0, np.full(MAP_SIZE[::-1], 9.0, np.float32), Domain())
    flat = posed_image("b", np.full((48, 64), 2.0))
    assert figures(judge([flat], lambda *_: floor, far), "k", "h", has_goal=False)[0].blind == pytest.approx(
        0
    )


def test_an_image_that_is_refused_is_left_out_and_named(posed_image):
    def refuse(image, camera):
        raise SpatialError(ErrorCode.INVALID_OUTPUT, "the depth map has values that are not finite")

    found = judge([posed_image("kitchen", _truth(0), frame="t00")], refuse, None)
    assert found.images == 0 and found.notes[0].startswith("scene 'kitchen', image t00: the depth map")
    lines = figures(found, "k", "here", has_goal=True)
    assert {line.verdict for line in lines} == {"not measured"}
    assert "kitchen" in lines[0].note


@pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")
def test_a_bundle_is_asked_through_the_runtime(posed_image):
    model, image = SpatialModel.load(BUNDLE), posed_image("a", _truth(0))
    predict = predictor(model)
    first, second = (predict(image.image_rgb, image.camera) for _ in range(2))
    served = model.perceive(Frame(77, "optical", image.image_rgb, image.camera)).depth_m
    assert first.shape == image.true_m.shape
    assert (first == served).all() and (second == served).all()
