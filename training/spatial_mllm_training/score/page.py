"""The figures of a bundle as one HTML page: table, learning curve, depth, focal slope, reward traces. No script."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.chart import Series, line_chart
from spatial_mllm_core.evaluation.document import document
from spatial_mllm_training.ablate.focal import SCALES
from spatial_mllm_training.export.record import Measured
from spatial_mllm_training.score.trend import Trace, TrendScore

POINTS_SHOWN = 800
_HEAD = ("Figure", "On", "Value", "Blind", "Goal", "Verdict", "Of")
_NARROW = ("Value", "Blind", "Goal", "Verdict", "Of")


@dataclass
class Plots:
    """What the page draws beside the table.

    Attributes:
        learning: (samples or steps, AbsRel of held-out scenes); `learning_unit` says which.
        pairs: by name of the images, (true, predicted) depth, metres.
        slopes: by name, (images, S) log depth against that at the middle scale.
        trends: by name.
    """

    learning: list[tuple[float, float]] = field(default_factory=list)
    learning_unit: str = "steps"
    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    slopes: dict[str, list[np.ndarray]] = field(default_factory=dict)
    trends: dict[str, TrendScore] = field(default_factory=dict)


def read_learning(run: Path) -> tuple[list[tuple[float, float]], str]:
    """The learning curve of a run folder of `train`: samples (steps while it has no end) and held-out AbsRel.

    Raises:
        SpatialError: NOT_READY when there is no metrics.jsonl, or a line that is no record.
    """
    file = run / "metrics.jsonl"
    points = []
    try:
        for line in file.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if "held_out/abs_rel" in record:
                points.append((float(record["step"]), float(record["held_out/abs_rel"])))
        end = run / "final.json"
        final = json.loads(end.read_text(encoding="utf-8")) if end.exists() else {}
        per_step = float(final["samples"]) / float(final["step"]) if final else 1.0
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError) as fault:
        raise SpatialError(ErrorCode.NOT_READY, f"'{run}' has no learning curve: {fault}") from None
    return [(step * per_step, value) for step, value in points], "samples" if final else "steps"


def page(model: str, lines: Sequence[Measured], plots: Plots, notes: Sequence[str]) -> str:
    """The whole page as text."""
    style = files("spatial_mllm_core.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    said = f'<section class="notes"><ul>{"".join(f"<li>{escape(n)}</li>" for n in notes)}</ul></section>'
    body = (
        f'<header><p class="kicker">Measured through the runtime</p><h1>{escape(model)}</h1></header>'
        + (said if notes else "")
        + _table(lines)
        + f'<section><h2>Depth</h2><div class="charts">{_learning(plots)}{_depth(plots)}</div></section>'
        + f'<section><h2>Camera</h2><div class="charts">{_slope(plots)}</div></section>'
        + f'<section><h2>Reward</h2><div class="charts">{_traces(plots.trends)}</div></section>'
    )
    return document(f"{model} · figures", body, style)


def _table(lines: Sequence[Measured]) -> str:
    rows = []
    for line in lines:
        kind = {"": "unknown", "met": "right", "not measured": "unknown"}.get(line.verdict, "wrong")
        verdict = f'<span class="verdict {kind}">{line.verdict}</span>'
        cells = (
            f"{escape(line.what)}<small>{escape(line.note)}</small>", escape(line.where), line.value_words,
            line.written(line.blind), "" if line.goal is None else line.goal.words, verdict, line.of_words,
        )  # fmt: skip
        rows.append(
            "<tr>"
            + "".join(
                f'<td{_tight(name)} data-name="{name}">{cell}</td>'
                for name, cell in zip(_HEAD, cells, strict=True)
            )
            + "</tr>"
        )
    head = "".join(f"<th{_tight(name)}>{name}</th>" for name in _HEAD)
    return f"<section><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></section>"


def _tight(name: str) -> str:
    return ' class="tight"' if name in _NARROW else ""


def _learning(plots: Plots) -> str:
    return line_chart(
        "Learning curve", plots.learning_unit, "held-out AbsRel", [Series("held out", plots.learning, "a")]
    )


def _depth(plots: Plots) -> str:
    return "".join(_scatter(name, pairs) for name, pairs in plots.pairs.items() if pairs)


def _scatter(name: str, pairs: Sequence[tuple[float, float]]) -> str:
    """Dots: a curve broken after each point."""
    step = -(-len(pairs) // POINTS_SHOWN)
    dots = [p for x, y in pairs[::step] for p in ((x, y), (x, math.nan))]
    far = max(x for x, _ in pairs)
    return line_chart(
        f"Depth of pixels, {name}",
        "true, m",
        "predicted, m",
        [Series("a pixel", dots, "a"), Series("equal", [(0.0, 0.0), (far, far)], "b")],
    )


def _slope(plots: Plots) -> str:
    charts = []
    for name, curves in plots.slopes.items():
        if not curves:
            continue
        logs = np.mean(curves, axis=0)
        series = [
            Series("predicted", list(zip(SCALES, np.exp(logs).tolist(), strict=True)), "a"),
            Series("true: no change", [(s, 1.0) for s in SCALES], "b"),
            Series("blind to K: 1 / scale", [(s, 1 / s) for s in SCALES], "c"),
        ]
        charts.append(
            line_chart(
                f"Depth as the focal length goes, {name}", "focal scale", "depth over that at 1", series
            )
        )
    return "".join(charts)


def _traces(trends: Mapping[str, TrendScore]) -> str:
    charts = []
    for name, found in trends.items():
        usable = found.usable
        shown = {"worst": 0, "middle": len(usable) // 2, "best": len(usable) - 1}
        taken: set[int] = set()
        for word, index in shown.items():
            if usable and index not in taken:
                taken.add(index)
                charts.append(_trace(f"{name}, {word} episode" if len(usable) > 1 else name, usable[index]))
    return "".join(charts)


def _trace(title: str, trace: Trace) -> str:
    numbers = range(1, len(trace.true_m) + 1)
    return line_chart(
        f"{title}: trend {trace.trend:.2f}, a clock {trace.clock:.2f}",
        "frame",
        "moved, m",
        [
            Series("predicted", list(zip(map(float, numbers), trace.predicted_m, strict=True)), "a"),
            Series("true", list(zip(map(float, numbers), trace.true_m, strict=True)), "b"),
        ],
    )
