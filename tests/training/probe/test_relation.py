"""Quarters, rank correlation and the logistic slope against counting, scipy's statistics and scipy's optimiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from spatial_mllm_training.probe.relation import logistic_slope, quarters, rank_trend


def questions(n=600, seed=0, slope=-0.9):
    """Two types, one easy with small errors and one hard with large ones; `slope` holds within a type."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n) < 0.5
    error = np.exp(rng.normal(0, 0.5, n)) + np.where(hard, 1.5, 0)
    logit = np.where(hard, -0.5 + slope * (error - 2.5), 1.0 + slope * (error - 1.0))
    right = rng.random(n) < 1 / (1 + np.exp(-logit))
    return error, right, np.where(hard, "hard", "easy").tolist(), [f"s{i % 30}" for i in range(n)]


# -- quarters ---------------------------------------------------------------------------------------


def test_quarters_start_with_the_largest_errors_and_count_what_is_right():
    error = np.arange(40, dtype=float)
    right = np.zeros(40, bool)
    right[:10] = True  # the ten smallest errors
    right[10:14] = True
    found = quarters(error, right, [f"s{i % 4}" for i in range(40)])
    assert [(q.error_low, q.error_high) for q in found] == [(30, 39), (20, 29), (10, 19), (0, 9)]
    assert [q.accuracy.percent for q in found] == pytest.approx([0, 0, 40, 100])
    assert [q.accuracy.n for q in found] == [10] * 4
    assert found[2].accuracy.standard_error == pytest.approx(100 * np.sqrt(0.4 * 0.6 / 10))
    assert found[0].accuracy.standard_error == 0


def test_questions_of_equal_error_stay_together():
    error = np.repeat([1.0, 2.0, 3.0], [30, 5, 5])
    found = quarters(error, np.arange(40) % 2 == 0, ["a", "b"] * 20)
    # from the largest: ranks 1 to 5 and 6 to 10 lie in the first quarter, the middle of 11 to 40 in the third
    assert [(q.number, q.accuracy.n) for q in found] == [(1, 10), (3, 30)]


