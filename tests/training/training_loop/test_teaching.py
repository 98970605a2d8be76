"""A specialist learns from the samples of a recipe, each image in its own frame, and is kept."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.recipes.micro import micro as micro_recipe
from spatial_mllm_training.supervision.targets import nearest_depth
from spatial_mllm_training.teachers.specialist import Specialist, SpecialistConfig
from spatial_mllm_training.train_teacher import main
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.setup import build_learner, build_sources
from spatial_mllm_training.training_loop.teaching import Lessons, held_out_figures, lesson_of, train_teacher

TINY = Lessons(steps=3, hidden=32, layers=4, features=16)


@pytest.fixture
def group(scenes, micro):
    """Images of two pairs, with the maps of the pupil's heads to compare with."""
    config = micro(spatial=SpatialConfig())
    learner = build_learner(config)
    sources, _, _ = build_sources(config, scenes, learner)
    return collate([sources["pairs"].sample(i) for i in range(2)], learner.pad_id, maps=True).groups[0]


def specialist(height, width):
    return Specialist(SpecialistConfig(height=height, width=width, hidden=32, layers=4, heads=2, features=16))


def test_every_image_is_taught_in_its_own_frame(group):
    rows, columns = group.grid.tolist()
    lesson = lesson_of(group, specialist(16 * rows, 16 * columns))
    first = [0, 2]  # of each pair: the pupil's maps stand in this camera's frame as well
    assert torch.equal(lesson.targets.depth, group.depth) and len(lesson.images) == 4
    np.testing.assert_allclose(lesson.targets.rays[first], group.ray_map[first], atol=1e-5)
    np.testing.assert_allclose(lesson.targets.points[first], group.point_map[first], atol=1e-4)
    assert not lesson.targets.rays[..., :3].any()
    assert lesson.targets.row.tolist() == [0, 1, 2, 3] and lesson.targets.is_metric.all()


def test_a_specialist_of_other_tokens_gets_the_nearest_depth(group):
    lesson = lesson_of(group, specialist(48, 80))
    expected = np.stack([nearest_depth(d.numpy(), grid_h=24, grid_w=40) for d in group.depth])
    np.testing.assert_array_equal(lesson.targets.depth, expected)


def test_images_without_k_or_depth_are_left_out(group):
    has_camera, depth = group.has_camera.clone(), group.depth.clone()
    has_camera[0], depth[3] = False, torch.nan
    some = dataclasses.replace(group, has_camera=has_camera, depth=depth)
    lesson = lesson_of(some, specialist(64, 96))
    assert torch.equal(lesson.images, group.pixels[1:3].permute(0, 3, 1, 2))
    none = dataclasses.replace(group, has_camera=torch.zeros_like(has_camera))
    assert lesson_of(none, specialist(64, 96)) is None


def test_it_is_trained_once_and_measured(scenes, micro, tmp_path):
    said = []
    folder = tmp_path / "teacher"
    assert train_teacher(micro(), scenes, folder, TINY, say=said.append) == folder
    assert len(said) == 2 and "AbsRel" in said[1]
    figures = held_out_figures(folder)
    assert figures["abs_rel"] > 0 and figures["blind_abs_rel"] > 0
    model = Specialist.load(folder)
    # tokens of the pupil: 96x64 px at 16 px a token
    assert (model.config.height, model.config.width, model.config.hidden) == (64, 96, 32)
    written = (folder / "specialist.safetensors").read_bytes()
    train_teacher(micro(), scenes, folder, TINY, say=said.append)
    assert len(said) == 2
    train_teacher(micro(), scenes, folder, dataclasses.replace(TINY, steps=4), say=said.append)
    assert len(said) == 4 and (folder / "specialist.safetensors").read_bytes() != written
    assert held_out_figures(tmp_path) == {}


def test_minutes_become_steps(scenes, micro, tmp_path):
    train_teacher(micro(), scenes, tmp_path, dataclasses.replace(TINY, steps=None, minutes=0.01), say=str)
    assert json.loads((tmp_path / "specialist.json").read_text())["steps"] >= 1


def test_it_learns_depth(scenes, tmp_path):
    """On views of two scenes, the depth of a third of the same shape is told better than by a constant."""
    config = dataclasses.replace(micro_recipe(width=64, height=48, batch=4), workers=0)
    lessons = dataclasses.replace(TINY, steps=60, learning_rate=4e-3)
    figures = held_out_figures(train_teacher(config, scenes, tmp_path, lessons, say=str))
    assert figures["abs_rel"] < 0.6 * figures["blind_abs_rel"]


def test_without_depth_there_is_nothing_to_learn_from(scenes, tmp_path, capsys, write_scene):
    for file in scenes.scenes.glob("*.npz"):
        with np.load(file) as scene:
            np.savez(file, **{**scene, "depth_mm": np.zeros_like(scene["depth_mm"])})
    command = ["--recipe", "micro", "--scenes", str(scenes.scenes), "--out", str(tmp_path / "t"), "--cpu"]
    assert main([*command, "--steps", "1", "--threads", "1"]) == 2
    said = capsys.readouterr().err
    assert "20 batches had none" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "t").exists()


def test_the_command_says_where_it_wrote(scenes, tmp_path, capsys):
    out = tmp_path / "teacher"
    command = ["--recipe", "micro", "--scenes", str(scenes.scenes), "--out", str(out), "--cpu"]
    assert main([*command, "--steps", "1", "--threads", "1"]) == 0
    assert f"written to {out}" in capsys.readouterr().out
    assert Specialist.load(out).config.uses_rays
