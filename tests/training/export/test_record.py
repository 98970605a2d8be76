"""Goals to both sides, errors by scene against scipy, and the record there and back."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from spatial_mllm_training.export.record import Goal, Measured, over_scenes


@pytest.mark.parametrize(
    ("kind", "limit", "value", "missed"),
    [
        ("at most", 0.08, 0.08, 0.0),
        ("at most", 0.08, 0.1, 0.02),
        ("at least", 60.0, 61.0, 0.0),
        ("at least", 60.0, 52.5, 7.5),
        ("within", 0.1, -0.09, 0.0),
        ("within", 0.1, -0.35, 0.25),
        ("within", 0.1, 0.35, 0.25),
    ],
)
def test_a_goal_says_by_how_much_it_is_missed(kind, limit, value, missed):
    goal = Goal(kind, limit)
    assert goal.missed_by(value) == pytest.approx(missed)
    verdict = Measured("k", "w", "o", value, goal=goal).verdict
    assert verdict == ("met" if not missed else f"missed by {missed:.3f}")


def test_what_was_not_measured_is_not_missed():
    assert Measured("k", "w", "o", math.nan, goal=Goal("at most", 1.0)).verdict == "not measured"
    assert Measured("k", "w", "o", 3.0).verdict == ""


def test_every_scene_weighs_the_same_and_the_error_is_scipys():
    values = {"a": [1.0, 3.0, 2.0], "b": [5.0], "c": [0.0, 1.0]}
    means = [2.0, 5.0, 0.5]
    assert over_scenes(values) == pytest.approx((np.mean(means), stats.sem(means)))
    assert math.isnan(over_scenes({"a": [1.0, 2.0]})[1])
    assert all(map(math.isnan, over_scenes({})))


def test_the_record_is_read_as_it_was_written():
    lines = [
        Measured("a", "depth", "x", 0.5, 0.1, 0.7, "map", 10, "images", 3, Goal("at most", 0.08), note="far"),
        Measured("b", "mean", "y", 12.5, unit="%", count=1, counted="questions", scenes=1),
    ]
    text = json.dumps([line.to_json() for line in lines], allow_nan=False)
    first, second = map(Measured.from_json, json.loads(text))
    assert first == lines[0]
    assert math.isnan(second.blind) and math.isnan(second.standard_error) and second.value == 12.5
    assert (first.value_words, first.of_words) == ("0.500 ± 0.100", "10 images, 3 scenes")
    assert (second.value_words, second.of_words) == ("12.5 %", "1 question, 1 scene")
    with pytest.raises(ValueError, match="measured figure"):
        Measured.from_json({"abs_rel": 0.4})
