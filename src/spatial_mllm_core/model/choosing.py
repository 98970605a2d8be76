"""How the tokens of one answer are chosen: the likeliest, one of some texts, a coordinate, or a number's median."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.numbers import NumberReader, probabilities
from spatial_mllm_core.tasks.text import COORDINATE_SCALE, format_coordinate

_TOLERANCE = COORDINATE_SCALE // 20
"""5 % of the width, within which a coordinate counts as right (papers.md 2.5)."""
_NEAR = np.concatenate([np.arange(1, _TOLERANCE), np.arange(_TOLERANCE, 0, -1)]) / _TOLERANCE

Choose = Callable[[NDArray[np.floating]], int]
CoordinateParts = tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]
"""Tokens of every "`[ x , ", and of every "y ]`" with the stop."""


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
        allowed = list(dict.fromkeys(choice[self._at] for choice in self._open))
        token = allowed[int(self._preferred(logits_V[allowed]).argmax())]
        self._open = [choice for choice in self._open if choice[self._at] == token]
        self._at += 1
        return token

    def _preferred(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        """Of the tokens that may come next, in the order of the choices."""
        return logits

    @property
    def is_done(self) -> bool:
        """Whether one of them has been chosen, whole."""
        return self._at == len(self._open[0])


class _NumberChoice(ChoiceReader):
    """Of texts for 0, 1, .., where each has a token of its own, the one near which most of the probability lies.

    Neighbours share what a model knows: the likeliest number alone may be one of few, far from all the others.
    """

    def _preferred(self, logits: NDArray[np.floating]) -> NDArray[np.floating]:
        if len(logits) < len(self._open) or len(logits) <= len(_NEAR):
            return logits
        return np.convolve(probabilities(logits), _NEAR, mode="same")


class CoordinateReader:
    """Chooses the tokens of "`[ x , y ]`", whatever else is likelier: x first, then y."""

    def __init__(self, parts: CoordinateParts) -> None:
        beginnings, self._ends = parts
        self._reader = _NumberChoice(beginnings)

    def choose(self, logits_V: NDArray[np.floating]) -> int:
        """The next token."""
        token = self._reader.choose(logits_V)
        if self._reader.is_done:
            self._reader = _NumberChoice(self._ends)
        return token


def coordinate_parts(encode: Callable[[str], list[int]], stop_id: int) -> CoordinateParts | None:
    """What a `CoordinateReader` chooses from; None where a tokenizer joins x and y."""
    beginnings, ends = [], []
    comma = encode(" , ")
    for value in range(COORDINATE_SCALE):
        whole = encode(f"`{format_coordinate((value, value))}`")
        starts = [i for i in range(len(whole)) if whole[i : i + len(comma)] == comma]
        if len(starts) != 1:
            return None
        middle = starts[0] + len(comma)
        beginnings.append(tuple(whole[:middle]))
        ends.append((*whole[middle:], stop_id))
    return beginnings, ends


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
