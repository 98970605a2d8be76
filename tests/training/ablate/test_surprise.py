"""The loss of the true answers against each question alone, counted by hand; the same with others' images."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks.text import widened
from spatial_mllm_training.ablate.questions import pair_items
from spatial_mllm_training.ablate.surprise import exchanged, loss_figures
from spatial_mllm_training.data.packing import IGNORE, PackedQuestion, pack
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.prompts import embedded


@pytest.fixture
def asked(speaking):
    """The learner, the builder and three items."""
    learner, builder = speaking
    return learner, builder, pair_items(builder, 3, seed=0, constants={})


@torch.no_grad()
def test_the_loss_is_that_of_each_question_alone(asked):
    learner, builder, items = asked
    by_group = defaultdict(list)
    for number, item in enumerate(items):
        view = builder.draw(np.random.default_rng([0, number]))
        for q, images in [(q, 1) for q in view.single] + [(q, 2) for q in view.pair]:
            words = (q.words(), q.answer())
            alone = pack("one", item.sample.images, [PackedQuestion((words,), images)], builder.form)
            batch = collate([alone], learner.pad_id)
            hidden, _ = learner.model.decode(
                embedded(learner.model, batch).embeds, batch.positions, batch.mask
            )
            chances = learner.model.hf.get_output_embeddings()(hidden[0]).double().softmax(-1).numpy()
            spoken = [(i, label) for i, label in enumerate(alone.labels) if label != IGNORE]
            assert learner.tokenizer.decode([t for _, t in spoken]).startswith(
                widened(words[1], builder.form.words.number_digits)
            )
            by_group[tasks.get(q.task.name).group] += [-np.log(chances[i, token]) for i, token in spoken]
    found = loss_figures(learner, items)
    assert len(by_group) > 1
    assert found["loss"] == pytest.approx(
        np.mean([v for values in by_group.values() for v in values]), rel=1e-4
    )
    for group, values in by_group.items():
        assert found[f"loss:{group}"] == pytest.approx(np.mean(values), rel=1e-4)


def test_what_an_image_tells_is_lost_with_that_of_another(asked):
    learner, _, items = asked
    found = loss_figures(learner, items)
    assert abs(found["blind_loss"] - found["loss"]) > 1e-3
    for item, other in zip(items, exchanged(items), strict=True):
        assert other.questions == item.questions and (other.told.labels == item.told.labels).all()
        assert other.told.images != item.told.images

    def dark(item):
        bare = item.without_camera()
        shown = tuple(replace(x, pixels=np.zeros_like(x.pixels)) for x in bare.told.images)
        return replace(bare, told=replace(bare.told, images=shown))

    unseen = loss_figures(learner, [dark(item) for item in items])
    assert unseen["blind_loss"] == pytest.approx(unseen["loss"], rel=1e-5)


def test_without_another_of_its_kind_nothing_is_compared(asked):
    learner, _, items = asked
    found = loss_figures(learner, items[:1])
    assert "loss" in found and not any(key.startswith("blind") for key in found)
    assert loss_figures(learner, []) == {}
