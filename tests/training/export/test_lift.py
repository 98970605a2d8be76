"""lift.onnx has one signature for every kind of head, says what torch says, and loads in the core."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_training.export import onnx_files
from spatial_mllm_training.export.graphs import LiftGraph
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.heads import HeadsConfig
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.supervision.dpt import DPTSize
from spatial_mllm_training.training_loop.small_model import build_model

GRID_H, GRID_W = 9, 12
HEIGHT, WIDTH = GRID_H * 16, GRID_W * 16
SIZE = DPTSize(channels=(8, 8, 16, 16), features=16)
KINDS = {
    "single": HeadsConfig(depth_features=16),
    "decoupled": HeadsConfig(tasks=("depth", "rays", "points"), size=SIZE),
    "linear": HeadsConfig(tasks=("points", "depth"), size=SIZE, depth_activation="linear", teacher_width=24),
    "both": HeadsConfig(depth_features=16, tasks=("rays",), size=SIZE),
}


@pytest.fixture
def make_model(tokenizer):
    """A function (heads) -> micro model whose depth is not flat, as it is in a fresh head."""

    def make(heads):
        torch.manual_seed(0)
        model = build_model(RECIPES["smoke"]().model, tokenizer, heads=heads).eval()
        if heads.has_depth:
            server = model.depth_server()
            out = server.out if server is model.depth_head else server.decoders["depth"].out
            out[2].weight.data *= 30.0
            said = []  # the middle of the raw depth to 0: half of a linear head's cells then say nothing
            hook = out.register_forward_hook(lambda _, __, raw: said.append(raw[:, 0].detach().median()))
            model.served_depth(list(random_taps()), GRID_H, GRID_W)
            hook.remove()
            out[2].bias.data[0] -= said[0]
        return model

    return make


def random_taps():
    return torch.randn(4, 1, GRID_H * GRID_W, 64, generator=torch.Generator().manual_seed(1))


def write_lift(model, path):
    onnx_files._export(
        model,
        LiftGraph(model, GRID_H, GRID_W),
        (torch.zeros(4, 1, GRID_H * GRID_W, model.decoder_config.hidden_size),),
        path,
        input_names=["taps"],
        output_names=["depth_m", "confidence"],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_lift_equals_torch_behind_one_signature(kind, make_model, tmp_path):
    model = make_model(KINDS[kind])
    write_lift(model, tmp_path / "lift.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "lift.onnx"), providers=["CPUExecutionProvider"])
    assert [(x.name, x.shape) for x in session.get_inputs()] == [("taps", [4, 1, GRID_H * GRID_W, 64])]
    shape = [1, 8 * GRID_H, 8 * GRID_W]
    assert [(x.name, x.shape) for x in session.get_outputs()] == [("depth_m", shape), ("confidence", shape)]
    taps = random_taps()
    depth_m, confidence = session.run(None, {"taps": taps.numpy()})
    with torch.no_grad():
        expected_m, c = model.served_depth(list(taps), GRID_H, GRID_W)
    np.testing.assert_allclose(depth_m, expected_m.numpy(), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(confidence, (1 - 1 / c).numpy(), atol=1e-5)
    assert np.ptp(depth_m) > 0.1 and depth_m.min() > 0 and 0 <= confidence.min() <= confidence.max() <= 1


def test_only_the_depth_head_is_written(make_model, tmp_path):
    for kind in ("decoupled", "both"):
        write_lift(make_model(KINDS[kind]), tmp_path / "lift.onnx")
        names = [t.name for t in onnx.load(str(tmp_path / "lift.onnx")).graph.initializer]
        assert not [n for n in names if ".rays" in n or ".points" in n or "feature_projector" in n], kind
        served = "spatial_heads.decoders.depth." if kind == "decoupled" else "depth_head."
        assert [n for n in names if n.startswith(served)]


def test_a_model_without_depth_is_no_bundle(make_model, tmp_path):
    model = make_model(HeadsConfig(tasks=("rays",), size=SIZE))
    with pytest.raises(SpatialError, match="no head for depth"):
        LiftGraph(model, GRID_H, GRID_W)


@torch.no_grad()
def test_a_bundle_with_decoupled_heads_lifts_in_the_core_as_in_torch(make_model, tokenizer, tmp_path):
    """The whole way: frame in, vision, decoder and lift as stored, metres out at the frame's size."""
    model = make_model(KINDS["decoupled"])
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.05)
    write_bundle(
        model,
        RECIPES["smoke"](),
        tokenizer,
        tmp_path,
        name="new",
        version="0",
        subtasks=tasks.names(),
        progress={},
        metrics={},
        small=False,
    )
    served = SpatialModel.load(tmp_path)
    manifest = served.engine.manifest
    assert (manifest.depth_h, manifest.depth_w) == (8 * GRID_H, 8 * GRID_W)
    image = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    frame = Frame(1, "optical", image, CameraModel.from_fov(WIDTH, HEIGHT, hfov_rad=1.2))
    expected_m, expected_c = _torch_depth(model, tokenizer, frame)
    depth_m, confidence = served.engine.lift(served._prefix((frame,)).taps)
    np.testing.assert_allclose(depth_m, expected_m, rtol=1e-2)
    np.testing.assert_allclose(confidence, 1 - 1 / expected_c, atol=1e-2)
    assert np.abs(depth_m / depth_m.mean() - 1).max() > 0.1  # a flat map would pass anything
    perceived = served.perceive(frame)
    assert perceived.depth_m.shape == (HEIGHT, WIDTH) and np.isfinite(perceived.depth_m).all()


def _torch_depth(model, tokenizer, frame):
    """Depth through the stock entry point of the base, as the probe and the training see it."""
    from spatial_mllm_training.model.preprocess import normalised, reframed, token_rays
    from spatial_mllm_training.model.prompt_cameras import PromptCameras

    framing = model.framing(WIDTH, HEIGHT)
    text = "Image-1: <|vision_start|>" + "<|image_pad|>" * framing.token_count + "<|vision_end|>\n"
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
    picture = torch.from_numpy(frame.image_rgb)
    pixels = [normalised(model.processing, reframed(framing, model.processing, picture))]
    stock = model.family.pixel_inputs(model.hf.config, pixels)
    cameras = PromptCameras.of([token_rays(framing, frame.camera)])
    out = model(ids, cameras=cameras, output_hidden_states=True, use_cache=False, **stock)
    (taps,) = model.visual_taps(out.hidden_states, ids, [framing])
    depth_m, c = model.served_depth([t[None] for t in taps], GRID_H, GRID_W)
    return depth_m[0].numpy(), c[0].numpy()
