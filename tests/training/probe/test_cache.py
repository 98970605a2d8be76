"""Features are looked at once, truth is sampled where the tokens look, and a cache belongs to one model."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_mllm_training.model.preprocess import Framing
from spatial_mllm_training.probe import cache as caching
from spatial_mllm_training.probe.cache import UNREADABLE, USED, WITHOUT_TRUTH, fill, true_cells_m
from spatial_mllm_training.probe.picking import pick
from spatial_mllm_training.probe.problems import ProbeProblem


class Means:
    """Taps that are mean colours of the tokens, so that they can be told apart; counts the images."""

    name, fingerprint = "means", "1"
    width, height = 64, 48

    def __init__(self):
        self.framing = Framing(64, 48, 64, 48, 64, 48, 4, 3, 16)
        self.images = 0
        self.bad = False
        self.fails_after = 10**9

    def taps(self, images_rgb, cameras):
        if self.images >= self.fails_after:
            raise KeyboardInterrupt
        self.images += len(images_rgb)
        x = torch.from_numpy(np.stack(images_rgb)).float().reshape(-1, 3, 16, 4, 16, 3).mean((2, 4))
        tokens = torch.cat([x.reshape(len(images_rgb), 12, 3), torch.ones(len(images_rgb), 12, 1)], -1)
        return torch.stack([tokens * (i + 1) * (torch.nan if self.bad else 1) for i in range(4)])


@pytest.fixture
def picked(slope_ref):
    return pick(
        [slope_ref("a", 7), slope_ref("b", 4, seed=100_100)], per_scene=9, splits=("train", "benchmark")
    )[0]


def filled(folder, model, picked, **options):
    folder.mkdir(exist_ok=True)
    return fill(folder, model, picked, max_depth_m=10.0, quiet=True, **options)


def test_every_image_is_looked_at_once_and_normalised(tmp_path, picked, slope_ref):
    model = Means()
    cache, problems = filled(tmp_path / "c", model, picked)
    assert problems == []
    assert model.images == 11 + 1  # one blank image for the width
    assert (cache.marks == USED).all()
    assert len(cache.of_split("train")) == 7
    image = slope_ref("a", 7).open().image(3)
    token = image[16:32, 32:48].reshape(-1, 3).mean(0)
    vector = np.array([*token, 1.0]) * 2
    expected = (vector - vector.mean()) / vector.std()
    assert np.allclose(cache.taps[3, 1, 1 * 4 + 2], expected, atol=2e-3)
    before = np.array(cache.taps)
    again, _ = filled(tmp_path / "c", model, picked)
    assert model.images == 13
    assert np.array_equal(again.taps, before)


def test_a_run_that_was_cut_short_goes_on_with_the_rest(tmp_path, picked):
    model = Means()
    whole, _ = filled(tmp_path / "whole", model, picked, batch=2)
    model = Means()
    model.fails_after = 5
    with pytest.raises(KeyboardInterrupt):
        filled(tmp_path / "cut", model, picked, batch=2)
    model = Means()
    cache, _ = filled(tmp_path / "cut", model, picked, batch=2)
    assert model.images == 1 + 11 - 4
    assert np.array_equal(cache.taps, whole.taps)
    assert np.array_equal(cache.cells_m, whole.cells_m)


def test_images_that_do_not_open_or_have_no_truth_are_left_out_with_a_sentence(tmp_path, slope_ref):
    refs = [slope_ref("a", 3, broken=(1,))]
    picked, _ = pick(refs, per_scene=9, splits=("train",))
    cache, problems = filled(tmp_path / "c", Means(), picked)
    assert problems == ["scene 'a', 1.png: does not open"]
    assert cache.marks.tolist() == [USED, UNREADABLE, USED]
    (tmp_path / "d").mkdir()
    none, problems = fill(tmp_path / "d", Means(), picked, max_depth_m=0.5, quiet=True)
    assert none.marks.tolist() == [WITHOUT_TRUTH, UNREADABLE, WITHOUT_TRUTH]
    assert "scene 'a', frame f00: no depth between 0 and 0.5 m" in problems
    assert len(none.of_split("train")) == 0


def test_a_cache_of_another_model_or_of_other_images_is_refused(tmp_path, picked):
    filled(tmp_path / "c", Means(), picked)
    other = Means()
    other.fingerprint = "2"
    with pytest.raises(ProbeProblem, match="features of another model, other images or another size"):
        filled(tmp_path / "c", other, picked)
    with pytest.raises(ProbeProblem, match="features of another model, other images or another size"):
        filled(tmp_path / "c", Means(), picked[:1])
    (tmp_path / "c" / "taps.f16").write_bytes(b"short")
    with pytest.raises(ProbeProblem, match=r"taps.f16 has 5 bytes instead of"):
        filled(tmp_path / "c", Means(), picked)


def test_features_that_are_not_finite_stop_with_the_image(tmp_path, picked):
    model = Means()
    model.bad = True
    with pytest.raises(
        ProbeProblem, match=r"means gives features that are not finite, near scene 'a', frame f00"
    ):
        filled(tmp_path / "c", model, picked)


@pytest.mark.parametrize(
    "framing",
    [
        Framing(64, 48, 64, 48, 64, 48, 4, 3, 16),
        Framing(64, 48, 112, 84, 112, 84, 4, 3, 28),
        # padded to a square, resampled to 96 px: the first and last rows of tokens see padding
        Framing(64, 48, 96, 96, 96, 96, 6, 6, 16, pad_top=8, padded_width=64, padded_height=64),
        # cropped in the middle
        Framing(64, 48, 128, 96, 96, 96, 6, 6, 16, crop_left=16),
    ],
)
@pytest.mark.parametrize("size", [(48, 64), (96, 128)])
def test_cells_show_the_depth_under_their_centre(framing, size):
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 12, size).astype(np.float32)
    found = true_cells_m(framing, true, 10.0)
    assert found.shape == (8 * framing.grid_height, 8 * framing.grid_width)
    centres = framing.token_centres_px()
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            # corners of the token from its centre, then the cell inside of it
            u = centres[0][j // 8] + ((j % 8 + 0.5) / 8 - 0.5) * framing.pitch_px / framing.scale_x
            v = centres[1][i // 8] + ((i % 8 + 0.5) / 8 - 0.5) * framing.pitch_px / framing.scale_y
            column = int(np.floor((u + 0.5) * size[1] / 64 + 1e-9))
            row = int(np.floor((v + 0.5) * size[0] / 48 + 1e-9))
            inside = 0 <= column < size[1] and 0 <= row < size[0]
            expected = true[row, column] if inside else 0
            assert found[i, j] == (expected if expected <= 10 else 0)
    assert (found > 0).any()
    assert caching.CELLS == 8
