"""A later image as the last frame of a clip: what the stock model reads of a video, and which image is the first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.model.spatial_model import SpatialModel
from spatial_mllm_training.data.packing import ShownImage, pack
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.families.qwen2_5_vl import patchify, visual_tokens_of_clips
from spatial_mllm_training.model.preprocess import normalised
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.recipes.config import SpatialConfig
from spatial_mllm_training.supervision.dpt import DPTSize
from spatial_mllm_training.training_loop.batch import Batch, collate
from spatial_mllm_training.training_loop.setup import build_learner

GRID_H, GRID_W = 3, 4
SIZE = (GRID_H * 16, GRID_W * 16)


@pytest.fixture
def learner(tokenizer):
    smoke = RECIPES["smoke"]()
    torch.manual_seed(0)
    return build_learner(
        dataclasses.replace(smoke, model=dataclasses.replace(smoke.model, clips=True)), tokenizer=tokenizer
    )


def shown(seed, grid=(GRID_H, GRID_W)):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (16 * grid[0], 16 * grid[1], 3), dtype=np.uint8)
    return ShownImage(pixels, grid, rng.normal(size=(grid[0] * grid[1], 4)).astype(np.float32), True)


@torch.no_grad()
def test_a_clip_is_a_video_of_two_frames_to_the_stock_model(small_model):
    """The stock processor's patches of either frame, each at its moment, through the stock video path."""
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    processor = processing.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, min_pixels=1, max_pixels=10**7
    )
    frames = [shown(seed).pixels for seed in (1, 2)]
    stills = processor(images=frames, return_tensors="pt")["pixel_values"].reshape(2, -1, 3, 2, 64)
    patches = torch.stack([stills[0, :, :, 0], stills[1, :, :, 1]], dim=2).flatten(1)
    before, image = (
        normalised(small_model.processing, torch.from_numpy(frame)[None].permute(0, 3, 1, 2))
        for frame in frames
    )
    torch.testing.assert_close(patchify([before, image], patch=8, merge=2), patches, atol=2e-6, rtol=0)
    grid = torch.tensor([[1, 2 * GRID_H, 2 * GRID_W]])
    video = small_model.hf.model.get_video_features(patches, grid)
    video = getattr(video, "pooler_output", video)[0]
    told = visual_tokens_of_clips(small_model.hf, before, image)[0]
    torch.testing.assert_close(told, video, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_only_later_images_of_a_prompt_are_read_as_clips(learner):
    model = learner.model.eval()
    images = torch.randn(3, 3, *SIZE)
    rays, known = torch.randn(3, GRID_H * GRID_W, 4), torch.tensor([True] * 3)
    alone = model.embed_images(images, rays, known)
    pair = model.embed_images(images, rays, known, torch.tensor([0, 0, 2]))
    torch.testing.assert_close(pair[[0, 2]], alone[[0, 2]])
    assert (pair[1] - alone[1]).abs().max() > 1e-3
    same = model.embed_images(images[[0, 0]], rays[[0, 0]], known[:2], torch.tensor([0, 0]))
    torch.testing.assert_close(same[1], alone[0])  # nothing has changed
    model.clips = False
    assert torch.equal(model.embed_images(images, rays, known, torch.tensor([0, 0, 2])), alone)


def test_the_first_image_is_that_of_the_same_prompt_and_size(learner, tmp_path):
    wide = (2, 5)
    prompts = [
        pack("pair", [shown(1), shown(2)], [], learner.form),
        pack("alone", [shown(3)], [], learner.form),
        pack("two sizes", [shown(4, wide), shown(5), shown(6)], [], learner.form),
        pack("apart", [shown(7), shown(8)], [], learner.form, apart=True),
    ]
    batch = collate(prompts, learner.pad_id)
    found = {tuple(g.grid.tolist()): g for g in batch.groups}
    assert found[wide].first.tolist() == [0]
    group = found[GRID_H, GRID_W]
    assert group.place.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert group.first.tolist() == [0, 0, 2, 3, 4, 5, 6]
    batch.save(tmp_path / "batch.safetensors")
    for group, read in zip(batch.groups, Batch.read(tmp_path / "batch.safetensors").groups, strict=True):
        assert torch.equal(group.first, read.first)


def test_a_bundle_says_whether_it_reads_clips(learner, tokenizer, tmp_path):
    smoke = RECIPES["smoke"]()
    for clips in (False, True):
        learner.model.clips = clips
        folder = tmp_path / str(clips)
        folder.mkdir()
        about = {"name": "mini", "version": "0", "subtasks": (), "progress": {}, "metrics": {}}
        write_bundle(learner.model.eval(), smoke, tokenizer, folder, **about)
        model = SpatialModel.load(folder)
        assert model.manifest.clips is clips
        assert f'"format_version": {2 if clips else 1}' in (folder / "manifest.json").read_text()
    manifest = dataclasses.replace(SpatialModel.load(tmp_path / "False").manifest, clips=True)
    (tmp_path / "False" / "manifest.json").write_text(manifest.to_json())
    with pytest.raises(SpatialError, match="should have an input 'first_image'") as fault:
        SpatialModel.load(tmp_path / "False")
    assert fault.value.code is ErrorCode.MODEL_SIGNATURE


def test_what_only_training_needs_is_not_counted_and_all_stages_are_told(tokenizer, tmp_path):
    smoke = RECIPES["smoke"]()
    heads = SpatialConfig(tasks=("motion",), size=DPTSize(channels=(8, 8, 8, 8), features=8))
    stages = {
        "recipe": "b",
        "steps": 2,
        "minutes": 3.0,
        "began_with": {"recipe": "a", "steps": 1, "minutes": 9.0},
    }
    counted = []
    for spatial in (None, heads):
        learner = build_learner(dataclasses.replace(smoke, spatial=spatial), tokenizer=tokenizer)
        folder = tmp_path / str(spatial is None)
        folder.mkdir()
        progress = {"steps": 5, "minutes": 7.0, "began_with": stages}
        about = {"name": "mini", "version": "0", "subtasks": (), "progress": progress, "metrics": {}}
        write_bundle(learner.model.eval(), smoke, tokenizer, folder, **about)
        counted.append(SpatialModel.load(folder).manifest.training["parameters"])
    assert counted[0] == counted[1] == sum(p.numel() for p in build_learner(smoke).model.parameters())
    told = "recipe `a`: 1 steps, 9.0 minutes; then recipe `b`: 2 steps, 3.0 minutes; then recipe `smoke`: 5 steps"
    assert told in " ".join((folder / "MODEL_CARD.md").read_text().split())
