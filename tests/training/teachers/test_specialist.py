"""The specialist learns depth from views, survives its file, and says when its depth has no unit."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.teachers import CachedTeacher, View, build_teacher, targets_of
from spatial_mllm_training.teachers.specialist import Specialist, SpecialistConfig, SpecialistTeacher
from spatial_mllm_training.teachers.train_specialist import specialist_batch, train_specialist

TINY = SpecialistConfig(height=48, width=64, patch=16, hidden=32, layers=4, heads=2, features=16)


def test_it_learns_the_depth_of_its_views(floor_views):
    torch.manual_seed(0)
    views = floor_views(4)
    model = Specialist(TINY)
    history = []
    batch = specialist_batch(model, views)
    train_specialist(
        model, itertools.repeat(batch), steps=80, learning_rate=3e-3, on_step=lambda _, f: history.append(f)
    )
    assert len(history) == 80
    for task in ("depth", "rays", "points"):
        assert history[-1][f"{task}/l2"] < 0.5 * history[0][f"{task}/l2"], task
    output = SpecialistTeacher(model).predict(views)
    truth = batch.targets.depth.numpy()
    valid = np.isfinite(truth)
    relative = np.abs(np.stack(output.depth)[valid] / truth[valid] - 1)
    assert relative.mean() < 0.25
    assert output.is_metric
    targets = targets_of(output, grid_h=12, grid_w=16)
    assert np.isfinite(targets.points).all()
    assert output.features[0].shape == (3, 4, 32)
    assert output.confidence[0].min() > 1


def test_what_is_expected_is_where_an_untrained_head_begins(floor_views):
    model = Specialist(TINY).eval()
    before = np.median(SpecialistTeacher(model).predict(floor_views(1)).depth[0])
    model.expect(2.5)
    assert np.median(SpecialistTeacher(model).predict(floor_views(1)).depth[0]) == pytest.approx(2.5, rel=0.4)
    assert before < 1.4


def test_rays_reach_the_depth(floor_views):
    view = floor_views(1)[0]
    model = Specialist(TINY).eval()
    torch.nn.init.normal_(model.rays.mlp[2].weight, std=0.1)
    teacher = SpecialistTeacher(model)
    wider = dataclasses.replace(view, camera=floor_views(1, hfov_rad=1.6)[0].camera)
    assert np.abs(teacher.predict([view]).depth[0] - teacher.predict([wider]).depth[0]).max() > 1e-4


def test_views_are_looked_at_one_by_one(floor_views):
    views = floor_views(2)
    teacher = SpecialistTeacher(Specialist(TINY))
    np.testing.assert_allclose(
        teacher.predict(views).depth[1], teacher.predict(views[1:]).depth[0], rtol=1e-4, atol=1e-5
    )


def test_without_rays_or_camera_its_depth_has_no_unit(floor_views):
    views = floor_views(2)
    blind = SpecialistTeacher(Specialist(dataclasses.replace(TINY, uses_rays=False)))
    assert not blind.predict(views).is_metric
    assert blind.predict(views).first_from_camera is None
    sighted = SpecialistTeacher(Specialist(TINY))
    assert sighted.predict(views).is_metric
    output = sighted.predict([views[0], View(views[1].image)])
    assert not output.is_metric and output.cameras[1] is None


def test_it_comes_back_from_its_file_and_is_cached(floor_views, tmp_path):
    views = floor_views(2)
    model = Specialist(TINY)
    model.save(tmp_path / "specialist.safetensors")
    teacher = build_teacher("specialist", weights=str(tmp_path / "specialist.safetensors"))
    expected = SpecialistTeacher(model).predict(views)
    np.testing.assert_array_equal(teacher.predict(views).depth[1], expected.depth[1])
    assert teacher.weights_hash() == SpecialistTeacher(model).weights_hash()
    cached = CachedTeacher(teacher, tmp_path / "cache")
    cached.predict(views)
    np.testing.assert_array_equal(cached.predict(views).points[1], expected.points[1])
    with torch.no_grad():
        model.patches.bias[0] += 1e-3
    assert SpecialistTeacher(model).weights_hash() != teacher.weights_hash()


def test_it_comes_back_from_a_folder_and_from_before_it_could_learn_depth_alone(tmp_path):
    model = Specialist(dataclasses.replace(TINY, tasks=("depth",)))
    model.save(tmp_path / "specialist.safetensors")
    again = Specialist.load(tmp_path)
    assert again.config == model.config and set(again.dense.decoders) == {"depth"}
    old = Specialist(TINY)
    config = dataclasses.asdict(TINY)
    del config["tasks"]
    save_file(old.state_dict(), str(tmp_path / "old.safetensors"), {"specialist": json.dumps(config)})
    assert Specialist.load(tmp_path / "old.safetensors").config == TINY
    with pytest.raises(ValueError, match="depth at least"):
        SpecialistConfig(tasks=("rays",))


def test_an_image_of_another_size_is_seen_as_pillow_resizes_it():
    image = np.random.default_rng(0).integers(0, 255, (130, 150, 3), dtype=np.uint8)
    seen = Specialist(TINY).inputs([View(image)])[0]
    expected = np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(seen[0].permute(1, 2, 0), expected, atol=1.0)


def test_files_that_are_no_specialist_are_refused_by_name(tmp_path):
    with pytest.raises(SpatialError, match=r"none\.safetensors") as caught:
        Specialist.load(tmp_path / "none.safetensors")
    assert caught.value.code == ErrorCode.MODEL_MISSING
    save_file({"a": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    Specialist(TINY).save(tmp_path / "torn.safetensors")
    torn = (tmp_path / "torn.safetensors").read_bytes()[:-100]
    (tmp_path / "torn.safetensors").write_bytes(torn)
    for name in ("other", "torn"):
        with pytest.raises(SpatialError, match=rf"{name}\.safetensors") as caught:
            Specialist.load(tmp_path / f"{name}.safetensors")
        assert caught.value.code == ErrorCode.MODEL_SIGNATURE


def test_a_loss_that_is_not_finite_stops_with_its_step(floor_views):
    model = Specialist(TINY)
    batch = specialist_batch(model, floor_views(2))
    broken = dataclasses.replace(batch, rays=torch.full_like(batch.rays, torch.nan))
    with pytest.raises(FloatingPointError, match="step 1"):
        train_specialist(model, [batch, broken], steps=5)


def test_a_shape_that_does_not_fit_its_patches_is_refused():
    with pytest.raises(ValueError, match="multiples of patch"):
        SpecialistConfig(height=50)
