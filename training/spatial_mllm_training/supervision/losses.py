"""The objective of the dense heads (SpatialSV eq. 5 and the 3D part of eq. 6); knows no text loss.

    depth:  L2 + conf + grad      rays:  L2 + conf      points:  L2 + conf + norm
    motion: L2 of what moved + log loss of whether it moved

and their unweighted sum. Terms are in `terms`, the treatment of scale in `scale`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from spatial_mllm_training.supervision import terms
from spatial_mllm_training.supervision.heads import DenseMap
from spatial_mllm_training.supervision.scale import normalised
from spatial_mllm_training.supervision.targets import DenseTargets

MOVED_M = 0.005
"""Less than this is rounding of poses, not movement."""
USUAL_MOTION_M = 0.2
"""The unit of the L2 of motion, which makes it weigh as much as whether there is any."""
_LEAST_ODDS = 1e-6


@dataclass(frozen=True)
class LossConfig:
    """How the dense losses are computed.

    Attributes:
        alpha: lambda_c of eq. 10 to 12.
        valid_range: quantile of the regression terms above which cells are dropped as outliers of
            the truth (VGGT: 0.98); None, for rendered truth, keeps all.
        fewest_valid: with fewer valid cells in the batch a task's loss is 0.
        scale_free: "both" or "target", see `scale`.
        depth: "linear" as in the paper, or "log": the depth terms on log depth, which counts near
            and far surfaces alike.
    """

    alpha: float = terms.CONFIDENCE_ALPHA
    valid_range: float | None = 0.98
    fewest_valid: int = 100
    scale_free: str = "both"
    depth: str = "linear"

    def __post_init__(self) -> None:
        if self.depth not in ("linear", "log"):
            raise ValueError(f"depth must be 'linear' or 'log', got {self.depth!r}")
        if self.valid_range is not None and not 0.0 < self.valid_range <= 1.0:
            raise ValueError(f"valid_range is a quantile in (0, 1], got {self.valid_range}")


def dense_losses(
    predictions: Mapping[str, DenseMap], targets: DenseTargets, config: LossConfig
) -> dict[str, Tensor]:
    """Losses of the predicted tasks.

    Args:
        predictions: of `SpatialHeads`, N images of the targets' grid; left-out tasks cost nothing.
        targets: NaN marks cells without truth; a batch without any gives 0 and zero gradients.

    Returns:
        scalars: "total" = the sum of the tasks, each task, and its parts "<task>/l2", "/confidence",
        "/gradient" (depth), "/normal" (points); those of motion are "/l2" and "/moved".
    """
    predictions, targets = normalised(predictions, targets, mode=config.scale_free)
    truth = {"depth": targets.depth[..., None], "rays": targets.rays, "points": targets.points}
    if targets.motion is not None:
        truth["motion"] = targets.motion
    out: dict[str, Tensor] = {}
    total = targets.depth.new_zeros(())
    for task, (value, confidence) in predictions.items():
        if task not in truth:
            continue  # nobody knows what moved
        target = truth[task]
        valid = torch.isfinite(target).all(-1)
        if task == "depth":
            valid = valid & (target[..., 0] > 0)
            if config.depth == "log":
                value, target = _log(value, valid), _log(target, valid)
        enough = valid.sum() >= config.fewest_valid
        arguments = (value, target, confidence, valid)
        if task == "motion":
            parts = _motion(*arguments)
        else:
            l2, weighted = terms.regression_terms(
                *arguments, alpha=config.alpha, valid_range=config.valid_range
            )
            parts = {"l2": l2, "confidence": weighted}
        if task == "depth":
            parts["gradient"] = terms.gradient_term(*arguments, alpha=config.alpha)
        elif task == "points":
            parts["normal"] = terms.normal_term(*arguments, alpha=config.alpha)
        parts = {name: torch.where(enough, part, 0.0) for name, part in parts.items()}
        out |= {f"{task}/{name}": part for name, part in parts.items()}
        out[task] = torch.stack(list(parts.values())).sum()
        total = total + out[task]
    out["total"] = total
    return out


def _motion(value: Tensor, target: Tensor, confidence: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """L2 of what moved, and of whether it moved the log loss, half of it from either kind of cells.

    1 - 1/c is here the probability that a cell moved. An L2 of all cells is least where nothing moves
    until the direction is known: a model that sees what changed would learn nothing from it.
    """
    moved = valid & (torch.linalg.vector_norm(torch.nan_to_num(target), dim=-1) > MOVED_M)
    l2, _ = terms.regression_terms(value, target, confidence, moved)
    odds = torch.where(valid, confidence - 1.0, 1.0).clamp(min=_LEAST_ODDS)
    kinds = [(moved, torch.log1p(1.0 / odds)), (valid & ~moved, torch.log1p(odds))]
    log_loss = sum(
        (0.5 * torch.where(kind, loss, 0.0).sum() / kind.sum().clamp(min=1) for kind, loss in kinds),
        start=torch.zeros_like(l2),
    )
    return {"l2": l2 / USUAL_MOTION_M, "moved": log_loss}


def _log(depth_NHW1: Tensor, valid_NHW: Tensor) -> Tensor:
    return torch.log(torch.where(valid_NHW[..., None], depth_NHW1, 1.0).clamp(min=1e-6))
