"""One sample: images encoded once, and questions about prefixes of them packed behind; knows no files.

    opening, image 1, .., image V, question 1, question 2, ..

A question sees the opening, its first `image_count` images and itself: what it would see if it were
asked alone. A block mask and repeated positions keep the packed questions apart, and images where wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.model.digits import DIGITS, NextDigit
from spatial_mllm_core.model.pointing import Pointer, pointers
from spatial_mllm_core.model.prompt import (
    PromptFormat,
    position_after_visual,
    text_positions,
    visual_positions,
)
from spatial_mllm_core.model.told import Told
from spatial_mllm_core.tasks.text import lettered, widened
from spatial_mllm_training.supervision.targets import RowTargets

IGNORE = -100
Encode = Callable[[str], list[int]]


class LeftOutError(Exception):
    """A sample that cannot be shown this time, though nothing is wrong with its data."""


@dataclass(frozen=True)
class Words:
    """The literal text around images, questions and answers.

    Attributes:
        opening: before the first image.
        image_prefix, image_suffix: around an image's visual tokens; `{index}` counts from 1.
        answer_prefix: between a question and its answer.
        stop: ends an answer.
        next_turn: between an answer and the next question of one conversation.
        number_digits: of every metric number of an answer (`tasks.text.widened`); 0: as published.
        digit_weights: of the digits of numbers in the loss, from the first one that counts on, the last of them of all
            that follow; zeros before it weigh as it; (): 1 each.
        named_letters: a point that the question names is answered by its letter (`tasks.text.lettered`).
        choice_weight: of the tokens at which an answer departs from the others that could have been chosen.
    """

    opening: str = ""
    image_prefix: str = PromptFormat.frame_prefix
    image_suffix: str = PromptFormat.frame_suffix
    answer_prefix: str = PromptFormat.question_suffix
    stop: str = PromptFormat.stop
    next_turn: str = "\n"
    number_digits: int = 0
    digit_weights: tuple[float, ...] = ()
    named_letters: bool = False
    choice_weight: float = 1.0

    @classmethod
    def chatml(cls, before_image: str, after_image: str) -> Words:
        """The chat format of Qwen2.5, which InternVL3 and LLaVA-OneVision share."""
        return cls(
            opening="<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n",
            image_prefix="Image-{index}: " + before_image,
            image_suffix=after_image + "\n",
            answer_prefix="<|im_end|>\n<|im_start|>assistant\n",
            stop="<|im_end|>",
            next_turn="\n<|im_start|>user\n",
        )


@dataclass(frozen=True)
class Format:
    """How text becomes tokens.

    Attributes:
        encode: text -> token ids, nothing added.
        image_id: the id that stands for a visual token.
        rows_and_columns: visual tokens have a position per row and column (Qwen2.5-VL) instead of
            one after the other.
        points: coordinates of questions are found, for a model of pointers.
    """

    encode: Encode
    image_id: int
    words: Words = field(default_factory=Words)
    rows_and_columns: bool = True
    points: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "encode", lru_cache(maxsize=4096)(self.encode))

    @property
    def digit_ids(self) -> list[int]:
        """Tokens of the ten digits."""
        return [self.encode(digit)[0] for digit in "0123456789"]


@dataclass(frozen=True, eq=False)
class ShownImage:
    """An image as the model takes it.

    Attributes:
        pixels: (H, W, 3) uint8 of the model's input size.
        rays: (grid_h * grid_w, 4) float32, zeros where `has_camera` is False.
    """

    pixels: NDArray[np.uint8]
    grid: tuple[int, int]
    rays: NDArray[np.float32]
    has_camera: bool


@dataclass(frozen=True)
class PackedQuestion:
    """A question with its answer, or a conversation of several; it is about the first `image_count` images.

    Attributes:
        choices: every answer that could be given in these words, where there are few.
        told_m: how far its points are, in place of an image that shows it (`data.drills`).
        told_pair: likewise, what is told of two images (`spatial_mllm_core.model.told`), whatever those before it show.
    """

    turns: tuple[tuple[str, str], ...]
    image_count: int
    choices: tuple[str, ...] = ()
    told_m: tuple[float, ...] = ()
    told_pair: Told | None = None


@dataclass(frozen=True, eq=False)
class Sample:
    """Arrays of one sample of S tokens.

    Attributes:
        name: what to call it in a sentence.
        ids: (S,) token ids, `image_id` at visual tokens.  labels: (S,) the next token where it
            belongs to an answer, else IGNORE.  positions: (3, S).
        weights: (S,) float32 of the labels in the loss.
        owner: (S,) 0 = opening, 1..V = image, V + 1.. = question.
        seen: (S,) a token sees its own block and, of blocks up to this number, all that lies before it.
        targets: truth of the dense heads, of one image each; None where there is none.
        apart: every image is the first and only one of a prompt of its own.
        pointers: (token, image, x, y) of the coordinates of questions, for the first and the last image of each.
        told: (token, z-depth in metres) of the coordinates whose depths are told.
        places: (S,) which digit of a number the next token of an answer would be, -1 where none, see
            `spatial_mllm_core.model.digits`.
        told_pairs: (token, numbers of both kinds) of what is told about two images whatever is seen.
        pairs: (token, image, coordinates) of questions about several images: their first token, the last of the
            images, and what they name.
    """

    name: str
    images: tuple[ShownImage, ...]
    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    positions: NDArray[np.int64]
    owner: NDArray[np.int64]
    seen: NDArray[np.int64]
    places: NDArray[np.int64]
    targets: tuple[RowTargets, ...] | None = None
    apart: bool = False
    pointers: tuple[tuple[int, int, int, int], ...] = ()
    told: tuple[tuple[int, float], ...] = ()
    told_pairs: tuple[tuple[int, Told], ...] = ()
    pairs: tuple[tuple[int, int, tuple[tuple[int, int], ...]], ...] = ()

    def mask(self) -> NDArray[np.bool_]:
        """(S, S) bool, row = who looks."""
        same = self.owner[:, None] == self.owner[None, :]
        before = self.owner[None, :] <= self.seen[:, None]
        return np.tril(same | before)


def pack(
    name: str,
    images: Sequence[ShownImage],
    questions: Sequence[PackedQuestion],
    form: Format,
    *,
    targets: tuple[RowTargets, ...] | None = None,
    max_tokens: int | None = None,
    apart: bool = False,
) -> Sample:
    """Lay out a sample. With `max_tokens` the questions that no longer fit are left out.

    Args:
        apart: every image is the first and only one of a prompt of its own, which nobody asks about.

    Raises:
        ValueError: not even the images and the first question fit.
    """
    if apart and questions:
        raise ValueError("nothing can be asked about images that are shown apart")
    blocks = _Blocks()
    blocks.add(form.encode(form.words.opening), 0, 0)
    starts = [blocks.at]
    for number, image in enumerate(images, 1):
        place, seen = (1, 0) if apart else (number, number - 1)
        blocks.at = starts[place - 1]
        blocks.add(form.encode(form.words.image_prefix.format(index=place)), number, seen)
        blocks.add_image(form.image_id, image.grid, number, seen, flat=not form.rows_and_columns)
        blocks.add(form.encode(form.words.image_suffix), number, seen)
        starts.append(blocks.at)
    owner = len(images)
    pointing: list[tuple[int, int, int, int]] = []
    told: list[tuple[int, float]] = []
    told_pairs: list[tuple[int, Told]] = []
    pairs: list[tuple[int, int, tuple[tuple[int, int], ...]]] = []
    for index, question in enumerate(questions):
        if form.words.named_letters:
            question = _lettered(question)
        tokens, labels, found = _conversation(question, form)
        weights = _weights(labels, question, form)
        if max_tokens is not None and len(blocks.ids) + len(tokens) > max_tokens:
            if index == 0:
                raise ValueError(f"{len(blocks.ids) + len(tokens)} tokens, at most {max_tokens} are taken")
            continue
        owner += 1
        if question.told_m:
            told += [(len(blocks.ids) + p.at, z) for p, z in zip(found, question.told_m, strict=True)]
        shown = sorted({0, question.image_count - 1}) if question.image_count else ()
        pointing += [(len(blocks.ids) + p.at, image, p.x, p.y) for p in found for image in shown]
        if question.told_pair is not None:
            told_pairs.append((len(blocks.ids), question.told_pair))
        elif question.image_count > 1:
            pairs.append((len(blocks.ids), question.image_count - 1, tuple((p.x, p.y) for p in found)))
        blocks.add(tokens, owner, question.image_count, starts[question.image_count], labels, weights)
    if max_tokens is not None and len(blocks.ids) > max_tokens:
        raise ValueError(f"{len(blocks.ids)} tokens, at most {max_tokens} are taken")
    arrays = blocks.arrays()
    return Sample(
        name,
        tuple(images),
        **arrays,
        places=_places(arrays["ids"], arrays["labels"], form),
        targets=targets,
        apart=apart,
        pointers=tuple(pointing),
        told=tuple(told),
        told_pairs=tuple(told_pairs),
        pairs=tuple(pairs),
    )


def _places(ids: NDArray[np.int64], labels: NDArray[np.int64], form: Format) -> NDArray[np.int64]:
    """(S,) of the digit that would come next, for tokens whose next one belongs to an answer, else -1."""
    found = np.full(len(ids), -1, np.int64)
    if form.words.number_digits != DIGITS:
        return found
    digit_ids = form.digit_ids
    following = NextDigit(digit_ids)
    for at in np.flatnonzero(labels != IGNORE).tolist():
        begins = at == 0 or labels[at - 1] == IGNORE
        if begins:
            following = NextDigit(digit_ids)
        place = following.place if begins else following.follow(int(ids[at]))
        found[at] = -1 if place is None else place
    return found


def _lettered(question: PackedQuestion) -> PackedQuestion:
    said = lettered(question.choices)
    told = dict(zip(question.choices, said, strict=True))
    turns = tuple((asked, told.get(answer, answer)) for asked, answer in question.turns)
    return replace(question, turns=turns, choices=said)


def _conversation(question: PackedQuestion, form: Format) -> tuple[list[int], list[int], list[Pointer]]:
    """Tokens, for each the next one where that is part of an answer, and where questions point."""
    tokens: list[int] = []
    found: list[Pointer] = []
    spoken: list[bool] = []
    for number, (asked, answer) in enumerate(question.turns):
        words = (form.words.next_turn if number else "") + asked + form.words.answer_prefix
        if form.points and (question.image_count or question.told_m):
            found += [p._replace(at=len(tokens) + p.at) for p in pointers(words, form.encode)]
        if form.words.number_digits:
            answer = widened(answer, form.words.number_digits)
        for part, is_answer in ((form.encode(words), False), (form.encode(answer + form.words.stop), True)):
            tokens.extend(part)
            spoken.extend([is_answer] * len(part))
    labels = [
        token if said else IGNORE for token, said in zip(tokens[1:], spoken[1:], strict=True)
    ]  # the last token foretells nothing
    return tokens[:-1], labels, found


def _weights(labels: Sequence[int], question: PackedQuestion, form: Format) -> list[float]:
    """Of each label: that of a digit's place in its number, that of a choice where the answer is decided."""
    each = form.words.digit_weights
    digits = form.digit_ids if each else []
    found: list[float] = []
    place = 0
    for label in labels:
        if label not in digits:
            place = 0
            found.append(1.0)
            continue
        found.append(each[min(place, len(each) - 1)])
        place += place > 0 or label != digits[0]
    if form.words.choice_weight != 1.0:
        start = next((i for i, label in enumerate(labels) if label != IGNORE), 0)
        for at in _departures(question, form):
            found[start + at] = form.words.choice_weight
    return found


