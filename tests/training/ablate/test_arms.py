"""What the arms share and where they differ."""

from __future__ import annotations

import dataclasses

import pytest

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.arms import EXPERIMENTS, configured, experiment
from spatial_mllm_training.recipes import TrainConfig
from spatial_mllm_training.recipes.config import DistillationConfig

GROUPS = ("depth_value", "camera_translation_vector")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_arms_have_equal_models_samples_steps_and_optimisers(name, tiny):
    found = experiment(name, from_rows=True, groups=GROUPS)
    configs = [configured(arm, tiny, seed=4, steps=9, from_rows=True) for arm in found.arms]
    assert len({arm.name for arm in found.arms}) == len(found.arms) >= 3
    free = {"name", "model_camera_dropout", "depth_weight", "spatial", "distillation", "data", "rows"}
    for config in configs:
        for field in dataclasses.fields(TrainConfig):
            if field.name not in free:
                assert getattr(config, field.name) == getattr(configs[0], field.name), field.name
        assert TrainConfig.from_json(config.to_json()) == config
    assert len({c.to_json().split('"model"')[1] for c in configs}) >= len(configs) - 2


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_pointers_are_deep_where_all_arms_have_a_depth_head(name, tiny):
    deep = dataclasses.replace(tiny, model=dataclasses.replace(tiny.model, pointers=True, deep_pointers=True))
    found = experiment(name, from_rows=True, groups=GROUPS)
    models = {configured(arm, deep, seed=0, steps=1, from_rows=True).model for arm in found.arms}
    assert [m.deep_pointers for m in models] == [all(arm.depth_head for arm in found.arms)]
    with pytest.raises(ValueError, match="deep pointers tell what the depth head says"):
        dataclasses.replace(deep, depth_weight=0.0)
    with pytest.raises(ValueError, match="deep pointers are pointers"):
        dataclasses.replace(deep.model, pointers=False)


def test_an_arm_without_rays_is_never_told_k(tiny):
    arms = {a.name: a for a in experiment("camera").arms}
    make = lambda name: configured(arms[name], tiny, seed=0, steps=1, from_rows=False)  # noqa: E731
    assert make("rgb").model_camera_dropout == make("augmentation").model_camera_dropout == 1.0
    assert make("rays").model_camera_dropout == 0.0
    assert make("rgb").data.smallest_crop == make("rays").data.smallest_crop == 1.0
    assert make("augmentation").data.smallest_crop < 1.0
    assert make("rgb").rows.augment is None
    augment = make("rays-augmentation").rows.augment
    assert augment is not None and augment.output_size == tiny.rows.size


def test_text_alone_trains_no_head(tiny):
    arms = {a.name: a for a in experiment("supervision").arms}
    text = configured(arms["text"], tiny, seed=0, steps=1, from_rows=False)
    assert text.depth_weight == 0.0 and text.spatial is None
    points = configured(arms["points"], tiny, seed=0, steps=1, from_rows=False)
    assert points.spatial.tasks == ("points",) and points.depth_weight == 0.0
    assert arms["motion"].dense == ("motion",)
    assert "motion" not in {a.name for a in experiment("supervision", from_rows=True).arms}


def test_a_distilled_arm_follows_a_teacher_and_is_told_no_more_than_the_others(tiny):
    arms = {a.name: a for a in experiment("camera").arms}
    make = lambda name: configured(arms[name], tiny, seed=0, steps=1, from_rows=False)  # noqa: E731
    assert make("prior").distillation == make("all").distillation == DistillationConfig()
    assert make("rgb").distillation is None
    same = dataclasses.replace(make("prior"), name=make("rgb").name, distillation=None)
    assert same == make("rgb")
    heavier = dataclasses.replace(tiny, distillation=DistillationConfig(weight=0.3))
    assert configured(arms["all"], heavier, seed=0, steps=1, from_rows=False).distillation.weight == 0.3
    assert configured(arms["rays"], heavier, seed=0, steps=1, from_rows=False).distillation is None
    assert "told K" in arms["prior"].words and "told K" in arms["all"].words


def test_what_cannot_be_compared_is_one_sentence():
    with pytest.raises(SpatialError, match="'camera' has no arm 'rag'; it has rgb, rays"):
        experiment("camera").chosen(["rag"])
    with pytest.raises(SpatialError, match="'semi' chooses among MultiSPA rows: give --rows"):
        experiment("semi")
    assert not [a for a in experiment("camera", from_rows=True).arms if a.data in ("single", "mixed")]
