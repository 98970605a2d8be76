"""Attention for CPUs against PyTorch's own kernel and transformers' own layers."""

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from spatial_mllm_training.model import attention
from spatial_mllm_training.model.families.qwen2_5_vl import use_batched_attention, visual_tokens
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.setup import build_learner


class Layer(torch.nn.Module):
    """What the interface reads of an attention layer: two query heads a key head."""

    is_causal = True
    num_key_value_groups = 2


def inputs(dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, 4, 19, 16), (2, 2, 19, 16), (2, 2, 19, 16))
    return [torch.randn(s, generator=generator).to(dtype).requires_grad_() for s in shapes]


def block_mask() -> torch.Tensor:
    mask = torch.rand(2, 1, 19, 19, generator=torch.Generator().manual_seed(4)) < 0.4
    return mask | torch.eye(19, dtype=torch.bool)


def both(dtype: torch.dtype, mask: torch.Tensor | None, **kwargs: float) -> list[list[torch.Tensor]]:
    """[output, gradients] of ours and of PyTorch's in float32."""
    found = []
    for run, kind in ((attention.matmul_attention, dtype), (sdpa_attention_forward, torch.float32)):
        qkv = inputs(kind)
        cast = mask.to(kind) if mask is not None and mask.is_floating_point() else mask
        out, _ = run(Layer(), *qkv, cast, **kwargs)
        (out.float() * torch.linspace(-1, 1, out.shape[-1])).sum().backward()
        found.append([out.float(), *(x.grad.float() for x in qkv)])
    return found


@pytest.mark.parametrize("kind", ["bool", "float", "none", "causal"])
def test_bf16_is_pytorchs_within_rounding(kind: str) -> None:
    mask = {"bool": block_mask(), "none": None, "causal": None}.get(kind)
    if kind == "float":
        mask = torch.zeros(2, 1, 19, 19).masked_fill(~block_mask(), -1e30)
    for ours, theirs in zip(*both(torch.bfloat16, mask, is_causal=kind == "causal"), strict=True):
        assert (ours - theirs).abs().max() < 0.03 * theirs.abs().max()


def test_float32_is_pytorchs_own() -> None:
    for ours, theirs in zip(*both(torch.float32, block_mask(), scaling=0.3), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sizes", [((64, 48),) * 3, ((64, 48), (32, 64))])
def test_images_of_one_size_attend_together_as_they_do_one_by_one(sizes: tuple[tuple[int, int], ...]) -> None:
    learner = build_learner(RECIPES["smoke"]())
    ours = learner.model.hf.eval()
    stock = Qwen2_5_VLForConditionalGeneration(ours.config).eval()
    stock.load_state_dict(ours.state_dict())
    patch, merge = 8, 2
    grids = torch.tensor([[1, h // patch, w // patch] for w, h in sizes])
    count = int(grids.prod(-1).sum())
    patches = torch.randn(count, 3 * 2 * patch * patch, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        a = ours.model.visual(patches, grid_thw=grids).pooler_output
        b = stock.model.visual(patches, grid_thw=grids).pooler_output
    assert a.shape == (count // merge**2, ours.config.text_config.hidden_size)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_small_models_use_both() -> None:
    hf = build_learner(RECIPES["smoke"]()).model.hf
    assert hf.config.text_config._attn_implementation == attention.NAME
    assert hf.model.visual.config._attn_implementation == attention.NAME
    calls = []
    block = hf.model.visual.blocks[0].attn
    block.qkv.register_forward_hook(lambda *_: calls.append(1))
    use_batched_attention(hf)  # once more changes nothing
    visual_tokens(hf, torch.zeros(2, 3, 48, 64))
    assert len(calls) == 1
