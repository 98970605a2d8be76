"""Dots stand where they are said to stand, in colours that can be told apart."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_training.multispa import dots


def _ground(seed: int = 0, width: int = 320, height: int = 240) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.broadcast_to(rng.integers(0, 256, 3).astype(np.uint8), (height, width, 3)).copy()


@pytest.mark.parametrize("seed", range(8))
def test_centroid_of_a_dot_is_its_pixel(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ground = _ground(seed)
    u, v = rng.uniform(20, 300), rng.uniform(20, 220)
    image, (mark,) = dots.draw(ground, [dots.Dot(u, v)], rng)
    weight = np.abs(image.astype(float) - ground).sum(axis=2)
    rows, columns = np.indices(weight.shape)
    assert (columns * weight).sum() / weight.sum() == pytest.approx(u, abs=0.1)
    assert (rows * weight).sum() / weight.sum() == pytest.approx(v, abs=0.1)
    area = (weight > weight.max() / 2).sum()
    assert area == pytest.approx(np.pi * (mark.radius_px + 0.5) ** 2, rel=0.2)


@pytest.mark.parametrize("seed", range(8))
def test_colours_are_apart_and_seen_on_the_ground(seed: int) -> None:
    ground = _ground(seed)
    points = [dots.Dot(40 + 60 * i, 100, "ABCD"[i]) for i in range(4)]
    image, marks = dots.draw(ground, points, np.random.default_rng(seed))
    colours = np.array([m.rgb for m in marks], int)
    for i in range(1, 4):
        nearest = np.abs(colours[:i] - colours[i]).sum(axis=1).min()
        assert nearest >= 150, "ten tries nearly always find 300"
    for dot, mark in zip(points, marks, strict=True):
        assert tuple(image[round(dot.v_px), round(dot.u_px)]) == mark.rgb
        assert np.abs(np.array(mark.rgb) - ground[0, 0].astype(int)).sum() > 80


def test_source_image_is_untouched_and_letters_stay_inside() -> None:
    ground = _ground(3)
    kept = ground.copy()
    image, _ = dots.draw(ground, [dots.Dot(317, 3, "A"), dots.Dot(2, 237, "B")], np.random.default_rng(0))
    assert np.array_equal(ground, kept)
    assert image.shape == ground.shape and not np.array_equal(image, ground)


def test_same_generator_same_picture() -> None:
    one = dots.draw(_ground(), [dots.Dot(50.4, 60.2, "C")], np.random.default_rng(5))[0]
    two = dots.draw(_ground(), [dots.Dot(50.4, 60.2, "C")], np.random.default_rng(5))[0]
    assert np.array_equal(one, two)
