"""Line charts as HTML: curves in SVG that stretches, labels in text that never shrinks.

Knows numbers and words, not what they mean. Label sizes are the page's, so a chart stays readable on
a phone, where an SVG with its own text would scale it down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from spatial_mllm_core.evaluation.colours import round_ticks

_W, _H = 1000.0, 400.0


@dataclass(frozen=True)
class Series:
    """One curve.

    Attributes:
        name: for the legend.
        points: (x, y); a NaN y leaves a gap.
        style: CSS class of the curve: "a", "b" or "c" (colour and dash come from the page).
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "a"


def line_chart(
    title: str, x_label: str, y_label: str, series: Sequence[Series], *, from_zero: bool = True
) -> str:
    """A <figure> with the curves, ticks, axis names and a legend; "" when there is nothing to draw."""
    finite = [(x, y) for s in series for x, y in s.points if math.isfinite(x) and math.isfinite(y)]
    if not finite:
        return ""
    x_low, x_high = _range([x for x, _ in finite], from_zero=False)
    y_low, y_high = _range([y for _, y in finite], from_zero=from_zero, margin=0.05)

    def px(x: float) -> float:
        return (x - x_low) / (x_high - x_low) * _W

    def py(y: float) -> float:
        return (1 - (y - y_low) / (y_high - y_low)) * _H

    x_ticks, y_ticks = round_ticks(x_low, x_high, 6), round_ticks(y_low, y_high, 4)
    grid = "".join(
        f'<line class="grid" x1="0" x2="{_W:g}" y1="{py(t):.1f}" y2="{py(t):.1f}"/>' for t in y_ticks
    )
    curves = "".join(_curve(s, px, py) for s in series)
    y_text = "".join(f'<span style="top:{py(t) / _H:.2%}">{_number(t)}</span>' for t in y_ticks)
    x_text = "".join(f'<span style="left:{px(t) / _W:.2%}">{_number(t)}</span>' for t in x_ticks)
    legend = "".join(f'<li><i class="line {s.style}"></i>{escape(s.name)}</li>' for s in series)
    words = f"{title}; {y_label} over {x_label}"
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><ul class="legend">{legend}</ul>'
        f'<div class="plot"><div class="ylabel">{escape(y_label)}</div><div class="yticks">{y_text}</div>'
        f'<svg viewBox="0 0 {_W:g} {_H:g}" preserveAspectRatio="none" role="img" aria-label="{escape(words)}">'
        f"{grid}{curves}</svg>"
        f'<div class="xticks">{x_text}</div><div class="xlabel">{escape(x_label)}</div></div></figure>'
    )


def _curve(series: Series, px: object, py: object) -> str:
    assert callable(px) and callable(py)
    parts: list[list[str]] = [[]]
    for x, y in series.points:
        if math.isfinite(x) and math.isfinite(y):
            parts[-1].append(f"{px(x):.1f},{py(y):.1f}")
        elif parts[-1]:
            parts.append([])
    # a lone point is drawn as a dot: a line of no length with round ends
    return "".join(
        f'<polyline class="{series.style}" points="{" ".join(part if len(part) > 1 else part * 2)}"/>'
        for part in parts
        if part
    )


def _range(values: Sequence[float], *, from_zero: bool, margin: float = 0.0) -> tuple[float, float]:
    low, high = min(values), max(values)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low < 1e-9:
        low, high = (low - 0.5, high + 0.5) if not from_zero else (low, low + 1.0)
    room = (high - low) * margin
    return (low - room if low < 0 or not from_zero else low), high + room


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.6g}".replace("-", "−")
