"""Photometric jitter against its formula in floating point."""

from __future__ import annotations

import numpy as np

from spatial_mllm_training.augment.colour import Colour

IMAGE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)


def test_gain_and_gamma_follow_the_formula_and_saturate():
    got = Colour((0.8, 1.0, 1.4), 1.3, 0.0).image(IMAGE, np.random.default_rng(0))
    expected = np.clip(255 * (IMAGE / 255.0) ** 1.3 * [0.8, 1.0, 1.4], 0, 255)
    assert np.abs(got - expected).max() <= 0.5 + 1e-9
    assert (got[..., 2] == 255).any()


def test_noise_is_normal_of_the_asked_deviation_and_independent():
    grey = np.full((200, 200, 3), 128, np.uint8)
    noise = Colour((1.0, 1.0, 1.0), 1.0, 0.02).image(grey, np.random.default_rng(0)).astype(float) - 128
    assert abs(noise.mean()) < 0.05
    assert abs(noise.std() - 5.1) < 0.1
    assert abs((noise**4).mean() / noise.var() ** 2 - 3) < 0.2, "kurtosis of a normal"
    flat = noise.reshape(-1, 3)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 0.02
    assert abs(np.corrcoef(noise[:, 1:, 0].ravel(), noise[:, :-1, 0].ravel())[0, 1]) < 0.02


def test_dark_and_bright_values_do_not_wrap():
    ends = np.dstack([np.zeros((50, 50)), np.full((50, 50), 255), np.zeros((50, 50))]).astype(np.uint8)
    got = Colour((1.0, 1.0, 1.0), 1.0, 0.03).image(ends, np.random.default_rng(1))
    assert got[..., 0].max() < 60 and got[..., 1].min() > 195
