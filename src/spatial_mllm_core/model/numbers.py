"""Numbers as the median of what a decoder thinks, digit by digit; knows no weights.

The likeliest digits spell the mode of a distribution, and often a poor answer: where a model is unsure
between 0.1 and 0.4 m it says one of them for ever. When every number has the same count of digits, texts
are ordered as numbers are, and one pass finds any quantile: at each digit the one in which the quantile
lies, then the quantile's place inside it. The median is what is least far off in the mean, and it moves
when the distribution does.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

CHARACTERS = "0123456789-+`"
"""What a tokenizer must have as tokens of their own."""


class NumberReader:
    """Chooses the tokens of one answer, whose numbers stand in backticks: `00980` or `[+00120, -00035, ...`.

    A number begins with a digit right behind a backtick, or with a sign somewhere between two; the
    coordinates of `[ 5 , 7 ]` are none.

    Args:
        id_of: token of each of `CHARACTERS`.
        digits: of every number; a sign may stand before them.
    """

    def __init__(self, id_of: Callable[[str], int], *, digits: int) -> None:
        if digits < 1:
            raise ValueError(f"a number has one digit at least, got {digits}")
        *numerals, minus, plus, self._quote = (id_of(c) for c in CHARACTERS)
        self._digit_ids = np.asarray(numerals)
        self._sign_ids = np.asarray([minus, plus])
        self._digits = digits
        self._left = 0
        self._quantile = 0.5
        self._in_quotes = self._behind_quote = False

    def choose(self, logits_V: NDArray[np.floating]) -> int:
        """The next token: of the number that is being spelled, else the likeliest."""
        if self._left:
            return self._digit(logits_V)
        token = int(logits_V.argmax())
        if self._behind_quote and token in self._digit_ids:
            self._begin(0.5)
            token = self._digit(logits_V)
        elif self._in_quotes and token in self._sign_ids:
            token = self._sign(logits_V)
        self._behind_quote = token == self._quote and not self._in_quotes
        self._in_quotes ^= token == self._quote
        return token

    def _begin(self, quantile: float) -> None:
        self._left, self._quantile = self._digits, quantile

    def _sign(self, logits_V: NDArray[np.floating]) -> int:
        minus, _ = probabilities(logits_V[self._sign_ids])
        if minus > 0.5:  # magnitudes below zero run the other way
            self._begin(1.0 - 0.5 / minus)
            return int(self._sign_ids[0])
        self._begin((0.5 - minus) / (1.0 - minus))
        return int(self._sign_ids[1])

    def _digit(self, logits_V: NDArray[np.floating]) -> int:
        upto = np.cumsum(probabilities(logits_V[self._digit_ids]))
        digit = min(int(np.searchsorted(upto, self._quantile, side="right")), 9)
        below = 0.0 if digit == 0 else float(upto[digit - 1])
        share = max(float(upto[digit]) - below, 1e-12)
        self._quantile = min(max((self._quantile - below) / share, 0.0), 1.0)
        self._left -= 1
        return int(self._digit_ids[digit])


def probabilities(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax."""
    shifted = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(shifted / shifted.sum())
