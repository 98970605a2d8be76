"""The blind baseline: answers from a question's words alone, learnt on training rows.

It sees no image, no camera and no truth of a row it answers. Per subtask the best of a few rules
is chosen by cross-validation over the training scenes; no benchmark row takes part in that.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.tasks import Task, TaskValue
from spatial_mllm_training.benchmark.data import BenchmarkProblem
from spatial_mllm_training.benchmark.judging import answer_size, truth_of
from spatial_mllm_training.multispa.rows import Row

FILE_NAME = "blind.json"
BANDS = 10
ROWS_PER_SUBTASK = 1000
"""More training rows move a median by less than a benchmark of 300 rows can show."""
_CANDIDATES = 32
_WITH_CONSTANTS = ("majority", "median", "most hits")
_COORDINATE = re.compile(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]")


@dataclass(frozen=True)
class Asked:
    """All that a blind answerer is given: what stands in the words of a question.

    Attributes:
        coordinates: the points that the question names, on the 0-1000 scale.
        variant, category: the wording, e.g. "farther", and the thing it speaks of.
    """

    subtask: str
    coordinates: tuple[tuple[int, int], ...]
    variant: str
    category: str

    @classmethod
    def of(cls, row: Row) -> Asked:
        """The words of a row.

        Raises:
            BenchmarkProblem: the question names fewer points than its subtask has.
        """
        count = tasks.get(row.question_type).point_count
        found = _COORDINATE.findall(row.question)[:count]
        if len(found) < count:
            raise BenchmarkProblem(
                f"row '{row.id}': a {row.question_type} question names {count} point(s), {len(found)} found"
            )
        return cls(
            row.question_type,
            tuple((int(x), int(y)) for x, y in found),
            row.spatial.variant,
            row.spatial.category,
        )

    def key(self, by: str) -> str:
        """What a constant depends on: nothing, the category, the variant or the band of rows."""
        if by == "band":
            return str(self.coordinates[0][1] * BANDS // 1000) if self.coordinates else ""
        return {"": "", "category": self.category, "variant": self.variant}[by]


@dataclass(frozen=True)
class Example:
    """A training question with its truth; `size` is that of the answer's image, px."""

    asked: Asked
    truth: TaskValue
    size: tuple[int, int]
    scene: str


@dataclass(frozen=True)
class Rule:
    """How a blind answerer answers one subtask.

    Attributes:
        name: "majority", "median", "most hits" (the constant that is right most often), "copy the
            point", "first point", "second point" or "lower is closer" (in the image).
        by: what a constant depends on, see Asked.key.
        constants: key -> answer; "" serves unknown keys.
        accuracy: per cent on training rows that it was not fitted to.
    """

    name: str
    by: str = ""
    constants: Mapping[str, TaskValue] = field(default_factory=dict)
    accuracy: float = float("nan")

    @property
    def words(self) -> str:
        return f"{self.name} by {self.by}" if self.by else self.name

    def answer(self, asked: Asked) -> TaskValue:
        if self.constants:
            return self.constants.get(asked.key(self.by), self.constants[""])
        points = asked.coordinates
        if self.name in ("copy the point", "first point"):
            point = points[0]
        elif self.name == "second point":
            point = points[-1]
        else:
            pick = min if asked.variant == "farther" else max
            point = pick(points, key=lambda p: p[1])
        return TaskValue((float(point[0]), float(point[1])))


@dataclass(frozen=True)
class Blind:
    """A rule per subtask; subtasks that training had no row of are answered with nothing."""

    rules: Mapping[str, Rule]
    rows: int
    scenes: int

    def answer(self, asked: Asked) -> str:
        """The answer as text, which is judged like any model's; "" without a rule."""
        rule = self.rules.get(asked.subtask)
        if rule is None:
            return ""
        task = tasks.get(asked.subtask)
        return task.answer_text(rule.answer(asked), variant=asked.variant, category=asked.category)

    def rule_of(self, subtask: str) -> str:
        return self.rules[subtask].words if subtask in self.rules else "no training row"

    def save(self, path: Path) -> None:
        record = {
            "rows": self.rows,
            "scenes": self.scenes,
            "rules": {
                name: {
                    "rule": r.name,
                    "by": r.by,
                    "training_accuracy": round(r.accuracy, 2),
                    "constants": {k: v.label or list(v.values) for k, v in r.constants.items()},
                }
                for name, r in self.rules.items()
            },
        }
        write_atomically(path, f"{json.dumps(record, indent=1)}\n".encode(), replace=True)

    @classmethod
    def load(cls, path: Path) -> Blind:
        """Inverse of `save`.

        Raises:
            BenchmarkProblem: no such file, or another layout.
        """
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            rules = {
                tasks.get(name).name: Rule(
                    r["rule"],
                    r["by"],
                    {
                        k: TaskValue(label=v) if isinstance(v, str) else TaskValue(tuple(map(float, v)))
                        for k, v in r["constants"].items()
                    },
                    float(r["training_accuracy"]),
                )
                for name, r in record["rules"].items()
            }
            blind = cls(rules, int(record["rows"]), int(record["scenes"]))
            blind._try_rules()
            return blind
        except OSError as fault:
            raise BenchmarkProblem(
                f"cannot read the blind baseline '{path}': {fault.strerror or fault}"
            ) from None
        except (
            LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, SpatialError
        ) as fault:  # fmt: skip
            raise BenchmarkProblem(f"'{path}' is not a blind baseline: {fault}") from None

    def _try_rules(self) -> None:
        """Answer once with every constant, so that a rule that cannot is found where its file is named."""
        for name, rule in self.rules.items():
            task = tasks.get(name)
            if (rule.name, rule.by) not in _candidates(task):
                raise ValueError(f"{name} has no rule '{rule.words}'")
            if bool(rule.constants) != (rule.name in _WITH_CONSTANTS):
                raise ValueError(f"the rule '{rule.words}' of {name} lacks its constants")
            for value in (rule.constants[""], *rule.constants.values()) if rule.constants else ():
                read = task.parse(task.answer_text(value))
                if (len(read.values), bool(read.label)) != (len(value.values), bool(value.label)):
                    raise ValueError(f"a constant of {name} is of another kind")


