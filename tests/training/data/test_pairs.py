"""Training samples: labels against independent geometry, packing that leaks nothing between questions."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.data import view_pairs
from spatial_mllm_training.data.packing import IGNORE, Format, LeftOutError, Words
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.pair_questions import COMPARISON_SHARE, TASKS, size_questions
from spatial_mllm_training.data.pairs import PairBuilder, dense_targets
from spatial_mllm_training.data.scene_view import SceneView
from spatial_mllm_training.data.views import Crop, jitter_colour
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG, pinhole
from spatial_mllm_training.scenes.split import seed_of
from spatial_mllm_training.sources.simulated import open_scene
from spatial_mllm_training.training_loop.batch import collate
from spatial_mllm_training.training_loop.objective import Objective

RENDERED = sorted((Path(__file__).parents[2] / "fixtures" / "simulated").glob("scene_*.npz"))
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


def test_a_scene_takes_one_open_file_and_the_limit_is_raised_once(scene):
    """In a process of its own: the limit cannot be raised twice."""
    done = subprocess.run(
        [sys.executable, "-c", _MANY_SCENES, str(scene)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    kept, sentence = done.stdout.splitlines()
    assert int(kept) > 60  # of 128 files; 20 would be all with a map for every member
    assert "ulimit -n" in sentence and "128 open files" in sentence


_MANY_SCENES = """
import resource, sys
from pathlib import Path
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.mapped_npz import map_npz
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))
kept = []
try:
    while True:
        kept.append(map_npz(Path(sys.argv[1])))
except SpatialError as error:
    print(len(kept))
    print(error.sentence)
