"""The exported bundle, run by the core, gives what the stock transformers classes give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_training.export import onnx_files
from spatial_mllm_training.export.graphs import DecoderGraph, VisionGraph
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.dpt import depth_from_logits
from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD
from spatial_mllm_training.recipes import RECIPES

GRID_H, GRID_W = 9, 12
HEIGHT, WIDTH = GRID_H * 16, GRID_W * 16


@pytest.fixture(params=[False, True], ids=["stills", "clips"])
def bundle(small_model, tokenizer, tmp_path, request):
    small_model.clips = request.param
    folder = tmp_path / "mini"
    folder.mkdir()
    write_bundle(
        small_model,
        RECIPES["smoke"](),
        tokenizer,
        folder,
        name="mini",
        version="0",
        subtasks=tasks.names(),
        progress={},
        metrics={},
        small=False,
    )
    return folder


def frames(count):
    rng = np.random.default_rng(1)
    camera = CameraModel.from_fov(WIDTH, HEIGHT, hfov_rad=1.2)
    return tuple(
        Frame(i + 1, "optical", rng.integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8), camera)
        for i in range(count)
    )


@torch.no_grad()
def stock_forward(model, tokenizer, views, question, *, answer_tokens):
    text = "".join(
        f"Image-{i + 1}: <|vision_start|>" + "<|image_pad|>" * (GRID_H * GRID_W) + "<|vision_end|>\n"
        for i in range(len(views))
    )
    ids = torch.tensor([tokenizer.encode(text + question, add_special_tokens=False).ids])
    mask = ids == model.hf.config.image_token_id
    images = torch.from_numpy(np.stack([v.image_rgb for v in views])).permute(0, 3, 1, 2).float() / 255
    images = (images - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
    from spatial_mllm_training.model.families.qwen2_5_vl import patchify

    vision = {
        # the stock model takes a patch of two frames as it comes: the first frame of all and this one
        "pixel_values": patchify(
            [images[[0] * len(images)] if model.clips else images, images], patch=8, merge=2
        ),
        "image_grid_thw": torch.tensor([[1, GRID_H * 2, GRID_W * 2]] * len(views)),
    }
    rays = torch.cat(
        [
            torch.from_numpy(np.asarray(v.camera.token_rays(GRID_W, GRID_H), np.float32)).reshape(1, -1, 4)
            for v in views
        ],
        1,
    )
    with model.camera(mask, rays, torch.tensor([True])):
        full = model.hf(input_ids=ids, mm_token_type_ids=mask.int(), output_hidden_states=True, **vision)
    with model.camera(mask, rays, torch.tensor([True])):
        out = model.hf.generate(
            input_ids=ids,
            mm_token_type_ids=mask.int(),
            max_new_tokens=answer_tokens,
            do_sample=False,
            **vision,
        )
    last = mask.nonzero()[-GRID_H * GRID_W :, 1]
    taps = [full.hidden_states[i][:, last] for i in model.tap_layers]
    return out[0, ids.shape[1] :].tolist(), taps


@torch.no_grad()
def test_the_export_graphs_are_the_stock_model_in_double_precision(small_model, tokenizer):
    """No tolerance for a difference in the mathematics: what remains in float32 is rounding."""
    model = small_model.double()
    (view,) = frames(1)
    rays = torch.from_numpy(np.array(view.camera.token_rays(GRID_W, GRID_H), np.float64)).reshape(1, -1, 4)
    vision = VisionGraph(model, HEIGHT, WIDTH).double()
    image = torch.from_numpy(view.image_rgb[None])
    normal = vision.normalised(image)
    tokens = vision(image, rays, torch.tensor([True]))
    expected = model.embed_images(normal, rays, torch.tensor([True]))
    np.testing.assert_allclose(tokens.numpy(), expected.numpy(), atol=1e-5)
    model.clips = True
    both, known = torch.cat([normal.flip(2), normal]), torch.tensor([True, True])
    expected = model.embed_images(both, rays.repeat(2, 1, 1), known, torch.tensor([0, 0]))
    tokens = vision(image, rays, known[:1], image.flip(1))
    np.testing.assert_allclose(tokens.numpy(), expected[1:].numpy(), atol=1e-5)

    length, split = 40, 27
    embeds = torch.randn(
        1, length, model.decoder_config.hidden_size, generator=torch.Generator().manual_seed(1)
    ).double()
    positions = torch.arange(length).expand(3, 1, length)
    mask = torch.tril(torch.ones(length, length, dtype=torch.bool))[None, None]
    hidden, taps = model.decode(embeds, positions, mask)
    decoder = DecoderGraph(model)
    head_dim = model.decoder_config.hidden_size // model.decoder_config.num_attention_heads
    cache = [
        torch.zeros(1, model.decoder_config.num_key_value_heads, 0, head_dim).double()
        for _ in range(2 * model.decoder_config.num_hidden_layers)
    ]
    parts = []
    for a, b in ((0, split), (split, length)):
        logits, part, cache = decoder(embeds[:, a:b], positions[:, :, a:b], cache)
        parts.append(part)
    np.testing.assert_allclose(torch.cat(parts, dim=2).numpy(), torch.stack(taps).numpy(), atol=1e-6)
    np.testing.assert_allclose(logits.numpy(), model.hf.lm_head(hidden[:, -1]).numpy(), atol=1e-6)


ASKED = {
    1: ("depth_estimation_coor", ((95.5, 71.5),), ""),
    2: ("tapvid3d_total_distance_coord_pstudio", ((95.5, 71.5),), ""),
    5: ("object_perception_length_estimation", (), "chair"),
}


@pytest.mark.parametrize("count", ASKED)
def test_answers_and_depth_equal_the_stock_model(bundle, small_model, tokenizer, count):
    views = frames(count)
    task, points, category = ASKED[count]
    model = SpatialModel.load(bundle)
    question = model._question(AskRequest(task, views, points, category=category)).words
    prefix = model._prefix(views)
    expected_ids, expected_taps = stock_forward(
        small_model, tokenizer, views, question + "<|assistant|>", answer_tokens=6
    )
    np.testing.assert_allclose(prefix.taps, torch.cat(expected_taps).numpy(), atol=1e-2)
    with torch.no_grad():
        log_depth, _ = depth_from_logits(small_model.depth_head(expected_taps, GRID_H, GRID_W))
    depth_m, _ = model.engine.lift(prefix.taps)
    np.testing.assert_allclose(depth_m, torch.exp(log_depth)[0].numpy(), rtol=1e-2)

    seen: list[str] = []
    asked, digits = model._embedded(question + "<|assistant|>", prefix)
    text, confidence = model._generate(prefix, asked, digits, model._chooser(), 6, None, seen.append, None)
    assert text == tokenizer.decode(expected_ids).strip()
    assert 0.0 < confidence <= 1.0
    assert len(seen) == 6


def test_a_frame_without_camera_takes_the_null_embedding(bundle, small_model):
    (frame,) = frames(1)
    bare = Frame(5, "optical", frame.image_rgb, None)
    model = SpatialModel.load(bundle)
    with torch.no_grad():
        images = torch.from_numpy(bare.image_rgb[None]).permute(0, 3, 1, 2).float() / 255
        images = (images - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
        expected = small_model.embed_images(images, torch.zeros(1, GRID_H * GRID_W, 4), torch.tensor([False]))

    def tokens(shown):
        rays = model._rays(shown).reshape(-1, 4)
        return model.engine.vision(shown.image_rgb, rays, shown.camera is not None, shown.image_rgb)

    np.testing.assert_allclose(tokens(bare), expected[0].numpy(), atol=1e-4)
    assert np.abs(tokens(bare) - tokens(frame)).max() > 1e-2


def test_small_storage_shrinks_the_files_and_keeps_the_numbers(small_model, tokenizer, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    write_bundle(
        small_model,
        RECIPES["smoke"](),
        tokenizer,
        folder,
        name="small",
        version="0",
        subtasks=tasks.names(),
        progress={},
        metrics={},
    )
    (frame,) = frames(1)
    rays = np.asarray(frame.camera.token_rays(GRID_W, GRID_H), np.float32).reshape(-1, 4)
    small = SpatialModel.load(folder).engine.vision(frame.image_rgb, rays, True, frame.image_rgb)
    full_folder = tmp_path / "full"
    full_folder.mkdir()
    onnx_files.export_graphs(small_model, full_folder, height=HEIGHT, width=WIDTH, small=False)
    for name in ("vision.onnx", "decoder.onnx", "lift.onnx"):
        assert (folder / name).stat().st_size < 0.35 * (full_folder / name).stat().st_size
    with torch.no_grad():
        images = torch.from_numpy(frame.image_rgb[None]).permute(0, 3, 1, 2).float() / 255
        images = (images - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
        expected = small_model.embed_images(images, torch.from_numpy(rays)[None], torch.tensor([True]))[0]
    off = np.abs(small - expected.numpy()).mean() / np.abs(expected.numpy()).mean()
    assert off < 0.15