def _departures(question: PackedQuestion, form: Format) -> set[int]:
    """Tokens of the answer at which it first differs from each other choice."""
    told = form.encode(question.turns[0][1])
    others = [form.encode(choice) for choice in question.choices if choice != question.turns[0][1]]
    places = (
        next((i for i, (a, b) in enumerate(zip(told, other, strict=False)) if a != b), None)
        for other in others
    )
    return {place for place in places if place is not None}


class _Blocks:
    """The arrays of a sample while it grows; `at` is the next text position of the prefix."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.labels: list[int] = []
        self._weights: list[float] = []
        self.at = 0
        self._positions: list[NDArray[np.int64]] = [np.empty((3, 0), np.int64)]
        self._owner: list[int] = []
        self._seen: list[int] = []

    def add(
        self,
        tokens: Sequence[int],
        owner: int,
        seen: int,
        start: int | None = None,
        labels: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        """Text from position `start`, or going on in the prefix."""
        if start is None:
            start, self.at = self.at, self.at + len(tokens)
        self._append(tokens, owner, seen, text_positions(len(tokens), start), labels, weights)

    def add_image(self, image_id: int, grid: tuple[int, int], owner: int, seen: int, *, flat: bool) -> None:
        count = grid[0] * grid[1]
        place = text_positions(count, self.at) if flat else visual_positions(*grid, self.at)
        self.at = self.at + count if flat else position_after_visual(*grid, self.at)
        self._append([image_id] * count, owner, seen, place)

    def _append(
        self,
        tokens: Sequence[int],
        owner: int,
        seen: int,
        place: NDArray[np.int64],
        labels: Sequence[int] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.ids.extend(tokens)
        self.labels.extend([IGNORE] * len(tokens) if labels is None else labels)
        self._weights.extend([1.0] * len(tokens) if weights is None else weights)
        self._positions.append(place)
        self._owner.extend([owner] * len(tokens))
        self._seen.extend([seen] * len(tokens))

    def arrays(self) -> dict[str, NDArray]:
        return {
            "ids": np.asarray(self.ids, np.int64),
            "labels": np.asarray(self.labels, np.int64),
            "weights": np.asarray(self._weights, np.float32),
            "positions": np.concatenate(self._positions, axis=1),
            "owner": np.asarray(self._owner, np.int64),
            "seen": np.asarray(self._seen, np.int64),
        }
