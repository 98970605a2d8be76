"""The loss terms of SpatialSV's supplement A.2, each on one batch of maps; knows no heads and no scale.

Shapes: N images, H x W cells, C channels. Values where `valid` is False never enter: they may be
NaN and get no gradient. Everything runs in float32 (or float64 where given), under autocast too.
Where the paper is silent VGGT's training code decides (papers.md 3.3): 4 scales for gradients, 3
for normals, their mean; four cross products per normal; fewer than 10 normals give 0. One thing
differs from that code and follows the paper: -alpha log c counts valid cells only in every term;
there it also counts invalid ones in the gradient term and so rewards confidence where nothing is known.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CONFIDENCE_ALPHA = 0.2
"""VGGT's alpha; SpatialSV does not give its lambda_c."""

LARGEST_TERM = 100.0
"""Residuals of gradients, and of all terms where outliers are dropped, count at most this much."""

GRADIENT_SCALES = 4
NORMAL_SCALES = 3
FEWEST_NORMALS = 10
FEWEST_FOR_QUANTILE = 1000


def regression_terms(
    prediction_NHWC: Tensor,
    target_NHWC: Tensor,
    confidence_NHW: Tensor,
    valid_NHW: Tensor,
    *,
    alpha: float = CONFIDENCE_ALPHA,
    valid_range: float | None = None,
) -> tuple[Tensor, Tensor]:
    """(mean ||y - m||_2, eq. 10: mean ||y - m||_2 c - alpha log c) over the valid cells.

    `valid_range` drops the cells above that quantile of the term (VGGT: 0.98), only where more than
    1000 remain; None keeps all.
    """
    with _full_precision(prediction_NHWC):
        difference = _difference(prediction_NHWC, target_NHWC, valid_NHW)
        residual = torch.linalg.vector_norm(difference, dim=-1)
        confidence = _confidence(confidence_NHW, valid_NHW)
        weighted = residual * confidence - alpha * torch.log(confidence)
        return (
            _mean(residual, valid_NHW, valid_range),
            _mean(weighted, valid_NHW, valid_range),
        )


def gradient_term(
    prediction_NHWC: Tensor,
    target_NHWC: Tensor,
    confidence_NHW: Tensor,
    valid_NHW: Tensor,
    *,
    alpha: float = CONFIDENCE_ALPHA,
) -> Tensor:
    """Eq. 11 on the difference map: mean over scales of sum over x, y of |step| c - alpha log c.

    A step counts where both of its cells are valid, with the confidence of the later one; the sum
    is divided by the number of valid cells of the scale.
    """
    with _full_precision(prediction_NHWC):
        difference = _difference(prediction_NHWC, target_NHWC, valid_NHW)
        confidence = _confidence(confidence_NHW, valid_NHW)
        total = difference.new_zeros(())
        for k in range(GRADIENT_SCALES):
            d, c, v = (x[:, :: 2**k, :: 2**k] for x in (difference, confidence, valid_NHW))
            cells = v.sum().clamp(min=1) * d.shape[-1]
            for axis in (1, 2):
                n = d.shape[axis]
                step = (d.narrow(axis, 1, n - 1) - d.narrow(axis, 0, n - 1)).abs().clamp(max=LARGEST_TERM)
                both = (v.narrow(axis, 1, n - 1) & v.narrow(axis, 0, n - 1))[..., None]
                later = c.narrow(axis, 1, n - 1)[..., None]
                term = step * later - alpha * torch.log(later)
                total = total + torch.where(both, term, 0.0).sum() / cells
        return total / GRADIENT_SCALES


