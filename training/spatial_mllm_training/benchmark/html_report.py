"""A score as one HTML file with everything inside: bars with errors and blind marks, and every figure.

It loads nothing from anywhere and has no script; colours and type are those of the core's report.
"""

from __future__ import annotations

import math
from html import escape
from importlib.resources import files
from pathlib import Path

from spatial_mllm_core.evaluation.document import document
from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark.means import Figure
from spatial_mllm_training.benchmark.scoring import Columns, Score, SubtaskScore, group_title
from spatial_mllm_training.benchmark.text_report import group_mean_name, served_mean_name, task_mean_name

_TICKS = (0, 25, 50, 75, 100)
_SCALE = 10.0  # SVG units per point of accuracy


def page(score: Score) -> str:
    """The whole page as text."""
    style = files("spatial_mllm_core.evaluation").joinpath("report.css").read_text(encoding="utf-8")
    style += Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    body = "".join((_head(score), _cards(score), _notes(score), _bars(score), _table(score), _explanation()))
    return document(f"{score.model} · MultiSPA", body, style)


def _head(score: Score) -> str:
    return (
        f'<header><p class="kicker">MultiSPA benchmark</p><h1>{escape(score.model)}</h1>'
        f'<p class="lead">{escape(summary(score))}</p>'
        f'<p class="meta">data <b>{escape(score.data)}</b> · {score.rows} rows of {score.scenes} scenes</p></header>'
    )


def summary(score: Score) -> str:
    """What the figures say, in two sentences for a person."""
    robust, above = score.group_mean.robust, score.above_blind
    said = f"{robust.percent:.1f}% of the answers are right (mean of {_groups(score)})."
    if above is None:
        return f"{said} There is no blind baseline to compare with."
    error = above.standard_error if math.isnan(above.scene_error) else above.scene_error
    amount = f"{abs(above.percent):.1f} ± {error:.1f} points"
    if abs(above.percent) <= 2 * error:
        return f"{said} Answers from the words alone give as much, within two standard errors ({amount})."
    side = "above" if above.percent > 0 else "below"
    return f"{said} That is {amount} {side} answers from the words alone, which see no image."


def _groups(score: Score) -> str:
    return "the 12 groups" if score.group_count == 12 else f"{score.group_count} of the 12 groups"


def _cards(score: Score) -> str:
    mean, subtasks = score.group_mean, score.task_mean
    unread = sum(s.unparsable for s in score.subtasks)
    cards = [
        _card(group_mean_name(score).capitalize(), f"{mean.robust.percent:.2f}", _errors(mean.robust)),
        _card(task_mean_name(score).capitalize(), f"{subtasks.robust.percent:.2f}", _errors(subtasks.robust)),
        _card(
            "Strict extraction", f"{mean.strict.percent:.2f}", "the same mean of groups, published expression"
        ),
    ]
    if mean.blind is not None:
        cards.append(_card("Blind baseline", f"{mean.blind.percent:.2f}", "the same mean, no image seen"))
    if score.served_mean is not None:
        served = score.served_mean.robust
        cards.append(_card(served_mean_name(score).capitalize(), f"{served.percent:.2f}", _errors(served)))
    cards.append(_card("Unreadable", f"{unread}", f"answers of {score.rows}; they count as wrong"))
    return f'<section class="cards">{"".join(cards)}</section>'


def _errors(figure: Figure) -> str:
    by_scene = (
        "" if math.isnan(figure.scene_error) else f", ± {figure.scene_error:.2f} with whole scenes as units"
    )
    return f"± {figure.standard_error:.2f} standard error{by_scene}"


def _card(name: str, value: str, words: str) -> str:
    return f'<div class="card"><h3>{escape(name)}</h3><b>{escape(value)}</b><p>{escape(words)}</p></div>'


def _notes(score: Score) -> str:
    if not score.notes:
        return ""
    return (
        f'<section class="notes"><ul>{"".join(f"<li>{escape(n)}</li>" for n in score.notes)}</ul></section>'
    )


def _bars(score: Score) -> str:
    lines = []
    for group, members in GROUPS.items():
        is_served = any(score.subtask(name).is_served for name in members)
        lines.append(_bar(group_title(group), score.groups[group], is_served=is_served))
        if len(members) > 1:
            lines += [
                _bar(
                    name, score.subtask(name).columns, is_member=True, is_served=score.subtask(name).is_served
                )
                for name in members
            ]
    ticks = "".join(f'<span style="left:{t}%">{t}</span>' for t in _TICKS)
    marks = [
        '<li><i class="fill"></i>accuracy, %</li>',
        '<li><i class="whisker"></i>± 1 standard error</li>',
    ]
    if score.group_mean.blind is not None:
        marks.append('<li><i class="tick"></i>blind baseline</li>')
    return (
        f'<section><h2>Groups</h2><div class="bars"><ul class="legend">{"".join(marks)}</ul>{"".join(lines)}'
        f'<div class="axis"><div>{ticks}</div></div></div></section>'
    )


