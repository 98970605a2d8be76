"""Potentials: bounded, reached at the goal, and shaping that telescopes over an episode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.reward.potential import check_task, is_success, potential
from spatial_mllm_core.reward.task import RewardGoal, RewardTask

vectors = st.tuples(*[st.floats(-3, 3, allow_nan=False)] * 3)


def task(goal: RewardGoal, **changes) -> RewardTask:
    settings = {"distance_m": 0.3, "target_m": (0.3, 0.0, 0.1), "direction": (2.0, 0.0, 0.0), **changes}
    return RewardTask("t", (10.0, 10.0), goal, **settings)


@given(st.sampled_from(RewardGoal), vectors)
def test_progress_stays_in_the_unit_interval(goal, displacement):
    assert 0.0 <= potential(task(goal), displacement, float(np.linalg.norm(displacement))) <= 1.0


@pytest.mark.parametrize(
    ("goal", "displacement"),
    [
        (RewardGoal.MOVE_DISTANCE, (0.0, 0.3, 0.0)),
        (RewardGoal.MOVE_TO, (0.3, 0.0, 0.1)),
        (RewardGoal.MOVE_ALONG, (0.3, 1.0, 0.0)),
        (RewardGoal.KEEP_STILL, (0.0, 0.0, 0.0)),
    ],
)
def test_the_goal_has_potential_one_and_succeeds(goal, displacement):
    length = float(np.linalg.norm(displacement))
    assert potential(task(goal), displacement, length) == pytest.approx(1.0)
    assert is_success(task(goal), displacement, length)


def test_moving_the_wrong_way_along_a_direction_is_no_progress():
    assert potential(task(RewardGoal.MOVE_ALONG), (-0.2, 0.0, 0.0), 0.2) == 0.0
    assert not is_success(task(RewardGoal.MOVE_ALONG), (-0.2, 0.0, 0.0), 0.2)


@given(st.lists(st.floats(0, 0.5), min_size=2, max_size=30), st.floats(0.5, 1.0))
def test_shaping_telescopes_so_that_a_loop_pays_nothing(distances, gamma):
    move = task(RewardGoal.MOVE_DISTANCE, gamma=gamma)
    phi = [potential(move, (d, 0.0, 0.0), d) for d in distances]
    rewards = [gamma * b - a for a, b in itertools.pairwise(phi)]
    discounted = sum(r * gamma**i for i, r in enumerate(rewards))
    assert discounted == pytest.approx(gamma ** len(rewards) * phi[-1] - phi[0], abs=1e-9)


@pytest.mark.parametrize(
    "changes",
    [
        {"distance_m": float("nan")},
        {"distance_m": 0.0},
        {"distance_m": -1.0},
        {"gamma": 0.0},
        {"gamma": 1.5},
        {"tolerance_m": -0.1},
    ],
)
def test_d_numbers_that_make_no_sense_are_refused(changes):
    with pytest.raises(SpatialError) as fault:
        check_task(task(RewardGoal.MOVE_DISTANCE, **changes))
    assert fault.value.code is ErrorCode.BAD_NUMBER


@pytest.mark.parametrize(
    ("goal", "changes"),
    [
        (RewardGoal.MOVE_TO, {"target_m": (0.0, 0.0, 0.0)}),
        (RewardGoal.MOVE_ALONG, {"direction": (0.0, 0.0, 0.0)}),
    ],
)
def test_d_goals_need_their_vector(goal, changes):
    with pytest.raises(SpatialError) as fault:
        check_task(task(goal, **changes))
    assert fault.value.code is ErrorCode.BAD_NUMBER