def normal_term(
    prediction_NHW3: Tensor,
    target_NHW3: Tensor,
    confidence_NHW: Tensor,
    valid_NHW: Tensor,
    *,
    alpha: float = CONFIDENCE_ALPHA,
) -> Tensor:
    """Eq. 12 on point maps: mean over scales of the mean of (1 - <n, n*>) c - alpha log c."""
    with _full_precision(prediction_NHW3):
        prediction = torch.where(valid_NHW[..., None], in_full(prediction_NHW3), 0.0)
        target = torch.where(valid_NHW[..., None], in_full(target_NHW3), 0.0)
        confidence = _confidence(confidence_NHW, valid_NHW)
        total = prediction.new_zeros(())
        for k in range(NORMAL_SCALES):
            m, y, c, v = (x[:, :: 2**k, :: 2**k] for x in (prediction, target, confidence, valid_NHW))
            # the prediction's larger floor bounds the gradient of a collapsed map at 1 / sqrt(1e-8)
            ours, exists = normals(m, v, smallest=1e-8)
            truth, _ = normals(y, v, smallest=1e-20)
            # a cross product of the truth that vanishes (the same sample twice) has no normal
            exists = exists & (truth.detach().square().sum(-1) > 0.5)
            loss = (1.0 - (ours * truth).sum(-1)) * c - alpha * torch.log(c)
            count = exists.sum()
            mean = torch.where(exists, loss, 0.0).sum() / count.clamp(min=1)
            total = total + torch.where(count >= FEWEST_NORMALS, mean, 0.0)
        return total / NORMAL_SCALES


def normals(points_NHW3: Tensor, valid_NHW: Tensor, *, smallest: float) -> tuple[Tensor, Tensor]:
    """Unit normals (4, N, H, W, 3) from the cross products of neighbours, and where they exist.

    In turn: up x left, left x down, down x right, right x up of each cell. Cross products shorter
    than `smallest` give vectors shorter than 1.
    """
    points = F.pad(points_NHW3, (0, 0, 1, 1, 1, 1))
    valid = F.pad(valid_NHW, (1, 1, 1, 1))
    height, width = valid_NHW.shape[1:]
    offsets = [(0, 1), (1, 0), (2, 1), (1, 2)]  # (row, column) of up, left, down, right in the padded map
    edges = [points[:, r : r + height, c : c + width] - points_NHW3 for r, c in offsets]
    there = [valid[:, r : r + height, c : c + width] & valid_NHW for r, c in offsets]
    crosses = [torch.linalg.cross(edges[i], edges[(i + 1) % 4], dim=-1) for i in range(4)]
    exists = torch.stack([there[i] & there[(i + 1) % 4] for i in range(4)])
    unit = F.normalize(torch.stack(crosses), dim=-1, eps=smallest)
    return unit, exists


def distillation_term(
    student_BND: Tensor,
    teacher_Bhwd: Tensor,
    grid_h: int,
    grid_w: int,
    *,
    has_teacher_B: Tensor | None = None,
) -> Tensor:
    """-cos(phi(v), avgpool(f)), the mean over the tokens of the images that have a teacher.

    Args:
        student_BND: projected last-layer visual tokens, raster order, N = grid_h * grid_w.
        teacher_Bhwd: the teacher's last features on its own grid.
    """
    with _full_precision(student_BND):
        pooled = F.adaptive_avg_pool2d(in_full(teacher_Bhwd).permute(0, 3, 1, 2), (grid_h, grid_w))
        cosine = F.cosine_similarity(in_full(student_BND), pooled.flatten(2).transpose(1, 2), dim=-1)
        if has_teacher_B is None:
            return -cosine.mean()
        cosine = torch.where(has_teacher_B[:, None], cosine, 0.0)
        return -cosine.sum() / (has_teacher_B.sum() * cosine.shape[1]).clamp(min=1)


def _full_precision(like: Tensor) -> torch.autocast:
    return torch.autocast(like.device.type, enabled=False)


def in_full(x: Tensor) -> Tensor:
    """float32, or float64 where it was."""
    return x if x.dtype == torch.float64 else x.float()


def _difference(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    mask = valid[..., None]
    # both sides first: inf - inf of a cell that does not count would still be NaN in its gradient
    return torch.where(mask, in_full(prediction), 0.0) - torch.where(mask, in_full(target), 0.0)


def _confidence(confidence: Tensor, valid: Tensor) -> Tensor:
    return torch.where(valid, in_full(confidence), 1.0)


def _mean(term: Tensor, valid: Tensor, valid_range: float | None) -> Tensor:
    term = torch.where(valid, term, 0.0)
    if valid_range is None:
        return term.sum() / valid.sum().clamp(min=1)
    values = term[valid]
    if len(values) <= FEWEST_FOR_QUANTILE:
        return term.sum() / max(len(values), 1)
    values = values.clamp(max=LARGEST_TERM)
    rank = round(valid_range * (len(values) - 1)) + 1
    kept = values < torch.kthvalue(values.detach(), rank).values
    return values[kept].mean() if kept.sum() > FEWEST_FOR_QUANTILE else values.mean()
