"""Averages against hand arithmetic and the paper's table 2, standard errors against resampling."""

from __future__ import annotations

import math

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.benchmark import means

PUBLISHED = {
    # table 2 of the MultiSPA paper, column Multi-SpatialMLLM; its average row says 56.11
    "depth_comparison": 74.00,
    "depth_value": 75.33,
    "correspondence_coordinate": 49.00,
    "correspondence_mcq": 90.00,
    "camera_orientation_direction": 90.83,
    "camera_orientation_degree": 45.50,
    "camera_translation_direction": 85.89,
    "camera_translation_distance": 42.33,
    "camera_translation_vector": 18.00,
    "object_movement_distance": 40.42,
    "object_movement_vector": 12.92,
    "object_size": 49.11,
}
INTERNVL_8B = (49.50, 3.34, 1.67, 33.33, 48.17, 3.34, 52.33, 14.33, 0.33, 8.84, 2.50, 27.45)


@pytest.mark.parametrize(
    ("groups", "average"),
    [(PUBLISHED, 56.11), (dict(zip(PUBLISHED, INTERNVL_8B, strict=True)), 20.43)],
)
def test_group_mean_reproduces_the_average_row_of_table_2(groups, average):
    subtasks = {name: groups[group] for group, members in GROUPS.items() for name in members}
    found = means.weighted(subtasks, means.headline_weights(tasks.names()))
    assert found == pytest.approx(average, abs=0.006)


def test_task_mean_of_the_same_table_is_another_number():
    subtasks = {name: PUBLISHED[group] for group, members in GROUPS.items() for name in members}
    by_hand = sum(PUBLISHED[g] * len(m) for g, m in GROUPS.items()) / 26
    found = means.weighted(subtasks, means.task_weights(tasks.names()))
    assert found == pytest.approx(by_hand)
    assert abs(found - 56.11) > 1


def test_groups_are_the_12_of_the_paper_and_hold_every_subtask_once():
    assert tuple(GROUPS) == tuple(PUBLISHED)
    members = [name for group in GROUPS.values() for name in group]
    assert sorted(members) == sorted(tasks.names())
    assert len(members) == 26


def test_weights_sum_to_one_and_leave_out_what_has_no_rows():
    counted = ["yaw_angle", "x_movement", "y_movement"]
    weights = means.headline_weights(counted)
    assert weights == pytest.approx({"yaw_angle": 1 / 2, "x_movement": 1 / 4, "y_movement": 1 / 4})
    assert means.group_weights("object_size", counted) == {}
    assert sum(means.headline_weights(tasks.names()).values()) == pytest.approx(1)


def test_figure_by_hand():
    # yaw_angle: 3 of 4, x_movement: 1 of 2; two scenes
    rows = means.Rows(["yaw_angle"] * 4 + ["x_movement"] * 2, ["a", "a", "b", "b", "a", "b"])
    right = np.array([1, 1, 1, 0, 1, 0], bool)
    figure = rows.figure(right, {"yaw_angle": 0.5, "x_movement": 0.5})
    assert figure.percent == pytest.approx(62.5)
    assert figure.standard_error == pytest.approx(100 * math.sqrt(0.25 * (0.75 * 0.25 / 4 + 0.25 / 2)))
    # scene a: 0.5 * (2 * 0.25) / 4 + 0.5 * 0.5 / 2 = 0.1875, scene b the negative; 2 / 1 * 2 * 0.1875^2
    assert figure.scene_error == pytest.approx(100 * math.sqrt(2 * 2 * 0.1875**2))
    assert figure.n == 6


def test_one_scene_has_no_error_by_scene():
    figure = means.Rows(["yaw_angle"] * 3, ["a"] * 3).figure(np.array([1, 0, 1], bool), {"yaw_angle": 1.0})
    assert math.isnan(figure.scene_error)
    assert figure.standard_error == pytest.approx(100 * math.sqrt(2 / 3 / 3 / 3))


@pytest.fixture(scope="module")
def clustered():
    """Verdicts of 26 subtasks in 60 scenes of different difficulty."""
    rng = np.random.default_rng(3)
    scenes = rng.integers(60, size=26 * 40)
    subtasks = np.repeat(tasks.names(), 40)
    ease = rng.beta(2, 2, 60)
    right = rng.random(len(scenes)) < ease[scenes]
    return subtasks, scenes, right


def _mean(subtasks, right, weights):
    return 100 * sum(w * right[subtasks == name].mean() for name, w in weights.items())


def test_binomial_error_agrees_with_drawing_rows_anew(clustered):
    subtasks, scenes, right = clustered
    weights = means.headline_weights(tasks.names())
    figure = means.Rows(list(subtasks), [str(s) for s in scenes]).figure(right, weights)
    assert figure.percent == pytest.approx(_mean(subtasks, right, weights))
    rng = np.random.default_rng(0)
    blocks = np.array([np.flatnonzero(subtasks == name) for name in tasks.names()])
    drawn = []
    for _ in range(1500):
        picks = np.take_along_axis(blocks, rng.integers(40, size=blocks.shape), axis=1)
        drawn.append(100 * np.dot(right[picks].mean(axis=1), [weights[n] for n in tasks.names()]))
    assert figure.standard_error == pytest.approx(np.std(drawn), rel=0.07)


def test_scene_error_agrees_with_drawing_scenes_anew_and_is_larger(clustered):
    subtasks, scenes, right = clustered
    weights = means.headline_weights(tasks.names())
    figure = means.Rows(list(subtasks), [str(s) for s in scenes]).figure(right, weights)
    order = {name: i for i, name in enumerate(tasks.names())}
    number = np.array([order[name] for name in subtasks])
    totals, hits = np.zeros((60, 26)), np.zeros((60, 26))
    np.add.at(totals, (scenes, number), 1)
    np.add.at(hits, (scenes, number), right)
    rng = np.random.default_rng(0)
    w = np.array([weights[name] for name in tasks.names()])
    drawn = []
    for _ in range(3000):
        counts = np.bincount(rng.integers(60, size=60), minlength=60)
        drawn.append(100 * w @ ((counts @ hits) / (counts @ totals)))
    assert figure.scene_error == pytest.approx(np.std(drawn), rel=0.08)
    assert figure.scene_error > 1.5 * figure.standard_error


def test_errors_of_a_paired_difference_agree_with_drawing_scenes_anew(clustered):
    subtasks, scenes, right = clustered
    other = np.roll(right, 26 * 7)
    difference = right.astype(np.int64) - other
    rows = means.Rows(list(subtasks), [str(s) for s in scenes])
    weights = means.task_weights(tasks.names())
    figure = rows.figure(difference, weights)
    assert figure.percent == pytest.approx(
        rows.figure(right, weights).percent - rows.figure(other, weights).percent
    )
    assert figure.standard_error == pytest.approx(
        100 * math.sqrt(sum(difference[subtasks == n].var() / 40 for n in tasks.names())) / 26
    )
    rng = np.random.default_rng(1)
    sums, counts = np.zeros((60, 26)), np.zeros((60, 26))
    number = np.repeat(np.arange(26), 40)
    np.add.at(sums, (scenes, number), difference)
    np.add.at(counts, (scenes, number), 1)
    drawn = []
    for _ in range(3000):
        times = np.bincount(rng.integers(60, size=60), minlength=60)
        drawn.append(100 * ((times @ sums) / (times @ counts)).mean())
    assert figure.scene_error == pytest.approx(np.std(drawn), rel=0.08)