def _bar(name: str, columns: Columns | None, *, is_member: bool = False, is_served: bool = True) -> str:
    kind = "line1 member" if is_member else "line1"
    if columns is None:
        return (
            f'<div class="{kind}"><span class="name">{escape(name)}</span><span></span>'
            '<span class="value">no rows</span></div>'
        )
    robust, blind = columns.robust, columns.blind
    low, high = (
        min(max(robust.percent + sign * robust.standard_error, 0.0), 100.0) * _SCALE for sign in (-1, 1)
    )
    grid = "".join(
        f'<line class="gridline" x1="{t * _SCALE:g}" x2="{t * _SCALE:g}" y1="0" y2="20"/>' for t in _TICKS
    )
    mark = ""
    against = ""
    if blind is not None:
        x = blind.percent * _SCALE
        mark = f'<line class="blind" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="20"/>'
        against = f", blind {blind.percent:.1f}"
    value = f"{robust.percent:.1f} <small>± {robust.standard_error:.1f}</small>"
    if not is_served:
        value = "<i>not served</i>"
    words = f"{name}: {robust.percent:.1f} ± {robust.standard_error:.1f}{against}"
    return (
        f'<div class="{kind}"><span class="name">{escape(name)}</span>'
        f'<svg viewBox="0 0 {100 * _SCALE:g} 20" preserveAspectRatio="none" role="img" aria-label="{escape(words)}">'
        f'<rect class="track" width="{100 * _SCALE:g}" height="20"/>{grid}'
        f'<rect class="bar1" y="3" width="{robust.percent * _SCALE:.1f}" height="14"/>'
        f'<line class="whisk" x1="{low:.1f}" x2="{high:.1f}" y1="10" y2="10"/>{mark}</svg>'
        f'<span class="value">{value}</span></div>'
    )


def _table(score: Score) -> str:
    rows = []
    for group, members in GROUPS.items():
        rows.append(f'<tr class="grouphead">{_cells(group_title(group), score.groups[group], None)}</tr>')
        rows += [
            f"<tr>{_cells(name, score.subtask(name).columns, score.subtask(name))}</tr>" for name in members
        ]
    head = "".join(
        f"<th{'' if name in ('Subtask', 'Blind rule') else ' class=number'}>{name}</th>" for name in _HEAD
    )
    return (
        '<section><h2>All subtasks</h2><div class="scroll"><table><thead>'
        f"<tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></section>"
    )


_HEAD = (
    "Subtask",
    "Robust",
    "± SE",
    "By scene",
    "Strict",
    "Blind",
    "Rows",
    "Unread",
    "Missing",
    "Blind rule",
)


def _cells(name: str, columns: Columns | None, subtask: SubtaskScore | None) -> str:
    title = escape(name)
    if subtask is not None and not subtask.is_served:
        title += '<small class="fault">not served</small>'
    values = ["no rows", *[""] * 5]
    if columns is not None:
        robust = columns.robust
        values = [
            f"{robust.percent:.1f}",
            f"{robust.standard_error:.1f}",
            "–" if math.isnan(robust.scene_error) else f"{robust.scene_error:.1f}",
            f"{columns.strict.percent:.1f}",
            "–" if columns.blind is None else f"{columns.blind.percent:.1f}",
            f"{robust.n}",
        ]
    rule = ""
    if subtask is None:
        values += ["", ""]
    else:
        values += [f"{subtask.unparsable}", f"{subtask.missing}"]
        rule = escape(subtask.blind_rule)
    cells = "".join(
        f'<td class="number" data-name="{head}">{value}</td>'
        for head, value in zip(_HEAD[1:-1], values, strict=True)
    )
    return f'<td data-name="Subtask">{title}</td>{cells}<td class="rule" data-name="Blind rule">{rule}</td>'


def _explanation() -> str:
    return (
        "<section class=explain><h2>How to read this</h2><dl>"
        "<dt>Right</dt><dd>A number or vector within 20% of the truth's length, a coordinate within 5% of the image "
        "width (in pixels), a word, letter or compared point exactly: the published rules.</dd>"
        "<dt>Mean of the 12 groups</dt><dd>A group is the mean of its subtasks; the headline is the mean of the "
        "groups, as in table 2 of the MultiSPA paper. It is not the mean of the 26 subtasks.</dd>"
        "<dt>Robust and strict</dt><dd>Robust reads answers as models write them (units, no backticks); strict "
        "reads only a value in backticks, as published.</dd>"
        "<dt>Blind</dt><dd>The best constant or simple rule that sees no image, learnt on training rows. A "
        "figure at its mark shows no sight.</dd>"
        "<dt>Standard errors</dt><dd>± SE takes all rows as independent. By scene takes whole scenes as units, since "
        "rows of a scene share its images; it is the one to trust.</dd></dl></section>"
    )
