"""Losses of the first training: answer cross-entropy and confidence-weighted log-depth."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CONFIDENCE_ALPHA = 0.2
"""VGGT's alpha; SpatialSV does not give its own (papers.md 3.1)."""


def depth_loss(log_depth_BHW: Tensor, confidence_BHW: Tensor, truth_m_BHW: Tensor) -> Tensor:
    """mean(c |log z - log z*| - alpha log c) + gradient term at three strides; 0 marks no truth.

    The logarithm makes the term relative, so that near and far surfaces count alike.
    """
    valid = truth_m_BHW > 0
    target = torch.log(truth_m_BHW.clamp(min=1e-3))
    error = log_depth_BHW - target
    count = valid.sum().clamp(min=1)
    data = torch.where(
        valid, confidence_BHW * error.abs() - CONFIDENCE_ALPHA * torch.log(confidence_BHW), 0.0
    )
    loss = data.sum() / count
    for stride in (1, 2, 4):
        e, v = error[:, ::stride, ::stride], valid[:, ::stride, ::stride]
        for axis in (1, 2):
            n = e.shape[axis]
            step = (e.narrow(axis, 1, n - 1) - e.narrow(axis, 0, n - 1)).abs()
            both = v.narrow(axis, 1, n - 1) & v.narrow(axis, 0, n - 1)
            loss = loss + 0.25 * torch.where(both, step, 0.0).sum() / both.sum().clamp(min=1)
    return loss


def answer_loss(logits_MV: Tensor, targets_M: Tensor, weights_M: Tensor | None = None) -> Tensor:
    """Cross-entropy over the answer tokens of a batch, its weighted mean where they weigh."""
    if weights_M is None:
        return F.cross_entropy(logits_MV.float(), targets_M)
    losses = F.cross_entropy(logits_MV.float(), targets_M, reduction="none")
    return (weights_M * losses).sum() / weights_M.sum()
