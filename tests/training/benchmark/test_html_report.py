"""The page: bars as long as the figures, marks where they belong, nothing from outside or unescaped."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark.blind import Asked, fit_blind
from spatial_mllm_training.benchmark.data import Predictions
from spatial_mllm_training.benchmark.html_report import page, summary
from spatial_mllm_training.benchmark.scoring import score


@pytest.fixture
def half_right(every_row):
    """A model that is right on two of three rows of each subtask, beside a blind baseline."""
    rows = every_row(6)
    texts = {r.id: r.answer for i, r in enumerate(rows) if i % 3}
    return score(
        rows, Predictions("a <b> & c", texts), fit_blind(every_row(9, split="train", seed=4)), data="<d>"
    )


def _bars(html):
    return [
        ElementTree.fromstring(svg)
        for svg in re.findall(r"<svg.*?</svg>", html)
        if "preserveAspectRatio" in svg
    ]


def test_bars_whiskers_and_blind_marks_stand_at_their_figures(half_right):
    bars = _bars(page(half_right))
    members = sum(len(m) for m in GROUPS.values() if len(m) > 1)
    assert len(bars) == 12 + members
    by_name = {bar.get("aria-label").split(":")[0]: bar for bar in bars}
    columns = half_right.groups["depth_value"]
    bar = by_name["Depth value"]
    length = float(bar.find("rect[@class='bar1']").get("width"))
    assert length == pytest.approx(10 * columns.robust.percent, abs=0.06)
    whisker = bar.find("line[@class='whisk']")
    half = (float(whisker.get("x2")) - float(whisker.get("x1"))) / 2
    assert half == pytest.approx(10 * columns.robust.standard_error, abs=0.06)
    assert float(bar.find("line[@class='blind']").get("x1")) == pytest.approx(
        10 * columns.blind.percent, abs=0.06
    )


def test_names_are_escaped_and_nothing_is_loaded(half_right):
    html = page(half_right)
    assert "a &lt;b&gt; &amp; c" in html
    assert "<b> & c" not in html
    assert "&lt;d&gt;" in html
    assert not re.search(r"<script|https?:|src=|url\(|@import", html)


def test_whiskers_stay_on_the_scale(make_row):
    rows = [make_row("x_movement", i, scene=f"s{i}") for i in range(2)]
    result = score(rows, Predictions("m", {rows[0].id: rows[0].answer}), None, data="d")
    bar = next(b for b in _bars(page(result)) if b.get("aria-label").startswith("x_movement"))
    assert result.subtask("x_movement").columns.robust.standard_error > 30
    assert float(bar.find("line[@class='whisk']").get("x1")) >= 0
    assert float(bar.find("line[@class='whisk']").get("x2")) <= 1000
    assert page(result).count("no rows") >= 11  # the other groups


def test_the_summary_says_whether_sight_shows(every_row):
    rows = every_row(10)
    blind = fit_blind(every_row(20, split="train", seed=4))
    sees = score(rows, Predictions("m", {r.id: r.answer for r in rows}), blind, data="d")
    assert "100.0% of the answers are right (mean of the 12 groups)" in summary(sees)
    assert re.search(r"That is \d+\.\d ± \d\.\d points above answers from the words alone", summary(sees))
    same = score(rows, Predictions("m", {r.id: blind.answer(Asked.of(r)) for r in rows}), blind, data="d")
    assert same.above_blind.percent == 0
    assert "as much, within two standard errors" in summary(same)
    silent = score(rows, Predictions("m", dict.fromkeys([r.id for r in rows], "?")), blind, data="d")
    assert "points below answers" in summary(silent)
    alone = score(rows, Predictions("m", {}), None, data="d")
    assert "no blind baseline" in summary(alone)
