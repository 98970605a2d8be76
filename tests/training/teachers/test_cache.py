"""Answers are computed once, found again, told apart, and computed again where a file is torn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.teachers import CachedTeacher, TeacherOutput


class Counting:
    """A teacher that says how often it was asked: depth grows by one with every call."""

    name = "counting"
    version = "1"

    def __init__(self, weights="abc"):
        self.calls = 0
        self.weights = weights

    def weights_hash(self):
        return self.weights

    def predict(self, views):
        self.calls += 1
        shape = (4, 5)
        return TeacherOutput(
            depth=tuple(np.full(shape, i + self.calls, np.float32) for i in range(len(views))),
            cameras=tuple(None if v.camera is None else v.camera.resized(5, 4) for v in views),
            first_from_camera=np.tile(np.eye(4), (len(views), 1, 1)),
            confidence=tuple(np.full(shape, 1.5, np.float32) for _ in views),
            features=tuple(np.ones((2, 2, 3), np.float32) for _ in views),
            is_metric=False,
        )


def equal(one, other):
    for name in ("depth", "confidence", "features"):
        for a, b in zip(getattr(one, name), getattr(other, name), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(one.first_from_camera, other.first_from_camera)
    assert one.cameras == other.cameras
    assert one.is_metric == other.is_metric


def test_a_second_question_is_answered_from_disk(floor_views, tmp_path):
    views = floor_views(2)
    views[1] = replace(
        views[1],
        camera=CameraModel.from_k(views[1].camera.k, 64, 48, d=[0.1, 0, 0, 0, 0.2]),
    )
    teacher = Counting()
    first = CachedTeacher(teacher, tmp_path).predict(views)
    again = CachedTeacher(teacher, tmp_path).predict(views)
    assert teacher.calls == 1
    equal(first, again)
    assert again.cameras[1].d.tolist() == [0.1, 0, 0, 0, 0.2]


def test_anything_that_changes_the_answer_changes_the_file(floor_views, tmp_path):
    views = floor_views(2)
    cached = CachedTeacher(Counting(), tmp_path)
    other_image = views[0].image.copy()
    other_image[3, 4, 1] ^= 1
    moved = views[0].world_from_camera.copy()
    moved[0, 3] += 1e-6
    variants = [
        views,
        views[::-1],
        views[:1],
        [replace(views[0], image=other_image), views[1]],
        [replace(views[0], image=views[0].image.reshape(96, 32, 3)), views[1]],
        [replace(views[0], world_from_camera=moved), views[1]],
        [replace(views[0], world_from_camera=None), views[1]],
        [replace(views[0], camera=CameraModel.from_fov(64, 48, hfov_rad=1.2)), views[1]],
    ]
    paths = [cached.path(v) for v in variants]
    paths.append(CachedTeacher(Counting(weights="other"), tmp_path).path(views))
    newer = Counting()
    newer.version = "2"
    paths.append(CachedTeacher(newer, tmp_path).path(views))
    assert len(set(paths)) == len(paths)
    assert cached.path(list(views)) == paths[0]


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign", "header", "folderless"])
def test_a_torn_file_is_computed_again(floor_views, tmp_path, damage):
    views = floor_views(1)
    teacher = Counting()
    cached = CachedTeacher(teacher, tmp_path)
    cached.predict(views)
    path = cached.path(views)
    whole = path.read_bytes()
    if damage == "folderless":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": whole[:-7], "empty": b"", "foreign": b"PK\x03\x04 not ours", "header": b"\xff" * 64}[
                damage
            ]
        )
    answer = cached.predict(views)
    assert teacher.calls == 2
    assert answer.depth[0][0, 0] == 2
    equal(CachedTeacher(teacher, tmp_path).predict(views), answer)
    assert teacher.calls == 2
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left
