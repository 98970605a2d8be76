"""How the tokens of one answer are chosen: the likeliest, one of few texts, or the median of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.numbers import NumberReader

Choose = Callable[[NDArray[np.floating]], int]


class ChoiceReader:
    """Chooses the tokens of an answer that is one of a few: the likeliest among those that lead to one.

    Args:
        choices: tokens of each, to the stop, so that none begins another.
    """

    def __init__(self, choices: Sequence[Sequence[int]]) -> None:
        self._open = [tuple(choice) for choice in choices]
        self._at = 0

    def choose(self, logits_V: NDArray[np.floating]) -> int:
        """The next token."""
        allowed = sorted({choice[self._at] for choice in self._open})
        token = allowed[int(logits_V[allowed].argmax())]
        self._open = [choice for choice in self._open if choice[self._at] == token]
        self._at += 1
        return token


def chooser(
    choices: Sequence[str],
    *,
    digits: int,
    encode: Callable[[str], list[int]],
    id_of: Callable[[str], int],
    stop_id: int,
) -> Choose:
    """What chooses the tokens of one answer.

    Args:
        choices: the texts that it may be; () for any.
        digits: of every number, see `numbers`; 0: numbers are spelled as they come.
    """
    if choices:
        return ChoiceReader([(*encode(text), stop_id) for text in choices]).choose
    if digits:
        return NumberReader(id_of, digits=digits).choose
    return lambda logits_V: int(logits_V.argmax())
