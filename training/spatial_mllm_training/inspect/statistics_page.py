"""One HTML page of what a data set is made of: answers, bins, directions, cameras; knows only rows."""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import pairwise

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.evaluation.document import document
from spatial_mllm_training.multispa.rows import Row

_BINS = 24
_FEW = 12


@dataclass
class SubtaskStatistics:
    """What is counted of one subtask.

    Attributes:
        lengths: the truth's size in its unit: metres, degrees, or pixels across the image in per cent.
        signs: how often each component of a vector is positive, (3,) counts.
    """

    rows: int = 0
    lengths: array[float] = field(default_factory=lambda: array("d"))
    labels: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    scenes: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    signs: np.ndarray = field(default_factory=lambda: np.zeros(3, int))


@dataclass
class Statistics:
    """All subtasks, and what they share."""

    subtasks: dict[str, SubtaskStatistics] = field(default_factory=lambda: defaultdict(SubtaskStatistics))
    hfov_deg: array[float] = field(default_factory=lambda: array("d"))
    sources: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)


def count(rows: Iterable[Row]) -> Statistics:
    """Go through the rows once."""
    result = Statistics()
    for row in rows:
        s, kind = result.subtasks[row.question_type], tasks.get(row.question_type).kind
        s.rows += 1
        s.groups[row.spatial.group] += 1
        s.scenes[row.spatial.scene] += 1
        s.images[len(row.image)] += 1
        if row.spatial.category:
            s.categories[row.spatial.category] += 1
        if row.spatial.variant:
            s.labels[f"asked: {row.spatial.variant}"] += 1
        if kind == "label":
            s.labels[row.spatial.label] += 1
        elif kind == "coordinate":
            s.lengths.append(100 * row.spatial.truth[0] / row.spatial.size[-1][0])
        else:
            s.lengths.append(float(np.linalg.norm(row.spatial.truth)))
        if kind == "vector":
            s.signs += np.array(row.spatial.truth) > 0
        width = row.spatial.size[0][0]
        result.hfov_deg.append(math.degrees(2 * math.atan(width / 2 / row.spatial.k[0][0])))
        result.sources[row.spatial.source] += 1
        result.splits[row.spatial.split] += 1
    return result


def page(title: str, statistics: Statistics) -> str:
    """The whole page."""
    style = files("spatial_mllm_training.inspect").joinpath("pages.css").read_text(encoding="utf-8")
    order = [name for name in tasks.names() if name in statistics.subtasks]
    total = sum(s.rows for s in statistics.subtasks.values())
    scenes = {name for s in statistics.subtasks.values() for name in s.scenes}
    head = (
        f"<h1>{escape(title)}</h1><p class=lead>{total} rows of {len(order)} subtasks from {len(scenes)} scenes; "
        f"{_counted(statistics.sources)}; {_counted(statistics.splits)}.</p>"
    )
    fov = histogram("Horizontal field of view of the first image", "degrees", statistics.hfov_deg)
    cards = "".join(_section(name, statistics.subtasks[name]) for name in order)
    return document(title, f'{head}<div class="grid">{fov}</div>{cards}', style)


def _section(name: str, s: SubtaskStatistics) -> str:
    task = tasks.get(name)
    charts = []
    if s.lengths:
        what = {
            "coordinate": ("Answer across the image", "per cent of the width"),
            "angle": ("Answer", "degrees"),
        }
        charts.append(histogram(*what.get(task.kind, ("Length of the answer", "metres")), s.lengths))
    if s.labels:
        charts.append(bars("Words", s.labels))
    if any(s.groups):
        few = len(s.groups) <= _FEW
        charts.append((bars if few else columns)("Balanced by", s.groups))
    if s.categories:
        charts.append(bars("Categories", s.categories, limit=20))
    if task.max_frame_count > task.frame_count:
        charts.append(bars("Images a row", Counter({str(k): v for k, v in s.images.items()})))
    signs = ""
    if task.kind == "vector":
        words = ("right", "down", "forward")
        signs = "; ".join(f"{w} {100 * n / s.rows:.0f} %" for w, n in zip(words, s.signs, strict=True))
        signs = f" Direction: {signs}."
    return (
        f'<h2 id="{escape(name)}">{escape(name)}</h2><p class="hint">{s.rows} rows from {len(s.scenes)} scenes, '
        f'at most {max(s.scenes.values())} of one.{signs}</p><div class="grid">{"".join(charts)}</div>'
    )


def histogram(title: str, unit: str, values: Sequence[float]) -> str:
    """A figure of equal bins between the 0.5 and the 99.5 percentile, with the median marked."""
    array = np.asarray(values, float)
    low, high = np.percentile(array, (0.5, 99.5))
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(array, low, high), _BINS, (low, high))
    names = [f"{a:.3g} to {b:.3g} {unit}" for a, b in pairwise(edges)]
    median = float(np.median(array))
    at = (median - low) / (high - low) * _BINS
    mark = f'<line class="median" x1="{at:.2f}" x2="{at:.2f}" y1="0" y2="100"/>'
    ends = (f"{low:.3g}", f"median {median:.3g} {unit}", f"{high:.3g}")
    return _upright(title, list(zip(names, counts.tolist(), strict=True)), mark, ends)


def columns(title: str, counts: Counter[str]) -> str:
    """A figure of upright bars, for many groups in their natural order."""
    groups = sorted(counts.items(), key=_natural)
    smallest, largest = min(counts.values()), max(counts.values())
    ends = (groups[0][0] or "none", f"{len(groups)} groups of {smallest} to {largest}", groups[-1][0])
    return _upright(title, groups, "", ends)


def _upright(title: str, bars: Sequence[tuple[str, int]], mark: str, ends: Sequence[str]) -> str:
    top = max(*(n for _, n in bars), 1)
    rects = "".join(
        f'<rect x="{i}" y="{100 - 100 * n / top:.1f}" width="0.86" height="{100 * n / top:.1f}">'
        f"<title>{escape(name)}: {n}</title></rect>"
        for i, (name, n) in enumerate(bars)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption><svg class="bars" '
        f'viewBox="0 0 {len(bars)} 100" preserveAspectRatio="none">{rects}{mark}</svg>'
        f'<p class="ends">{"".join(f"<span>{escape(end)}</span>" for end in ends)}</p></figure>'
    )


def bars(title: str, counts: Counter[str], limit: int = 12) -> str:
    """A figure of one bar per word; a long tail is summed up."""
    shown = sorted(counts.items(), key=_natural) if len(counts) <= limit else counts.most_common(limit)
    rest = sum(counts.values()) - sum(n for _, n in shown)
    top = max(n for _, n in shown)
    lines = "".join(
        f'<li><span>{escape(word) or "none"}</span><i style="width:{40 * n / top:.1f}%"></i><b>{n}</b></li>'
        for word, n in shown
    )
    more = f"<li><span>others</span><b>{rest}</b></li>" if rest else ""
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<ul class="words">{lines}{more}</ul></figure>'
    )


def _natural(item: tuple[str, int]) -> list[tuple[int, float, str]]:
    """Order of words with numbers in them: overlap 9 % before overlap 10 %."""
    parts = []
    for part in item[0].replace("-", " ").split():
        try:
            parts.append((0, float(part), ""))
        except ValueError:
            parts.append((1, 0.0, part))
    return parts


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counter.most_common())
