"""Drills: what is told at a point is what the answer goes by, and what the decoder hears there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.model.pointing import depth_code
from spatial_mllm_training.data.drills import DrillSource
from spatial_mllm_training.data.packing import IGNORE, ShownImage, pack
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import MixConfig
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.prompts import embedded
from spatial_mllm_training.training_loop.setup import DataPaths, build_learner, build_sources


@pytest.fixture(params=[False, True], ids=["coordinates", "letters"])
def config(request):
    smoke = RECIPES["smoke"]()
    model = dataclasses.replace(smoke.model, pointers=True, deep_pointers=True)
    return dataclasses.replace(
        smoke, model=model, mix=MixConfig(pairs=0.0, drills=1.0), named_letters=request.param
    )


@pytest.fixture
def learner(config):
    return build_learner(config)


@pytest.fixture
def drills(config, learner):
    sources, weights, held_out = build_sources(config, DataPaths(), learner)
    assert list(sources) == ["drills"] and weights == [1.0] and held_out is None
    return sources["drills"]


def test_answers_go_by_the_depths_that_are_told(config, learner, drills):
    """Read back by the tasks' own grammar from the tokens of the sample."""
    value, comparison = (tasks.get(f"depth_{n}") for n in ("estimation_coor", "comparison_coordinate"))
    compared = set()
    for number in range(30):
        sample = drills.sample(number)
        told = dict(sample.told)
        assert not sample.images and not sample.pointers
        for owner in range(1, int(sample.owner.max()) + 1):
            at = np.flatnonzero(sample.owner == owner)
            depths_m = [told[token] for token in at if token in told]
            words = learner.tokenizer.decode(sample.ids[at])
            labels = sample.labels[at]
            answer = learner.tokenizer.decode(labels[labels != IGNORE])
            if len(depths_m) == 1:
                assert value.parse(answer).values[0] == pytest.approx(depths_m[0], abs=6e-4)
                continue
            farther = any(
                word in words
                for word in ("farther", "distant", "remote", "greater", "more depth", "behind", "less near")
            )
            right = int(np.argmax(depths_m) if farther else np.argmin(depths_m))
            compared.add((farther, right))
            if config.named_letters:
                assert f"`{'AB'[right]}`" in answer
            else:
                points = [tuple(map(float, p)) for p in comparison_points(words)]
                assert comparison.parse(answer).values == points[right]
    assert len(compared) == 4


def comparison_points(words):
    inside = [part.split("]")[0] for part in words.split("[")[1:]]
    return [tuple(int(number) for number in part.split(",")) for part in inside[:2]]


@torch.no_grad()
def test_the_decoder_hears_a_told_depth_as_it_hears_a_seen_one(learner, drills):
    batch = collate([drills.sample(0), drills.sample(1)], learner.pad_id)
    heard = embedded(learner.model, batch).embeds - learner.model.hf.get_input_embeddings()(batch.ids)
    expected = torch.zeros_like(heard)
    for (row, token), depth_m in zip(batch.told.tolist(), batch.told_m.tolist(), strict=True):
        assert "]" in learner.tokenizer.decode([int(batch.ids[row, token])])
        expected[row, token] = torch.from_numpy(depth_code(np.array([depth_m]), heard.shape[-1])[0])
    torch.testing.assert_close(heard, expected, atol=1e-5, rtol=0)
    assert len(batch.told) > 16


@torch.no_grad()
def test_beside_images_a_told_depth_stands_behind_the_look_of_some_place_of_theirs(learner, drills):
    """As a seen one does, whose pointer carries what the image shows there."""
    rng = np.random.default_rng(0)
    rays = np.asarray(CameraModel.from_fov(32, 32, hfov_rad=1.2).token_rays(2, 2), np.float32).reshape(-1, 4)
    image = ShownImage(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8), (2, 2), rays, True)
    seen = pack("seen", [image], [], learner.form)
    batch = collate([seen, drills.sample(0), drills.sample(1)], learner.pad_id)
    model = learner.model
    embeds = embedded(model, batch).embeds
    looks = embeds[model.image_mask(batch.ids)]
    heard = (embeds - model.hf.get_input_embeddings()(batch.ids))[tuple(batch.told.unbind(1))]
    shown = heard - torch.from_numpy(depth_code(batch.told_m.numpy(), heard.shape[-1]))
    distance = torch.cdist(shown, looks)
    assert len(looks) == 4 and distance.min(1).values.max() < 1e-4
    assert len(set(distance.argmin(1).tolist())) > 1


def test_drills_alone_make_a_step(config, learner, drills, tmp_path):
    batch = collate([drills.sample(0)], learner.pad_id, maps=True)
    losses = Objective.of(config, learner.model)(batch)
    losses["loss"].backward()
    assert float(losses["answer_loss"]) > 0 and float(losses["depth_loss"]) == 0
    assert learner.model.hf.get_input_embeddings().weight.grad.abs().sum() > 0
    batch.save(tmp_path / "batch.safetensors")
    again = Batch.read(tmp_path / "batch.safetensors")
    assert torch.equal(again.told, batch.told) and torch.equal(again.told_m, batch.told_m)


def test_a_drill_follows_from_seed_and_number(learner):
    sources = [DrillSource(learner.form, seed, served_words=0.5) for seed in (1, 1, 2)]
    ids = [source.sample(5).ids.tolist() for source in sources]
    assert ids[0] == ids[1] != ids[2]
    assert (
        sources[0].digest() == sources[2].digest() != DrillSource(learner.form, 1, served_words=1.0).digest()
    )


def test_drills_without_deep_pointers_are_refused():
    with pytest.raises(ValueError, match="deep pointers"):
        dataclasses.replace(RECIPES["smoke"](), mix=MixConfig(drills=1.0))
