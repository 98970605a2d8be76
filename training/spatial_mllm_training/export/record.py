"""A measured figure with all that must stand beside it: goal, blind figure, count, error by scene.

Knows no model. The record of a bundle is what the model card is written from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Goal:
    """A limit that a figure should keep.

    Attributes:
        kind: "at most", "at least" or "within" (of zero, to both sides).
    """

    kind: str
    limit: float

    def missed_by(self, value: float) -> float:
        """How far beyond the limit a value lies; 0 where the goal is met."""
        beyond = {
            "at most": value - self.limit,
            "at least": self.limit - value,
            "within": abs(value) - self.limit,
        }[self.kind]
        return max(0.0, beyond)

    @property
    def words(self) -> str:
        return f"{self.kind} {'±' if self.kind == 'within' else ''}{self.limit:g}"


ABS_REL, DELTA1 = Goal("at most", 0.08), Goal("at least", 0.95)
GROUP_MEAN, SLOPE, TREND = Goal("at least", 60.0), Goal("within", 0.1), Goal("at least", 0.9)


@dataclass(frozen=True)
class Measured:
    """One line of the card.

    Attributes:
        key: for programs, such as "depth/training_cameras/abs_rel".
        what: for people, such as "dense depth, AbsRel".
        where: on which images.
        value: in `unit`; NaN where it was not measured, and `note` says why.
        standard_error: over scenes; NaN with fewer than two.
        blind: the same figure of an answerer without eyes, `blind_name`; NaN where there is none.
        count, counted: behind the figure, such as 600 "images".
        unit: "%" or "" for a plain number.
    """

    key: str
    what: str
    where: str
    value: float
    standard_error: float = math.nan
    blind: float = math.nan
    blind_name: str = ""
    count: int = 0
    counted: str = "images"
    scenes: int = 0
    goal: Goal | None = None
    unit: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """ "met", "missed by 0.12", "not measured", or "" without a goal."""
        if not math.isfinite(self.value):
            return NOT_MEASURED
        if self.goal is None:
            return ""
        missed = self.goal.missed_by(self.value)
        return "met" if missed <= 0 else f"missed by {self.written(missed)}"

    def written(self, value: float) -> str:
        """A number as this figure is written; "" for NaN."""
        if not math.isfinite(value):
            return ""
        return f"{value:.1f}" if self.unit == "%" else f"{value:.3f}"

    @property
    def value_words(self) -> str:
        """Value, error and unit, such as "6.0 ± 0.8 %"; "none" where nothing was measured."""
        if not math.isfinite(self.value):
            return "none"
        error = f" ± {self.written(self.standard_error)}" if math.isfinite(self.standard_error) else ""
        return f"{self.written(self.value)}{error}{f' {self.unit}' if self.unit else ''}"

    @property
    def of_words(self) -> str:
        """What it rests on, such as "80 images, 40 scenes"."""
        words = [f"{self.count} {self.counted if self.count != 1 else self.counted.removesuffix('s')}"]
        if self.scenes and self.counted != "episodes":
            words.append(f"{self.scenes} scene{'s' if self.scenes != 1 else ''}")
        return ", ".join(words)

    def to_json(self) -> dict[str, Any]:
        """JSON values; NaN as null."""
        record = asdict(self) | {"verdict": self.verdict}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in record.items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Measured:
        """Inverse of `to_json`.

        Raises:
            ValueError: another layout.
        """
        values = {k: v for k, v in record.items() if k != "verdict"}
        try:
            values["goal"] = None if values["goal"] is None else Goal(**values["goal"])
            numbers = ("value", "standard_error", "blind")
            return cls(**values | {k: math.nan if values[k] is None else float(values[k]) for k in numbers})
        except (KeyError, TypeError) as fault:
            raise ValueError(f"not a measured figure: {fault}") from None


def over_scenes(values: Mapping[str, Sequence[float]]) -> tuple[float, float]:
    """Mean over scenes, every scene weighing the same, and its standard error (NaN with fewer than two)."""
    means = np.array([np.mean(v) for v in values.values() if len(v)], np.float64)
    if not len(means):
        return math.nan, math.nan
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan
    return float(means.mean()), error