"""


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
        k = view.cameras[0].k
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


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("count", [1, 6])
def test_what_is_seen_again_lies_where_opencv_projects_it(tokenizer, augment, count):
    """Points of a still scene, of real renderings: nothing hidden is asked about, each image has its own window."""
    config = PairConfig(still_camera=0.0, same_time=1.0, own_crops=1.0, correspondences=count)
    builder = PairBuilder(RENDERED, tokenizer, config, augment=augment)
    off_px, apart = [], []
    for seed in range(60):
        try:
            view = builder.draw(np.random.default_rng(seed))
        except LeftOutError:
            continue  # the fixtures' cameras are held out
        height, width = view.images.shape[1:3]
        rows, columns = view.depth_m.shape[1:]
        for question in view.pair:
            if question.task.name != "visual_correspondence_coor_2_coor":
                continue
            u, v = np.array(question.points[0]) / 1000 * [width, height]
            ray = cv2.undistortPoints(np.array([[[u, v]]]), view.cameras[0].k, None).ravel()
            z = view.depth_m[0, int((v + 0.5) / height * rows), int((u + 0.5) / width * columns)]
            first, second = view.world_from_camera
            point = first[:3, :3] @ (np.array([*ray, 1.0]) * z) + first[:3, 3]
            turn = Rotation.from_matrix(second[:3, :3]).inv()
            found = cv2.projectPoints(
                point[None], turn.as_rotvec(), -turn.apply(second[:3, 3]), view.cameras[1].k, None
            )[0].ravel()
            told = np.array(question.truth.values) / 1000 * [width, height]
            off_px.append(np.abs(found - told).max())
            there_m = turn.apply(point - second[:3, 3])[2]
            at = view.depth_m[1, int((told[1] + 0.5) / height * rows), int((told[0] + 0.5) / width * columns)]
            apart.append(abs(at / there_m - 1))
    assert len(off_px) > 15
    # a cell of depth is wider than a pixel: at edges the truth is known better than here
    assert np.median(off_px) < 0.8 and np.percentile(off_px, 85) < 3.0
    assert np.median(apart) < 0.02 and np.percentile(apart, 85) < 0.08


def test_a_still_camera_is_asked_what_is_seen_again_only_where_its_windows_differ(scene, tokenizer):
    def asked(own_crops):
        config = PairConfig(still_camera=1.0, own_crops=own_crops, correspondences=3, pair_questions=4)
        builder = PairBuilder([scene], tokenizer, config)
        views = [builder.draw(np.random.default_rng(seed)) for seed in range(12)]
        names = [[question.task.name for question in view.pair] for view in views]
        return [each.count("visual_correspondence_coor_2_coor") for each in names], list(map(len, names))

    found, all_of_them = asked(0.0)
    assert set(found) == {0} and set(all_of_them) == {4}
    found, all_of_them = asked(1.0)
    assert max(found) == 3 and set(all_of_them) <= {4, 5, 6}


def test_everything_about_the_cameras_movement_is_asked_on_top(scene, tokenizer):
    """The same of the rest; what stands still along an axis has no direction there."""
    kinds = (
        "x_movement",
        "y_movement",
        "z_movement",
        "yaw",
        "pitch",
        "total_distance",
        "displacement_vector",
    )
    for seed in range(8):
        usual, whole = (
            PairBuilder(
                [scene],
                tokenizer,
                PairConfig(still_camera=0.0, pair_questions=6, whole_camera=whole),
                augment=False,
            ).draw(np.random.default_rng(seed))
            for whole in (False, True)
        )
        names = [[q.task.name for q in view.pair if q.task.name.startswith(kinds)] for view in (usual, whole)]
        assert len(names[0]) == 3 and len(set(names[1])) == len(names[1]) >= 6
        assert {"total_distance", "displacement_vector"} < set(names[1])
        assert len(usual.pair) - len(names[0]) == len(whole.pair) - len(names[1])


def test_turns_of_the_camera_are_those_of_its_optical_axis(scene, tokenizer):
    builder = PairBuilder([scene], tokenizer, PairConfig(still_camera=0.0, pair_questions=12))
    found = set()
    for seed in range(40):
        view = builder.draw(np.random.default_rng(seed))
        axes = view.world_from_camera[:, :3, 2]
        heading = np.degrees(np.arctan2(axes[:, 1], axes[:, 0]))
        pitch = 90.0 - np.degrees([np.arccos(axis[2]) for axis in axes])
        yaw = (heading[1] - heading[0] + 180.0) % 360.0 - 180.0
        expected = {
            "yaw_movement": "left" if yaw > 0 else "right", "yaw_angle": abs(yaw),
            "pitch_movement": "up" if pitch[1] > pitch[0] else "down", "pitch_angle": abs(pitch[1] - pitch[0]),
        }  # fmt: skip
        for question in view.pair:
            if (name := question.task.name) in expected:
                found.add(name)
                truth = question.truth
                assert (truth.label or truth.values[0]) == pytest.approx(expected[name])
    assert found == {"yaw_movement", "pitch_movement", "yaw_angle", "pitch_angle"}


def test_movement_is_asked_more_of_things_than_of_the_arm_that_moves_them(scene, tokenizer):
    with np.load(scene) as told:
        arrays = dict(told)
    arrays["world_from_body"][1:, 2, 0, 3] += 0.1  # the second body moves as the first one does
    arrays["body_category"] = np.array(["world", "robot arm", "box"])
    np.savez(scene, **arrays)
    builder = PairBuilder([scene], tokenizer, PairConfig(still_camera=1.0, same_time=0.0), augment=False)
    asked = {0: 0, 1: 0, 2: 0}
    for seed in range(30):
        view = builder.draw(np.random.default_rng(seed))
        for question in view.pair:
            u, v = np.array(question.points[0]) / 1000 * [WIDTH, HEIGHT]
            asked[int(arrays["body_id"][0, 0, int(v), int(u)])] += 1
    assert asked[2] > 2 * asked[1] > 0


def test_motion_of_every_cell_again_through_opencv_and_scipy(scene, tokenizer):
    """One pair of moments explains all cells; what does not move has no motion."""
    builder = PairBuilder([scene], tokenizer, PairConfig(same_time=0.0), motion=True)
    raw = np.load(scene)
    moved = 0
    for seed in range(6):
        view = builder.draw(np.random.default_rng(seed))
        first = view.world_from_camera[0]
        height, width = view.depth_m[0].shape
        cells = np.random.default_rng(seed).integers((0, 0), (height, width), (60, 2))
        pixels = (cells[:, ::-1] + 0.5) * (view.images.shape[2] / width, view.images.shape[1] / height) - 0.5
        rays = cv2.undistortPoints(pixels[:, None].astype(np.float64), view.cameras[0].k, None)[:, 0]
        z = view.depth_m[0][cells[:, 0], cells[:, 1]]
        points = np.c_[rays * z[:, None], z] @ first[:3, :3].T + first[:3, 3]
        said = view.motion_m[cells[:, 0], cells[:, 1]]

        def motions(t1, t2, points=points, first=first):
            now, later = (Rotation.from_rotvec([0, 0, 0.3 * t]) for t in (t1, t2))
            local = now.inv().apply(points - [0.1 * t1, 0.02 * t1, 0])
            return (later.apply(local) + [0.1 * t2, 0.02 * t2, 0] - points) @ first[:3, :3]

        still = np.linalg.norm(said, axis=1) < 1e-6
        assert still.any()
        errors = [
            np.abs(motions(t1, t2)[~still] - said[~still]).max(initial=0.0)
            for t1 in range(3) for t2 in range(3) if t1 != t2
        ]  # fmt: skip
        assert min(errors) < 1e-5
        moved += (~still).sum()
    assert moved > 10 and raw["body_id"].max() == 2
    targets = builder.sample(np.random.default_rng(0)).targets
    assert targets[0].motion is None and targets[1].motion.shape == (1, height, width, 3)
    apart = PairConfig(single_questions=0, pair_questions=0, apart=True)
    alone = PairBuilder([scene], tokenizer, apart, motion=True).sample(np.random.default_rng(0))
    assert all(target.motion is None for target in alone.targets)


@torch.no_grad()
def test_packed_questions_do_not_see_each_other(scene, tokenizer, small_model):
    """Every packed question gets the logits it would get alone, as when it is served."""
    builder = PairBuilder([scene], tokenizer, PairConfig(single_questions=3, pair_questions=3), augment=False)
    sample = builder.sample(np.random.default_rng(4))
    pad = tokenizer.token_to_id("<|pad|>")
    objective = Objective(small_model)
    together = objective.predict(collate([sample], pad)).logits
    start = 0
    kept = ("ids", "labels", "weights", "owner", "seen", "places")
    for number in range(3, int(sample.owner.max()) + 1):
        keep = np.flatnonzero((sample.owner <= 2) | (sample.owner == number))
        alone = replace(
            sample,
            **{name: getattr(sample, name)[keep] for name in kept},
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
    config = PairConfig(still_camera=0.0, own_crops=1.0)
    builder = PairBuilder([scene], tokenizer, config, augment=augment, maps=True)
    view = builder.draw(np.random.default_rng(3))
    targets = dense_targets(view, maps=True)
    relative = Rotation.from_matrix(view.world_from_camera[0][:3, :3]).inv()
    height, width = view.depth_m.shape[1:]
    for image, pose in enumerate(view.world_from_camera):
        for row, column in ((3, 5), (40, 60)):
            u = (column + 0.5) * view.images.shape[2] / width - 0.5
            v = (row + 0.5) * view.images.shape[1] / height - 0.5
            k = view.cameras[image].k
            ray = np.array([*cv2.undistortPoints(np.array([[[u, v]]]), k, None).ravel(), 1.0])
            in_world = pose[:3, :3] @ (ray * view.depth_m[image, row, column]) + pose[:3, 3]
            expected = relative.apply(in_world - view.world_from_camera[0][:3, 3])
            np.testing.assert_allclose(targets[image].points[0, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def graded(scene, tokenizer):
    """A function (config, k) -> a builder whose scene tells its pixels: red grows along u, green along v,
    depth along both."""

    def build(config, k=None, **how):
        builder = PairBuilder([scene], tokenizer, config, **how)
        v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
        rgb = np.stack([u * 255 / (WIDTH - 1), v * 255 / (HEIGHT - 1), 0 * u], -1).round().astype(np.uint8)
        known = builder.views.scenes[scene]
        shape = known["depth_mm"].shape
        builder.views.scenes[scene] = {
            **known,
            "rgb": np.broadcast_to(rgb, (*shape, 3)),
            "depth_mm": np.broadcast_to((1000 + 5 * u + 2000 * v).astype(np.uint32), shape),
            "k": known["k"] if k is None else k,
        }
        return builder

    return build


def test_each_image_of_a_pair_has_its_own_window_camera_and_depth(graded, monkeypatch):
    """The ray of a pixel, seen by the scene's camera through OpenCV, meets the colour and depth there."""
    monkeypatch.setattr(view_pairs, "jitter_colour", lambda rng, image, gains, gamma: image)
    builder = graded(PairConfig(own_crops=1.0))
    source_k = builder.views.scenes[builder.views._order[0]]["k"]
    shares = []
    for seed in range(20):
        view = builder.draw(np.random.default_rng(seed))
        shares.append(view.cameras[0] == view.cameras[1])
        for image, camera, depth_m in zip(view.images, view.cameras, view.depth_m, strict=True):
            height, width = image.shape[:2]
            pixels = np.random.default_rng(seed).integers((4, 4), (width - 4, height - 4), (30, 2))
            rays = cv2.undistortPoints(pixels[:, None].astype(float), camera.k, None)[:, 0]
            rays = np.concatenate([rays, np.ones((30, 1))], 1)
            at = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), source_k, None)[0][:, 0]
            seen = image[pixels[:, 1], pixels[:, 0]].astype(float)
            np.testing.assert_allclose(seen[:, 0], at[:, 0] * 255 / (WIDTH - 1), atol=1.5)
            np.testing.assert_allclose(seen[:, 1], at[:, 1] * 255 / (HEIGHT - 1), atol=1.5)
            cells = depth_m.shape
            column = ((pixels[:, 0] + 0.5) * cells[1] / width).astype(int)
            row = ((pixels[:, 1] + 0.5) * cells[0] / height).astype(int)
            told = depth_m[row, column] * 1000 - 1000
            # a cell takes the nearest source pixel of its middle: within two of either axis
            assert np.abs(told // 2000 - at[:, 1]).max() < 2.6
            assert np.abs(told % 2000 / 5 - at[:, 0]).max() < 2.6
    assert not any(shares)


def test_the_rays_of_a_sample_are_those_of_each_image(graded):
    builder = graded(PairConfig(own_crops=1.0, camera_dropout=0.0))
    sample, view = (f(np.random.default_rng(5)) for f in (builder.sample, builder.draw))
    assert view.cameras[0] != view.cameras[1]
    for shown, camera in zip(sample.images, view.cameras, strict=True):
        rows, columns = shown.grid
        u, v = np.meshgrid((np.arange(columns) + 0.5) * 16 - 0.5, (np.arange(rows) + 0.5) * 16 - 0.5)
        expected = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), camera.k, None)[:, 0]
        np.testing.assert_allclose(shown.rays[:, :2], expected, atol=1e-5)
        np.testing.assert_allclose(shown.rays[:, 2], np.log(camera.k[0, 0] / 16), atol=1e-5)


