"""A run on a published checkpoint comes back from its files: exactly, through stock peft, and merged."""

from __future__ import annotations

import dataclasses
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.export.__main__ import main
from spatial_mllm_training.model.adapter_file import CONFIG, WEIGHTS
from spatial_mllm_training.model.checkpoint import load
from spatial_mllm_training.model.preprocess import normalised, reframed, token_rays
from spatial_mllm_training.model.prompt_cameras import PromptCameras
from spatial_mllm_training.training_loop import checkpoints
from spatial_mllm_training.training_loop.loop import TrainingRun
from spatial_mllm_training.training_loop.placing import accelerator_for
from spatial_mllm_training.training_loop.setup import build_learner, build_sources

ONE_FAMILY = pytest.mark.parametrize("published", ["qwen2_5_vl"], indirect=True)


@dataclass
class Finished:
    """A run, the model as training left it, and what a prompt with an image is for it."""

    run: Path
    base: Path
    model: Any
    ids: torch.Tensor
    pixels: dict[str, torch.Tensor]
    cameras: PromptCameras

    @torch.no_grad()
    def logits(self, model):
        """With the camera, from a wrapped model."""
        return model.eval()(self.ids, cameras=self.cameras, **self.pixels).logits

    @torch.no_grad()
    def stock_logits(self, hf):
        """Without the camera, from a stock one, plain or with peft around it."""
        inputs = self.model.family.prompt_inputs(self.model.hf.config, self.ids)
        return hf.eval()(input_ids=self.ids, **inputs, **self.pixels).logits


@pytest.fixture
def train_to(published, published_paths, tmp_path):
    """A function (folder name, **changes of the recipe) -> Finished."""

    def run(name: str, **changes: Any) -> Finished:
        recipe, base = published
        recipe = dataclasses.replace(
            recipe,
            **{
                "precision": "fp32",
                "mix": dataclasses.replace(recipe.mix, general=0.0),
                "learning_rate": 1e-2,
                "decoder_learning_rate": 1e-2,
                "steps": 3,
                "validate_steps": 100,
                **changes,
            },
        )
        learner = build_learner(recipe, base)
        sources, weights, _ = build_sources(recipe, published_paths, learner)
        accelerator = accelerator_for(recipe, cpu=True)
        trainer = TrainingRun(recipe, tmp_path / name, accelerator, learner, strict=True, quiet=True)
        trainer.train(sources, weights, None)
        accelerator.end_training()
        type(accelerator.state)._reset_state(True)
        model = learner.model.eval()
        framing = model.framing(96, 64)
        image = np.random.default_rng(0).integers(0, 255, (64, 96, 3), dtype=np.uint8)
        seen = normalised(model.processing, reframed(framing, model.processing, torch.from_numpy(image)))
        visual = model.family.visual_token_id(model.hf.config)
        before, _, after = (learner.tokenizer.encode(t).ids for t in model.family.PLACEHOLDER)
        words = learner.tokenizer.encode("How far is it?").ids
        return Finished(
            tmp_path / name,
            base,
            model,
            torch.tensor([[*before, *[visual] * framing.token_count, *after, *words]]),
            model.family.pixel_inputs(model.hf.config, [seen]),
            PromptCameras.of([token_rays(framing, CameraModel.from_fov(96, 64, hfov_rad=1.1))]),
        )

    return run


def export(finished: Finished, out: Path, *more: str) -> Path:
    command = ["--run", str(finished.run), "--out", str(out), "--checkpoint", str(finished.base)]
    assert main([*command, *more]) == 0
    return out


def files(out: Path) -> dict[str, Path]:
    return {"additions": out / "additions.safetensors", "adapter": out / "adapter"}


