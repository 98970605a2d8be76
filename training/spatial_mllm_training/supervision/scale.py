"""One scale per row: what to do with truth that is known only up to a factor; knows no loss terms.

Truth of a scale-free teacher is divided by the mean distance of its valid points from the first
camera (VGGT, DA3; papers.md 3.3, 3.4). Whether the prediction is divided as well is `mode`:

* "both": by its own mean distance. The loss teaches shape and says nothing about metres, so that
  rows of a scale-free teacher can be mixed with metric rows for the same heads. The default here,
  because these heads also give the metric depth that is served.
* "target": it is not; the network learns the normalisation, as VGGT and DA3 train. Right where all
  rows come from such a teacher.

Metric rows are left alone in both modes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from spatial_mllm_training.supervision.heads import DenseMap
from spatial_mllm_training.supervision.targets import DenseTargets
from spatial_mllm_training.supervision.terms import in_full

MODES = ("both", "target")
_SMALLEST_SCALE = 1e-6


def normalised(
    predictions: Mapping[str, DenseMap], targets: DenseTargets, *, mode: str = "both"
) -> tuple[dict[str, DenseMap], DenseTargets]:
    """Predictions and targets with the scale of scale-free rows taken out."""
    if mode not in MODES:
        raise ValueError(f"scale mode must be one of {', '.join(MODES)}, got {mode!r}")
    metric = targets.is_metric
    scale = target_scale(targets)
    # motion is left as it is: scale-free teachers say nothing about it
    new = _divided_targets(targets, torch.where(metric, 1.0, scale)[targets.row])
    if mode == "target":
        return dict(predictions), new
    own = torch.where(metric, 1.0, predicted_scale(predictions, targets, scale))[targets.row]
    return {
        task: dense if task == "motion" else _divided(task, dense, own) for task, dense in predictions.items()
    }, new


def target_scale(targets: DenseTargets) -> Tensor:
    """(R,) mean distance of a row's valid points; mean depth where it has none; 1 where it has neither."""
    valid = torch.isfinite(targets.points).all(-1)
    distances = torch.linalg.vector_norm(torch.where(valid[..., None], targets.points, 0.0), dim=-1)
    from_points, has_points = _row_means(distances, valid, targets)
    deep = _has_depth(targets)
    from_depth, has_depth = _row_means(torch.where(deep, targets.depth, 0.0), deep, targets)
    return torch.where(has_points, from_points, torch.where(has_depth, from_depth, 1.0)).clamp(
        min=_SMALLEST_SCALE
    )


def predicted_scale(predictions: Mapping[str, DenseMap], targets: DenseTargets, scale_R: Tensor) -> Tensor:
    """(R,) mean distance of the predicted points where the truth has points.

    One factor for all heads, so that they also learn to agree with each other. Without a point
    head the mean predicted depth over the mean true depth stands in; rays alone measure no
    distance to a surface, so that 1 is left (they are then trained as in mode "target").
    """
    if "points" in predictions:
        valid = torch.isfinite(targets.points).all(-1)
        points = torch.where(valid[..., None], in_full(predictions["points"].value), 0.0)
        mean, found = _row_means(torch.linalg.vector_norm(points, dim=-1), valid, targets)
    elif "depth" in predictions:
        valid = _has_depth(targets)
        depth = torch.where(valid, in_full(predictions["depth"].value[..., 0]), 0.0)
        mean, found = _row_means(depth, valid, targets)
        true, _ = _row_means(torch.where(valid, targets.depth, 0.0), valid, targets)
        mean = mean * scale_R / true.clamp(min=_SMALLEST_SCALE)
    else:
        return torch.ones_like(scale_R)
    return torch.where(found, mean, 1.0).clamp(min=_SMALLEST_SCALE)


def _has_depth(targets: DenseTargets) -> Tensor:
    return torch.isfinite(targets.depth) & (targets.depth > 0)


def _divided_targets(targets: DenseTargets, scale_N: Tensor) -> DenseTargets:
    s = scale_N[:, None, None]
    return replace(
        targets,
        depth=targets.depth / s,
        points=targets.points / s[..., None],
        rays=_divided_rays(targets.rays, s[..., None]),
    )


def _divided(task: str, dense: DenseMap, scale_N: Tensor) -> DenseMap:
    s = scale_N[:, None, None, None]
    value = in_full(dense.value)
    return DenseMap(_divided_rays(value, s) if task == "rays" else value / s, dense.confidence)


def _divided_rays(rays: Tensor, scale: Tensor) -> Tensor:
    # directions stay: they are not lengths (z-depth times direction is)
    return torch.cat([rays[..., :3] / scale, rays[..., 3:]], dim=-1)


def _row_means(value_NHW: Tensor, valid_NHW: Tensor, targets: DenseTargets) -> tuple[Tensor, Tensor]:
    rows = len(targets.is_metric)
    sums = value_NHW.new_zeros(rows).index_add(0, targets.row, value_NHW.sum((1, 2)))
    counts = value_NHW.new_zeros(rows).index_add(0, targets.row, valid_NHW.sum((1, 2)).to(value_NHW))
    return sums / counts.clamp(min=1), counts > 0