@pytest.mark.parametrize(("share", "low", "high"), [(0.0, 0.0, 0.0), (0.5, 0.35, 0.65), (1.0, 0.9, 1.0)])
def test_the_share_of_pairs_with_two_cameras_is_the_settings(graded, share, low, high):
    builder = graded(PairConfig(own_crops=share))
    views = [builder.draw(np.random.default_rng(seed)) for seed in range(100)]
    assert low <= np.mean([v.cameras[0] != v.cameras[1] for v in views]) <= high


def fields_of_view_deg(camera):
    """Between the edges, by OpenCV, and of a centred image with the same f."""
    edges = np.array([[[-0.5, camera.k[1, 2]]], [[camera.width - 0.5, camera.k[1, 2]]]])
    left, right = np.degrees(np.arctan(cv2.undistortPoints(edges, camera.k, None)[:, 0, 0]))
    return right - left, 2 * np.degrees(np.arctan(camera.width / 2 / camera.k[0, 0]))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hfov_deg=st.floats(45.0, 115.0),
    shift=st.tuples(st.floats(-0.08, 0.08), st.floats(-0.08, 0.08)),
    aspect=st.floats(0.9, 1.1),
    seed=st.integers(0, 2**32 - 1),
)
def test_no_augmented_view_has_a_held_out_field_of_view(graded, hfov_deg, shift, aspect, seed):
    k = pinhole(WIDTH, HEIGHT, hfov_deg, aspect=aspect, centre_shift=shift)
    view = graded(PairConfig(), k).draw(np.random.default_rng(seed))
    for camera in view.cameras:
        for angle in fields_of_view_deg(camera):
            assert not any(low <= angle <= high for low, high in HELD_OUT_HFOV_DEG)


