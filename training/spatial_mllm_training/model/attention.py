"""An attention for small models on CPUs, registered with transformers under its own name.

On a CPU the fused kernels are written for long sequences in float32: in bfloat16 two matrix products and a
softmax take a third of their time at 500 tokens (forward and backward). Knows no model; other devices get
PyTorch's own kernel.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "matmul_on_cpu"


def matmul_attention(
    module: nn.Module,
    query_BHSD: Tensor,
    key_BKTD: Tensor,
    value_BKTD: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """(B, S, H, D) by the rules of transformers' `sdpa_attention_forward`; H is a multiple of K."""
    heads, length, width = query_BHSD.shape[1:]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    implied_mask = attention_mask is None and causal and length > 1
    if query_BHSD.device.type != "cpu" or query_BHSD.dtype != torch.bfloat16 or dropout or implied_mask:
        return sdpa_attention_forward(
            module,
            query_BHSD,
            key_BKTD,
            value_BKTD,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            is_causal=is_causal,
            **kwargs,
        )
    groups = heads // key_BKTD.shape[1]
    if groups > 1:
        key_BKTD, value_BKTD = (x.repeat_interleave(groups, 1) for x in (key_BKTD, value_BKTD))
    scores = (query_BHSD * (width**-0.5 if scaling is None else scaling)) @ key_BKTD.transpose(-1, -2)
    if attention_mask is not None:
        scores = (
            scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
            if attention_mask.dtype == torch.bool
            else scores + attention_mask
        )
    return (scores.softmax(-1) @ value_BKTD).transpose(1, 2).contiguous(), None


AttentionInterface.register(NAME, matmul_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
