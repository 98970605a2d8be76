"""The page holds every figure and curve, and a run folder gives its learning curve."""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser

import numpy as np
import pytest

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.focal import SCALES
from spatial_mllm_training.export.record import ABS_REL, Measured
from spatial_mllm_training.score.page import Plots, page, read_learning
from spatial_mllm_training.score.trend import Trace, TrendScore


class _Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.text, self.lines = [], 0

    def handle_starttag(self, tag, attrs):
        self.lines += tag == "polyline"

    def handle_data(self, data):
        self.text.append(data)


def _read(text: str) -> _Seen:
    seen = _Seen()
    seen.feed(text)
    return seen


def test_every_figure_and_curve_is_there():
    lines = [
        Measured(
            "a", "dense <depth>", "real & near", 0.5, 0.02, 0.7, "map", 9, "images", 3, ABS_REL, note="wide"
        ),
        Measured("b", "trend", "x", math.nan, note="why"),
    ]
    trace = Trace("e", (0.1, 0.2, 0.1), (0.1, math.nan, 0.1), 0.5, 0.1, 0.01)
    plots = Plots(
        learning=[(10.0, 0.5), (20.0, 0.3)],
        pairs={"held out": [(1.0, 1.1), (2.0, 2.2)]},
        slopes={"held out": [np.zeros(len(SCALES))]},
        trends={"pushes": TrendScore([trace, trace, trace])},
    )
    text = page("m/1", lines, plots, ["one scene <broken>"])
    seen = _read(text)
    words = " ".join(seen.text)
    assert "dense <depth>" in words and "real & near" in words and "one scene <broken>" in words
    for said in (
        "0.500 ± 0.020",
        "0.700",
        "at most 0.08",
        "missed by 0.420",
        "9 images, 3 scenes",
        "not measured",
    ):
        assert said in words
    # learning 1; two pixels and the diagonal; three curves of the slope; 3 episodes: 2 parts of a curve and a truth
    assert seen.lines == 1 + 3 + 3 + 3 * 3
    assert "http" not in text.replace("http://www.w3.org", "")


def test_a_page_of_nothing_but_a_table_is_whole():
    assert _read(page("m/1", [Measured("a", "w", "o", 0.5)], Plots(), [])).lines == 0


def test_the_learning_curve_counts_samples_where_the_run_has_ended(tmp_path):
    records = [
        {"step": 5, "loss": 1.0},
        {"step": 5, "held_out/abs_rel": 0.4},
        {"step": 9, "held_out/abs_rel": 0.3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    assert read_learning(tmp_path) == ([(5.0, 0.4), (9.0, 0.3)], "steps")
    (tmp_path / "final.json").write_text(json.dumps({"step": 10, "samples": 80}))
    assert read_learning(tmp_path) == ([(40.0, 0.4), (72.0, 0.3)], "samples")


@pytest.mark.parametrize("text", [None, "{", '{"held_out/abs_rel": 1}'])
def test_a_folder_without_one_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    with pytest.raises(SpatialError, match="no learning curve") as fault:
        read_learning(tmp_path)
    assert str(tmp_path) in fault.value.sentence