def fit_blind(rows: Iterable[Row]) -> Blind:
    """Choose and fit a rule for every subtask.

    Raises:
        BenchmarkProblem: a row of the benchmark split is among them.
    """
    examples: dict[str, _Thinned] = defaultdict(_Thinned)
    scenes, count = set(), 0
    for row in rows:
        if row.spatial.split == "benchmark":
            raise BenchmarkProblem(
                f"the blind baseline is fitted to training rows only; row '{row.id}' belongs to the benchmark"
            )
        scenes.add(row.spatial.scene)
        count += 1
        examples[row.question_type].add(
            Example(Asked.of(row), truth_of(row), answer_size(row), row.spatial.scene)
        )
    rules = {
        name: best_rule(tasks.get(name), examples[name].kept) for name in tasks.names() if name in examples
    }
    return Blind(rules, count, len(scenes))


class _Thinned:
    """Every example of few, every second, fourth, ... of many: memory does not grow with the rows."""

    def __init__(self) -> None:
        self.kept: list[Example] = []
        self._step, self._seen = 1, 0

    def add(self, example: Example) -> None:
        if self._seen % self._step == 0:
            self.kept.append(example)
        self._seen += 1
        if len(self.kept) > 4 * ROWS_PER_SUBTASK:
            self.kept, self._step = self.kept[::2], 2 * self._step


def best_rule(task: Task, examples: Sequence[Example]) -> Rule:
    """The rule that is right most often on scenes it was not fitted to; the simpler one on a tie."""
    step = -(-len(examples) // ROWS_PER_SUBTASK)
    examples = examples[::step]
    halves = _halves(examples)
    best: tuple[float, str, str] | None = None
    for name, by in _candidates(task):
        hits = 0
        for fitted, held in (halves, halves[::-1]):
            rule = _fit(task, name, by, fitted or held)
            hits += _hits(task, rule, held)
        accuracy = 100 * hits / len(examples)
        if best is None or accuracy > best[0]:
            best = (accuracy, name, by)
    assert best is not None
    accuracy, name, by = best
    return Rule(name, by, _fit(task, name, by, examples).constants, accuracy)


def _halves(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Two halves without a common scene; a single scene's rows are dealt out in turn."""
    # by hash, since neighbouring names may be neighbouring rooms
    scenes = sorted({e.scene for e in examples}, key=lambda name: (zlib.crc32(name.encode()), name))
    side_of = {name: i % 2 for i, name in enumerate(scenes)}
    sides = [side_of[e.scene] if len(scenes) > 1 else i % 2 for i, e in enumerate(examples)]
    first = [e for e, side in zip(examples, sides, strict=True) if side == 0]
    return first, [e for e, side in zip(examples, sides, strict=True) if side == 1]


def _candidates(task: Task) -> list[tuple[str, str]]:
    """(rule, what its constants depend on), simple ones first."""
    if task.kind == "coordinate":
        if task.point_count > 1:
            return [("first point", ""), ("second point", ""), ("lower is closer", "")]
        return [("copy the point", ""), ("median", "")]
    keys = [""]
    if task.variants:
        keys.append("variant")
    if task.reference == "category":
        keys.append("category")
    if task.point_count:
        keys.append("band")
    names = {"label": ["majority"], "vector": ["median"]}.get(task.kind, ["median", "most hits"])
    return [(name, by) for by in keys for name in names]


def _fit(task: Task, name: str, by: str, examples: Sequence[Example]) -> Rule:
    if name not in _WITH_CONSTANTS:
        return Rule(name)
    truths: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        truths[example.asked.key(by)].append(example)
    truths[""] = list(examples)
    return Rule(name, by, {key: _constant(task, name, group) for key, group in sorted(truths.items())})


def _constant(task: Task, name: str, examples: Sequence[Example]) -> TaskValue:
    if name == "majority":
        counts = Counter(e.truth.label for e in examples)
        return TaskValue(label=max(sorted(counts), key=lambda word: counts[word]))
    values = np.array([e.truth.values for e in examples])
    if name == "median":
        return TaskValue(tuple(float(v) for v in np.median(values, axis=0)))
    tried = sorted({float(v) for v in np.quantile(values, np.linspace(0, 1, _CANDIDATES))})
    rules = [Rule(name, "", {"": TaskValue((value,))}) for value in tried]
    return max(rules, key=lambda rule: _hits(task, rule, examples)).constants[""]


def _hits(task: Task, rule: Rule, examples: Sequence[Example]) -> int:
    return sum(task.is_correct(rule.answer(e.asked), e.truth, size=e.size) for e in examples)
