"""The plan's arithmetic against the bytes that torch really holds, and the published sizes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.train import main
from spatial_mllm_training.training_loop.memory import parameter_bytes, plan
from spatial_mllm_training.training_loop.optimizers import build_optimizers
from spatial_mllm_training.training_loop.setup import build_learner


def storage(tensors) -> int:
    """Bytes of distinct storages."""
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_bytes_are_those_that_torch_holds_after_a_step(optimizer):
    config = dataclasses.replace(RECIPES["smoke"](), optimizer=optimizer, spatial=SpatialConfig())
    model = build_learner(config).model
    model.hf.model.visual.requires_grad_(False)
    expected = parameter_bytes(model, config)
    optimizers = build_optimizers(model, config)
    trained = [p for p in model.parameters() if p.requires_grad]
    for p in trained:
        p.grad = torch.zeros_like(p)
    for one in optimizers:
        one.step()
    moments = [
        t for o in optimizers for s in o.state.values() for t in s.values() if torch.is_tensor(t) and t.ndim
    ]
    assert expected["weights"] == storage(model.parameters())
    assert expected["gradients"] == storage(p.grad for p in trained)
    assert expected["optimizer"] == storage(moments)
    assert expected["average"] == expected["gradients"]


def test_a_plan_counts_every_parameter_of_the_model_that_is_built():
    config = RECIPES["smoke"]()
    found = plan(config)
    assert sum(found.trained.values()) == sum(p.numel() for p in build_learner(config).model.parameters())
    assert not found.frozen


@pytest.mark.parametrize(
    ("recipe", "millions", "lora"),
    # rank 16: 16 x (inputs + outputs) of seven matrices per layer
    [
        ("qwen2_5_vl_3b_lora", 3755, 36 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 256) + 3 * (2048 + 11008))),
        ("qwen2_5_vl_7b_lora", 8292, 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))),
        ("internvl3_1b_lora", 938, 24 * 16 * (2 * (896 + 896) + 2 * (896 + 128) + 3 * (896 + 4864))),
        ("internvl3_8b_lora", 7944, 28 * 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))),
    ],
)
def test_published_recipes_have_the_published_sizes(recipe, millions, lora):
    found = plan(RECIPES[recipe]())
    added = sum(found.trained[k] for k in ("LoRA", "ray_embedding", "depth_head", "spatial_heads"))
    base = sum(found.trained.values()) + sum(found.frozen.values()) - added
    assert base == pytest.approx(millions * 1e6, rel=0.002)
    assert found.trained["LoRA"] == lora
    assert "decoder" not in found.trained and "vision" not in found.trained
    assert found.bytes["weights"] == 2 * sum(found.frozen.values()) + 4 * sum(found.trained.values())
    assert found.bytes["optimizer"] == 2 * found.bytes["gradients"] == 8 * sum(found.trained.values())


def test_sharded_a_card_holds_its_part_and_what_stands_whole():
    found = plan(RECIPES["internvl3_1b_lora"]())
    # norms of a decoder layer, biases of its queries, keys and values, and its seven matrices, bf16
    layer = 2 * (2 * 896 + 896 + 2 * 128 + 2 * 896 * 896 + 2 * 896 * 128 + 3 * 896 * 4864)
    layer += 4 * found.trained["LoRA"] / 24
    tables = 2 * 2 * 151674 * 896 + 2 * 896
    with_gradients = sum(n for part, n in found.trained.items() if part != "LoRA")
    whole = tables + 2 * found.frozen["vision"] + 2 * 4 * with_gradients
    assert found.gathered == whole + 2 * layer
    stored = sum(found.bytes.values()) - found.bytes["activations"]
    assert found.sharded_gib(8) == pytest.approx(
        1.1 * (stored / 8 + found.gathered + found.bytes["activations"]) / 2**30
    )
    large = plan(RECIPES["internvl3_8b_lora"]())
    assert large.sharded_gib(8) < 0.6 * large.advised_gib


def test_the_table_of_the_docs_is_what_is_planned():
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    for name in RECIPES:
        if name == "smoke":
            continue
        recipe = RECIPES[name]()
        found = plan(recipe)
        gib = {use: size / 2**30 for use, size in found.bytes.items()}
        kept = gib["gradients"] + gib["optimizer"] + gib["average"]
        sharded = "" if recipe.ema else f"{found.sharded_gib(8):.1f} "
        row = (
            f"| `{name}` | {sum(found.trained.values()) / 1e6:.1f} M | {sum(found.frozen.values()) / 1e6:.0f} M "
            f"| {gib['weights']:.1f} | {kept:.1f} | {gib['activations']:.1f} | {found.advised_gib:.1f} | {sharded}|"
        )
        assert text.count(row + "\n") == 1, f"docs/training.md should say once: {row}"


def test_checkpointing_and_smaller_batches_need_less():
    config = RECIPES["internvl3_1b_lora"]()
    whole = plan(config).bytes["activations"]
    assert plan(dataclasses.replace(config, checkpointing=False)).bytes["activations"] > 1.5 * whole
    assert plan(dataclasses.replace(config, batch=2)).bytes["activations"] == pytest.approx(
        whole / 2, rel=1e-6
    )


def test_the_verb_prints_it(capsys):
    assert main(["--recipe", "internvl3_1b_lora", "--plan"]) == 0
    said = capsys.readouterr().out
    assert "LoRA" in said and "GiB on one card" in said and "activations  an estimate" in said
