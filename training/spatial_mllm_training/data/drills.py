"""Questions about points whose depths are told instead of seen: what to do with what is told, drilled without images.

A pointer of a model of deep pointers carries how far its point is. To say that number, and to compare two of them,
takes a small decoder thousands of questions, which cost a tenth without the images that they are about. The look of a
place, which pointers also carry, is one of some image of the batch (`training_loop.prompts`).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from spatial_mllm_core.tasks import depth
from spatial_mllm_training.data.movement_drills import movement_question
from spatial_mllm_training.data.packing import Format, PackedQuestion, Sample, pack
from spatial_mllm_training.data.pair_questions import are_comparable
from spatial_mllm_training.data.question import Question

_QUESTIONS = 8
_COMPARED = 0.7
"""Of the questions; the others ask for the depth itself."""
_NEAR_M, _FAR_M = 0.3, 6.0
_OF_MOVEMENTS = 4
"""One of so many samples is about depths where the others are about movements, which are more things to learn."""


class DrillSource:
    """Sample i is drawn with a generator seeded by (seed, i).

    Attributes:
        movements: three of four samples are about two images, for a model of matching.
    """

    def __init__(self, form: Format, seed: int, *, served_words: float, movements: bool = False) -> None:
        self.form, self.seed, self.served_words, self.movements = form, seed, served_words, movements

    def sample(self, number: int) -> Sample:
        rng = np.random.default_rng([self.seed, 17, number])
        if self.movements and number % _OF_MOVEMENTS:
            asked = [movement_question(rng, served_words=self.served_words) for _ in range(_QUESTIONS)]
        else:
            asked = [self._question(rng) for _ in range(_QUESTIONS)]
        return pack(f"drill {number}", [], asked, self.form)

    def digest(self) -> str:
        """sha256 of what the drills depend on."""
        about = f"{_QUESTIONS} {_COMPARED} {_NEAR_M} {_FAR_M} {self.served_words} {self.movements}"
        return hashlib.sha256(about.encode()).hexdigest()

    def subtasks(self) -> frozenset[str]:
        """None: a drill shows no image."""
        return frozenset()

    def _question(self, rng: np.random.Generator) -> PackedQuestion:
        first, second = (tuple(map(int, point)) for point in rng.integers(0, 1000, (2, 2)))
        one_m, other_m = map(float, np.exp(rng.uniform(np.log(_NEAR_M), np.log(_FAR_M), 2)))
        both_m = (one_m, other_m)
        if rng.random() < _COMPARED and are_comparable(both_m):
            task, points, depths_m = depth.DEPTH_COMPARISON, (first, second), both_m
            variant = str(rng.choice(task.variants))
            question = Question(task, points, depth.comparison_truth(points, both_m, variant), variant)
        else:
            depths_m = (one_m,)
            question = Question(depth.DEPTH_VALUE, (first,), depth.depth_truth(one_m))
        return replace(question.worded(rng, 0, served_words=self.served_words), told_m=depths_m)
