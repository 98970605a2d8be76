"""Published families: freezing, LoRA, packed prompts against the stock model, a run on rows and talk."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.data.packing import PackedQuestion, pack
from spatial_mllm_training.data.pictures import Viewer
from spatial_mllm_training.multispa.rows import read_rows, to_table
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.train import main
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.objective import Objective
from spatial_mllm_training.training_loop.setup import build_learner


@pytest.fixture
def paths(published_paths):
    return published_paths


def test_what_is_frozen_and_what_is_trained(published):
    recipe, folder = published
    model = build_learner(recipe, folder).model
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(
        ".lora_" in n or "merger" in n or "multi_modal_projector" in n or not n.startswith("hf.")
        for n in trained
    )
    for part in ("lora_A", "ray_embedding", "depth_head", "spatial_heads"):
        assert any(part in n for n in trained), part
    projector = {id(p) for p in model.family.projector(model.hf).parameters()}
    assert projector <= {id(p) for p in model.parameters() if p.requires_grad}
    layers = model.decoder_config.num_hidden_layers
    assert sum("lora_A" in n for n in trained) == 7 * layers
    assert {p.dtype for n, p in model.named_parameters() if n in trained} == {torch.float32}
    assert {p.dtype for n, p in model.named_parameters() if n not in trained} == {torch.bfloat16}
    whole = dataclasses.replace(recipe, published=dataclasses.replace(recipe.published, lora_rank=0))
    model = build_learner(whole, folder).model
    assert all(p.requires_grad for p in model.family.decoder(model.hf).parameters())
    tower = [
        p
        for p in model.family.vision(model.hf).parameters()
        if id(p) not in {id(q) for q in model.family.projector(model.hf).parameters()}
    ]
    assert tower and not any(p.requires_grad for p in tower)


@torch.no_grad()
def test_a_packed_question_gets_the_logits_of_the_stock_model(published):
    """Positions, mask and visual tokens as the stock class makes them for the same prompt alone."""
    recipe, folder = published
    recipe = dataclasses.replace(recipe, precision="fp32")
    learner = build_learner(recipe, folder)
    model = learner.model.eval()
    viewer = Viewer(model.framing, model.processing)
    rng = np.random.default_rng(0)
    shown = [viewer.show(rng.integers(0, 255, (84, 112, 3), dtype=np.uint8), None) for _ in range(2)]
    questions = [PackedQuestion((("How far?", "`12`."),), 1), PackedQuestion((("And now?", "`7`."),), 2)]
    together = (
        Objective(model).predict(collate([pack("s", shown, questions, learner.form)], learner.pad_id)).logits
    )
    start = 0
    for question in questions:
        sample = pack("s", shown[: question.image_count], [question], learner.form)
        ids = torch.from_numpy(sample.ids)[None]
        pixels = torch.stack([torch.from_numpy(x.pixels).permute(2, 0, 1) for x in sample.images])
        from spatial_mllm_training.model.preprocess import normalised

        stock = model.family.pixel_inputs(model.hf.config, list(normalised(model.processing, pixels)))
        stock |= model.family.prompt_inputs(model.hf.config, ids)
        expected = model.hf(input_ids=ids, **stock).logits[0][sample.labels != -100]
        torch.testing.assert_close(together[start : start + len(expected)], expected, atol=2e-5, rtol=1e-4)
        start += len(expected)
    assert start == len(together)


def test_a_run_on_rows_and_talk_learns_and_goes_on(published, paths, tmp_path):
    recipe, _ = published
    out = tmp_path / "run"
    mixed = dataclasses.replace(recipe, mix=dataclasses.replace(recipe.mix, rows=0.5, general=0.5))
    first = run(mixed, paths, out, cpu=True, quiet=True)
    assert first["step"] == 2 and first["skipped"] == 0 and first["held_out"]["abs_rel"] > 0
    record = json.loads((out / "run.json").read_text())
    assert set(record["data"]) == {"rows", "general"}
    assert record["data"]["rows"] and (out / "checkpoints" / "step-00000002").is_dir()
    names = checkpoints.latest(out).weights().keys()
    assert any("lora_B" in n for n in names) and not any("visual.blocks" in n for n in names)
    again = run(dataclasses.replace(mixed, steps=3), paths, out, cpu=True, quiet=True)
    assert again["step"] == 3


def test_rows_without_answers_still_train_the_heads(published, paths, tmp_path):
    recipe, _ = published
    silent = dataclasses.replace(
        recipe,
        steps=1,
        mix=dataclasses.replace(recipe.mix, general=0.0),
        rows=dataclasses.replace(recipe.rows, answers_share=0.0),
    )
    run(silent, paths, tmp_path / "run", cpu=True, quiet=True)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert line["answer_loss"] == 0 and line["spatial/depth"] != 0 and line["depth_loss"] != 0


@pytest.mark.parametrize("published", ["internvl"], indirect=True)
def test_a_bad_row_is_left_out_or_stops_the_run(published, paths, tmp_path, monkeypatch, capsys):
    import pyarrow.parquet as pq

    recipe, folder = published
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "images").symlink_to(paths.rows[0] / "images")
    every = list(read_rows(paths.rows[0]))
    every[::3] = [dataclasses.replace(row, answer="no number") for row in every[::3]]
    pq.write_table(to_table(every), bad / "rows-00000.parquet")
    monkeypatch.setitem(
        RECIPES,
        "micro",
        lambda: dataclasses.replace(
            recipe,
            steps=6,
            mix=dataclasses.replace(recipe.mix, general=0.0),
            rows=dataclasses.replace(recipe.rows, questions=1, augment=None),
        ),
    )
    command = [
        "--recipe",
        "micro",
        "--rows",
        str(bad),
        "--checkpoint",
        str(folder),
        "--cpu",
        "--quiet",
        "--threads",
        "1",
    ]
    assert main([*command, "--out", str(tmp_path / "kind")]) == 0
    said = capsys.readouterr().out
    assert said.count("left out: row '") == 1 and "does not parse" in said
    assert json.loads((tmp_path / "kind" / "final.json").read_text())["skipped"] >= 1
    assert main([*command, "--strict", "--out", str(tmp_path / "strict")]) == 2
    error = capsys.readouterr().err
    assert "does not parse" in error and "Traceback" not in error


@pytest.mark.parametrize("published", ["internvl"], indirect=True)
def test_a_checkpoint_of_another_family_is_refused(published, paths, tmp_path, capsys):
    _, folder = published
    with pytest.raises(SpatialError, match="is a internvl, but a qwen2_5_vl was asked for"):
        build_learner(RECIPES["qwen2_5_vl_3b_lora"](), folder)
    command = ["--recipe", "qwen2_5_vl_3b_lora", "--checkpoint", str(folder), "--out", str(tmp_path / "run")]
    assert main([*command, "--cpu"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"'{folder}' is a internvl, but a qwen2_5_vl was asked for"


@pytest.mark.parametrize("published", ["qwen2_5_vl"], indirect=True)
def test_a_run_does_not_go_on_with_other_base_weights(published, paths, tmp_path):
    recipe, folder = published
    plain = dataclasses.replace(recipe, mix=dataclasses.replace(recipe.mix, general=0.0), steps=1)
    run(plain, paths, tmp_path / "run", cpu=True, quiet=True)
    model = build_learner(plain, folder).model.hf
    torch.manual_seed(5)
    other = shutil.copytree(folder, tmp_path / "other")
    type(model)(model.config).save_pretrained(other)
    longer = dataclasses.replace(plain, steps=2)
    with pytest.raises(
        SpatialError, match=r"has base weights [0-9a-f]{16}, but the recipe gives [0-9a-f]{16}"
    ):
        run(longer, dataclasses.replace(paths, checkpoint=other), tmp_path / "run", cpu=True, quiet=True)
    assert run(longer, paths, tmp_path / "run", cpu=True, quiet=True)["step"] == 2


@pytest.mark.parametrize("published", ["qwen2_5_vl"], indirect=True)
def test_a_source_that_is_mixed_in_must_be_named(published, paths, tmp_path):
    recipe, _ = published
    with pytest.raises(SpatialError, match="--general"):
        run(recipe, dataclasses.replace(paths, general=None), tmp_path / "run", cpu=True, quiet=True)
    with pytest.raises(SpatialError, match="--rows"):
        run(recipe, dataclasses.replace(paths, rows=()), tmp_path / "run", cpu=True, quiet=True)
    assert SpatialConfig().tasks == ("depth", "rays", "points")
