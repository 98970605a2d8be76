"""What a task is: question and answer templates, the grammar that reads answers back, the score.

A task knows text and geometry, never a model or a data set. The data engine writes rows with
it, the runtime asks and parses with it, the benchmark scores with it; nobody else does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import text

LENGTH_TOLERANCE = 0.2
COORDINATE_TOLERANCE = 0.05


@dataclass(frozen=True)
class TaskValue:
    """A truth or a parsed answer.

    Attributes:
        values: SI numbers: (metres,), (x, y, z) metres, or (x, y) on the 0-1000 coordinate scale.
        label: word of a label answer.
    """

    values: tuple[float, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Task:
    """One MultiSPA subtask.

    Attributes:
        name: published `question_type`.
        kind: "scalar" (metres), "vector" (metres), "coordinate" (0-1000 scale) or "label".
        frame_count: images the question speaks of.
        point_count: pixels of the first image that the question names.
        questions: our templates with {p1}, {p2} for coordinates; the first one is served.
        answers: our templates with {value}; the first one is served.
        labels: allowed words of a label task.
    """

    name: str
    kind: str
    frame_count: int
    point_count: int
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    labels: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        return {"scalar": "m", "vector": "m", "coordinate": "px", "label": ""}[self.kind]

    def question(self, points: tuple[tuple[int, int], ...] = (), *, template: int = 0) -> str:
        """The question's words; `points` are coordinates on the 0-1000 scale, in order."""
        if len(points) != self.point_count:
            raise SpatialError(
                ErrorCode.WRONG_POINT_COUNT,
                f"{self.name} needs {self.point_count} point(s) of the first image, {len(points)} given",
            )
        names = {f"p{i + 1}": text.format_coordinate(p) for i, p in enumerate(points)}
        return self.questions[template % len(self.questions)].format(**names)

    def answer_text(self, truth: TaskValue, *, template: int = 0) -> str:
        """The answer's words for a truth, as a training target."""
        return self.answers[template % len(self.answers)].format(value=self._format(truth))

    def _format(self, truth: TaskValue) -> str:
        if self.kind == "scalar":
            return text.format_mm(truth.values[0])
        if self.kind == "vector":
            x, y, z = truth.values
            return text.format_vector_mm((x, y, z))
        if self.kind == "coordinate":
            return text.format_coordinate((round(truth.values[0]), round(truth.values[1])))
        return truth.label

    def parse(self, answer: str) -> TaskValue:
        """Read an answer back.

        Raises:
            SpatialError: UNPARSABLE_ANSWER.
        """
        if self.kind == "scalar":
            return TaskValue((text.parse_length_m(answer),))
        if self.kind == "vector":
            return TaskValue(text.parse_vector_m(answer))
        if self.kind == "coordinate":
            return TaskValue(text.parse_coordinate(answer))
        return TaskValue(label=text.parse_word(answer, self.labels))

    def is_correct(self, predicted: TaskValue, truth: TaskValue) -> bool:
        """The published rule: 20 % of the truth's length, 5 % of the image width, exact words."""
        if self.kind == "label":
            return predicted.label == truth.label
        error = float(np.linalg.norm(np.subtract(predicted.values, truth.values)))
        if self.kind == "coordinate":
            return error <= COORDINATE_TOLERANCE * text.COORDINATE_SCALE
        return error <= LENGTH_TOLERANCE * float(np.linalg.norm(truth.values))
