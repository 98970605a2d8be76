"""Taps through the wrapper equal the explicit way of training; runs and published checkpoints open or say why not."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model.prompt import position_after_visual, text_positions, visual_positions
from spatial_mllm_training.export.__main__ import main as export
from spatial_mllm_training.export.write_bundle import load_run
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD
from spatial_mllm_training.model.preprocess import normalised, reframed
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.probe.tapped import fitted, open_published, open_run
from spatial_mllm_training.training_loop.loop import run

GRID_H, GRID_W = 9, 12


def images(count=2):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 255, (144, 192, 3), np.uint8) for _ in range(count)]


@torch.no_grad()
def explicit_taps(run, image, camera):
    """The way of training: own positions, own mask, own prefix."""
    model, _, tokenizer, _ = load_run(run)
    head = tokenizer.encode("Image-1: <|vision_start|>", add_special_tokens=False).ids
    x = (torch.from_numpy(image).permute(2, 0, 1).float() / 255 - torch.tensor(IMAGE_MEAN)[:, None, None]) / (
        torch.tensor(IMAGE_STD)[:, None, None]
    )
    rays = torch.from_numpy(np.asarray(camera.token_rays(GRID_W, GRID_H)).copy()).reshape(1, -1, 4)
    visual = model.embed_images(x[None], rays, torch.tensor([True]))
    embeds = torch.cat([model.hf.get_input_embeddings()(torch.tensor([head])), visual], dim=1)
    positions = np.concatenate(
        [text_positions(len(head), 0), visual_positions(GRID_H, GRID_W, len(head))], axis=1
    )
    assert positions.max() < position_after_visual(GRID_H, GRID_W, len(head))
    mask = torch.ones(embeds.shape[1], embeds.shape[1]).tril().bool()[None, None]
    _, taps = model.decode(embeds, torch.from_numpy(positions)[:, None], mask)
    return torch.stack(taps)[:, 0, len(head) :]


def test_taps_equal_those_of_the_explicit_way(small_run):
    model = open_run(small_run)
    assert (model.width, model.height) == (192, 144)
    assert model.name == "micro at step 7"
    cameras = [CameraModel.from_fov(192, 144, hfov_rad=a) for a in (1.0, 1.4)]
    found = model.taps(images(), cameras)
    assert found.shape == (4, 2, GRID_H * GRID_W, 64)
    for b, (image, camera) in enumerate(zip(images(), cameras, strict=True)):
        assert torch.allclose(found[:, b], explicit_taps(small_run, image, camera), atol=2e-5)
    # the camera is seen, and so is its absence
    other = model.taps(images(1), [None])
    assert (other[:, 0] - found[:, 0]).abs().max() > 1e-3


def test_own_head_gives_depth_at_the_frames_size(small_run):
    model = open_run(small_run)
    image = np.random.default_rng(0).integers(0, 255, (200, 300, 3), np.uint8)
    camera = CameraModel.from_fov(300, 200, hfov_rad=1.0)
    seen = model.perceive(Frame(1, "optical", image, camera))
    assert seen.depth_m.shape == seen.confidence.shape == (200, 300)
    small, small_camera = fitted(image, camera, 192, 144)
    with torch.no_grad():
        taps = explicit_taps(small_run, small, small_camera)
        log_depth, c = depth_from_logits(model.model.depth_head(list(taps[:, None]), GRID_H, GRID_W))
    assert seen.depth_m.mean() == pytest.approx(float(log_depth.exp().mean()), rel=0.02)
    assert seen.confidence.mean() == pytest.approx(float((1 - 1 / c).mean()), rel=0.02)
    with pytest.raises(SpatialError, match="without a CameraInfo"):
        model.perceive(Frame(1, "optical", image))


def test_fitted_takes_the_camera_along():
    image = np.zeros((100, 200, 3), np.uint8)
    small, camera = fitted(image, CameraModel.from_fov(200, 100, hfov_rad=1.0), 50, 50)
    assert small.shape == (50, 50, 3)
    assert (camera.width, camera.height) == (50, 50)
    assert camera.hfov_rad == pytest.approx(1.0)


def test_a_folder_that_is_no_run_is_named(small_run, tmp_path):
    with pytest.raises(SpatialError, match=r"holds no config.json; it is not a run folder"):
        open_run(tmp_path)
    shutil.copy(small_run / "config.json", tmp_path)
    with pytest.raises(SpatialError, match=r"holds no checkpoint"):
        open_run(tmp_path)
    shutil.copytree(small_run, tmp_path / "torn")
    weights = next((tmp_path / "torn").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(SpatialError, match=r"none of the 1 checkpoint"):
        open_run(tmp_path / "torn")
    shutil.copytree(small_run, tmp_path / "half")
    (tmp_path / "half" / "config.json").write_text("{")
    with pytest.raises(SpatialError, match=r"half/config.json' cannot be read"):
        open_run(tmp_path / "half")


def test_a_published_checkpoint_is_probed_with_additions_that_change_nothing(small_run, tokenizer, tmp_path):
    model, *_ = load_run(small_run)
    model.hf.save_pretrained(tmp_path / "stock")
    with pytest.raises(ProbeProblem, match=r"has no tokenizer in which <\|image_pad\|> is token"):
        open_published(str(tmp_path / "stock"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path / "stock")
    opened = open_published(str(tmp_path / "stock"), size=(64, 48))
    camera = CameraModel.from_fov(64, 48, hfov_rad=1.0)
    small = [np.ascontiguousarray(image[:48, :64]) for image in images()]
    with_camera, without = opened.taps(small, [camera] * 2), opened.taps(small, [None] * 2)
    assert torch.equal(with_camera, without)
    assert with_camera.shape[2] == opened.framing.grid_width * opened.framing.grid_height
    # the stock model itself, at the same layers
    ids = torch.tensor([[*opened.prompt_ids[0], *[opened.prompt_ids[1]] * with_camera.shape[2]]])
    processing = opened.model.processing
    x = normalised(processing, reframed(opened.framing, processing, torch.from_numpy(small[0])))
    stock = opened.model.family.pixel_inputs(opened.model.hf.config, [x])
    with torch.no_grad():
        out = opened.model.hf(
            input_ids=ids,
            output_hidden_states=True,
            **stock,
            **opened.model.family.prompt_inputs(opened.model.hf.config, ids),
        )
    visual = ids[0] == opened.prompt_ids[1]
    for layer, tap in zip(opened.model.tap_layers, with_camera[:, 0], strict=True):
        assert torch.allclose(out.hidden_states[layer][0, visual].float(), tap, atol=2e-5)
    assert open_published(str(tmp_path / "stock"), size=(96, 48)).fingerprint != opened.fingerprint
    with pytest.raises(SpatialError, match="no configuration of a model"):
        open_published(str(tmp_path / "nothing"))


def test_a_run_on_a_published_checkpoint_is_probed_like_its_exported_files(
    published, published_paths, tmp_path
):
    recipe, base = published
    changes = {"steps": 2, "learning_rate": 1e-2, "decoder_learning_rate": 1e-2, "precision": "fp32"}
    mix = dataclasses.replace(recipe.mix, general=0.0)
    run(
        dataclasses.replace(recipe, mix=mix, **changes),
        published_paths,
        tmp_path / "run",
        cpu=True,
        quiet=True,
    )
    opened = open_run(tmp_path / "run", checkpoint=base)
    assert opened.name == "run at step 2" and (opened.width, opened.height) == (448, 336)
    command = ["--run", str(tmp_path / "run"), "--checkpoint", str(base), "--out", str(tmp_path / "out")]
    assert export(command) == 0
    files = {"additions": tmp_path / "out" / "additions.safetensors", "adapter": tmp_path / "out" / "adapter"}
    from_files = open_published(str(base), **files)
    assert from_files.name == "checkpoint with additions.safetensors with adapter"
    camera = CameraModel.from_fov(448, 336, hfov_rad=1.0)
    image = [np.random.default_rng(2).integers(0, 255, (336, 448, 3), np.uint8)]
    taps = opened.taps(image, [camera])
    assert torch.equal(taps, from_files.taps(image, [camera]))
    assert not torch.allclose(taps, open_published(str(base)).taps(image, [camera]), atol=1e-3)
    seen = opened.perceive(Frame(1, "optical", image[0], camera))
    assert seen.depth_m.shape == (336, 448) and (seen.depth_m > 0).all()
    before = opened.fingerprint
    run(
        dataclasses.replace(recipe, mix=mix, **{**changes, "steps": 3}),
        published_paths,
        tmp_path / "run",
        cpu=True,
    )
    assert open_run(tmp_path / "run", checkpoint=base).fingerprint != before