def test_windows_are_redrawn_where_most_of_them_are_held_out(graded):
    """The scene's own camera lies in the band, so that the whole image may not be shown."""
    builder = graded(PairConfig(), pinhole(WIDTH, HEIGHT, 64.0))
    views = [builder.draw(np.random.default_rng(seed)) for seed in range(50)]
    assert max(fields_of_view_deg(c)[0] for v in views for c in v.cameras) < 60.0


def test_a_scene_that_can_only_be_shown_as_held_out_is_left_out(graded):
    config = PairConfig(smallest_crop=1.0, aspect=1.0)
    builder = graded(config, pinhole(WIDTH, HEIGHT, 63.0))
    with pytest.raises(LeftOutError, match="held out"):
        builder.draw(np.random.default_rng(0))
    tested = graded(config, pinhole(WIDTH, HEIGHT, 63.0), augment=False)
    assert fields_of_view_deg(tested.draw(np.random.default_rng(0)).cameras[0])[1] == pytest.approx(63.0)


def test_colours_change_by_gain_and_gamma_with_a_little_noise():
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    gains = np.array([0.8, 1.0, 1.3], np.float32)
    seen = np.mean([jitter_colour(np.random.default_rng(i), image, gains, 0.7) for i in range(200)], 0)
    expected = np.clip((image / 255.0) ** 0.7 * gains, 0, 1) * 255
    inside = (expected > 12) & (expected < 243)  # noise is cut off at both ends
    assert np.abs(seen - expected)[inside].max() < 1.2
    one = jitter_colour(np.random.default_rng(1), image, gains, 0.7)
    assert 2.0 < (one - expected)[inside].std() < 4.0


