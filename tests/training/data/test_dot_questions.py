"""Questions about dots: truths through OpenCV from the scene's own arrays, dots drawn where they are said to be."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.data.dot_questions import TASKS, dot_questions
from spatial_mllm_training.data.packing import LeftOutError
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.views import Crop
from spatial_mllm_training.mapped_npz import map_npz

RENDERED = sorted((Path(__file__).parents[2] / "fixtures" / "simulated").glob("scene_*.npz"))
SIZE = (128, 96)
FIRST, SECOND = Crop(8, 5, 96, 70), Crop(3, 4, 104, 76)


@pytest.fixture(params=RENDERED, ids=lambda path: path.stem)
def arrays(request):
    return {name: np.array(array) for name, array in map_npz(request.param).items()}


@pytest.fixture
def asked(arrays):
    """A function seed -> (marks, the first view, the second view), cameras and moments at random."""

    def ask(seed):
        rng = np.random.default_rng(seed)
        times, cameras = arrays["depth_mm"].shape[:2]
        places = zip(rng.integers(times, size=2), rng.integers(cameras, size=2), (FIRST, SECOND), strict=True)
        views = [SceneView(arrays, int(t), int(c), crop, *SIZE) for t, c, crop in places]
        return dot_questions(rng, *views), *views

    return ask


def source_pixel(dot, crop):
    """Where a dot of the image lies in the frame, by the definition of a resize."""
    u = (dot.u_px + 0.5) * crop.width / SIZE[0] - 0.5 + crop.x
    v = (dot.v_px + 0.5) * crop.height / SIZE[1] - 0.5 + crop.y
    return np.array([u, v])


def in_world(view, pixel):
    """(point that a frame shows there, its body) by OpenCV's ray and the rounded pixel's depth."""
    u, v = np.rint(pixel).astype(int)
    ray = cv2.undistortPoints(np.array([[[u, v]]], np.float64), view.scene["k"], None).ravel()
    z = view.depth_mm[v, u] / 1e3
    pose = view.world_from_camera
    return pose[:3, :3] @ (np.array([*ray, 1.0]) * z) + pose[:3, 3], int(view.body_id[v, u])


def moved(point, body, first, second):
    """A point of a body at the other moment, through SciPy."""
    before, after = first.world_from_body[body], second.world_from_body[body]
    local = Rotation.from_matrix(before[:3, :3]).inv().apply(point - before[:3, 3])
    return Rotation.from_matrix(after[:3, :3]).apply(local) + after[:3, 3]


def test_every_kind_is_asked_and_its_truth_is_that_of_the_dots(asked):
    found = set()
    for seed in range(150):
        marks, first, second = asked(seed)
        letters = [dot.label for dot in marks.dots[0]]
        for question in marks.single + marks.pair:
            found.add(question.task.name)
            at = [source_pixel(dot, FIRST) for dot in marks.dots[0]]
            depths_m = [first.depth_mm[tuple(np.rint(pixel).astype(int)[::-1])] / 1e3 for pixel in at]
            point, body = in_world(first, at[0])
            movement = first.world_from_camera[:3, :3].T @ (moved(point, body, first, second) - point)
            name, truth = question.task.name, question.truth
            if name == "depth_estimation_dot":
                assert letters == [""] and truth.values[0] == pytest.approx(depths_m[0])
            elif name == "depth_comparison_annotated":
                nearest = {"closer": np.argmin, "farther": np.argmax}[question.variant](depths_m)
                assert letters == ["A", "B"] and truth.label == letters[nearest]
                a, b = marks.dots[0]
                assert np.hypot(a.u_px - b.u_px, a.v_px - b.v_px) >= 8
            elif "total_distance" in name:
                assert truth.values[0] == pytest.approx(np.linalg.norm(movement), abs=1e-6)
            elif "displacement_vector" in name:
                np.testing.assert_allclose(truth.values, movement, atol=1e-6)
            if name.startswith("tapvid3d"):
                assert name.endswith("adt" if first.camera != second.camera else "pstudio")
    assert found | {"visual_correspondence_multiple_choice"} >= set(TASKS)


def test_the_right_letter_lies_where_opencv_projects_the_first_dot(asked):
    letters = []
    for seed in range(400):
        marks, first, second = asked(seed)
        if not marks.dots[1]:
            continue
        (question,), (dot,) = marks.pair, marks.dots[0]
        assert question.task.name == "visual_correspondence_multiple_choice" and not marks.single
        point, body = in_world(first, source_pixel(dot, FIRST))
        pose = second.world_from_camera
        turn = Rotation.from_matrix(pose[:3, :3]).inv()
        seen_at = cv2.projectPoints(
            moved(point, body, first, second)[None],
            turn.as_rotvec(),
            -turn.apply(pose[:3, 3]),
            second.scene["k"],
            None,
        )[0].ravel()
        places = {d.label: source_pixel(d, SECOND) for d in marks.dots[1]}
        assert sorted(places) == ["A", "B", "C", "D"]
        np.testing.assert_allclose(places[question.truth.label], seen_at, atol=1e-6)
        drawn = np.array([(d.u_px, d.v_px) for d in marks.dots[1]])
        apart = np.linalg.norm(drawn[:, None] - drawn[None], axis=-1)
        assert apart[np.triu_indices(4, 1)].min() >= 8
        letters.append(question.truth.label)
    if letters:  # the cameras of one of the scenes share no view
        assert len(letters) > 10 and len(set(letters)) > 2


def test_dots_are_drawn_into_the_images_that_the_questions_are_about(tokenizer):
    """The dotted images differ from those of a builder without dots around the dots alone."""
    plain, dotted = (
        PairBuilder(
            RENDERED, tokenizer, PairConfig(width=SIZE[0], height=SIZE[1], dotted=share), augment=False
        )
        for share in (0.0, 1.0)
    )
    counts = []
    for seed in range(40):
        try:
            before, after = (b.draw(np.random.default_rng(seed)) for b in (plain, dotted))
        except LeftOutError:
            continue
        changed = [np.any(a != b, axis=-1) for a, b in zip(before.images, after.images, strict=True)]
        names = {q.task.name for q in after.single + after.pair} & set(TASKS)
        assert changed[0].any() == bool(names)
        assert changed[1].any() == ("visual_correspondence_multiple_choice" in names)
        assert changed[0].mean() < 0.06
        for question in after.single:
            if question.task.name == "depth_estimation_dot":
                v, u = (round(axis.mean()) for axis in np.nonzero(changed[0]))
                cells = after.depth_m[0].shape
                z = after.depth_m[0, v * cells[0] // SIZE[1], u * cells[1] // SIZE[0]]
                counts.append(abs(z / question.truth.values[0] - 1))
    assert len(counts) > 5 and np.median(counts) < 0.02


def test_a_scene_without_any_depth_has_no_dots(arrays):
    empty = {**arrays, "depth_mm": np.zeros_like(arrays["depth_mm"])}
    views = [SceneView(empty, 0, camera, FIRST, *SIZE) for camera in (0, 1)]
    for seed in range(12):
        marks = dot_questions(np.random.default_rng(seed), *views)
        assert marks.dots == ((), ()) and not marks.single + marks.pair
