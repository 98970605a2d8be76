"""What a task is: question and answer templates, the grammar that reads answers back, the score.

A task knows text and geometry, never a model or a data set. The data engine writes rows with
it, the runtime asks and parses with it, the benchmark scores with it; nobody else does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import reading, text

LENGTH_TOLERANCE = 0.2
COORDINATE_TOLERANCE = 0.05
_ON_THE_LIMIT = 1.0 + 1e-9  # a difference of exactly 20 % counts, whatever binary fractions make of it

COORDINATES_EXPLAINED = (
    "Coordinates [ x , y ] run from 0 to 1000 over the image, x from left to right along its width and y "
    "from top to bottom along its height."
)
_ANSWER_FORMS = {
    "scalar": "Answer with whole millimetres between backticks.",
    "angle": "Answer with whole degrees between backticks.",
    "vector": (
        "Answer with [x, y, z] in whole millimetres between backticks; in the camera of Image-1 x points right, "
        "y down and z forward."
    ),
    "coordinate": "Answer with [ x , y ] between backticks.",
    "label": "Answer with {labels} between backticks.",
}
_UNITS = {"scalar": "m", "vector": "m", "angle": "deg", "coordinate": "px", "label": ""}

GtValue = int | list[int] | str


def _either(words: tuple[str, ...]) -> str:
    return " or ".join(", ".join(words).rsplit(", ", 1))


@dataclass(frozen=True)
class TaskValue:
    """A truth or a parsed answer.

    Attributes:
        values: (metres,), (x, y, z) metres, (degrees,), or (x, y) on the 0-1000 coordinate scale.
        label: word of a label answer.
    """

    values: tuple[float, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Wording:
    """Templates of one way to ask; the first of each is served by the runtime.

    Attributes:
        questions: with {p1}, {p2} for coordinates and {category} for what an object is.
        answers: with {value} in backticks, and {category}.
        variant: what is asked for where a task asks for either of two, such as "closer".
    """

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    variant: str = ""


@dataclass(frozen=True)
class Task:
    """One MultiSPA subtask.

    Attributes:
        name: published `question_type`.
        kind: "scalar" (metres), "angle" (degrees), "vector" (metres), "coordinate" (0-1000 scale) or "label".
        group: its row in the paper's Table 2, see `tasks.GROUPS`.
        wordings: one, or one per variant; the first is served.
        descriptions: sentences that say what the images are, before the question.
        frame_count: images the question speaks of, at least.
        extra_frame_count: how many more images it may speak of.
        point_count: pixels of the first image that the question names by coordinates.
        reference: how the question points at things: "coordinate", "dot" (drawn in the images),
            "category" or "none".
        labels: allowed words of a label task.
        answer_image: index of the image that a coordinate answer lies in.
    """

    name: str
    kind: str
    group: str
    wordings: tuple[Wording, ...]
    descriptions: tuple[str, ...]
    frame_count: int = 1
    extra_frame_count: int = 0
    point_count: int = 0
    reference: str = "none"
    labels: tuple[str, ...] = ()
    answer_image: int = 0

    @property
    def max_frame_count(self) -> int:
        return self.frame_count + self.extra_frame_count

    @property
    def unit(self) -> str:
        """Unit of `TaskValue.values`; coordinates stand for pixels."""
        return _UNITS[self.kind]

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(w.variant for w in self.wordings if w.variant)

    @property
    def questions(self) -> tuple[str, ...]:
        """Question templates of the served wording."""
        return self.wordings[0].questions

    @property
    def answers(self) -> tuple[str, ...]:
        """Answer templates of the served wording; other variants have as many."""
        return self.wordings[0].answers

    def questions_of(self, variant: str = "") -> tuple[str, ...]:
        """Question templates of a variant, "" for the served one.

        Raises:
            SpatialError: UNKNOWN_TASK.
        """
        return self._wording(variant).questions

    def require_frame_count(self, count: int) -> None:
        """Refuse a number of images that the question cannot speak of.

        Raises:
            SpatialError: WRONG_FRAME_COUNT.
        """
        if not self.frame_count <= count <= self.max_frame_count:
            more = f" to {self.max_frame_count}" if self.extra_frame_count else ""
            raise SpatialError(
                ErrorCode.WRONG_FRAME_COUNT,
                f"{self.name} speaks of {self.frame_count}{more} image(s), {count} given",
            )

    # -- words ------------------------------------------------------------------------------------

    def question(
        self,
        points: tuple[tuple[int, int], ...] = (),
        *,
        template: int = 0,
        variant: str = "",
        category: str = "",
    ) -> str:
        """The question's words; `points` are coordinates on the 0-1000 scale, in order.

        Raises:
            SpatialError: WRONG_POINT_COUNT; EMPTY_QUESTION when the category is missing; UNKNOWN_TASK of
                a variant that the task does not have.
        """
        if len(points) != self.point_count:
            raise SpatialError(
                ErrorCode.WRONG_POINT_COUNT,
                f"{self.name} needs {self.point_count} point(s) of the first image, {len(points)} given",
            )
        if self.reference == "category" and not category.strip():
            raise SpatialError(
                ErrorCode.EMPTY_QUESTION, f"{self.name} needs the category of the object, such as chair"
            )
        names = {f"p{i + 1}": text.format_coordinate(p) for i, p in enumerate(points)}
        questions = self.questions_of(variant)
        return questions[template % len(questions)].format(**names, category=category.strip())

    def description(self, template: int = 0) -> str:
        """What the images are and what is asked of them, in general."""
        return self.descriptions[template % len(self.descriptions)]

    def prompt(
        self,
        image_count: int,
        points: tuple[tuple[int, int], ...] = (),
        *,
        templates: tuple[int, int] = (0, 0),
        variant: str = "",
        category: str = "",
    ) -> str:
        """The published human turn: image tags, description, question, scale of coordinates, form of the answer.

        Args:
            templates: numbers of the description and question wording.

        Raises:
            SpatialError: WRONG_FRAME_COUNT, WRONG_POINT_COUNT or EMPTY_QUESTION.
        """
        self.require_frame_count(image_count)
        tags = [f"Image-{i + 1}: <image>\n" for i in range(image_count)] if image_count > 1 else ["<image>\n"]
        words = [
            self.description(templates[0]),
            self.question(points, template=templates[1], variant=variant, category=category),
        ]
        if self.point_count or self.kind == "coordinate":
            words.append(COORDINATES_EXPLAINED)
        words.append(_ANSWER_FORMS[self.kind].format(labels=_either(self.labels)))
        return "".join(tags) + " ".join(words)

    def answer_text(
        self, truth: TaskValue, *, template: int = 0, variant: str = "", category: str = ""
    ) -> str:
        """The answer's words for a truth, as a training target."""
        answers = self._wording(variant).answers
        return answers[template % len(answers)].format(
            value=self._format(truth), category=category.strip() or "object"
        )

    @property
    def names_its_answer(self) -> bool:
        """Whether the answer is one of the points that the question names."""
        return self.kind == "coordinate" and self.point_count > 1

    def choices(
        self, points: tuple[tuple[int, int], ...] = (), *, variant: str = "", template: int = 0
    ) -> tuple[str, ...]:
        """The words of every admissible answer where there are few: labels, or the named points; else ().

        Args:
            points: of the question, on the 0-1000 scale.
            template: number of the answer wording.
        """
        values = [TaskValue(label=label) for label in self.labels]
        if self.names_its_answer:
            values = [TaskValue((float(x), float(y))) for x, y in points]
        return tuple(self.answer_text(value, template=template, variant=variant) for value in values)

    def _wording(self, variant: str) -> Wording:
        if not variant:
            return self.wordings[0]
        for wording in self.wordings:
            if wording.variant == variant:
                return wording
        raise SpatialError(
            ErrorCode.UNKNOWN_TASK,
            f"{self.name} has no variant '{variant[:80]}'; it has {', '.join(self.variants) or 'none'}",
        )

    def _format(self, truth: TaskValue) -> str:
        value = self.gt_value(truth)
        if isinstance(value, list):
            if self.kind == "coordinate":
                return text.format_coordinate((value[0], value[1]))
            return f"[{', '.join(map(str, value))}]"
        return str(value)

    # -- numbers ----------------------------------------------------------------------------------

    def gt_value(self, truth: TaskValue) -> GtValue:
        """The published value of a truth: whole mm or degrees, a coordinate in [0, 999], or a word."""
        if self.kind == "label":
            return truth.label
        if self.kind == "coordinate":
            return list(text.whole_coordinate((truth.values[0], truth.values[1])))
        if self.kind == "vector":
            return [text.whole_mm(v) for v in truth.values]
        return text.whole(truth.values[0]) if self.kind == "angle" else text.whole_mm(truth.values[0])

    def truth_of(self, gt_value: GtValue) -> TaskValue:
        """Inverse of `gt_value`, up to its rounding."""
        if isinstance(gt_value, str):
            return TaskValue(label=gt_value)
        numbers = gt_value if isinstance(gt_value, list) else [gt_value]
        return self._value_of(tuple(numbers))

    def _value_of(self, numbers: tuple[int, ...]) -> TaskValue:
        scale = 1e3 if self.kind in ("scalar", "vector") else 1.0
        return TaskValue(tuple(n / scale for n in numbers))

    # -- answers ----------------------------------------------------------------------------------

    def parse(self, answer: str) -> TaskValue:
        """Read an answer as models write it; see `reading`.

        Raises:
            SpatialError: UNPARSABLE_ANSWER.
        """
        if self.kind == "scalar":
            return TaskValue((reading.length_m(answer),))
        if self.kind == "angle":
            return TaskValue((reading.angle_deg(answer),))
        if self.kind == "vector":
            return TaskValue(reading.vector_m(answer))
        if self.kind == "coordinate":
            return TaskValue(reading.coordinate(answer, is_choice=self.names_its_answer))
        return TaskValue(label=reading.word(answer, self.labels))

    def parse_strictly(self, answer: str) -> TaskValue:
        """Read an answer by the published extraction: the template's form in backticks and nothing else.

        Raises:
            SpatialError: UNPARSABLE_ANSWER.
        """
        if self.kind == "label":
            return TaskValue(label=reading.strictly_word(answer, self.labels))
        if self.kind in ("vector", "coordinate"):
            return self._value_of(reading.strictly_integers(answer, 3 if self.kind == "vector" else 2))
        return self._value_of((reading.strictly_whole(answer),))

    def is_correct(
        self,
        predicted: TaskValue,
        truth: TaskValue,
        *,
        size: tuple[int, int] = (text.COORDINATE_SCALE, text.COORDINATE_SCALE),
    ) -> bool:
        """The published rule: 20 % of the truth's length, 5 % of the image width, exact words and choices.

        Args:
            size: (width, height) in px of the image that a coordinate lies in. The tolerance is a
                circle in pixels, and the two axes of the 0-1000 scale are not of one length.
        """
        if self.kind == "label":
            return predicted.label == truth.label
        if self.kind == "coordinate":
            if self.names_its_answer:  # named points may lie close together
                return self.gt_value(predicted) == self.gt_value(truth)
            width, height = size
            dx, dy = np.subtract(predicted.values, truth.values)
            error = math.hypot(dx, dy * height / width)
            return error <= COORDINATE_TOLERANCE * text.COORDINATE_SCALE * _ON_THE_LIMIT
        error = float(np.linalg.norm(np.subtract(predicted.values, truth.values)))
        return error <= LENGTH_TOLERANCE * float(np.linalg.norm(truth.values)) * _ON_THE_LIMIT
