"""Errors of a depth image as probe3d counts them: per image first, then the mean; knows arrays only.

After El Banani et al. 2024 (probe3d, MIT): valid = true depth above zero, RMSE = sqrt(mean of the valid
squared errors) of each image, delta_k = share of valid pixels within a factor of 1.25^k.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_SMALLEST_M = 1e-9


@dataclass(frozen=True)
class ImageError:
    """Errors of one image, or their mean over images.

    Attributes:
        abs_rel: mean of |predicted - true| / true.
        delta1, delta2, delta3: shares in [0, 1].
        pixels: valid pixels (the sum, for a mean).
    """

    rmse_m: float
    abs_rel: float
    delta1: float
    delta2: float
    delta3: float
    pixels: int


def image_error(
    predicted_m: NDArray[np.floating], true_m: NDArray[np.floating], *, matched: bool = False
) -> ImageError | None:
    """Compare (H, W) z-depths in metres; None without a valid true pixel.

    Args:
        true_m: 0, NaN and infinity mean none.
        matched: after the scale and shift of the prediction that fit the truth best (least squares).

    Raises:
        ValueError: other shapes, or a predicted depth that is not finite where there is a truth.
    """
    if predicted_m.shape != true_m.shape:
        raise ValueError(f"depth images of different shapes: {predicted_m.shape} and {true_m.shape}")
    valid = np.isfinite(true_m) & (true_m > 0)
    if not valid.any():
        return None
    predicted, true = predicted_m[valid].astype(np.float64), true_m[valid].astype(np.float64)
    if not np.isfinite(predicted).all():
        raise ValueError("the predicted depth is not finite everywhere")
    if matched:
        predicted = np.polyval(scale_and_shift(predicted, true), predicted)
    factor = np.maximum(true / np.maximum(predicted, _SMALLEST_M), predicted / true)
    deltas = [float(np.mean(factor < 1.25**k)) for k in (1, 2, 3)]
    difference = predicted - true
    return ImageError(
        float(np.sqrt(np.mean(difference**2))), float(np.mean(np.abs(difference) / true)), *deltas, len(true)
    )


def scale_and_shift(predicted: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """(scale, shift) that minimise sum (scale predicted + shift - true)^2 over (N,) values.

    A prediction that is one constant has no scale; then (1, 0), as in the public code.
    """
    centred = predicted - predicted.mean()
    spread = float(centred @ centred)
    if spread <= 1e-12 * max(1.0, float(predicted @ predicted)):
        return 1.0, 0.0
    scale = float(centred @ (true - true.mean())) / spread
    return scale, float(true.mean() - scale * predicted.mean())


def mean_error(errors: Sequence[ImageError]) -> ImageError | None:
    """Mean over images, every image weighing the same; None when there is none."""
    if not errors:
        return None
    names = ("rmse_m", "abs_rel", "delta1", "delta2", "delta3")
    means = {name: float(np.mean([getattr(e, name) for e in errors])) for name in names}
    return ImageError(**means, pixels=sum(e.pixels for e in errors))
