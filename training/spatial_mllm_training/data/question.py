"""A question with its truth, and the words that it is put and answered in; knows no images and no files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_training.data.packing import PackedQuestion


@dataclass(frozen=True)
class Question:
    """What is asked, with its truth; `points`, `variant` and `category` as `Task.question` takes them."""

    task: tasks.Task
    points: tuple[tuple[int, int], ...]
    truth: tasks.TaskValue
    variant: str = ""
    category: str = ""

    def words(self, template: int = 0) -> str:
        return self.task.question(
            self.points, template=template, variant=self.variant, category=self.category
        )

    def answer(self, template: int = 0) -> str:
        return self.task.answer_text(
            self.truth, template=template, variant=self.variant, category=self.category
        )

    def choices(self, template: int = 0) -> tuple[str, ...]:
        """`Task.choices` in the words of an answer."""
        return self.task.choices(self.points, template=template, variant=self.variant)

    def worded(self, rng: np.random.Generator, image_count: int, *, served_words: float) -> PackedQuestion:
        """The question to be packed, with this share in the runtime's words, else in any of the task's."""
        served = rng.random() < served_words
        asked = 0 if served else int(rng.integers(len(self.task.questions)))
        answered = 0 if served else int(rng.integers(len(self.task.answers)))
        turn = (self.words(asked), self.answer(answered))
        return PackedQuestion((turn,), image_count, self.choices(answered))
