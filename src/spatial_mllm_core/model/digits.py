"""Whole numbers as embeddings of their decimal digits, which a decoder copies into its answer; knows no weights.

Answers are written digit by digit. Of the sinusoids of a number's logarithm (`pointing`, `told`) a small decoder learns
soon how large the number is, but hardly which digits it has: that is no linear function of them. Of these codes it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.text import whole_mm

SCALE = 2.0
"""Amplitude, as that of the codes that these stand beside."""
DEPTH_DIGITS = 5
"""Of the millimetres of a depth, as answers have them."""
_HARMONICS = 4
"""Of a digit on a circle of ten: all but the last, without which ten digits are still told apart by linear maps."""


def digit_code(numbers: Sequence[float], width: int, digits: int) -> NDArray[np.float32]:
    """(width,) the `digits` last digits of whole numbers, first digit first, each in a part of its own.

    Args:
        numbers: not negative; NaN, which leaves its parts 0: not known. What has more digits is told as the largest
            number that has not.
        width: of an embedding; a narrow one holds fewer harmonics of every digit, none if there is no room for one.
    """
    harmonics = min(_HARMONICS, width // (2 * digits * len(numbers)))
    values = np.asarray(numbers, np.float64)
    is_known = np.isfinite(values)
    whole = np.where(is_known, np.minimum(values, 10.0**digits - 1.0), 0.0).astype(np.int64)
    each = whole[:, None] // 10 ** np.arange(digits - 1, -1, -1) % 10
    angles = 2.0 * np.pi / 10.0 * each[..., None] * np.arange(1, harmonics + 1)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1) * is_known[:, None, None]
    out = np.zeros(width, np.float32)
    out[: waves.size] = SCALE * waves.ravel()
    return out


def depth_digits(depth_m: NDArray[np.floating], width: int) -> NDArray[np.float32]:
    """(N, width) codes of the millimetres of (N,) z-depths in metres; 0 where one is NaN."""
    numbers = [
        whole_mm(z) if np.isfinite(z) else float("nan") for z in np.asarray(depth_m, np.float64).tolist()
    ]
    codes = [digit_code([number], width, DEPTH_DIGITS) for number in numbers]
    return np.stack(codes) if codes else np.zeros((0, width), np.float32)
