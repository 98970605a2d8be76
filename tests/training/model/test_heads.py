"""Heads of either kind on the wrapper: built, trained, stored, and refused where they differ."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model import additions_file
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.model.checkpoint import load
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.heads import SMALLEST_DEPTH_M, HeadsConfig
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.supervision import DenseTargets, LossConfig, dense_losses
from spatial_mllm_training.supervision.dpt import DPTSize
from spatial_mllm_training.training_loop.small_model import build_model

TINY = DPTSize(channels=(8, 8, 12, 16), features=8)
ALL = ("depth", "rays", "points")
GRID = (3, 4)
KINDS = {
    "single": HeadsConfig(depth_features=8),
    "decoupled": HeadsConfig(tasks=ALL, size=TINY),
    "both": HeadsConfig(depth_features=8, tasks=("rays",), size=TINY),
    "all options": HeadsConfig(
        tasks=("points", "depth"),
        size=replace(TINY, upsampling=14, position_embedding=False),
        shared_projector=True,
        point_activation="linear",
        depth_activation="linear",
        teacher_width=20,
    ),
    "none": HeadsConfig(),
}
ONE_FAMILY = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


@pytest.fixture
def wrap(base, family):
    """A function (heads) -> wrapper of one small base."""
    return lambda heads: CameraAwareVLM(base, family=family.name, heads=heads).eval()


def taps(width, batch=1):
    g = torch.Generator().manual_seed(batch)
    return [torch.randn(batch, GRID[0] * GRID[1], width, generator=g) for _ in range(4)]


def targets(upsampling=8):
    """A plane that leans away from a camera, without any scale or pose to learn."""
    height, width = upsampling * GRID[0], upsampling * GRID[1]
    depth = torch.linspace(2.0, 3.0, height)[:, None].expand(height, width)[None]
    v, u = torch.meshgrid(torch.linspace(-0.4, 0.4, height), torch.linspace(-0.5, 0.5, width), indexing="ij")
    directions = torch.stack([u, v, torch.ones_like(u)], -1)[None]
    rays = torch.cat([torch.zeros_like(directions), directions], -1)
    points = depth[..., None] * directions
    return DenseTargets(depth, rays, points, torch.zeros(1, dtype=torch.int64), torch.tensor([True]))


@ONE_FAMILY
@pytest.mark.parametrize("kind", KINDS)
def test_additions_of_every_kind_come_back(kind, wrap, base, tmp_path):
    model = wrap(KINDS[kind])
    for tensor in model.additions().values():
        torch.nn.init.normal_(tensor)
    base.save_pretrained(tmp_path / "base")
    model.save_additions(tmp_path / "additions.safetensors")
    assert additions_file.read_header(tmp_path / "additions.safetensors").heads == KINDS[kind]
    loaded = load(tmp_path / "base", additions=tmp_path / "additions.safetensors")
    assert loaded.heads == KINDS[kind]
    assert loaded.additions().keys() == model.additions().keys()
    for name, tensor in model.additions().items():
        assert torch.equal(tensor, loaded.additions()[name]), name


@ONE_FAMILY
def test_what_is_asked_for_is_there_and_nothing_else(wrap):
    prefixes = {kind: {n.split(".")[0] for n in wrap(heads).additions()} for kind, heads in KINDS.items()}
    assert prefixes["single"] == {"ray_embedding", "depth_head"}
    assert prefixes["decoupled"] == {"ray_embedding", "spatial_heads"}
    assert prefixes["both"] == {"ray_embedding", "depth_head", "spatial_heads"}
    assert prefixes["all options"] == {"ray_embedding", "spatial_heads", "feature_projector"}
    assert prefixes["none"] == {"ray_embedding"}
    projected = wrap(KINDS["all options"]).feature_projector(torch.zeros(2, 5, 32))
    assert projected.shape == (2, 5, 20)


@ONE_FAMILY
def test_without_a_word_there_is_the_single_head_of_the_first_model(base, family):
    silent = CameraAwareVLM(base, family=family.name, head_features=16)
    assert silent.heads == HeadsConfig(depth_features=16) and silent.head_features == 16
    assert silent.spatial_heads is None and silent.feature_projector is None
    assert silent.depth_head.out[2].weight.shape == (2, 8, 1, 1)


def test_the_same_seed_gives_the_same_weights_with_and_without_the_seam(tokenizer):
    """The shipped recipe names no heads: it must not have moved."""
    config = RECIPES["smoke"]().model
    models = []
    for heads in (None, HeadsConfig(depth_features=config.head_features)):
        torch.manual_seed(3)
        models.append(build_model(config, tokenizer, heads=heads))
    one, two = (m.state_dict() for m in models)
    assert list(one) == list(two)
    assert all(torch.equal(one[k], two[k]) for k in one)


@ONE_FAMILY
def test_a_file_of_the_first_version_loads(wrap, base, tmp_path):
    """Its header as it was written then: one head, told by its width."""
    model, path = wrap(HeadsConfig(depth_features=8)), tmp_path / "old.safetensors"
    tensors = {k: torch.randn_like(v) for k, v in model.additions().items()}
    old = {
        "format": "spatial_mllm additions",
        "version": "1",
        "family": "qwen2_5_vl",
        "hidden_size": "32",
        "tap_layers": " ".join(map(str, model.tap_layers)),
        "head_features": "8",
    }
    save_file(tensors, str(path), old)
    base.save_pretrained(tmp_path / "base")
    loaded = load(tmp_path / "base", additions=path)
    assert loaded.heads == HeadsConfig(depth_features=8)
    assert all(torch.equal(tensors[k], v) for k, v in loaded.additions().items())
    model.load_additions(path)
    assert torch.equal(model.ray_embedding.null, tensors["ray_embedding.null"])
    with pytest.raises(SpatialError, match=r"heads with depth_features 8, tasks .*, but the model has"):
        wrap(KINDS["decoupled"]).load_additions(path)
    save_file(tensors, str(path), {k: v for k, v in old.items() if k != "head_features"})
    with pytest.raises(SpatialError, match="is not complete"):
        additions_file.read_header(path)
    save_file(tensors, str(path), {**old, "version": "3"})
    with pytest.raises(SpatialError, match=r"version 3, expected .* version 1 or 2"):
        additions_file.read_header(path)


@ONE_FAMILY
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tasks": ("depth",)}, r"tasks \('depth', 'rays', 'points'\), but the model has tasks \('depth',\)"),
        ({"size": replace(TINY, upsampling=14)}, "size.upsampling 8, but the model has size.upsampling 14"),
        ({"point_activation": "linear"}, "point_activation inv_log, but .* point_activation linear"),
        ({"depth_activation": "linear"}, "depth_activation exp, but .* depth_activation linear"),
        ({"shared_projector": True}, "shared_projector False, but .* shared_projector True"),
        ({"teacher_width": 20}, "teacher_width None, but .* teacher_width 20"),
        ({"depth_features": 8}, "depth_features None, but .* depth_features 8"),
    ],
)
def test_other_heads_are_refused_by_what_differs(change, words, wrap, tmp_path):
    """Activations leave no trace in the tensors: only the header can tell them apart."""
    wrap(KINDS["decoupled"]).save_additions(tmp_path / "a.safetensors")
    with pytest.raises(SpatialError, match=f"holds heads with {words}") as caught:
        wrap(replace(KINDS["decoupled"], **change)).load_additions(tmp_path / "a.safetensors")
    assert caught.value.code == ErrorCode.MODEL_SIGNATURE


def test_a_header_that_is_not_one_of_heads_is_a_sentence(tmp_path):
    path, good = tmp_path / "a.safetensors", json.loads(KINDS["decoupled"].to_json())
    header = additions_file.Header("qwen2_5_vl", 32, (1, 2, 3, 4), KINDS["decoupled"])
    bad = [
        "{",
        "[]",
        "{}",
        json.dumps({**good, "tasks": ["flow"]}),
        json.dumps({**good, "tasks": 3}),
        json.dumps({**good, "depth_features": "8"}),
        json.dumps({**good, "another": 1}),
        json.dumps({**good, "size": {**good["size"], "channels": [8, 8]}}),
        json.dumps({**good, "size": {**good["size"], "features": None}}),
        json.dumps({k: v for k, v in good.items() if k != "teacher_width"}),
    ]
    for text in bad:
        save_file({"x": torch.zeros(1)}, str(path), {**header.to_metadata(), "heads": text})
        with pytest.raises(SpatialError, match=r"the header of '.*a\.safetensors' cannot be read") as caught:
            additions_file.read_header(path)
        assert caught.value.code == ErrorCode.MODEL_SIGNATURE, text
    assert HeadsConfig.from_json(json.dumps(good)) == KINDS["decoupled"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"tasks": ("depth", "flow")}, "unknown 3D task 'flow'"),
        ({"tasks": ("depth", "depth")}, "named twice"),
        ({"point_activation": "exp"}, "'inv_log' or 'linear'"),
        ({"depth_activation": "log"}, "'exp' or 'linear'"),
        ({"depth_features": 0}, "depth_features is at least 1"),
        ({"teacher_width": -3}, "teacher_width is at least 1"),
    ],
)
def test_heads_that_cannot_be_are_refused_before_they_are_built(wrong, words):
    with pytest.raises(ValueError, match=words):
        HeadsConfig(**wrong)


@pytest.mark.parametrize("kind", ["decoupled", "all options"])
def test_dense_losses_reach_every_head_and_the_base_through_the_taps(kind, tokenizer):
    torch.manual_seed(0)
    model = build_model(RECIPES["smoke"]().model, tokenizer, heads=KINDS[kind])
    image = torch.rand(1, 3, GRID[0] * 16, GRID[1] * 16)
    tokens = model.embed_images(image, torch.rand(1, GRID[0] * GRID[1], 4), torch.tensor([True]))
    length = tokens.shape[1]
    mask = torch.tril(torch.ones(length, length, dtype=torch.bool))[None, None]
    _, tapped = model.decode(tokens, torch.arange(length).expand(3, 1, length), mask)
    maps = model.dense_predictions(tapped, *GRID)
    assert set(maps) == set(KINDS[kind].tasks)
    losses = dense_losses(maps, targets(KINDS[kind].size.upsampling), LossConfig())
    losses["total"].backward()
    silent = [n for n, p in model.spatial_heads.named_parameters() if p.grad is None or not p.grad.any()]
    # a linear head that starts beside zero confidence still hears; nothing is left out
    assert silent == []
    for part in (model.ray_embedding.mlp[2], model.hf.model.visual, model.family.decoder(model.hf).layers[0]):
        assert any(p.grad is not None and p.grad.any() for p in part.parameters())


@ONE_FAMILY
def test_the_single_head_has_no_dense_predictions(wrap):
    assert wrap(KINDS["single"]).dense_predictions(taps(32), *GRID) == {}
    assert dense_losses({}, targets(), LossConfig())["total"] == 0


@ONE_FAMILY
@torch.no_grad()
def test_the_served_depth_is_that_of_the_head_that_was_built(wrap):
    single, three, linear, both = (wrap(KINDS[k]) for k in ("single", "decoupled", "all options", "both"))
    inputs = taps(32, batch=2)
    log_depth, confidence = depth_from_logits(single.depth_head(inputs, *GRID))
    served = single.served_depth(inputs, *GRID)
    assert torch.equal(served[0], torch.exp(log_depth)) and torch.equal(served[1], confidence)
    dense = three.dense_predictions(inputs, *GRID)["depth"]
    served = three.served_depth(inputs, *GRID)
    assert torch.equal(served[0], dense.value[..., 0]) and torch.equal(served[1], dense.confidence)
    said = linear.dense_predictions(inputs, *GRID)["depth"].value[..., 0]
    linear.spatial_heads.decoders["depth"].out[2].bias.data[0] -= said.median()
    said = linear.dense_predictions(inputs, *GRID)["depth"].value[..., 0]
    assert (said < 0).any() and (said > SMALLEST_DEPTH_M).any()
    assert torch.equal(linear.served_depth(inputs, *GRID)[0], said.clamp(min=SMALLEST_DEPTH_M))
    assert both.depth_server() is both.depth_head
    for model in (single, three, linear, both):
        size = (2, model.heads.upsampling * GRID[0], model.heads.upsampling * GRID[1])
        assert model.heads.has_depth and model.served_depth(inputs, *GRID)[0].shape == size


@ONE_FAMILY
def test_a_model_without_a_head_for_depth_serves_none(wrap):
    for heads in (KINDS["none"], HeadsConfig(tasks=("rays", "points"), size=TINY)):
        model = wrap(heads)
        assert not heads.has_depth
        with pytest.raises(SpatialError, match="no head for depth") as caught:
            model.served_depth(taps(32), *GRID)
        assert caught.value.code == ErrorCode.MODEL_SIGNATURE
