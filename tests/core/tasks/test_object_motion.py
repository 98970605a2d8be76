"""Object movement against OpenCV, and what swapping the pair does to it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core.tasks import object_motion

SEEDS = st.integers(0, 10_000)


@given(SEEDS)
def test_displacement_is_the_difference_of_camera_coordinates(poses, seed):
    pose, motion = poses(seed)
    point = np.random.default_rng(seed).normal(size=(5, 3))
    after = Rotation.from_matrix(motion[:3, :3]).apply(point) + motion[:3, 3]
    ours = object_motion.displacement_m(point, after, pose)
    inverse = np.linalg.inv(pose)

    def in_camera(p):
        return cv2.transform(np.ascontiguousarray(p)[:, None], inverse[:3])[:, 0]

    np.testing.assert_allclose(ours, in_camera(after) - in_camera(point), atol=1e-9)


@given(SEEDS)
def test_swapping_the_pair_turns_the_vector_around_and_keeps_the_distance(poses, seed):
    pose, _ = poses(seed)
    before, after = np.random.default_rng(seed).normal(size=(2, 3))
    there = object_motion.displacement_m(before, after, pose)
    back = object_motion.displacement_m(after, before, pose)
    np.testing.assert_allclose(there, -back)
    assert object_motion.distance_truth(there).values == pytest.approx(
        object_motion.distance_truth(back).values
    )
    assert object_motion.vector_truth(there).values == pytest.approx(tuple(there))


def test_names_say_whether_the_camera_moves_and_how_the_point_is_shown():
    for tasks, how in (
        (object_motion.OBJECT_DISTANCE, "coord"),
        (object_motion.OBJECT_DISTANCE_DOT, "dot"),
        (object_motion.OBJECT_VECTOR, "coord"),
        (object_motion.OBJECT_VECTOR_DOT, "dot"),
    ):
        assert tasks[True].name.endswith(f"{how}_adt")
        assert tasks[False].name.endswith(f"{how}_pstudio")
        assert tasks[True].questions == tasks[False].questions
