"""A question as a model reads it, what may be answered, and what an answer's text then says; knows no engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.model.bundle import Manifest
from spatial_mllm_core.tasks.correspondence import CORRESPONDENCE
from spatial_mllm_core.tasks.dots import Dots, by_coordinates, nearest
from spatial_mllm_core.tasks.text import coordinate_to_pixel, lettered, pixel_to_coordinate

MAX_QUESTION_CHARACTERS = 2000
MAX_CATEGORY_CHARACTERS = 100
_ANSWER_KINDS = {"coordinate": "pixel", "angle": "scalar"}


@dataclass(frozen=True)
class AnswerValue:
    """What the text of an answer says, see `Answer`."""

    kind: str
    values: tuple[float, ...]
    unit: str
    label: str
    frame_id: str


@dataclass(frozen=True)
class Question:
    """Words about frames, and the answers that they admit.

    Attributes:
        frames: that it speaks of, in order.
        choices: answers, as they are given; () for any.
        wants_coordinate: the answer is a coordinate.
        has_letters: the model reads named points as A, B, .. and answers so.
        letters: dots of the last frame; the answer is the letter of the one nearest to the coordinate that the
            model says.
    """

    words: str
    frames: tuple[Frame, ...]
    task: tasks.Task | None
    choices: tuple[str, ...]
    wants_coordinate: bool
    has_letters: bool
    letters: Dots = field(default_factory=dict)

    def with_dots(self, first: Dots, later: Dots) -> Question:
        """The question by the coordinates of the dots of its first and its last frame; itself where some lack."""
        asked = by_coordinates(self.words, first, later)
        if asked is None:
            return self
        if not asked.letters:
            return replace(self, words=asked.words)
        return replace(self, words=asked.words, choices=(), wants_coordinate=True, letters=asked.letters)

    @property
    def said(self) -> tuple[str, ...]:
        """The choices as the model says them; () for any text."""
        return lettered(self.choices) if self.has_letters else self.choices

    @property
    def is_said_otherwise(self) -> bool:
        """Whether the answer is not the text that the model says."""
        return bool(self.letters) or self.said != self.choices

    def answer(self, said: str) -> str:
        """The answer's text, of what the model said.

        Raises:
            SpatialError: UNPARSABLE_ANSWER.
        """
        if self.letters:
            x, y = CORRESPONDENCE.parse(said).values
            later = self.frames[-1]
            return f"`{nearest(self.letters, (x, y), later.width, later.height)}`"
        return dict(zip(self.said, self.choices, strict=True)).get(said, said)

    def read(self, answer: str) -> AnswerValue:
        """What an answer's text says.

        Raises:
            SpatialError: UNPARSABLE_ANSWER.
        """
        about = self.frames[0]
        if self.task is None:
            return AnswerValue("text", (), "", "", about.frame_id)
        parsed = self.task.parse(answer)
        values, unit = parsed.values, self.task.unit
        kind = _ANSWER_KINDS.get(self.task.kind, self.task.kind)
        if kind == "pixel":
            about = self.frames[self.task.answer_image]
            values = coordinate_to_pixel((values[0], values[1]), about.width, about.height)
        if unit == "deg":
            values, unit = (math.radians(values[0]),), "rad"
        return AnswerValue(kind, values, unit, parsed.label, about.frame_id)


def read_request(request: AskRequest, manifest: Manifest, reserved: Sequence[str]) -> Question:
    """The question of a request to a bundle.

    Args:
        reserved: texts of the prompt's own tokens, which no words from outside may hold.

    Raises:
        SpatialError: 2xx for a frame that lacks what the task needs; 4xx.
    """
    if not request.frames:
        raise SpatialError(ErrorCode.WRONG_FRAME_COUNT, "the question speaks of no frame")
    if request.max_new_tokens < 1:
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"max_new_tokens must be at least 1, got {request.max_new_tokens}"
        )
    if request.deadline_s is not None and not (np.isfinite(request.deadline_s) and request.deadline_s > 0):
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"deadline_s must be finite and positive, got {request.deadline_s}"
        )
    has_letters = manifest.prompt.named_letters
    if not request.task:
        words = _plain(request.question, "question", MAX_QUESTION_CHARACTERS, reserved)
        if not words:
            raise SpatialError(ErrorCode.EMPTY_QUESTION, "the question is empty; give a task name or words")
        return Question(words, request.frames, None, request.choices, request.wants_coordinate, has_letters)
    task = tasks.get(request.task)
    if task.name not in manifest.tasks:
        served = ", ".join(manifest.tasks) or "no question, it gives depth alone"
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK,
            f"{manifest.label} was not trained for {task.name}; it answers {served}",
        )
    task.require_frame_count(len(request.frames))
    if len({(f.camera_name, f.stamp_ns) for f in request.frames}) != len(request.frames):
        raise SpatialError(
            ErrorCode.SAME_FRAME_TWICE, f"{task.name} needs different frames, one was named twice"
        )
    for frame in request.frames:
        frame.require_camera()
    first = request.frames[0]
    points = []
    for pixel in request.points_px:
        first.require_pixel(pixel)
        points.append(pixel_to_coordinate(pixel, first.width, first.height))
    category = _plain(request.category, "category", MAX_CATEGORY_CHARACTERS, reserved)
    words = task.question(tuple(points), variant=request.variant, category=category)
    choices = task.choices(tuple(points), variant=request.variant)
    return Question(words, request.frames, task, choices, task.kind == "coordinate", has_letters)


def _plain(words: str, what: str, longest: int, reserved: Sequence[str]) -> str:
    """Words from outside without control characters and without the tokens of the prompt.

    Raises:
        SpatialError: QUESTION_TOO_LONG.
    """
    words = "".join(c if c.isprintable() else " " for c in words)
    if len(words) > longest:
        raise SpatialError(
            ErrorCode.QUESTION_TOO_LONG,
            f"the {what} has {len(words)} characters, at most {longest} are read",
        )
    for token in reserved:
        words = words.replace(token, " ")
    return words.strip()