@pytest.mark.parametrize(
    "more", [{}, {"size_questions": 2}, {"dotted": 0.9}, {"size_questions": 2, "dotted": 0.9}]
)
def test_the_subtasks_that_are_claimed_are_those_that_are_asked(scene, tokenizer, more):
    """A bundle claims them, so no more and no fewer may be trained."""
    config = PairConfig(single_questions=8, pair_questions=8, still_camera=0.5, **more)
    builder = PairBuilder(
        [scene, *RENDERED], tokenizer, config, augment=False
    )  # the cameras of one share no view
    views = [builder.draw(np.random.default_rng(seed)) for seed in range(120)]
    assert {q.task.name for v in views for q in v.single + v.pair} == config.subtasks >= set(TASKS)


def test_a_size_is_that_of_the_only_thing_of_its_category(tokenizer):
    """Of the boxes of the scene reader; the thing is seen whole."""
    builder = PairBuilder(RENDERED, tokenizer, PairConfig(size_questions=9), augment=False)
    asked = set()
    for path in RENDERED:
        scene = open_scene(path, seed_of(path))
        arrays = builder.views.scenes[path]
        times, cameras, height, width = arrays["depth_mm"].shape
        for time, camera in np.ndindex(times, cameras):
            view = SceneView(arrays, time, camera, Crop(0, 0, width, height), 192, 144)
            boxes = {box.category: box for box in scene.objects(time)}
            shown = [str(arrays["body_category"][body]) for body in np.unique(view.body_id)]
            for question in size_questions(np.random.default_rng([time, camera]), view, 9):
                assert shown.count(question.category) == 1
                size_m = boxes[question.category].size_m
                expected = {
                    "height": size_m[2], "length": max(size_m[:2]), "width": min(size_m[:2]),
                }  # fmt: skip
                dimension = question.task.name.split("_")[2]
                assert question.truth.values[0] == pytest.approx(expected[dimension])
                assert question.category in question.words() and dimension in question.words()
                asked.add(dimension)
    assert asked == {"height", "length", "width"}


