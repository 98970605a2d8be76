"""A probe finds what is in the features, stays blind on noise, and goes on where it was stopped."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_mllm_training.probe.errors import image_error
from spatial_mllm_training.probe.fit import ProbeConfig, fit, judge
from spatial_mllm_training.probe.problems import ProbeProblem

CONFIG = ProbeConfig(hidden=24, bins=128, epochs=40, learning_rate=2e-3, batch=8)


def figures(cache, training, held_out, checkpoint, config=CONFIG):
    probe = fit(cache, training, config, checkpoint, quiet=True)
    return judge(probe, cache, training, held_out, quiet=True)


def test_depth_that_is_linear_in_the_features_is_found_and_noise_stays_blind(synthetic_cache, tmp_path):
    told = figures(*synthetic_cache(informative=True), tmp_path / "told.pt")
    noise = figures(*synthetic_cache(informative=False), tmp_path / "noise.pt")
    assert told.blind == noise.blind  # the same depths
    assert told.probe.rmse_m < 0.3 * told.blind.rmse_m
    assert told.probe.delta1 > 0.95
    assert 0.9 * noise.blind.rmse_m < noise.probe.rmse_m < 1.6 * noise.blind.rmse_m
    assert noise.matched.rmse_m > 1.5 * told.matched.rmse_m


def test_figures_equal_those_of_a_loop_over_images(synthetic_cache, tmp_path):
    cache, training, held_out = synthetic_cache(informative=True, count=30)
    config = dataclasses.replace(CONFIG, epochs=1)
    probe = fit(cache, training, config, tmp_path / "p.pt", quiet=True)
    found = judge(probe, cache, training, held_out, quiet=True)
    rmse, truths = [], np.concatenate([cache.cells_m[i][cache.cells_m[i] > 0] for i in training])
    blind = []
    for i in held_out:
        taps = torch.from_numpy(cache.taps[i : i + 1].astype(np.float32)).transpose(0, 1)
        with torch.no_grad():
            depth = probe(taps, *cache.grid)[0].numpy()
        true = cache.cells_m[i]
        rmse.append(np.sqrt(np.mean((depth[true > 0] - true[true > 0]) ** 2)))
        blind.append(np.sqrt(np.mean((truths.mean() - true[true > 0]) ** 2)))
    assert found.probe.rmse_m == pytest.approx(np.mean(rmse), rel=1e-5)
    assert found.blind.rmse_m == pytest.approx(np.mean(blind), rel=1e-5)
    by_place = np.sum([cache.cells_m[i] for i in training], axis=0) / np.maximum(
        np.sum([cache.cells_m[i] > 0 for i in training], axis=0), 1
    )
    by_place[:3] = truths.mean()  # rows that never have a truth
    expected = [image_error(by_place, cache.cells_m[i]).rmse_m for i in held_out]
    assert found.blind_by_place.rmse_m == pytest.approx(np.mean(expected), rel=1e-5)
    assert [p.frame for p in found.places] == [cache.places[i].frame for i in held_out]


class Stopped(Exception):
    pass


def test_a_probe_that_was_stopped_goes_on_to_the_same_weights(synthetic_cache, tmp_path):
    cache, training, _ = synthetic_cache(informative=True, count=40)
    config = dataclasses.replace(CONFIG, epochs=5)
    whole = fit(cache, training, config, tmp_path / "whole.pt", quiet=True)

    def stop(epoch, _loss):
        if epoch == 2:
            raise Stopped

    with pytest.raises(Stopped):
        fit(cache, training, config, tmp_path / "cut.pt", quiet=True, after_epoch=stop)
    epochs = []
    torch.manual_seed(99)
    resumed = fit(
        cache, training, config, tmp_path / "cut.pt", quiet=True, after_epoch=lambda e, _: epochs.append(e)
    )
    assert epochs == [3, 4, 5]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    other = fit(cache, training, dataclasses.replace(config, seed=1), tmp_path / "other.pt", quiet=True)
    assert not torch.equal(other.out[0].weight, whole.out[0].weight)


def test_a_foreign_or_torn_checkpoint_is_named(synthetic_cache, tmp_path):
    cache, training, _ = synthetic_cache(informative=True, count=30)
    file = tmp_path / "probe.pt"
    fit(cache, training, dataclasses.replace(CONFIG, epochs=1), file, quiet=True)
    with pytest.raises(ProbeProblem, match=r"probe.pt belongs to a probe of another configuration"):
        fit(cache, training, dataclasses.replace(CONFIG, epochs=2), file, quiet=True)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ProbeProblem, match=r"probe.pt is not a whole checkpoint"):
        fit(cache, training, CONFIG, file, quiet=True)


def test_no_image_and_nan_end_in_sentences(synthetic_cache, tmp_path):
    cache, training, held_out = synthetic_cache(informative=True, count=30)
    config = dataclasses.replace(CONFIG, epochs=1)
    with pytest.raises(ProbeProblem, match="no usable image of the split 'train'"):
        fit(cache, held_out[:0], config, tmp_path / "a.pt", quiet=True)
    probe = fit(cache, training, config, tmp_path / "b.pt", quiet=True)
    with pytest.raises(ProbeProblem, match="no usable held-out image"):
        judge(probe, cache, training, held_out[:0], quiet=True)
    cache.taps[training[0]] = np.nan
    with pytest.raises(ProbeProblem, match=r"loss is nan in epoch 1, in the batch of scene 's', frame"):
        fit(cache, training, config, tmp_path / "c.pt", quiet=True)
    assert not (tmp_path / "c.pt").exists()
