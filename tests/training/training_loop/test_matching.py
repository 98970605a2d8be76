"""A matcher in the training loop: alone, beside answers, and in runs that go on from others."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_mllm_training.model.matcher import MatcherSize, cell_of, matching_loss
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.beginning import begin_with
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.objective import Objective, figures
from spatial_mllm_training.training_loop.setup import build_learner, build_sources, collated

SIZE = MatcherSize(stem=8, channels=16, dilations=(1,), features=16)


@pytest.fixture
def matching(micro):
    """A function (**changes) -> a micro recipe with a matcher."""
    plain = RECIPES["smoke"]().model
    model = dataclasses.replace(plain, clips=True, pointers=True, deep_pointers=True, matcher=SIZE)

    def make(**changes):
        return micro(**{"model": model, "match_weight": 1.0, **changes})

    return make


def batch_of(config, paths, count=4):
    learner = build_learner(config)
    sources, _, _ = build_sources(config, paths, learner)
    return learner, collated([sources["pairs"].sample(i) for i in range(count)], config, learner)


def test_the_objective_learns_from_so_many_pairs_as_the_recipe_says(matching, scenes):
    config = matching()
    learner, batch = batch_of(config, scenes)
    (group,) = batch.groups
    later = [n for n in range(8) if group.match_map[n].isfinite().all(-1).any()]
    assert len(later) > 2 and {n % 2 for n in later} == {1}  # second images that show something of the first
    grid = SIZE.grid(64, 96)
    features = learner.model.matcher(normalised(learner.model.processing, group.pixels.permute(0, 3, 1, 2)))

    def expected(images):
        first = group.first[images]
        truth = group.match_map[images].flatten(1, 2)
        return float(matching_loss(features[first], features[images], truth, grid))

    for pairs, images in ((None, later), (2, later[:2])):
        objective = Objective.of(dataclasses.replace(config, match_pairs=pairs), learner.model)
        assert float(objective(batch)["match_loss"]) == pytest.approx(expected(images), rel=1e-4)
    assert "match_loss" not in Objective.of(dataclasses.replace(config, match_weight=0.0), learner.model)(
        batch
    )


@torch.no_grad()
def test_what_is_matched_rightly_is_within_the_published_five_percent(matching, scenes):
    config = matching()
    learner, batch = batch_of(config, scenes)
    objective = Objective.of(config, learner.model).eval()
    right = objective(batch, only_predict=True).matched.numpy()
    (group,) = batch.groups
    rows, columns = SIZE.grid(64, 96)
    features = learner.model.matcher(normalised(learner.model.processing, group.pixels.permute(0, 3, 1, 2)))
    slow = []
    for n in (1, 3, 5, 7):
        for cell, (x, y, _) in enumerate(group.match_map[n].flatten(0, 1).tolist()):
            if np.isfinite([x, y]).all():
                best = int((features[n] @ features[group.first[n]][cell]).argmax())
                off = (best % columns + 0.5) / columns - x, (best // columns + 0.5) / rows - y
                slow.append(np.hypot(*off) <= 0.05)
    assert right.tolist() == slow
    assert figures(objective, [batch])["matched"] == pytest.approx(np.mean(slow))


def test_alone_it_leaves_everything_else_as_it_was(matching, scenes, tmp_path):
    """As `tiny_cpu_matches` does; the whole model is in the run, so that the next stage begins with it."""
    alone = {"text_weight": 0.0, "depth_weight": 0.0, "ema": 0.0}
    data = dataclasses.replace(matching().data, single_questions=0, pair_questions=0)
    config = matching(**alone, data=data)
    before = {k: v.clone() for k, v in build_learner(config).model.state_dict().items()}
    final = run(config, scenes, tmp_path / "run", cpu=True, quiet=True)
    assert 0.0 <= final["held_out"]["matched"] <= 1.0
    after = checkpoints.latest(tmp_path / "run").weights()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name in after if name.startswith("matcher.")}
    assert {name for name in before if name in after} >= {"hf.model.language_model.norm.weight"}


@pytest.mark.parametrize("has_matcher", [False, True])
def test_a_run_goes_on_from_one_with_or_without_a_matcher(matching, scenes, tmp_path, has_matcher):
    model = matching().model if has_matcher else dataclasses.replace(matching().model, matcher=None)
    before = matching(model=model, match_weight=float(has_matcher), steps=1)
    run(before, scenes, tmp_path / "before", cpu=True, quiet=True)
    learner = build_learner(dataclasses.replace(matching(), seed=5))
    fresh = {k: v.clone() for k, v in learner.model.matcher.state_dict().items()}
    begin_with(tmp_path / "before", learner.model)
    kept = all(torch.equal(v, fresh[k]) for k, v in learner.model.matcher.state_dict().items())
    assert kept != has_matcher  # what is not there begins anew
    plain = build_learner(dataclasses.replace(matching(), match_weight=0.0, model=before.model))
    begin_with(tmp_path / "before", plain.model)
    ours = plain.model.state_dict()["hf.model.language_model.norm.weight"]
    assert torch.equal(learner.model.state_dict()["hf.model.language_model.norm.weight"], ours)


def test_only_small_models_with_a_matcher_learn_to_match(matching):
    with pytest.raises(ValueError, match="match_weight is 0"):
        dataclasses.replace(RECIPES["smoke"](), match_weight=1.0)
    with pytest.raises(ValueError, match="deep pointers"):
        dataclasses.replace(RECIPES["smoke"]().model, matcher=SIZE)


def test_a_cell_is_where_the_loss_looks_for_it():
    assert int(cell_of(torch.tensor(0.99), torch.tensor(0.5), 16, 24)) == 8 * 24 + 23
