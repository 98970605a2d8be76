"""Stages: a run that begins with another one's weights; images shown apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model.bundle import open_bundle
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.export import onnx_files
from spatial_mllm_training.export.__main__ import main as export
from spatial_mllm_training.export.write_bundle import load_run, write_bundle
from spatial_mllm_training.model.bundle_weights import read_weights
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.supervision.dpt import DPTSize
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.beginning import begin_with
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.run_folder import kept_tokenizer
from spatial_mllm_training.training_loop.setup import build_learner, build_sources

STAGE = PairConfig(width=96, height=64, single_questions=0, pair_questions=0, apart=True)


def go(config, scenes, out, before=None):
    return run(config, dataclasses.replace(scenes, begin_with=before), out, cpu=True, quiet=True)


@pytest.fixture
def first(scenes, micro, tmp_path):
    """(configuration, folder) of a finished stage of images alone."""
    config = micro(steps=2, data=STAGE)
    go(config, scenes, tmp_path / "first")
    return config, tmp_path / "first"


def test_a_run_begins_with_the_final_weights_and_says_so(first, scenes, micro, tmp_path):
    _, before = first
    out = tmp_path / "second"
    # rates of 0 leave the weights as they were begun with
    still = micro(steps=1, learning_rate=0.0, matrix_learning_rate=0.0, weight_decay=0.0, ema=0.0)
    go(still, scenes, out, before)
    theirs, ours = load_run(before)[0].state_dict(), load_run(out)[0].state_dict()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    told = load_run(out)[3]["began_with"]
    weights = checkpoints.latest(before).folder / "weights.safetensors"
    assert told == {
        "recipe": "smoke", "steps": 2, "minutes": load_run(before)[3]["minutes"],
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest()[:12],
    }  # fmt: skip


def test_a_run_that_has_begun_goes_on_with_its_own_weights(first, scenes, micro, tmp_path):
    _, before = first
    alone, again = tmp_path / "alone", tmp_path / "again"
    go(micro(steps=3), scenes, alone)
    go(micro(steps=2), scenes, again)
    go(micro(steps=3), scenes, again, before)
    losses = [json.loads((o / "metrics.jsonl").read_text().splitlines()[-1])["loss"] for o in (alone, again)]
    # the schedule of the first two steps was another one, but nothing of the other run is in there
    assert losses[0] == pytest.approx(losses[1], rel=0.2)
    assert "began_with" not in json.loads((again / "run.json").read_text())


def test_a_stage_may_add_heads_but_not_change_them(scenes, micro, tmp_path):
    """New 3D heads begin as any new ones do; the head that was there is kept."""
    config = micro(steps=1)
    go(config, scenes, tmp_path / "first")
    still = {"steps": 1, "learning_rate": 0.0, "matrix_learning_rate": 0.0, "weight_decay": 0.0, "ema": 0.0}
    heads = SpatialConfig(tasks=("motion",), size=DPTSize(channels=(8, 8, 8, 8), features=8))
    more = micro(**still, spatial=heads)
    go(more, scenes, tmp_path / "second", tmp_path / "first")
    theirs, ours = (load_run(tmp_path / name)[0].state_dict() for name in ("first", "second"))
    assert all(torch.equal(value, ours[name]) for name, value in theirs.items())
    fresh = {name: value for name, value in ours.items() if name not in theirs}
    assert fresh and all(name.startswith("spatial_heads.") for name in fresh)
    begun = build_learner(more).model.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in fresh.items())
    go(more, scenes, tmp_path / "third", tmp_path / "second")
    go(micro(**still), scenes, tmp_path / "without", tmp_path / "second")  # and give up those that were there
    without = load_run(tmp_path / "without")[0].state_dict()
    assert without.keys() == theirs.keys() and all(torch.equal(v, without[n]) for n, v in theirs.items())
    other = micro(**still, spatial=dataclasses.replace(heads, tasks=("depth", "motion")))
    go(other, scenes, tmp_path / "fourth", tmp_path / "second")
    both = load_run(tmp_path / "fourth")[0].state_dict()
    assert all(torch.equal(value, both[name]) for name, value in ours.items())
    assert {n.split(".")[2] for n in both.keys() - ours.keys()} == {"depth"}
    wider = dataclasses.replace(heads, size=DPTSize(channels=(8, 8, 8, 8), features=16))
    with pytest.raises(SpatialError, match=r"has spatial_heads\..* of shape"):
        go(micro(**still, spatial=wider), scenes, tmp_path / "fifth", tmp_path / "second")


def test_a_stage_may_add_a_gate_of_copies(scenes, micro, tmp_path):
    """To a run of before, and to a bundle of before; what was there is kept."""
    config = micro(steps=1)
    told = dataclasses.replace(config.model, pointers=True, deep_pointers=True, told_digits=True)
    before = dataclasses.replace(config, model=told, number_digits=5)
    go(before, scenes, tmp_path / "first")
    model, *about = load_run(tmp_path / "first")
    folder = tmp_path / "bundle"
    folder.mkdir()
    known = {"name": "mini", "version": "0", "subtasks": (), "metrics": {}}
    write_bundle(model, *about[:2], folder, **known, progress=about[2], small=False)
    still = {"learning_rate": 0.0, "matrix_learning_rate": 0.0, "weight_decay": 0.0, "ema": 0.0}
    after = dataclasses.replace(before, model=dataclasses.replace(told, copied_digits=True), **still)
    for number, place in enumerate((tmp_path / "first", folder)):
        go(after, scenes, tmp_path / f"after-{number}", place)
        ours = load_run(tmp_path / f"after-{number}")[0].state_dict()
        theirs = model.state_dict()
        assert ours.keys() - theirs.keys() == {"copy_gate.gate.weight", "copy_gate.gate.bias"}
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, atol=0, rtol=0)


def test_weights_that_do_not_fit_are_named(first, scenes, micro, tmp_path):
    config, before = first
    wider = dataclasses.replace(config, model=dataclasses.replace(config.model, vision_mlp=80))
    with pytest.raises(SpatialError, match=r"of shape \(48, 64\), the recipe's is \(48, 80\)"):
        go(wider, scenes, tmp_path / "wider", before)
    deeper = dataclasses.replace(config, model=dataclasses.replace(config.model, vision_layers=3))
    with pytest.raises(SpatialError, match=r"see .*blocks\.2"):
        go(deeper, scenes, tmp_path / "deeper", before)
    with pytest.raises(SpatialError, match="holds no checkpoint to begin with"):
        go(micro(), scenes, tmp_path / "none", tmp_path)


def test_a_run_begins_with_a_bundle_as_with_the_run_behind_it(scenes, micro, tmp_path):
    """Users train a shipped model on: what its graphs hold is taken, heads that are not served begin anew."""
    heads = SpatialConfig(tasks=("motion",), size=DPTSize(channels=(8, 8, 8, 8), features=8))
    go(micro(steps=2, spatial=heads), scenes, tmp_path / "first")
    bundle = tmp_path / "mini"
    assert export(["--run", str(tmp_path / "first"), "--out", str(bundle)]) == 0
    still = micro(
        steps=1, learning_rate=0.0, matrix_learning_rate=0.0, weight_decay=0.0, ema=0.0, spatial=heads
    )
    go(still, scenes, tmp_path / "second", bundle)
    begun = load_run(tmp_path / "second")[0].state_dict()
    stored, trained = read_weights(open_bundle(bundle)), load_run(tmp_path / "first")[0].state_dict()
    for name, parameter in load_run(tmp_path / "first")[0].named_parameters():
        if name.startswith("spatial_heads."):
            assert name not in stored
            continue
        assert torch.equal(begun[name], stored[name])
        # 5 bits of the largest value of a block: a twentieth of normal weights
        assert (begun[name] - trained[name]).norm() <= 0.08 * parameter.norm() + 1e-6
    before = load_run(tmp_path / "first")[3]
    assert load_run(tmp_path / "second")[3]["began_with"] == {
        "recipe": "smoke", "steps": 2, "minutes": before["minutes"],
        "weights": open_bundle(bundle).manifest.files["decoder.onnx"][0][:12],
    }  # fmt: skip
    other = dataclasses.replace(still, model=dataclasses.replace(still.model, layers=7))
    with pytest.raises(SpatialError, match=r"is not of the recipe's model: it has no .*layers\.6"):
        go(other, scenes, tmp_path / "third", bundle)


def test_the_shipped_bundle_can_be_trained_on():
    """By the recipe that made it: every weight that it serves is there."""
    shipped = Path(__file__).parents[3] / "models" / "spatial-mllm-mini"
    model = build_learner(RECIPES["tiny_cpu"](), tokenizer=kept_tokenizer(shipped)).model
    assert begin_with(shipped, model)["recipe"] == "tiny_cpu_answers"


def test_a_bundle_whose_graphs_name_no_weights_is_refused(
    small_model, tokenizer, micro, scenes, tmp_path, monkeypatch
):
    monkeypatch.setattr(onnx_files, "mark_weights", lambda *_: None)
    bundle = tmp_path / "old"
    bundle.mkdir()
    about = {"name": "old", "version": "0", "subtasks": (), "progress": {}, "metrics": {}}
    write_bundle(small_model, micro(), tokenizer, bundle, **about)
    with pytest.raises(SpatialError, match="do not name their weights"):
        go(micro(steps=1), scenes, tmp_path / "run", bundle)


def test_images_apart_are_seen_as_if_each_were_alone(scenes, micro):
    """The depths and hidden states of a second image equal those of the same image in a batch of its own."""
    config = micro(data=STAGE, precision="fp32")
    learner = build_learner(config)
    sources, _, _ = build_sources(config, scenes, learner)
    sample = sources["pairs"].sample(0)
    assert sources["pairs"].subtasks() == frozenset()
    assert (sample.labels == -100).all()
    half = len(sample.ids) // 2
    last = dataclasses.replace(
        sample,
        images=sample.images[1:],
        ids=sample.ids[half:],
        labels=sample.labels[half:],
        weights=sample.weights[half:],
        positions=sample.positions[:, half:],
        owner=sample.owner[half:] - 1,
        seen=sample.seen[half:],
        places=sample.places[half:],
        targets=sample.targets[1:],
    )
    assert (sample.ids[:half] == sample.ids[half:]).all()  # the second one is called the first, too
    assert (sample.positions[:, :half] == sample.positions[:, half:]).all()
    objective = Objective.of(config, learner.model).eval()
    with torch.no_grad():
        both = objective(collate([sample], learner.pad_id), only_predict=True)
        alone = objective(collate([last], learner.pad_id), only_predict=True)
    torch.testing.assert_close(both.depths[0][0][1], alone.depths[0][0][0], rtol=0, atol=1e-5)


def test_nothing_is_asked_about_images_apart():
    with pytest.raises(ValueError, match="nothing can be asked"):
        PairConfig(apart=True)
