"""What a decoder is told while it writes a number: the next digit of every number that it knows; knows no weights.

A number of an answer has `DIGITS` of them (`tasks.text.widened`). Of sinusoids of its logarithm (`pointing`, `told`) at
the beginning of a question a small decoder learns soon how large a number is, but hardly which digits it has: these are
no linear function of them, and must be fetched anew for every token. So what comes next is told where it comes: at each
token of an answer, for each of `COUNT` numbers, one digit. Which number is asked for is left to the decoder: it reads
the digit off what its token carries, or, where it copies, says which number it means (a pointer-generator: See et al.,
ACL 2017).
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


def digits_at(numbers_NC: NDArray[np.floating], places_N: NDArray[np.integer]) -> NDArray[np.int64]:
    """(N, C) the digit at a place of each of C whole numbers, -1 where the number is not known; see `digit_codes`."""
    is_known = np.isfinite(numbers_NC)
    whole = np.where(is_known, np.minimum(numbers_NC, 10.0**DIGITS - 1.0), 0.0).astype(np.int64)
    return np.where(is_known, whole // 10 ** (DIGITS - 1 - places_N)[:, None] % 10, -1)


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
    digits = digits_at(numbers_NC, places_N)
    angles = 2.0 * np.pi / 10.0 * digits[..., None] * np.arange(1, harmonics + 1)
    waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1) * (digits >= 0)[..., None]
    out = np.zeros((count, width), np.float32)
    out[:, : 2 * harmonics * each] = SCALE * waves.reshape(count, 2 * harmonics * each)
    return out


def with_copies(
    scores_X: NDArray[np.floating], digits_C: NDArray[np.integer], digit_ids: Sequence[int]
) -> NDArray[np.float32]:
    """(V,) logits of the next token, of those of a decoder that copies: each number's next digit gains what copying the
    number has.

        exp out_t = exp s_t + sum_k [t is digit d_k] exp s_(V + k)

    Args:
        scores_X: (V + C,) logarithms of the chances of each token if none is copied, and of copying each number.
        digits_C: as of `digits_at`.
        digit_ids: tokens of the ten digits.
    """
    split = len(scores_X) - len(digits_C)
    logits = np.array(scores_X[:split], np.float64)
    for digit, score in zip(digits_C.tolist(), scores_X[split:].tolist(), strict=True):
        if digit >= 0:
            token = digit_ids[digit]
            logits[token] = np.logaddexp(logits[token], score)
    return logits.astype(np.float32)


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


class Spelling:
    """What a decoder is told, and may copy, while it writes one answer.

    Args:
        numbers: `COUNT` of them, see `told.Told.spelled`.
        digit_ids: tokens of the ten digits.
        width: of an embedding.
        copies: whether the decoder's output holds the chances of copying, too, see `with_copies`.
    """

    def __init__(
        self, numbers: Sequence[float], digit_ids: Sequence[int], width: int, *, copies: bool
    ) -> None:
        known = np.broadcast_to(np.asarray(numbers, np.float64), (DIGITS, len(numbers)))
        self._digits = digits_at(known, np.arange(DIGITS))
        self._codes = digit_codes(known, np.arange(DIGITS), width)
        self._digit_ids = tuple(digit_ids)
        self._copies = copies
        self._next = NextDigit(digit_ids)

    def follow(self, token: int) -> None:
        """Go on behind one more token of the answer."""
        self._next.follow(token)

    @property
    def code(self) -> NDArray[np.float32]:
        """(width,) of the digits that would come next; zeros where none would."""
        place = self._next.place
        return np.zeros_like(self._codes[0]) if place is None else self._codes[place]

    def logits(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V,) of the next token."""
        if not self._copies:
            return scores
        place = self._next.place
        if place is None:
            return scores[: -len(self._digits[0])]
        return with_copies(scores, self._digits[place], self._digit_ids)