def test_the_files_give_the_model_at_the_end_of_training(train_to, tmp_path):
    finished = train_to("run")
    out = export(finished, tmp_path / "out", "--merge")
    expected = finished.logits(finished.model)
    loaded = load(finished.base, **files(out))
    assert torch.equal(finished.logits(loaded), expected)
    assert loaded.heads == finished.model.heads and loaded.tap_layers == finished.model.tap_layers
    for name, value in finished.model.additions().items():
        assert torch.equal(loaded.additions()[name], value), name
    # each of the two files says something that the other does not
    for one in files(out):
        assert not torch.allclose(
            finished.logits(load(finished.base, **{one: files(out)[one]})), expected, atol=1e-3
        )

    # stock classes and stock peft, which know nothing of cameras
    from peft import PeftModel

    told = finished.stock_logits(finished.model.hf)
    stock = AutoModelForImageTextToText.from_pretrained(finished.base)
    plain = finished.stock_logits(stock)
    adapted = PeftModel.from_pretrained(stock, str(out / "adapter"))
    assert torch.equal(finished.stock_logits(adapted), told)
    assert not torch.allclose(plain, told, atol=1e-3)
    merged = AutoModelForImageTextToText.from_pretrained(out / "merged")
    assert type(merged) is type(AutoModelForImageTextToText.from_pretrained(finished.base))
    torch.testing.assert_close(finished.stock_logits(merged), told, atol=1e-5, rtol=1e-5)
    loaded = load(out / "merged", additions=files(out)["additions"])
    torch.testing.assert_close(finished.logits(loaded), expected, atol=1e-5, rtol=1e-5)
    for place in (finished.base, out / "merged"):
        assert AutoTokenizer.from_pretrained(place)("A table, 12 m").input_ids == [
            *AutoTokenizer.from_pretrained(finished.base)("A table, 12 m").input_ids
        ]
    assert "Trained on `" in (out / "README.md").read_text()
    # what was merged already is not merged a second time
    with pytest.raises(SpatialError, match="was trained on other weights than these"):
        load(out / "merged", adapter=out / "adapter")


def test_bf16_files_and_a_merged_checkpoint_are_within_its_rounding(train_to, tmp_path):
    finished = train_to("run", precision="bf16")
    out = export(finished, tmp_path / "out", "--merge")
    with torch.autocast("cpu", torch.bfloat16):
        expected = finished.stock_logits(finished.model.hf).float()
    stock = AutoModelForImageTextToText.from_pretrained(finished.base, dtype=torch.bfloat16)
    change = (finished.stock_logits(stock).float() - expected).norm()
    merged = AutoModelForImageTextToText.from_pretrained(out / "merged")
    assert {p.dtype for p in merged.parameters()} == {torch.bfloat16}
    for model in (merged, load(finished.base, **files(out), dtype=torch.bfloat16).hf):
        apart = finished.stock_logits(model).float() - expected
        assert apart.norm() < 0.1 * change
        # bf16 keeps 8 bits; a few layers add up to a few of the last
        assert apart.abs().max() < 8 * 2**-8 * expected.abs().max()


@ONE_FAMILY
def test_averaged_weights_are_exported_where_there_are_such(train_to, tmp_path):
    finished = train_to("run", ema=0.5)
    out = export(finished, tmp_path / "out")
    found = checkpoints.latest(finished.run)
    name = "base_model.model.model.language_model.layers.1.self_attn.q_proj.lora_B.{}weight"
    told = load_file(str(out / "adapter" / WEIGHTS))[name.format("")]
    key = name.format("default.").replace("base_model.model.", "hf.")
    assert torch.equal(told, found.average()[key])
    assert not torch.equal(told, found.weights()[key])
    assert not (out / "merged").exists()


@ONE_FAMILY
def test_a_decoder_that_was_trained_whole_is_written_merged_or_not_at_all(
    train_to, published, tmp_path, capsys
):
    finished = train_to("run", published=dataclasses.replace(published[0].published, lora_rank=0))
    command = ["--run", str(finished.run), "--checkpoint", str(finished.base), "--out", str(tmp_path / "out")]
    assert main(command) == 2
    assert "trained the decoder whole, not an adapter: give --merge" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
    assert main([*command, "--merge"]) == 0
    assert not (tmp_path / "out" / "adapter").exists()
    merged = AutoModelForImageTextToText.from_pretrained(tmp_path / "out" / "merged")
    assert torch.equal(finished.stock_logits(merged), finished.stock_logits(finished.model.hf))


