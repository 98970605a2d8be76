"""Training samples: labels against independent geometry, packing that leaks nothing between questions."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.data.packing import IGNORE
from spatial_mllm_training.data.pairs import TASKS, PairBuilder, PairConfig, dense_targets
from spatial_mllm_training.data.views import Crop
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.objective import Objective

HEIGHT, WIDTH = 192, 256  # of the scenes that `write_scene` makes


@pytest.fixture
def scene(tmp_path, write_scene):
    path = tmp_path / "scene_00000001.npz"
    write_scene(path, 1)
    return path


def test_mapped_members_equal_numpys_own_reader(scene):
    ours, theirs = map_npz(scene), np.load(scene)
    assert set(ours) == set(theirs.files)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])


def test_compressed_members_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros(9))
    with pytest.raises(ValueError, match="stored"):
        map_npz(tmp_path / "a.npz")


@pytest.mark.parametrize("seed", range(20))
def test_a_crop_moves_pixels_and_camera_together(seed):
    rng = np.random.default_rng(seed)
    source = CameraModel.from_k(np.array([[210.0, 0, 130], [0, 205.0, 92], [0, 0, 1]]), WIDTH, HEIGHT)
    crop = Crop.random(rng, WIDTH, HEIGHT, smallest=0.5, aspect=1.3)
    point = np.array([[0.1, -0.05, 1.2]])
    k_before, k_after = source.k, crop.camera(source, 192, 144).k

    def project(k):
        return cv2.projectPoints(point, np.zeros(3), np.zeros(3), k, None)[0].ravel()

    moved = crop.to_output(*project(k_before), 192, 144)
    np.testing.assert_allclose(moved, project(k_after), atol=1e-9)


@pytest.mark.parametrize("augment", [False, True])
def test_labels_agree_with_an_independent_path(scene, tokenizer, augment):
    """Depth and movement of every question again, through OpenCV's rays and scipy's rotations."""
    builder = PairBuilder([scene], tokenizer, PairConfig(pair_questions=8), augment=augment)
    raw = np.load(scene)
    checked = 0
    for seed in range(12):
        view = builder.draw(np.random.default_rng(seed))
        k = view.camera.k
        for question in view.single:
            if question.task.name != "depth_estimation_coor":
                continue
            row = question.points[0][1] / 1000 * view.images.shape[1]
            # depth depends on the source row alone, and rows map affinely through the crop
            top, bottom = view.depth_m[0][0, 0], view.depth_m[0][-1, 0]
            share = (row + 0.5) / view.images.shape[1]
            assert question.truth.values[0] == pytest.approx(top + share * (bottom - top), rel=0.03)
        for question in view.pair:
            if not question.task.name.startswith("tapvid3d_total_distance"):
                continue
            u, v = np.array(question.points[0]) / 1000 * [view.images.shape[2], view.images.shape[1]]
            ray = cv2.undistortPoints(np.array([[[u, v]]]), k, None).ravel()
            share = (v + 0.5) / view.images.shape[1]
            z = view.depth_m[0][0, 0] + share * (view.depth_m[0][-1, 0] - view.depth_m[0][0, 0])
            candidates = [0.0]
            for camera in raw["world_from_camera"]:
                point = camera[:3, :3] @ (np.array([*ray, 1.0]) * z) + camera[:3, 3]
                for t1 in range(3):
                    for t2 in range(3):
                        first = Rotation.from_rotvec([0, 0, 0.3 * t1])
                        second = Rotation.from_rotvec([0, 0, 0.3 * t2])
                        local = first.inv().apply(point - [0.1 * t1, 0.02 * t1, 0])
                        candidates.append(
                            float(np.linalg.norm(second.apply(local) + [0.1 * t2, 0.02 * t2, 0] - point))
                        )
            nearest = min(abs(c - question.truth.values[0]) for c in candidates)
            assert nearest < 0.01
            checked += question.truth.values[0] > 0
    assert checked > 5


@torch.no_grad()
def test_packed_questions_do_not_see_each_other(scene, tokenizer, small_model):
    """Every packed question gets the logits it would get alone, as when it is served."""
    builder = PairBuilder([scene], tokenizer, PairConfig(single_questions=3, pair_questions=3), augment=False)
    sample = builder.sample(np.random.default_rng(4))
    pad = tokenizer.token_to_id("<|pad|>")
    objective = Objective(small_model)
    together = objective.predict(collate([sample], pad)).logits
    start = 0
    for number in range(3, int(sample.owner.max()) + 1):
        keep = np.flatnonzero((sample.owner <= 2) | (sample.owner == number))
        alone = replace(
            sample,
            **{name: getattr(sample, name)[keep] for name in ("ids", "labels", "owner", "seen")},
            positions=sample.positions[:, keep],
        )
        logits = objective.predict(collate([alone], pad)).logits
        count = int((sample.labels[sample.owner == number] != IGNORE).sum())
        assert len(logits) == count
        torch.testing.assert_close(together[start : start + count], logits, atol=2e-3, rtol=1e-3)
        start += count
    assert start == len(together)


@torch.no_grad()
def test_a_single_question_does_not_depend_on_the_second_image(scene, tokenizer, small_model):
    builder = PairBuilder([scene], tokenizer, PairConfig(single_questions=2, pair_questions=2), augment=False)
    sample = builder.sample(np.random.default_rng(4))
    pad = tokenizer.token_to_id("<|pad|>")
    objective = Objective(small_model)
    before = objective.predict(collate([sample], pad)).logits
    sample.images[1].pixels[:] = 255 - sample.images[1].pixels
    after = objective.predict(collate([sample], pad)).logits
    single = int((sample.labels[(sample.owner >= 3) & (sample.seen == 1)] != IGNORE).sum())
    torch.testing.assert_close(before[:single], after[:single], atol=1e-5, rtol=1e-5)
    assert (before[single:] - after[single:]).abs().max() > 1e-3


@pytest.mark.parametrize("augment", [False, True])
def test_dense_maps_hold_the_points_of_the_scene(scene, tokenizer, augment):
    """Points of both views, brought to the world by SciPy, lie where OpenCV's rays and the depth put them."""
    builder = PairBuilder([scene], tokenizer, PairConfig(still_camera=0.0), augment=augment, maps=True)
    view = builder.draw(np.random.default_rng(3))
    targets = dense_targets(view, maps=True)
    relative = Rotation.from_matrix(view.world_from_camera[0][:3, :3]).inv()
    height, width = view.depth_m.shape[1:]
    for image, pose in enumerate(view.world_from_camera):
        for row, column in ((3, 5), (40, 60)):
            u = (column + 0.5) * view.images.shape[2] / width - 0.5
            v = (row + 0.5) * view.images.shape[1] / height - 0.5
            ray = np.array([*cv2.undistortPoints(np.array([[[u, v]]]), view.camera.k, None).ravel(), 1.0])
            in_world = pose[:3, :3] @ (ray * view.depth_m[image, row, column]) + pose[:3, 3]
            expected = relative.apply(in_world - view.world_from_camera[0][:3, 3])
            np.testing.assert_allclose(targets[image].points[0, row, column], expected, rtol=1e-4, atol=1e-5)


def test_the_subtasks_that_are_claimed_are_those_that_are_asked(scene, tokenizer):
    """A bundle claims `TASKS`, so no more and no fewer may be trained."""
    builder = PairBuilder([scene], tokenizer, PairConfig(single_questions=8, pair_questions=8), augment=False)
    views = [builder.draw(np.random.default_rng(seed)) for seed in range(60)]
    assert {q.task.name for v in views for q in v.single + v.pair} == set(TASKS)
