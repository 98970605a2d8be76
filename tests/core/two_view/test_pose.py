"""The pose between cameras from exact, noisy, false and degenerate matches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core.two_view.pose import FEWEST, relative_pose


def matched(seed, turn, offset, count=80):
    """Points before both cameras, in each one's frame."""
    rng = np.random.default_rng(seed)
    first = rng.uniform((-1.0, -0.8, 1.0), (1.0, 0.8, 3.0), (count, 3))
    later = Rotation.from_rotvec(turn).inv().apply(first - offset)
    return first, later


def rays(points):
    return points[:, :2] / points[:, 2:]


vectors = st.tuples(*[st.floats(-0.3, 0.3)] * 3).map(np.array)


@settings(derandomize=True, max_examples=40)
@given(seed=st.integers(0, 1000), turn=vectors, offset=vectors, false=st.sampled_from([0, 10, 25]))
def test_exact_matches_give_the_pose_whatever_the_false_ones_say(seed, turn, offset, false):
    first, later = matched(seed, turn, offset)
    if np.mean(np.abs(rays(later) - rays(first)).max(1) <= 0.05) > 0.3:
        return  # as good as still, see below
    first_rays, later_rays = rays(first), rays(later)
    rng = np.random.default_rng(seed)
    wrong = rng.permutation(len(first))[:false]
    later_rays[wrong] += rng.choice([-1, 1], (false, 2)) * rng.uniform(0.2, 1.0, (false, 2))
    first_rays[wrong] += rng.choice([-1, 1], (false, 2)) * rng.uniform(0.2, 1.0, (false, 2))
    pose = relative_pose(first, first_rays, later, later_rays)
    np.testing.assert_allclose(pose.first_from_later[:3, 3], offset, atol=0.01)
    off = Rotation.from_matrix(pose.first_from_later[:3, :3]) * Rotation.from_rotvec(turn).inv()
    assert off.magnitude() < 0.01
    assert pose.inliers == pytest.approx(1 - false / len(first), abs=0.06)


def test_both_depth_maps_count_alike():
    """One says that all is nearer, the other that all is farther: their mean is right."""
    first, later = matched(0, np.array([0.0, 0.1, 0.0]), np.array([0.4, 0.0, 0.0]))
    pose = relative_pose(0.9 * first, rays(first), 1.1 * later, rays(later))
    np.testing.assert_allclose(pose.first_from_later[:3, 3], (0.4, 0.0, 0.0), atol=0.01)
    swapped = relative_pose(1.1 * later, rays(later), 0.9 * first, rays(first))
    np.testing.assert_allclose(swapped.first_from_later, np.linalg.inv(pose.first_from_later), atol=2e-3)


def test_a_camera_before_which_most_things_stand_where_they_were_has_not_moved():
    first, _ = matched(1, np.zeros(3), np.zeros(3))
    later = first.copy()
    later[:25] += (0.5, 0.0, 0.0)  # things that moved
    pose = relative_pose(first, rays(first), later, rays(later))
    assert np.array_equal(pose.first_from_later, np.eye(4)) and pose.inliers == 1.0


@pytest.mark.parametrize("case", ["few", "one point", "nan", "infinite", "noise"])
def test_matches_that_do_not_tell_give_no_pose(case):
    rng = np.random.default_rng(0)
    first, later = matched(0, np.array([0.0, 0.1, 0.0]), np.array([0.4, 0.0, 0.0]))
    first_rays, later_rays = rays(first), rays(later)
    if case == "few":
        first, later, first_rays, later_rays = (
            x[: FEWEST - 1] for x in (first, later, first_rays, later_rays)
        )
    elif case == "noise":
        first_rays, later_rays = rng.normal(size=(2, *first_rays.shape))
    else:
        value = {"one point": 1.0, "nan": np.nan, "infinite": np.inf}[case]
        first, later = np.full_like(first, value), np.full_like(later, value)
    assert relative_pose(first, first_rays, later, later_rays) is None
