"""Small models that the training tests share; skipped as a whole where torch is not installed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip(
    "torch", reason="the training tests need the 'training' extra (torch, transformers)"
)

from spatial_mllm_training.data.tokenizer import build_tokenizer  # noqa: E402
from spatial_mllm_training.model.build import build_model  # noqa: E402
from spatial_mllm_training.recipes import RECIPES  # noqa: E402


@pytest.fixture(scope="session")
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def small_model(tokenizer):
    """A micro Qwen2.5-VL with nonzero additions, so that they show."""
    torch.manual_seed(0)
    model = build_model(RECIPES["smoke"]().model, tokenizer).eval()
    torch.nn.init.normal_(model.ray_embedding.mlp[2].weight, std=0.05)
    torch.nn.init.normal_(model.ray_embedding.null, std=0.05)
    return model
