"""A teacher's answers become part of the batch; what learns from them, what does not, and what is refused."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil

import numpy as np
import pytest
import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.export.write_bundle import load_run
from spatial_mllm_training.recipes.config import DistillationConfig, RowsConfig, SpatialConfig
from spatial_mllm_training.supervision.targets import nearest_depth
from spatial_mllm_training.teachers import CachedTeacher, View
from spatial_mllm_training.teachers.ray_grids import pinhole_of
from spatial_mllm_training.teachers.specialist import Specialist, SpecialistConfig, SpecialistTeacher
from spatial_mllm_training.train import main
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.distilling import Distiller, add_projector, build_distiller
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.optimizers import build_optimizers, set_rates
from spatial_mllm_training.training_loop.setup import DataPaths, build_learner, build_sources

TAUGHT = DistillationConfig()


def specialist(**changes):
    """Untrained; its rays show."""
    torch.manual_seed(3)
    size = {"height": 48, "width": 80, "hidden": 32, "layers": 4, "heads": 2, "features": 16}
    model = Specialist(SpecialistConfig(**{**size, **changes})).eval()
    if model.rays is not None:
        torch.nn.init.normal_(model.rays.mlp[2].weight, std=0.3)
    return model


@pytest.fixture
def weights(tmp_path):
    specialist().save(tmp_path / "teacher" / "specialist.safetensors")
    return str(tmp_path / "teacher")


class OneByOne:
    """A specialist that looks at one row at a time, as teachers from elsewhere do."""

    name, version = "one by one", "1"

    def __init__(self, model):
        self.teacher = SpecialistTeacher(model)

    def weights_hash(self):
        return self.teacher.weights_hash()

    def predict(self, views):
        return self.teacher.predict(views)


@pytest.fixture
def drawn(scenes, micro):
    """A function (**changes of the recipe) -> (learner, batch of two samples)."""

    def make(**changes):
        config = micro(**changes)
        learner = build_learner(config)
        sources, _, _ = build_sources(config, scenes, learner)
        samples = [sources["pairs"].sample(i) for i in range(2)]
        return learner, collate(samples, learner.pad_id, maps=config.spatial is not None)

    return make


def views_of(group):
    height, width = group.pixels.shape[1:3]
    cameras = [pinhole_of(rays, tuple(group.grid.tolist()), width, height) for rays in group.rays]
    return [View(p.numpy(), c) for p, c in zip(group.pixels, cameras, strict=True)]


def without_camera(batch, image):
    group = batch.groups[0]
    has_camera = group.has_camera.clone()
    has_camera[image] = False
    return dataclasses.replace(batch, groups=(dataclasses.replace(group, has_camera=has_camera),))


# -- what a teacher says about a batch ---------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (48, 80)], ids=["the model's tokens", "other tokens"])
def test_a_batch_gets_what_the_teacher_says_about_each_image(drawn, size):
    """All images at once is the same as one by one, with the K of the image as it is shown."""
    _, batch = drawn()
    model = specialist(height=size[0], width=size[1])
    group = Distiller(SpecialistTeacher(model), TAUGHT).taught(batch).groups[0]
    expected = SpecialistTeacher(model).predict(views_of(batch.groups[0])).features
    assert group.features.shape[1:] == (size[0] // 16, size[1] // 16, 32)
    np.testing.assert_allclose(group.features, np.stack(expected), atol=2e-4)
    assert group.is_taught.all() and not group.features.requires_grad
    rows = Distiller(OneByOne(model), TAUGHT).taught(batch).groups[0]
    np.testing.assert_allclose(rows.features, np.stack(expected), atol=2e-4)


def test_what_was_said_is_read_from_the_cache(drawn, tmp_path):
    _, batch = drawn()
    model = specialist()
    expected = Distiller(OneByOne(model), TAUGHT).taught(batch).groups[0].features
    for _ in range(2):
        cached = Distiller(CachedTeacher(OneByOne(model), tmp_path), TAUGHT)
        assert torch.equal(cached.taught(batch).groups[0].features, expected)
        assert (
            len(list(tmp_path.rglob("*.safetensors"))) == 3
        )  # two rows, and the blank image of the beginning


def test_without_k_only_a_teacher_that_needs_none_is_asked(drawn):
    _, batch = drawn()
    batch = without_camera(batch, 1)
    told = Distiller(SpecialistTeacher(specialist()), TAUGHT).taught(batch).groups[0]
    assert told.is_taught.tolist() == [True, False, True, True]
    blind = Distiller(SpecialistTeacher(specialist(uses_rays=False)), TAUGHT).taught(batch).groups[0]
    assert blind.is_taught.all()


def test_rows_without_depth_learn_the_teachers(drawn):
    _, batch = drawn(spatial=SpatialConfig())
    group = batch.groups[0]
    none = {
        "depth": group.depth.clone(),
        "ray_map": group.ray_map.clone(),
        "point_map": group.point_map.clone(),
    }
    for value in none.values():
        value[group.row == 1] = torch.nan
    batch = dataclasses.replace(batch, groups=(dataclasses.replace(group, **none),))
    model = specialist()
    fills = DistillationConfig(weight=0.0, fills_truth=True)
    found = Distiller(SpecialistTeacher(model), fills).taught(batch).groups[0]
    assert found.features is None
    for name in none:
        assert torch.equal(getattr(found, name)[group.row == 0], getattr(group, name)[group.row == 0])
    output = SpecialistTeacher(model).predict([views_of(group)[i] for i in (2, 3)])
    height, width = group.depth.shape[1:]
    for image, depth in zip((2, 3), output.depth, strict=True):
        np.testing.assert_allclose(
            found.depth[image], nearest_depth(depth, grid_h=height, grid_w=width), rtol=1e-4
        )
    rays, points = found.ray_map[2], found.point_map[2]
    np.testing.assert_allclose(rays[..., 3:], group.ray_map[2][..., 3:], atol=1e-5)  # of the first camera
    assert torch.allclose(points, found.depth[2][..., None] * rays[..., 3:], atol=1e-5)
    assert found.point_map[3].isnan().all()  # where the second stood is not known
    assert found.is_metric.tolist() == [True, True]
    unit_free = Distiller(SpecialistTeacher(specialist(uses_rays=False)), fills).taught(batch).groups[0]
    assert unit_free.is_metric.tolist() == [True, False]


def test_a_depth_without_a_unit_says_nothing_about_metres(drawn):
    learner, batch = drawn()
    group = batch.groups[0]
    objective = Objective(learner.model).eval()
    with torch.no_grad():
        metric = objective(batch)["depth_loss"]
        free = dataclasses.replace(group, is_metric=torch.tensor([True, False]))
        other = dataclasses.replace(batch, groups=(free,))
        wrong = torch.where((group.row == 1)[:, None, None], 7.0 * group.depth, group.depth)
        scaled = dataclasses.replace(batch, groups=(dataclasses.replace(free, depth=wrong),))
        assert objective(other)["depth_loss"] != metric
        assert torch.equal(objective(other)["depth_loss"], objective(scaled)["depth_loss"])


# -- what is learnt from it ----------------------------------------------------------------------------


def taught_objective(drawn, **weights):
    learner, batch = drawn(precision="fp32")
    teacher = specialist()
    distiller = Distiller(SpecialistTeacher(teacher), TAUGHT)
    add_projector(learner.model, distiller.width)
    objective = Objective(learner.model, distillation_weight=1.0, **weights)
    return objective, distiller.taught(batch), teacher


def test_the_loss_is_one_less_the_mean_cosine_of_the_formula(drawn):
    objective, batch, _ = taught_objective(drawn)
    objective.eval()
    group = batch.groups[0]
    is_taught = torch.tensor([True, False, True, True])
    batch = dataclasses.replace(batch, groups=(dataclasses.replace(group, is_taught=is_taught),))
    with torch.no_grad():
        found = float(objective(batch)["distillation_loss"])
        student = objective.model.feature_projector(objective.predict(batch).last[0]).double().numpy()
    rows, columns = group.grid.tolist()
    there = group.features.shape[1:3]
    cosines = []
    for image in torch.nonzero(is_taught).flatten().tolist():
        for token in range(rows * columns):
            i, j = divmod(token, columns)
            # the teacher's cells that overlap the token (adaptive average pooling)
            cells = [
                group.features[image, y, x].double().numpy()
                for y in range(i * there[0] // rows, -(-(i + 1) * there[0] // rows))
                for x in range(j * there[1] // columns, -(-(j + 1) * there[1] // columns))
            ]
            f, v = np.mean(cells, axis=0), student[image, token]
            cosines.append(f @ v / np.linalg.norm(f) / np.linalg.norm(v))
    assert there != (rows, columns)
    assert found == pytest.approx(1 - np.mean(cosines), abs=1e-5)


def test_gradients_reach_decoder_and_projector_and_not_the_teacher(drawn):
    objective, batch, teacher = taught_objective(drawn, depth_weight=0.0, text_weight=0.0)
    losses = objective(batch)
    assert float(losses["loss"].detach()) == pytest.approx(float(losses["distillation_loss"]))
    losses["loss"].backward()
    model = objective.model
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.feature_projector.parameters())
    decoder = model.family.decoder(model.hf)
    assert all(float(layer.mlp.down_proj.weight.grad.abs().max()) > 0 for layer in decoder.layers)
    assert float(model.ray_embedding.mlp[2].weight.grad.abs().max()) > 0
    assert all(p.grad is None for p in teacher.parameters())
    own = {id(p) for p in teacher.parameters()}
    assert not own & {id(p) for p in objective.parameters()}


def test_nothing_is_asked_where_no_image_is_taught(drawn):
    objective, batch, _ = taught_objective(drawn)
    group = dataclasses.replace(batch.groups[0], is_taught=torch.zeros(4, dtype=torch.bool))
    assert float(objective(dataclasses.replace(batch, groups=(group,)))["distillation_loss"].detach()) == 0.0


def test_the_loss_falls_on_a_batch_that_is_shown_again(drawn, micro):
    objective, batch, _ = taught_objective(drawn, depth_weight=0.0, text_weight=0.0)
    optimizers = build_optimizers(objective.model, micro())
    set_rates(optimizers, 1.0)
    first = last = None
    for _ in range(12):
        loss = objective(batch)["loss"]
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        last = float(loss.detach())
        first = last if first is None else first
    assert last < 0.5 * first


# -- runs ----------------------------------------------------------------------------------------------


def curve(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("minutes", "data_wait")} for line in lines]


def test_a_run_that_goes_on_writes_the_curve_of_one_that_was_not_cut(scenes, micro, tmp_path, weights):
    """What a kill after step 2 leaves is its checkpoint and lines of later steps."""
    config = micro(distillation=DistillationConfig(weight=0.5), model_camera_dropout=0.5)
    paths = dataclasses.replace(scenes, teacher_weights=weights)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(config, paths, whole, cpu=True, quiet=True)
    shutil.copytree(whole, cut, ignore=shutil.ignore_patterns("step-00000004", "final.json"))
    run(config, paths, cut, cpu=True, quiet=True)
    lines = curve(whole)
    assert curve(cut) == lines and len(lines) == 4
    for line in lines:
        total = line["answer_loss"] + line["depth_loss"] + 0.5 * line["distillation_loss"]
        assert line["loss"] == pytest.approx(total, rel=2e-2)
    assert lines[-1]["distillation_loss"] < lines[0]["distillation_loss"]
    state = torch.load(whole / "checkpoints/step-00000004/optimizer.pt", weights_only=True)
    trained = {name.removeprefix("model.") for group in state["param_groups"] for name in group["params"]}
    projector = {name for name in trained if name.startswith("feature_projector.")}
    assert len(projector) == 4
    model, _, _, _ = load_run(whole)
    assert trained - projector <= dict(model.named_parameters()).keys()  # and nothing of the teacher
    assert model.feature_projector is None  # what is served needs none
    with torch.no_grad():
        other = specialist()
        other.patches.bias[0] += 1.0
    other.save(tmp_path / "other.safetensors")
    with pytest.raises(
        SpatialError, match=r"has teacher specialist 2 \w+, but the recipe gives specialist 2"
    ):
        paths = dataclasses.replace(scenes, teacher_weights=str(tmp_path / "other.safetensors"))
        run(config, paths, cut, cpu=True, quiet=True)


def test_a_batch_that_made_no_number_is_kept_with_what_the_teacher_said(scenes, micro, tmp_path):
    broken = specialist()
    with torch.no_grad():
        broken.patches.bias[0] = torch.nan
    broken.save(tmp_path / "broken.safetensors")
    paths = dataclasses.replace(scenes, teacher_weights=str(tmp_path / "broken.safetensors"))
    with pytest.raises(SpatialError, match="the loss is nan at step 0"):
        run(micro(distillation=TAUGHT), paths, tmp_path / "run", cpu=True, quiet=True)
    (file,) = (tmp_path / "run").glob("bad_batch_*")
    assert Batch.read(file).groups[0].features.isnan().any()


def test_a_teacher_changes_nothing_else_in_a_run(scenes, micro, tmp_path, weights):
    """Same samples, same start: the first answer and depth losses are those without a teacher."""
    paths = dataclasses.replace(scenes, teacher_weights=weights)
    run(micro(steps=1), scenes, tmp_path / "alone", cpu=True, quiet=True)
    run(micro(steps=1, distillation=TAUGHT), paths, tmp_path / "taught", cpu=True, quiet=True)
    (alone,), (taught,) = curve(tmp_path / "alone"), curve(tmp_path / "taught")
    assert {k: alone[k] for k in ("answer_loss", "depth_loss")} == {
        k: taught[k] for k in ("answer_loss", "depth_loss")
    }


# -- refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("teacher", "weights", "sentence"),
    [
        ("specialist", "", "no published weights: give its file"),
        ("specialist", "{tmp}/nowhere", r"no specialist at '.*nowhere'; train one"),
        ("ground_truth", "", "has no features"),
        ("oracle", "", "there is no teacher 'oracle'"),
    ],
)
def test_a_teacher_that_cannot_be_had_is_said_before_training(
    scenes, micro, tmp_path, teacher, weights, sentence
):
    config = micro(distillation=DistillationConfig(teacher=teacher))
    paths = dataclasses.replace(scenes, teacher_weights=weights.replace("{tmp}", str(tmp_path)))
    with pytest.raises(SpatialError, match=sentence):
        run(config, paths, tmp_path / "run", cpu=True, quiet=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(importlib.util.find_spec("vggt") is not None, reason="vggt is installed")
def test_the_command_says_what_is_missing_in_one_line(scenes, tmp_path, capsys, weights):
    command = ["--recipe", "smoke", "--scenes", str(scenes.scenes), "--out", str(tmp_path / "run"), "--cpu"]
    assert main([*command, "--teacher", "vggt"]) == 2
    said = capsys.readouterr().err
    assert "needs the package 'vggt'" in said and len(said.splitlines()) == 1
    assert main([*command, "--teacher-weights", weights]) == 2
    assert "say with --teacher" in capsys.readouterr().err


def test_the_command_trains_with_a_teacher(scenes, tmp_path, weights):
    command = ["--recipe", "smoke", "--scenes", str(scenes.scenes), "--out", str(tmp_path / "run"), "--cpu"]
    taught = ["--teacher", "specialist", "--teacher-weights", weights]
    assert main([*command, *taught, "--steps", "1", "--threads", "1", "--quiet"]) == 0
    assert "distillation_loss" in curve(tmp_path / "run")[0]
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["teacher"].startswith(
        "specialist 2 "
    )


def test_answers_are_only_kept_where_images_come_again(micro, tmp_path, weights):
    paths = DataPaths(teacher_weights=weights, teacher_cache=tmp_path / "cache")
    with pytest.raises(SpatialError, match=r"changes its images.*--teacher-cache"):
        build_distiller(micro(distillation=TAUGHT), paths)
    mix = dataclasses.replace(micro().mix, pairs=0.0, rows=1.0)
    plain = micro(distillation=TAUGHT, mix=mix, rows=RowsConfig(augment=None))
    with pytest.raises(SpatialError, match=r"looks at whole batches.*--teacher-cache"):
        build_distiller(plain, paths)
    assert build_distiller(plain, dataclasses.replace(paths, teacher_cache=None)) is not None
