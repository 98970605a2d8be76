"""Rigid bodies of followed points: the published listing word by word, true bodies, gaps in tracks."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from scipy.spatial.transform import Rotation

from spatial_mllm_training.multispa.config import ObjectMotionConfig
from spatial_mllm_training.multispa.rigid_bodies import rigid_bodies

CONFIG = ObjectMotionConfig()


def bodies_of(points, config=CONFIG, seed=0):
    return rigid_bodies(points, config, np.random.default_rng(seed))


def listing_3(points, thr=0.1, smooth_factor=0.01):
    """Appendix G, Listing 3, followed literally; groups over five points."""
    cumulative = np.zeros((points.shape[1],) * 2)
    for t in range(1, len(points)):
        change = np.abs(squareform(pdist(points[t])) - squareform(pdist(points[t - 1])))
        cumulative += np.where(change > smooth_factor, change, 0)
    labels = fcluster(linkage(squareform(cumulative), method="average"), thr, criterion="distance")
    groups = [np.where(labels == label)[0].tolist() for label in range(1, labels.max() + 1)]
    return {tuple(group) for group in groups if len(group) > 5}


def groups_of(bodies):
    return {tuple(np.flatnonzero(bodies == b).tolist()) for b in range(bodies.max(initial=-1) + 1)}


def agreement(a, b):
    """Adjusted Rand index from counts of pairs."""
    same_a, same_b = (np.equal.outer(x, x)[np.triu_indices(len(x), 1)] for x in (a, b))
    both, expected = np.sum(same_a & same_b), same_a.sum() * same_b.sum() / len(same_a)
    return (both - expected) / ((same_a.sum() + same_b.sum()) / 2 - expected)


def moving_bodies(sizes, steps=30, noise_m=0.0, seed=0):
    """(T, N, 3) tracks of bodies that go and turn their own ways, and (N,) true bodies."""
    rng = np.random.default_rng(seed)
    tracks, truth = [], []
    for body, size in enumerate(sizes):
        shape = rng.uniform(-0.2, 0.2, (size, 3))
        turn, go = rng.normal(0, 0.08, 3), rng.normal(0, 0.04, 3)
        start = rng.uniform(-1, 1, 3)
        tracks.append(
            np.stack(
                [shape @ Rotation.from_rotvec(turn * t).as_matrix().T + start + go * t for t in range(steps)]
            )
        )
        truth += [body] * size
    points = np.concatenate(tracks, axis=1)
    return points + rng.normal(0, noise_m, points.shape), np.array(truth)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("noise_m", [0.0, 0.004, 0.02])
def test_equals_the_published_listing(seed, noise_m):
    points, _ = moving_bodies((12, 9, 7, 4), noise_m=noise_m, seed=seed)
    assert groups_of(bodies_of(points)) == listing_3(points)


@pytest.mark.parametrize("seed", range(4))
def test_finds_true_bodies(seed):
    points, truth = moving_bodies((40, 25, 10, 60), noise_m=0.002, seed=seed)
    bodies = bodies_of(points)
    assert (bodies >= 0).all()
    assert agreement(bodies, truth) > 0.99


def test_numbers_follow_the_first_points():
    points, truth = moving_bodies((8, 8, 8))
    np.testing.assert_array_equal(bodies_of(points), truth)


def test_the_motion_of_the_camera_does_not_matter():
    points, truth = moving_bodies((20, 20), seed=4)
    rng = np.random.default_rng(0)
    seen = np.stack(
        [Rotation.random(random_state=t).apply(p) + rng.normal(size=3) for t, p in enumerate(points)]
    )
    np.testing.assert_array_equal(bodies_of(seen), truth)


def test_still_points_are_one_body_and_small_groups_none():
    still = np.broadcast_to(np.random.default_rng(0).normal(size=(9, 3)), (5, 9, 3))
    np.testing.assert_array_equal(bodies_of(still), np.zeros(9))
    assert (bodies_of(still[:, :5]) == -1).all()
    assert (bodies_of(still[:, :6]) == 0).all()
    points, _ = moving_bodies((6, 5))
    np.testing.assert_array_equal(bodies_of(points), [0] * 6 + [-1] * 5)


def test_changes_within_the_noise_do_not_count():
    """Two points part by 9 mm a step: never above 1 cm, as published; by 11 mm they are two bodies."""
    config = replace(CONFIG, min_group_points=0)
    for step_m, count in ((0.009, 1), (0.011, 2)):
        points = np.zeros((40, 2, 3))
        points[:, 1, 0] = 1 + step_m * np.arange(40)
        assert len(groups_of(bodies_of(points, config))) == count


def test_gaps_in_tracks_are_bridged():
    points, truth = moving_bodies((25, 25), seed=2)
    known = np.random.default_rng(5).random(points.shape[:2]) < 0.5
    bodies = bodies_of(np.where(known[..., None], points, np.nan))
    assert agreement(bodies, truth) > 0.99


def test_points_never_seen_together_join_through_others():
    still = np.broadcast_to(np.random.default_rng(0).normal(size=(20, 3)), (10, 20, 3)).copy()
    alone = still.copy()
    alone[:5, :10], alone[5:, 10:] = np.nan, np.nan  # two halves, never together
    np.testing.assert_array_equal(bodies_of(alone), [0] * 10 + [1] * 10)
    bridged = still.copy()
    bridged[:5, :5], bridged[5:, 15:] = np.nan, np.nan  # ten points in the middle were always seen
    np.testing.assert_array_equal(bodies_of(bridged), np.zeros(20))


def test_points_with_one_known_step_have_no_body():
    points, truth = moving_bodies((10, 10))
    points[1:, 3] = np.nan
    points[:, 14, 1] = np.nan
    bodies = bodies_of(points)
    assert bodies[3] == bodies[14] == -1
    rest = np.delete(np.arange(20), [3, 14])
    np.testing.assert_array_equal(bodies[rest], truth[rest])
    assert (bodies_of(np.full((4, 8, 3), np.nan)) == -1).all()


def test_more_points_than_allowed_are_thinned_deterministically():
    points, truth = moving_bodies((80, 80), steps=12)
    config = replace(CONFIG, max_points=50)
    bodies = bodies_of(points, config)
    kept = bodies >= 0
    assert kept.sum() == 50
    assert agreement(bodies[kept], truth[kept]) == 1
    np.testing.assert_array_equal(bodies, bodies_of(points, config))
    assert not np.array_equal(bodies, bodies_of(points, config, seed=1))


def test_memory_does_not_grow_with_time():
    points, _ = moving_bodies((100, 100), steps=200)
    tracemalloc.start()
    bodies_of(points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    pairs = len(list(combinations(range(200), 2)))
    assert peak < 20 * 8 * pairs  # T x N x N would be 200 times