def test_comparisons_ask_for_the_nearer_and_for_the_farther_point(graded):
    """Depth grows by 2 m a row of the frame: the lower of two points is the farther one."""
    builder = graded(PairConfig(single_questions=8), augment=False)
    variants = []
    for seed in range(20):
        for question in builder.draw(np.random.default_rng(seed)).single:
            if question.task.name != "depth_comparison_coordinate":
                continue
            variants.append(question.variant)
            rows = [y for _, y in question.points]
            if rows[0] != rows[1]:  # whole thousandths of the height
                choose = {"closer": np.argmin, "farther": np.argmax}[question.variant]
                assert question.truth.values == question.points[choose(rows)]
                assert question.variant in question.words()
    assert 0.25 < variants.count("farther") / len(variants) < 0.75


def test_named_points_are_told_by_their_letters_where_the_format_says_so(graded):
    """Of the same draws: the answers alone differ, and a letter stands for the place of its point in the question."""
    config = PairConfig(single_questions=8, pair_questions=0)
    builder = graded(config, augment=False)
    letters = []
    for seed in range(8):
        compared = [q for q in builder.draw(np.random.default_rng(seed)).single if q.task.names_its_answer]
        samples = []
        for named in (False, True):
            builder.form = Format(builder.encode, builder.form.image_id, Words(named_letters=named))
            samples.append(builder.sample(np.random.default_rng(seed)))
        plain, lettered = (
            [
                builder.tokenizer.decode(s.labels[(s.owner == o) & (s.labels != IGNORE)])
                for o in np.unique(s.owner)
            ]
            for s in samples
        )
        changed = [(a, b) for a, b in zip(plain, lettered, strict=True) if a != b]
        assert len(changed) == len(compared)
        for (coordinate, letter), question in zip(changed, compared, strict=True):
            point = question.points[{"`A`": 0, "`B`": 1}[letter]]
            assert coordinate == f"`[ {point[0]} , {point[1]} ]`"
            letters.append(letter)
    assert len(set(letters)) == 2


def test_the_token_that_decides_a_choice_has_its_weight(scene, tokenizer):
    """The first one that tells the answer from another choice, and no other token of any answer."""
    config = PairConfig(width=96, height=64, single_questions=4, pair_questions=6, dotted=1.0)
    image_id = tokenizer.token_to_id("<|image_pad|>")
    decided = 0
    for seed in range(12):
        builder = PairBuilder([scene], tokenizer, config)
        builder.form = Format(builder.encode, image_id, Words(choice_weight=4.0))
        sample = builder.sample(np.random.default_rng(seed))
        told = {}
        for token, label, weight, owner in zip(
            sample.ids, sample.labels, sample.weights, sample.owner, strict=True
        ):
            if label != IGNORE:
                told.setdefault(owner, []).append((tokenizer.decode([label]), weight))
            else:
                assert weight == 1.0, token
        for tokens in told.values():
            heavy = [text for text, weight in tokens if weight != 1.0]
            answer = "".join(text for text, _ in tokens)
            decided += len(heavy)
            assert len(heavy) <= 1
            if re.search(r"`(left|right|up|down|A|B|C|D)`", answer):
                assert heavy and heavy[0].strip("` ") in answer
            if re.search(r"\d+ ?mm|^`\d+`", answer):
                assert not heavy
    assert decided > 10


@pytest.mark.parametrize("count", [1, 3])
def test_few_questions_compare_depths_as_often_as_many(scene, tokenizer, count):
    builder = PairBuilder([scene], tokenizer, PairConfig(single_questions=count), augment=False)
    views = [builder.draw(np.random.default_rng(seed)) for seed in range(120)]
    asked = [q.task.name for v in views for q in v.single]
    share = asked.count("depth_comparison_coordinate") / len(asked)
    # nearly equal depths are not compared
    assert 0.5 * COMPARISON_SHARE < share < 1.3 * COMPARISON_SHARE


