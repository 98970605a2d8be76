"""The wrapper: equal to its base at initialisation, different once the rays speak."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.model.prompt import position_after_visual, text_positions, visual_positions
from spatial_mllm_training.model.families.qwen2_5_vl import patchify
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.small_model import build_model

GRID_H, GRID_W = 9, 12


def prompt_inputs(model, tokenizer, frames=1, question="How deep is [ 512 , 340 ] in mm?<|assistant|>"):
    """Stock inputs of a prompt with random images."""
    text = "".join(
        f"Image-{i + 1}: <|vision_start|>" + "<|image_pad|>" * (GRID_H * GRID_W) + "<|vision_end|>\n"
        for i in range(frames)
    )
    ids = torch.tensor([tokenizer.encode(text + question, add_special_tokens=False).ids])
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(frames, 3, GRID_H * 16, GRID_W * 16, generator=generator)
    pixels = patchify([images, images], patch=8, merge=2)
    thw = torch.tensor([[1, GRID_H * 2, GRID_W * 2]] * frames)
    camera = CameraModel.from_fov(GRID_W * 16, GRID_H * 16, hfov_rad=1.2)
    rays = torch.from_numpy(np.asarray(camera.token_rays(GRID_W, GRID_H), np.float32)).reshape(1, -1, 4)
    return ids, images, {"pixel_values": pixels, "image_grid_thw": thw}, rays.repeat(1, frames, 1)


def stock(model, ids, vision, **kwargs):
    types = (ids == model.hf.config.image_token_id).int()
    return model.hf(input_ids=ids, mm_token_type_ids=types, **vision, **kwargs)


@torch.no_grad()
def test_additions_at_initialisation_leave_the_logits_exactly_equal(tokenizer):
    torch.manual_seed(0)
    model = build_model(RECIPES["smoke"]().model, tokenizer).eval()
    ids, _, vision, rays = prompt_inputs(model, tokenizer)
    base = stock(model, ids, vision).logits
    for has_camera in (True, False):
        mask = ids == model.hf.config.image_token_id
        with model.camera(mask, rays, torch.tensor([has_camera])):
            assert torch.equal(stock(model, ids, vision).logits, base)


@torch.no_grad()
def test_rays_and_null_embedding_change_the_logits_once_trained(small_model, tokenizer):
    ids, _, vision, rays = prompt_inputs(small_model, tokenizer)
    mask = ids == small_model.hf.config.image_token_id
    base = stock(small_model, ids, vision).logits
    outputs = []
    for r, has_camera in ((rays, True), (rays * 1.3, True), (rays, False)):
        with small_model.camera(mask, r, torch.tensor([has_camera])):
            outputs.append(stock(small_model, ids, vision).logits)
    for i, one in enumerate(outputs):
        assert (one - base).abs().max() > 1e-3
        for other in outputs[i + 1 :]:
            assert (one - other).abs().max() > 1e-4


@torch.no_grad()
def test_camera_conditioning_works_inside_stock_generate(small_model, tokenizer):
    ids, _, vision, rays = prompt_inputs(small_model, tokenizer)
    mask = ids == small_model.hf.config.image_token_id
    types = mask.int()
    kwargs = {"max_new_tokens": 6, "do_sample": False, "mm_token_type_ids": types, **vision}
    with small_model.camera(mask, rays, torch.tensor([True])):
        cached = small_model.hf.generate(input_ids=ids, **kwargs)
    sequence = ids
    for _ in range(cached.shape[1] - ids.shape[1]):
        mask = sequence == small_model.hf.config.image_token_id
        with small_model.camera(mask, rays, torch.tensor([True])):
            logits = stock(small_model, sequence, vision).logits
        sequence = torch.cat([sequence, logits[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(cached, sequence)


def test_positions_equal_transformers_rope_index(small_model, tokenizer):
    ids, _, vision, _ = prompt_inputs(small_model, tokenizer, frames=2)
    types = (ids == small_model.hf.config.image_token_id).int()
    expected, _ = small_model.hf.model.get_rope_index(
        input_ids=ids, mm_token_type_ids=types, image_grid_thw=vision["image_grid_thw"]
    )
    ours, at, i = [], 0, 0
    row = ids[0].tolist()
    image_id = small_model.hf.config.image_token_id
    while i < len(row):
        if row[i] == image_id:
            ours.append(visual_positions(GRID_H, GRID_W, at))
            at = position_after_visual(GRID_H, GRID_W, at)
            i += GRID_H * GRID_W
        else:
            ours.append(text_positions(1, at))
            at, i = at + 1, i + 1
    np.testing.assert_array_equal(np.concatenate(ours, axis=1), expected[:, 0].numpy())


def test_patchify_equals_the_stock_image_processor(small_model):
    processing = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (GRID_H * 16, GRID_W * 16, 3), dtype=np.uint8)
    processor = processing.Qwen2VLImageProcessorPil(
        patch_size=8, merge_size=2, min_pixels=1, max_pixels=10**7
    )
    expected = processor(images=[image], return_tensors="pt")["pixel_values"]
    from spatial_mllm_training.model.families.qwen2_5_vl import IMAGE_MEAN, IMAGE_STD

    x = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    x = (x - torch.tensor(IMAGE_MEAN)[:, None, None]) / torch.tensor(IMAGE_STD)[:, None, None]
    torch.testing.assert_close(patchify([x[None]] * 2, patch=8, merge=2), expected, atol=2e-6, rtol=0)


def test_taps_after_the_final_norm_are_refused(small_model):
    from spatial_mllm_training.model.camera_aware import CameraAwareVLM

    with pytest.raises(ValueError, match="tap_layers"):
        CameraAwareVLM(small_model.hf, family="qwen2_5_vl", tap_layers=(2, 3, 4, 6))


def test_additions_round_trip_through_safetensors(small_model, tokenizer, tmp_path):
    small_model.save_additions(tmp_path / "additions.safetensors")
    other = build_model(RECIPES["smoke"]().model, tokenizer)
    other.load_additions(tmp_path / "additions.safetensors")
    for name, tensor in small_model.additions().items():
        assert torch.equal(tensor, other.additions()[name])