def test_error_by_scene_sees_that_questions_of_one_scene_answer_alike():
    scenes = [f"s{i // 20}" for i in range(160)]
    right = np.array([i // 20 % 2 == 0 for i in range(160)])
    one = quarters(np.zeros(160), right, scenes)[0].accuracy
    assert one.n == 160
    assert one.scene_error > 3 * one.standard_error


def test_quarters_within_types_hold_the_same_mixture():
    error, right, types, scenes = questions()
    found = quarters(error, right, scenes, within=types)
    plain = quarters(error, right, scenes)
    # without the control the worst quarter is nearly all of the hard type, and it shows
    assert plain[0].accuracy.percent < found[0].accuracy.percent - 5
    assert sum(q.accuracy.n for q in found) == len(error)
    assert [q.accuracy.n for q in found] == pytest.approx([len(error) / 4] * 4, abs=2)


def test_bad_errors_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        quarters([1.0, np.nan], [True, False], ["a", "b"])
    with pytest.raises(ValueError, match="2 errors for 1 verdicts"):
        quarters([1.0, 2.0], [True], ["a", "b"])
    with pytest.raises(ValueError, match="equally many"):
        logistic_slope([1.0, 2.0], [True, False], ["t"], ["a", "b"])


# -- rank correlation -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [4, 6, 12])
def test_spearman_and_its_test_equal_scipys(n):
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    y = -x + rng.normal(scale=1.0, size=n)
    y[1] = y[0]  # a tie
    found = rank_trend(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    exact = n <= 6
    theirs = stats.permutation_test(
        (x,),
        lambda a: stats.spearmanr(a, y).statistic,
        permutation_type="pairings",
        n_resamples=np.inf if exact else 4000,
        rng=1,
    )
    # scipy doubles the smaller tail; the null of ranks is symmetric, save for the tie
    assert found.p_value == pytest.approx(theirs.pvalue, abs=0.05 if exact else 0.03)


def test_a_perfect_order_of_five_checkpoints_has_the_smallest_possible_p():
    found = rank_trend([5, 4, 3, 2, 1], [10, 20, 30, 40, 50])
    assert found.rho == pytest.approx(-1)
    assert found.p_value == pytest.approx(2 / 120)


def test_a_constant_series_has_no_trend():
    found = rank_trend([1, 1, 1], [1, 2, 3])
    assert np.isnan(found.rho)
    assert np.isnan(found.p_value)


# -- logistic slope ---------------------------------------------------------------------------------


def by_scipy(error, right, types):
    """(slope, standard error) by a general optimiser and a numerical Hessian."""
    names = sorted(set(types))
    number = np.array([names.index(t) for t in types])
    y = np.asarray(right, float)

    def negative(w):
        z = w[number] + w[-1] * error
        return np.logaddexp(0, z).sum() - y @ z

    best = optimize.minimize(negative, np.zeros(len(names) + 1), method="BFGS", options={"gtol": 1e-9})
    step = 1e-4
    eye = np.eye(len(best.x)) * step
    hessian = np.array(
        [
            [
                (
                    negative(best.x + a + b)
                    - negative(best.x + a - b)
                    - negative(best.x - a + b)
                    + negative(best.x - a - b)
                )
                / (4 * step**2)
                for b in eye
            ]
            for a in eye
        ]
    )
    return best.x[-1], np.sqrt(np.linalg.inv(hessian)[-1, -1])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_slope_and_error_equal_those_of_scipys_optimiser(seed):
    error, right, types, scenes = questions(seed=seed)
    slope, deviation = by_scipy(error, right, types)
    found = logistic_slope(error, right, types, scenes)
    assert found.per_unit == pytest.approx(slope, rel=1e-4)
    assert found.standard_error == pytest.approx(deviation, rel=1e-3)
    assert found.n == len(error)
    assert abs(found.per_unit + 0.9) < 3 * found.standard_error
    assert found.per_deviation / found.per_unit == pytest.approx(
        np.sqrt(
            np.mean(
                [(e - np.mean(error[np.array(types) == t])) ** 2 for e, t in zip(error, types, strict=True)]
            )
        )
    )


def test_type_is_controlled_for():
    """No slope within a type, but hard questions stand on badly lifted images: only the control sees it."""
    error, right, types, scenes = questions(n=2000, seed=4, slope=0.0)
    held = logistic_slope(error, right, types, scenes)
    mixed = logistic_slope(error, right, ["all"] * len(error), scenes)
    assert abs(held.per_unit) < 2.5 * held.standard_error
    assert mixed.per_unit < -6 * mixed.standard_error


def test_types_that_are_all_right_are_left_out_and_named():
    error, right, types, scenes = questions(seed=5)
    more = logistic_slope(
        [*error, 1.0, 2.0], [*right, True, True], [*types, "sure", "sure"], [*scenes, "a", "b"]
    )
    alone = logistic_slope(error, right, types, scenes)
    assert more.left_out == ("sure",)
    assert more.n == alone.n
    assert more.per_unit == pytest.approx(alone.per_unit, rel=1e-9)


def test_separated_answers_bound_no_slope():
    error = np.arange(20.0)
    assert np.isnan(logistic_slope(error, error < 10, ["t"] * 20, ["a", "b"] * 10).per_unit)
    assert np.isnan(logistic_slope(np.ones(20), error < 10, ["t"] * 20, ["a", "b"] * 10).per_unit)
    assert np.isnan(logistic_slope(error, error < 100, ["t"] * 20, ["a", "b"] * 10).per_unit)


def test_error_by_scene_agrees_with_drawing_whole_scenes_anew():
    rng = np.random.default_rng(8)
    scenes = np.repeat(np.arange(60), 10)
    shared = rng.normal(0, 1.0, 60)[scenes]  # images of a scene are lifted alike, and it is easy or not
    error = 2 + rng.normal(0, 0.6, 60)[scenes]
    right = rng.random(600) < 1 / (1 + np.exp(-(shared - 0.8 * (error - 2))))
    found = logistic_slope(error, right, ["t"] * 600, [str(s) for s in scenes])
    draws = []
    for _ in range(200):
        picked = rng.integers(0, 60, 60)
        rows = np.concatenate([np.flatnonzero(scenes == s) for s in picked])
        draws.append(logistic_slope(error[rows], right[rows], ["t"] * len(rows), ["a"] * len(rows)).per_unit)
    assert found.scene_error == pytest.approx(np.std(draws), rel=0.25)
    assert found.scene_error > 1.5 * found.standard_error