@ONE_FAMILY
def test_what_does_not_belong_together_is_refused_in_a_sentence(train_to, tmp_path, capsys):
    finished = train_to("run", steps=1)
    out = export(finished, tmp_path / "out")
    adapter = out / "adapter"

    def refused(code: ErrorCode, match: str, base: Path = finished.base, folder: Path = adapter) -> None:
        with pytest.raises(SpatialError, match=match) as caught:
            load(base, adapter=folder)
        assert caught.value.code == code and "\n" not in caught.value.sentence

    # equal sizes, other weights
    other = finished.model.family.stock_class()(finished.model.hf.config)
    other.save_pretrained(tmp_path / "other")
    refused(ErrorCode.MODEL_SIGNATURE, "other weights than these: load it with 'Qwen/", tmp_path / "other")
    capsys.readouterr()
    assert main(["--run", str(finished.run), "--checkpoint", str(tmp_path / "other"), "--out", str(out)]) == 2
    assert "was trained on other weights than those of" in capsys.readouterr().err.splitlines()[-1]
    assert main(["--run", str(finished.run), "--checkpoint", str(tmp_path / "no"), "--out", str(out)]) == 2
    assert "no configuration of a model at" in capsys.readouterr().err.splitlines()[-1]
    assert adapter.is_dir(), "a failed export leaves the one before it"
    # without our mark, as others write adapters, the sizes still speak
    from safetensors.torch import save_file

    plain = shutil.copytree(adapter, tmp_path / "plain")
    tensors = load_file(str(plain / WEIGHTS))
    save_file(tensors, plain / WEIGHTS)
    load(finished.base, adapter=plain)
    first = sorted(tensors)[0]
    for changed, match in (
        ({**tensors, first: tensors[first][:, :8].clone()}, r"does not fit this model: .* is \(16, 8\) for"),
        ({k: v for k, v in tensors.items() if k != first}, "is missing"),
        ({**tensors, "base_model.model.other.weight": torch.ones(2)}, "the model has no other.weight"),
    ):
        save_file(changed, plain / WEIGHTS)
        refused(ErrorCode.MODEL_SIGNATURE, match, folder=plain)
    # torn, missing, or something else
    data = (adapter / WEIGHTS).read_bytes()
    for keep in (0, 7, 500, len(data) - 1):
        (adapter / WEIGHTS).write_bytes(data[:keep])
        refused(ErrorCode.MODEL_SIGNATURE, rf"{WEIGHTS}' is not a complete safetensors file")
    (adapter / WEIGHTS).write_bytes(data)
    told = json.loads((adapter / CONFIG).read_text())
    for text, match in (
        ("{", "is not a configuration of peft"),
        ("[]", "is not a configuration of peft"),
        (json.dumps({**told, "peft_type": "IA3"}), "tells of a IA3 that is not plain LoRA"),
        (json.dumps({**told, "use_dora": True}), "not plain LoRA"),
        (json.dumps({**told, "target_modules": ["nothing"]}), "there is no such matrix"),
    ):
        (adapter / CONFIG).write_text(text)
        refused(ErrorCode.MODEL_SIGNATURE, match)
    (adapter / WEIGHTS).unlink()
    refused(ErrorCode.MODEL_MISSING, f"holds no {WEIGHTS}")


@ONE_FAMILY
def test_a_run_is_refused_on_a_base_that_it_was_not_trained_on(train_to, tmp_path, capsys):
    finished = train_to("run", steps=1)
    command = ["--run", str(finished.run), "--checkpoint", str(finished.base), "--out"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("all of it")
    assert main([*command, str(mine)]) == 2
    assert "holds no earlier export and is not replaced" in capsys.readouterr().err
    assert (mine / "thesis.txt").exists()
    weights = next(finished.run.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    assert main([*command, str(tmp_path / "out")]) == 2
    assert "is whole" in capsys.readouterr().err
    assert main(["--run", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "not a run folder that train wrote" in capsys.readouterr().err


@ONE_FAMILY
def test_what_only_learning_from_a_teacher_needs_is_left_out(train_to, tmp_path):
    finished = train_to("run", steps=1)
    found = checkpoints.latest(finished.run)
    checkpoints.write(
        finished.run,
        found.progress,
        belongs_to={**found.belongs_to, "teacher": "specialist 2"},
        weights={**found.weights(), "feature_projector.0.weight": torch.ones(2, 2)},
        average={},
        optimizer=found.optimizer(),
        keep=1,
    )
    out = export(finished, tmp_path / "out")
    assert torch.equal(finished.logits(load(finished.base, **files(out))), finished.logits(finished.model))
