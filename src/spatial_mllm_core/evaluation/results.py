"""What an evaluation found, as plain values; knows neither bags nor pages."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.evaluation.metrics import DepthError, DisplacementError


@dataclass(frozen=True)
class FrameFigures:
    """One judged image: its time since the first, and the errors of its depth (None without truth)."""

    stamp_ns: int
    time_s: float
    depth: DepthError | None
    aligned: DepthError | None


@dataclass(frozen=True)
class RewardPoint:
    """One reward beside the truth.

    Attributes:
        predicted_m, true_m: length of the displacement since the reference image; NaN when unknown.
        progress, reward: as published; NaN when the image could not be judged.
    """

    stamp_ns: int
    time_s: float
    predicted_m: float
    true_m: float
    progress: float
    reward: float


@dataclass(frozen=True)
class QuestionRow:
    """One question: what was asked in people's words, what came back, what is true.

    Attributes:
        is_correct: by the task's published rule; None when the truth is unknown.
    """

    stamp_ns: int
    task: str
    asked: str
    answer: str
    truth: str
    is_correct: bool | None
    confidence: float
    latency_s: float
    fault: str = ""


@dataclass(frozen=True)
class FramePictures:
    """The pictures of one image, all (H, W): camera, predicted and true depth in metres, confidence.

    Attributes:
        point_px: pixel to mark in the camera image, or None.
    """

    stamp_ns: int
    time_s: float
    image_rgb: NDArray[np.uint8]
    depth_m: NDArray[np.float32] | None
    true_m: NDArray[np.float32] | None
    confidence: NDArray[np.float32] | None
    point_px: tuple[float, float] | None = None


@dataclass(frozen=True)
class ReplayVerdict:
    """Whether a fresh offline run gave the recorded outputs, bit for bit.

    Attributes:
        depths, answers, rewards: how many were compared.
        skipped: recorded outputs that could not be asked again, and why.
        difference: the first difference in one sentence; "" when all are equal.
    """

    depths: int
    answers: int
    rewards: int
    skipped: tuple[str, ...] = ()
    difference: str = ""

    @property
    def is_equal(self) -> bool:
        """True when something was compared and nothing differed."""
        return not self.difference and self.depths + self.answers + self.rewards > 0

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        compared = f"{self.depths} depth images, {self.answers} answers and {self.rewards} rewards"
        if self.difference:
            return f"different: {self.difference}"
        if not self.is_equal:
            return "nothing was compared" + (f" ({self.skipped[0]})" if self.skipped else "")
        rest = f"; {len(self.skipped)} outputs were not compared ({self.skipped[0]})" if self.skipped else ""
        return f"{compared} are equal bit for bit{rest}"


@dataclass
class Evaluation:
    """All figures of one bag.

    Attributes:
        bag, model: names.
        frames_in: images offered; frames_answered: images with a depth; frames_refused: images without usable
            calibration, of which no depth can be told; dropped = the rest.
        depth, aligned: mean errors as measured, and after the best overall scale per image.
        trend: Spearman correlation of predicted and true displacement length; NaN without truth.
        notes: sentences a reader must know, e.g. that the bag is incomplete or has no truth.
    """

    bag: str
    model: str
    frames_in: int = 0
    frames_answered: int = 0
    frames_refused: int = 0
    duration_s: float = 0.0
    frames: list[FrameFigures] = field(default_factory=list)
    depth: DepthError | None = None
    aligned: DepthError | None = None
    rewards: list[RewardPoint] = field(default_factory=list)
    displacement: DisplacementError | None = None
    trend: float = float("nan")
    questions: list[QuestionRow] = field(default_factory=list)
    replay: ReplayVerdict | None = None
    pictures: list[FramePictures] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def frames_dropped(self) -> int:
        return max(0, self.frames_in - self.frames_answered - self.frames_refused)

    @property
    def frames_words(self) -> str:
        """What became of the images."""
        refused = f", {self.frames_refused} refused for want of calibration" if self.frames_refused else ""
        return f"{self.frames_in} in, {self.frames_answered} answered{refused}, {self.frames_dropped} dropped"

    @property
    def is_partial(self) -> bool:
        """Whether some of the bag or some of its images could not be used."""
        return any("partly readable" in note or "could not be used" in note for note in self.notes)

    @property
    def trend_words(self) -> str:
        """The trend in words, or why there is none."""
        if not math.isnan(self.trend):
            return f"{self.trend:.3f} (Spearman, predicted against true displacement)"
        if not any(math.isfinite(r.true_m) for r in self.rewards):
            return "none, the true displacement is unknown"
        if not any(math.isfinite(r.predicted_m) for r in self.rewards):
            return "none, no image could be judged"
        known = {
            r.predicted_m for r in self.rewards if math.isfinite(r.predicted_m) and math.isfinite(r.true_m)
        }
        return f"none, the {'true' if len(known) > 1 else 'predicted'} displacement never changes"

    def to_json(self) -> str:
        """The figures without the pictures, as JSON; NaN becomes null."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "pictures"}
        plain["frames_dropped"] = self.frames_dropped
        for name, value in plain.items():
            if isinstance(value, list):
                plain[name] = [asdict(v) if hasattr(v, "__dataclass_fields__") else v for v in value]
            elif hasattr(value, "__dataclass_fields__"):
                plain[name] = asdict(value)
        return json.dumps(_without_nan(plain), indent=2, ensure_ascii=False)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(v) for v in value]
    return value
