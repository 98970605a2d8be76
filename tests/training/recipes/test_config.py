"""A recipe with a teacher comes back from its file, and files from before there were teachers are read."""

from __future__ import annotations

import dataclasses
import json

import pytest

from spatial_mllm_training.recipes import RECIPES, TrainConfig
from spatial_mllm_training.recipes.config import DistillationConfig


def test_a_recipe_with_a_teacher_comes_back_from_its_file():
    taught = DistillationConfig(teacher="vggt", weight=0.25, fills_truth=True)
    config = dataclasses.replace(RECIPES["smoke"](), distillation=taught)
    assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig.from_json(config.to_json()).distillation == taught


def test_a_file_from_before_there_were_teachers_follows_none():
    config = RECIPES["smoke"]()
    old = json.loads(config.to_json())
    del old["distillation"]
    assert TrainConfig.from_json(json.dumps(old)) == config
    assert config.distillation is None


@pytest.mark.parametrize("weight", [-0.1, 0.0])
def test_features_that_weigh_nothing_are_refused(weight):
    with pytest.raises(ValueError, match="weigh more than 0"):
        DistillationConfig(weight=weight)


def test_features_may_weigh_nothing_beside_the_teachers_depth():
    assert DistillationConfig(weight=0.0, fills_truth=True).weight == 0.0


def test_published_checkpoints_spell_numbers_as_published():
    with pytest.raises(ValueError, match="number_digits is 0"):
        dataclasses.replace(RECIPES["qwen2_5_vl_3b_lora"](), number_digits=5)


@pytest.mark.parametrize("more", [{"named_letters": True}, {"choice_weight": 4.0}])
def test_published_checkpoints_answer_as_published(more):
    """Nothing of a recipe is silently left unused."""
    with pytest.raises(ValueError, match="answers as published"):
        dataclasses.replace(RECIPES["qwen2_5_vl_3b_lora"](), **more)


def test_what_is_copied_is_told():
    model = RECIPES["tiny_cpu"]().model
    assert model.copied_digits and model.told_digits
    with pytest.raises(ValueError, match="copied are told"):
        dataclasses.replace(model, told_digits=False)
