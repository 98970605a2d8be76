"""The tasks: published names, enough templates, round trips, scores and truths against oracles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.tasks import camera_motion, depth, object_motion
from spatial_mllm_core.tasks.base import TaskValue

PUBLISHED = {
    "depth_estimation_coor",
    "depth_comparison_coordinate",
    "x_movement",
    "y_movement",
    "z_movement",
    "total_distance",
    "displacement_vector",
    "tapvid3d_total_distance_coord_adt",
    "tapvid3d_total_distance_coord_pstudio",
    "tapvid3d_displacement_vector_coord_adt",
    "tapvid3d_displacement_vector_coord_pstudio",
}
POINTS = ((512, 340), (7, 99))
TRUTHS = {
    "scalar": TaskValue((1.234,)),
    "vector": TaskValue((0.12, -0.035, 1.5)),
    "coordinate": TaskValue((512.0, 340.0)),
}


def test_names_are_the_published_ones():
    assert set(tasks.names()) == PUBLISHED


@pytest.mark.parametrize("name", tasks.names())
def test_every_template_of_a_task_is_read_back_by_it(name):
    task = tasks.get(name)
    assert len(set(task.questions)) >= 10
    assert len(set(task.answers)) >= 5
    truth = TRUTHS.get(task.kind, TaskValue(label=task.labels[0] if task.labels else ""))
    for template in range(len(task.answers)):
        assert task.parse(task.answer_text(truth, template=template)) == truth
        assert task.is_correct(task.parse(task.answer_text(truth, template=template)), truth)
    for template in range(len(task.questions)):
        question = task.question(POINTS[: task.point_count], template=template)
        assert "{" not in question
        for x, y in POINTS[: task.point_count]:
            assert f"[ {x} , {y} ]" in question


def test_d_unknown_task_and_wrong_number_of_points():
    with pytest.raises(SpatialError) as fault:
        tasks.get("teleport")
    assert fault.value.code is ErrorCode.UNKNOWN_TASK
    with pytest.raises(SpatialError) as fault:
        depth.DEPTH_VALUE.question(POINTS)
    assert fault.value.code is ErrorCode.WRONG_POINT_COUNT


@pytest.mark.parametrize(("predicted", "correct"), [(1.19, True), (0.81, True), (1.21, False), (0.79, False)])
def test_scalars_are_correct_within_twenty_percent(predicted, correct):
    assert depth.DEPTH_VALUE.is_correct(TaskValue((predicted,)), TaskValue((1.0,))) is correct


def test_coordinates_are_correct_within_five_percent_of_the_width():
    task = depth.DEPTH_COMPARISON
    assert task.is_correct(TaskValue((540.0, 340.0)), TaskValue((500.0, 340.0)))
    assert not task.is_correct(TaskValue((560.0, 340.0)), TaskValue((500.0, 340.0)))


def poses(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(2):
        pose = np.eye(4)
        pose[:3, :3] = Rotation.random(random_state=rng).as_matrix()
        pose[:3, 3] = rng.normal(size=3)
        out.append(pose)
    return out[0], out[1]


@given(st.integers(0, 10_000))
def test_camera_displacement_equals_opencv_composition_and_flips_with_the_pair(seed):
    first, second = poses(seed)
    ours = camera_motion.camera_displacement_m(first, second)
    inverse = np.linalg.inv(first)
    rotations = [cv2.Rodrigues(pose[:3, :3])[0] for pose in (second, inverse)]
    translations = [pose[:3, 3].reshape(3, 1) for pose in (second, inverse)]
    # first the second pose, then the inverse of the first: camera 2 -> world -> camera 1
    composed = cv2.composeRT(rotations[0], translations[0], rotations[1], translations[1])[1].ravel()
    np.testing.assert_allclose(ours, composed, atol=1e-9)
    back = camera_motion.camera_displacement_m(second, first)
    np.testing.assert_allclose(np.linalg.norm(ours), np.linalg.norm(back), atol=1e-9)
    np.testing.assert_allclose(first[:3, :3] @ ours, -(second[:3, :3] @ back), atol=1e-9)


@given(st.integers(0, 10_000))
def test_object_displacement_is_the_difference_of_camera_coordinates(seed):
    pose, motion = poses(seed)
    point = np.random.default_rng(seed).normal(size=(5, 3))
    after = Rotation.from_matrix(motion[:3, :3]).apply(point) + motion[:3, 3]
    ours = object_motion.displacement_m(point, after, pose)
    inverse = np.linalg.inv(pose)

    def in_camera(p):
        return cv2.transform(np.ascontiguousarray(p)[:, None], inverse[:3])[:, 0]

    np.testing.assert_allclose(ours, in_camera(after) - in_camera(point), atol=1e-9)


def test_direction_words_follow_the_optical_axes():
    words = camera_motion.direction_truths(np.array([0.1, -0.2, 0.3]))
    assert {k: v.label for k, v in words.items()} == {
        "x_movement": "right",
        "y_movement": "up",
        "z_movement": "forward",
    }


def test_comparison_truth_names_the_nearer_point():
    truth = depth.comparison_truth(POINTS, (2.0, 1.0))
    assert truth.values == (7.0, 99.0)
