"""Trends against scipy, with ties and constants; a bundle's trace against the answers it gives when asked."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.tasks.object_motion import OBJECT_DISTANCE
from spatial_mllm_training.score import episodes
from spatial_mllm_training.score.trend import Trace, TrendScore, figure, follows, judge
from spatial_mllm_training.sources.object_motion import find_scenes

ROOT = Path(__file__).parents[3]
BUNDLE = ROOT / "models" / "spatial-mllm-mini"


def test_the_trend_is_scipys_with_ties():
    rng = np.random.default_rng(0)
    true, told = rng.normal(size=30), rng.integers(0, 5, 30).astype(float)
    assert follows(told, true) == pytest.approx(spearmanr(told, true).statistic)
    told[3] = np.nan
    kept = np.isfinite(told)
    assert follows(told, true) == pytest.approx(spearmanr(told[kept], true[kept]).statistic)


def test_one_answer_throughout_follows_nothing():
    assert follows([0.1] * 5, [1, 2, 3, 4, 5]) == 0.0
    assert math.isnan(follows([0.1, np.nan], [1, 2]))


def _trace(trend: float, clock: float = 0.2, told: tuple[float, ...] = (1.0, 2.0)) -> Trace:
    return Trace("e", (0.1, 0.2), told, trend, clock, 0.03)


def test_the_figure_is_the_median_with_the_spread_beside_it():
    trends = [0.95, 0.1, 0.92, 0.97, 0.9]
    line = figure(TrendScore([_trace(t) for t in trends]), "k", "here", has_goal=True)
    assert line.value == 0.92 and line.verdict == "met" and line.of_words == "5 episodes"
    assert line.blind == pytest.approx(0.2) and line.blind_name == "a clock"
    assert 0 < line.standard_error < 0.4
    assert "from 0.10 to 0.97" in line.note and "10 of 10 frames judged" in line.note


def test_constant_and_unjudged_episodes_are_told():
    constant = _trace(0.0, told=(0.5, 0.5))
    silent = Trace("s", (0.1, 0.2), (math.nan, math.nan), math.nan, 0.1, math.nan, "not trained for it")
    line = figure(TrendScore([constant, silent]), "k", "here", has_goal=True)
    assert line.value == 0.0 and line.count == 1
    assert "2 of 4 frames judged" in line.note and "1 with one and the same answer" in line.note
    nothing = figure(TrendScore([silent]), "k", "here", has_goal=True)
    assert nothing.verdict == "not measured" and nothing.note == "not trained for it"


@pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")
def test_a_bundle_is_asked_as_the_reward_asks():
    model = SpatialModel.load(BUNDLE)
    episode = next(episodes.each(find_scenes(ROOT / "tests/fixtures/dvrk")))
    (trace,) = judge(model, [episode]).traces
    assert trace.true_m == pytest.approx(episode.distance_m[1:], nan_ok=True)
    for number in (1, len(episode.frames) - 1):
        request = AskRequest(
            OBJECT_DISTANCE[False].name, (episode.frames[0], episode.frames[number]), (episode.point_px,)
        )
        try:
            said = model.ask(request).values[0]
        except SpatialError:
            said = math.nan
        assert trace.predicted_m[number - 1] == pytest.approx(said, nan_ok=True)
    assert trace.trend == follows(trace.predicted_m, trace.true_m)
    assert trace.clock == pytest.approx(follows(range(len(trace.true_m)), trace.true_m))


@pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")
def test_a_point_that_left_the_image_costs_its_episode_alone():
    model = SpatialModel.load(BUNDLE)
    episode = next(episodes.each(find_scenes(ROOT / "tests/fixtures/dvrk")))
    (trace,) = judge(model, [dataclasses.replace(episode, point_px=(-2.0, 5.0))]).traces
    assert trace.judged == 0 and math.isnan(trace.trend) and "outside" in trace.fault
    assert math.isfinite(trace.clock)
