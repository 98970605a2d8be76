"""The page stands alone, says what the figures say, and shows no raw markup from outside."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.chart import Series, line_chart
from spatial_mllm_core.evaluation.colours import depth_scale, round_ticks
from spatial_mllm_core.evaluation.metrics import DepthError
from spatial_mllm_core.evaluation.report import page, write_report
from spatial_mllm_core.evaluation.results import (
    Evaluation,
    FrameFigures,
    FramePictures,
    QuestionRow,
    ReplayVerdict,
    RewardPoint,
)
from spatial_mllm_core.files import write_atomically


def full() -> Evaluation:
    error = DepthError(0.123, 0.876, 0.45, 1.0, 1000, 1.0, 3)
    depth = np.linspace(0.5, 3, 48 * 64, dtype=np.float32).reshape(48, 64)
    image = np.zeros((48, 64, 3), np.uint8)
    return Evaluation(
        bag="my bag <script>",
        model="mini/1",
        frames_in=10,
        frames_answered=9,
        duration_s=2.0,
        frames=[FrameFigures(0, 0.0, error, error), FrameFigures(1, 0.1, None, None)],
        depth=error,
        aligned=error,
        rewards=[
            RewardPoint(0, 0.0, 0.0, 0.0, 0.0, 0.0),
            RewardPoint(1, 0.1, 0.2, 0.25, 0.8, 0.1),
            RewardPoint(2, 0.2, math.nan, 0.3, math.nan, math.nan),
        ],
        trend=0.91,
        questions=[
            QuestionRow(0, "t", "How <b>deep</b>?", "1.2 m", "1.3 m", True, 0.5, 0.01),
            QuestionRow(0, "t", "q2", "", "", None, 0.0, 0.0, fault="E506 <img src=x>"),
        ],
        replay=ReplayVerdict(9, 2, 3),
        pictures=[FramePictures(0, 0.0, image, depth, depth, depth / 3, (5.0, 6.0))],
        notes=["a note & more"],
    )


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [v or "" for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]


def test_page_loads_nothing_and_escapes_everything() -> None:
    html = page(full())
    parser = _Links()
    parser.feed(html)
    assert not {"script", "link", "iframe", "b>deep"} & set(parser.tags)
    assert parser.targets
    assert all(t.startswith("data:image/") for t in parser.targets)
    assert "url(" not in html
    assert "@import" not in html
    assert "&lt;script&gt;" in html
    assert "How &lt;b&gt;deep" in html
    assert "<img src=x>" not in html


def test_page_says_the_figures() -> None:
    html = page(full())
    text = re.sub(r"<[^>]+>", " ", html)
    for words in (
        "0.123",
        "87.6%",
        "answered of 10, 1 dropped",
        "0.91",
        "equal",
        "a note &amp; more",
        "1 of 1 questions",
    ):
        assert words in text
    assert "1 of 3 images could not be judged" in text


def test_page_of_nothing_is_a_page() -> None:
    html = page(Evaluation(bag="empty", model="m"))
    assert "No frame could be judged" in html
    assert "<h2>Depth" not in html


def test_page_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_report(target, Evaluation(bag="one", model="m"))
    write_report(target, Evaluation(bag="two", model="m"))
    assert "two" in target.read_text()
    assert [f.name for f in tmp_path.iterdir()] == ["report.html"]


def test_write_atomically_refuses_what_exists(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a/b.txt", b"1")
    with pytest.raises(SpatialError) as caught:
        write_atomically(tmp_path / "a/b.txt", b"2")
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    assert (tmp_path / "a/b.txt").read_bytes() == b"1"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_json_has_no_nan() -> None:
    text = full().to_json()
    assert "NaN" not in text
    assert '"true_m": 0.3' in text
    assert "pictures" not in text


def test_scale_paints_near_red_far_blue_and_missing_grey() -> None:
    scale = depth_scale([np.array([[0.5, 4.0, np.nan, 0.0]])])
    assert scale.low <= 0.5
    assert scale.high >= 4
    red, blue, grey, _ = scale.paint(np.array([[0.5, 4.0, np.nan, 0.0]]))[0].astype(int)
    assert red[0] > red[2]
    assert blue[2] > blue[0]
    assert grey.tolist() == [70, 74, 82]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.4, 4.2, [1, 2, 3, 4]),
        (-0.3, 0.3, [-0.2, 0, 0.2]),
        (1, 1, [1]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert round_ticks(low, high, 5) == pytest.approx(ticks)


def test_chart_leaves_a_gap_for_nan_and_draws_a_lone_point() -> None:
    chart = line_chart("t", "x", "y", [Series("s", [(0, 0), (1, 1), (2, math.nan), (3, 1)])])
    assert chart.count("<polyline") == 2
    assert line_chart("t", "x", "y", [Series("s", [(0, math.nan)])]) == ""
    assert "nan" not in line_chart("t", "x", "y", [Series("s", [(0, 5), (1, 5)])])


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ([(0.1, math.nan), (0.2, math.nan)], "true displacement is unknown"),
        ([(math.nan, 0.1), (math.nan, 0.2)], "no image could be judged"),
        ([(0.1, 0.1), (0.1, 0.2)], "predicted displacement never changes"),
        ([(0.1, 0.1), (0.2, 0.1)], "true displacement never changes"),
    ],
)
def test_absent_trend_says_why(pairs: list[tuple[float, float]], words: str) -> None:
    rewards = [RewardPoint(i, i / 10, p, t, 0, 0) for i, (p, t) in enumerate(pairs)]
    evaluation = Evaluation(bag="b", model="m", rewards=rewards)
    assert words in evaluation.trend_words
    assert words in page(evaluation)
