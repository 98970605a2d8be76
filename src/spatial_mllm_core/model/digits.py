"""What a decoder is told while it writes a number: the next digit of every number that it knows; knows no weights.

A number of an answer has `DIGITS` of them (`tasks.text.widened`). Of sinusoids of its logarithm (`pointing`, `told`) at
the beginning of a question a small decoder learns soon how large a number is, but hardly which digits it has: these are
no linear function of them, and must be fetched anew for every token. So what comes next is told where it comes: at each
token of an answer, for each of `COUNT` numbers, one digit. Which number is asked for is left to the decoder.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

DIGITS = 5
COUNT = 8
"""Numbers of a question."""
SCALE = 0.25
"""Amplitude: eight numbers are told with a norm of 1.4, beside words of 0.9. With 2 the words were lost behind them."""
_HARMONICS = 4
"""Of a digit on a circle of ten: all but the last, without which ten digits are still told apart by linear maps."""


def digit_codes(
    numbers_NC: NDArray[np.floating], places_N: NDArray[np.integer], width: int
) -> NDArray[np.float32]:
    """(N, width) the digit at a place of each of C whole numbers, in a part of its own.

    Args:
        numbers_NC: not negative; NaN, which leaves its part 0: not known. What has more digits is told as the largest
            number that has not.
        places_N: 0 is the first of `DIGITS`.
        width: of an embedding; a narrow one holds fewer harmonics, none if there is no room for one.
    """
    count, each = numbers_NC.shape
    harmonics = min(_HARMONICS, width // (2 * each))
    is_known = np.isfinite(numbers_NC)
    whole = np.where(is_known, np.minimum(numbers_NC, 10.0**DIGITS - 1.0), 0.0).astype(np.int64)
    digits = whole // 10 ** (DIGITS - 1 - places_N)[:, None] % 10
    angles = 2.0 * np.pi / 10.0 * digits[..., None] * np.arange(1, harmonics + 1)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1) * is_known[..., None]
    out = np.zeros((count, width), np.float32)
    out[:, : 2 * harmonics * each] = SCALE * waves.reshape(count, 2 * harmonics * each)
    return out


def codes_of_places(numbers: Sequence[float], width: int) -> NDArray[np.float32]:
    """(DIGITS, width) of the numbers of one question: what is added where a first, second, .. digit comes next."""
    known = np.broadcast_to(np.asarray(numbers, np.float64), (DIGITS, len(numbers)))
    return digit_codes(known, np.arange(DIGITS), width)


class NextDigit:
    """The place, in its number, of the digit that would come next; None behind the last one.

    Args:
        digit_ids: tokens of the ten digits.
    """

    def __init__(self, digit_ids: Collection[int]) -> None:
        self._digit_ids = frozenset(digit_ids)
        self._behind = 0

    @property
    def place(self) -> int | None:
        """0 where no number has begun."""
        return self._behind if self._behind < DIGITS else None

    def follow(self, token: int) -> int | None:
        """The same after one more token of the answer."""
        self._behind = self._behind + 1 if token in self._digit_ids else 0
        return self.place