def test_metric_answers_are_spelled_in_one_width(scene, tokenizer):
    """The same draws as without: only the answers of lengths and vectors are wider, and they parse to the same."""
    config = PairConfig(width=96, height=64, single_questions=4, pair_questions=6)
    plain = PairBuilder([scene], tokenizer, config)
    wide = PairBuilder([scene], tokenizer, config, form=form_of(tokenizer, Words(number_digits=5)))
    kinds = set()
    for seed in range(12):
        told = [answers_of(b.sample(np.random.default_rng(seed)), tokenizer) for b in (plain, wide)]
        for published, spelled in zip(*told, strict=True):
            inside = spelled.split("`")[1]
            numbers = re.findall(r"[-+]?\d+", inside)
            kind = "coordinate" if inside.startswith("[ ") else "vector" if "[" in inside else "scalar"
            kinds.add(kind if numbers else "word")
            if kind == "coordinate" or not numbers:
                assert spelled == published
                continue
            assert {len(n.lstrip("+-")) for n in numbers} == {5}
            assert all((n[0] in "+-") == (kind == "vector") for n in numbers)
            assert [int(n) for n in numbers] == [
                int(n) for n in re.findall(r"-?\d+", published.split("`")[1])
            ]
    assert {"scalar", "vector", "coordinate"} <= kinds


def test_digits_weigh_by_their_place(scene, tokenizer, small_model):
    """Behind the zeros of its number, which weigh as the first one; the loss is the weighted mean, the rest weighs 1.

    So the 23 of 00023 degrees counts as much as the 23 of 02345 mm.
    """
    each = (4.0, 2.0, 0.5)
    config = PairConfig(width=96, height=64, single_questions=4, pair_questions=6)
    words = Words(number_digits=5, digit_weights=each)
    builder = PairBuilder([scene], tokenizer, config, form=form_of(tokenizer, words))
    numbers = 0
    for seed in range(4):
        sample = builder.sample(np.random.default_rng(seed))
        for owner in range(3, int(sample.owner.max()) + 1):
            spoken = (sample.owner == owner) & (sample.labels != IGNORE)
            letters = "".join(tokenizer.decode([i]) for i in sample.labels[spoken])
            by_letter = np.repeat(
                sample.weights[spoken], [len(tokenizer.decode([i])) for i in sample.labels[spoken]]
            )
            expected = np.ones(len(letters))
            for found in re.finditer(r"\d{5}", letters):
                zeros = len(found[0]) - len(found[0].lstrip("0"))
                behind = [4.0, 2.0, 0.5, 0.5, 0.5][: 5 - zeros]
                expected[found.start() : found.end()] = [4.0] * zeros + behind
                numbers += 1
            np.testing.assert_array_equal(by_letter, expected)
        assert (sample.weights[sample.labels == IGNORE] == 1).all()
    assert numbers > 10
    objective = Objective(small_model, depth_weight=0.0)
    batch = collate([sample], tokenizer.token_to_id("<|pad|>"))
    with torch.no_grad():
        out, loss = objective.predict(batch), objective(batch)["answer_loss"]
    chances = -torch.log_softmax(out.logits.double(), -1).numpy()[np.arange(len(out.targets)), out.targets]
    weights = sample.weights[sample.labels != IGNORE]
    assert float(loss) == pytest.approx(np.average(chances, weights=weights), rel=1e-5)
    assert float(loss) != pytest.approx(np.mean(chances), rel=1e-5)


def form_of(tokenizer, words):
    def encode(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    return Format(encode, tokenizer.token_to_id("<|image_pad|>"), words)


def answers_of(sample, tokenizer):
    """The texts of a sample's labels, one per question."""
    texts = []
    for owner in range(len(sample.images) + 1, int(sample.owner.max()) + 1):
        labels = sample.labels[sample.owner == owner]
        texts.append(tokenizer.decode(labels[labels != IGNORE].tolist()))
    return texts


def test_a_torn_scene_is_named(scene, tokenizer):
    whole = scene.read_bytes()
    for torn in (b"", whole[:500], whole[:-40]):
        scene.write_bytes(torn)
        with pytest.raises(SpatialError, match=r"scene_00000001\.npz' is not a whole scene"):
            PairBuilder([scene], tokenizer, PairConfig())
