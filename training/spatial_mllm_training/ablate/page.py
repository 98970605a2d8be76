"""The table of an experiment as one HTML file: bars with seeds, errors and blind marks. It has no script."""

from __future__ import annotations

import math
from html import escape
from importlib.resources import files

from spatial_mllm_core.evaluation.document import document
from spatial_mllm_training.ablate.report import Cell, Panel, Report, number

_WIDTH = 1000.0
_STYLE = """
.seed { fill: var(--ink); opacity: .75; }
.bars .legend .one { width: 4px; height: 8px; margin: 0 12px 0 6px; background: var(--ink); opacity: .75; }
.zero { stroke: var(--soft); stroke-width: 1; vector-effect: non-scaling-stroke; }
.line1 small.words { display: block; font-weight: 400; color: var(--soft); }
"""


def page(found: Report) -> str:
    """The whole page as text."""
    style = files("spatial_mllm_core.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    style += files("spatial_mllm_training.benchmark").joinpath("page.css").read_text(encoding="utf-8")
    notes = "".join(f"<li>{escape(n)}</li>" for n in found.notes)
    body = (
        f'<header><p class="kicker">Experiment</p><h1>{escape(found.title)}</h1>'
        f'<p class="lead">{escape(found.settings)}</p></header>'
        + (f'<section class="notes"><ul>{notes}</ul></section>' if notes else "")
        + "".join(map(_panel, found.panels))
        + _table(found)
        + "<section class=explain><h2>Published</h2><ul>"
        + "".join(f"<li>{escape(p)}</li>" for p in found.published)
        + "</ul></section>"
    )
    return document(found.title, body, style + _STYLE)


def limits(panel: Panel) -> tuple[float, float]:
    """(lowest, highest) value of a panel's axis: 0, all seeds, errors and blind marks lie within."""
    shown = [0.0]
    for cell in panel.cells:
        error = 0.0 if math.isnan(cell.error) else cell.error
        shown += [*cell.mean.values, cell.mean.mean - error, cell.mean.mean + error]
        shown += [] if cell.blind is None else [cell.blind]
    low, high = min(shown), max(shown)
    return (low, high) if high > low else (low, low + 1.0)


def _panel(panel: Panel) -> str:
    low, high = limits(panel)
    unit = f", {panel.column.unit}" if panel.column.unit else ""
    marks = [
        '<li><i class="fill"></i>mean over seeds</li>',
        '<li><i class="whisker"></i>± 1 standard error</li>',
        '<li><i class="one"></i>one seed</li>',
    ]
    if any(cell.blind is not None for cell in panel.cells):
        marks.append('<li><i class="tick"></i>blind baseline</li>')
    bars = "".join(_bar(panel, cell, low, high) for cell in panel.cells)
    digits, title = panel.column.digits, panel.column.title
    ends = "".join(
        f'<span style="left:{100 * (v - low) / (high - low):.1f}%">{number(v, digits)}</span>'
        for v in sorted({low, 0.0, high})
    )
    return (
        f"<section><h2>{escape(title[0].upper() + title[1:] + unit)} · {escape(panel.test)}</h2>"
        f'<div class="bars"><ul class="legend">{"".join(marks)}</ul>{bars}'
        f'<div class="axis"><div>{ends}</div></div></div></section>'
    )


def _bar(panel: Panel, cell: Cell, low: float, high: float) -> str:
    def x(value: float) -> float:
        return _WIDTH * (value - low) / (high - low)

    digits, mean = panel.column.digits, cell.mean.mean
    left, right = sorted((x(0.0), x(mean)))
    parts = [
        f'<rect class="track" width="{_WIDTH:g}" height="20"/>',
        f'<rect class="bar1" x="{left:.1f}" y="3" width="{right - left:.1f}" height="14"/>',
        f'<line class="zero" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="0" y2="20"/>',
        # the picture is stretched sideways: a seed is a narrow box, not a circle
        *(
            f'<rect class="seed" x="{x(v) - 2:.1f}" y="7" width="4" height="6" rx="2"/>'
            for v in cell.mean.values
        ),
    ]
    if not math.isnan(cell.error):
        ends = f'x1="{x(mean - cell.error):.1f}" x2="{x(mean + cell.error):.1f}"'
        parts.append(f'<line class="whisk" {ends} y1="10" y2="10"/>')
    if cell.blind is not None:
        parts.append(
            f'<line class="blind" x1="{x(cell.blind):.1f}" x2="{x(cell.blind):.1f}" y1="0" y2="20"/>'
        )
    label = f"{cell.arm}: {number(mean, digits)} ± {number(cell.error, digits)}"
    return (
        f'<div class="line1"><span class="name">{escape(cell.arm)}<small class="words">{escape(cell.words)}</small>'
        f'</span><svg viewBox="0 0 {_WIDTH:g} 20" preserveAspectRatio="none" role="img" aria-label="{escape(label)}">'
        f'{"".join(parts)}</svg><span class="value">{number(mean, digits)} '
        f"<small>± {number(cell.error, digits)}</small></span></div>"
    )


_HEAD = ("Cameras", "Figure", "Arm", "Mean", "± SE", "Blind", "Less first arm", "± SE ", "Seeds")


def _table(found: Report) -> str:
    rows = []
    for panel in found.panels:
        digits = panel.column.digits
        for cell in panel.cells:
            against = cell.against_first
            values = (
                panel.test,
                panel.column.title,
                cell.arm,
                number(cell.mean.mean, digits),
                number(cell.error, digits),
                number(cell.blind, digits),
                number(against and against.mean, digits, sign=True),
                number(against and against.standard_error, digits),
                " ".join(number(v, digits) for v in cell.mean.values),
            )
            rows.append(
                "<tr>"
                + "".join(
                    f'<td{" class=number" if i > 2 else ""} data-name="{name}">{escape(value)}</td>'
                    for i, (name, value) in enumerate(zip(_HEAD, values, strict=True))
                )
                + "</tr>"
            )
    head = "".join(f"<th{' class=number' if i > 2 else ''}>{h}</th>" for i, h in enumerate(_HEAD))
    return (
        '<section><h2>All figures</h2><div class="scroll"><table><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )
