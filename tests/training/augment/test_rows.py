"""Augmented rows of all 26 subtasks: every label as numpy and OpenCV find it anew from the new cameras."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.augment import AugmentConfig, augment_row
from spatial_mllm_training.augment.draws import draw_view, is_held_out
from spatial_mllm_training.multispa.rows import Row, from_table, to_table
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG

BOLD = AugmentConfig(turn_chance=1.0, crop_chance=1.0, zoom_chance=0.5, scale_chance=1.0)
STILL = AugmentConfig(turn_chance=0, crop_chance=0, zoom_chance=0, scale_chance=0, colour_chance=0)


def augmented(example, config=BOLD, seed=0, **more):
    return augment_row(example.row, example.images, config, np.random.default_rng(seed), **more)


# -- an independent way to every label ------------------------------------------------------------


def projected(point_m, k, pose):
    """OpenCV's pixel and the z-depth of a world point."""
    view = np.linalg.inv(pose)
    turn = Rotation.from_matrix(view[:3, :3]).as_rotvec()
    pixel, _ = cv2.projectPoints(np.array([point_m]), turn, view[:3, 3], k, None)
    return pixel[0, 0], float((view @ [*point_m, 1.0])[2])


def expected_value(row: Row, before: Row):
    """The published value from K, poses and world points alone."""
    s = row.spatial
    ks = [np.reshape(k, (3, 3)) for k in s.k]
    poses = [np.reshape(p, (4, 4)) for p in s.world_from_camera]
    seen = [(p, *projected(p.point_in_world_m, ks[p.image], poses[p.image])) for p in s.points]
    asked = [x for x in seen if x[0].role == "asked"]
    kind = row.question_type
    if kind.startswith("depth_estimation"):
        return round(1000 * asked[0][2])
    if kind.startswith("depth_comparison"):
        order = sorted(asked, key=lambda x: x[2], reverse=s.variant == "farther")
        return order[0][0].label if kind.endswith("annotated") else coordinate(order[0][1], s.size[0])
    if kind == "visual_correspondence_coor_2_coor":
        return coordinate(projected(asked[0][0].point_in_world_m, ks[1], poses[1])[0], s.size[1])
    if kind == "visual_correspondence_multiple_choice":
        there, _ = projected(asked[0][0].point_in_world_m, ks[1], poses[1])
        choices = [x[0] for x in seen if x[0].role == "choice"]
        return min(choices, key=lambda p: np.hypot(p.u_px - there[0], p.v_px - there[1])).label
    if kind.startswith("object_perception"):
        return before.gt_value
    if kind.startswith("tapvid3d"):
        one, two = (np.array(p.point_in_world_m) for p in s.points)
        if before.spatial.truth == (0.0,) * len(before.spatial.truth):
            two = one
        if "total_distance" in kind:
            return round(1000 * np.linalg.norm(two - one))
        return [round(x) for x in 1000 * np.linalg.inv(poses[0])[:3, :3] @ (two - one)]
    shift = (np.linalg.inv(poses[0]) @ poses[1])[:3, 3]
    axes = [pose[:3, 2] for pose in poses]
    yaw = np.degrees(np.arctan2(axes[1][1], axes[1][0]) - np.arctan2(axes[0][1], axes[0][0]))
    yaw = (yaw + 180) % 360 - 180
    pitch = np.degrees(np.arcsin(axes[1][2]) - np.arcsin(axes[0][2]))
    return {
        "x_movement": "right" if shift[0] > 0 else "left",
        "y_movement": "down" if shift[1] > 0 else "up",
        "z_movement": "forward" if shift[2] > 0 else "backward",
        "yaw_movement": "left" if yaw > 0 else "right",
        "pitch_movement": "up" if pitch > 0 else "down",
        "yaw_angle": round(abs(yaw)),
        "pitch_angle": round(abs(pitch)),
        "total_distance": round(1000 * np.linalg.norm(shift)),
        "displacement_vector": [round(x) for x in 1000 * shift],
    }[kind]


def coordinate(pixel, size):
    return [min(999, max(0, round(1000 * x / n))) for x, n in zip(pixel, size, strict=True)]


def assert_right(result, example):
    row, before, task = result.row, example.row, tasks.get(example.row.question_type)
    for point, old in zip(row.spatial.points, before.spatial.points, strict=True):
        k, pose = (
            np.reshape(row.spatial.k[point.image], (3, 3)),
            np.reshape(row.spatial.world_from_camera[point.image], (4, 4)),
        )
        pixel, z_m = projected(point.point_in_world_m, k, pose)
        assert np.hypot(*(pixel - (point.u_px, point.v_px))) < 0.01
        assert point.depth_m == pytest.approx(z_m, abs=1e-5)
        width, height = row.spatial.size[point.image]
        assert 0 <= point.u_px <= width - 1 and 0 <= point.v_px <= height - 1
        assert (point.role, point.label, point.image) == (old.role, old.label, old.image)
    expected = expected_value(row, before)
    if isinstance(expected, str):
        assert row.gt_value == expected == row.spatial.label
    else:  # a half may be rounded to either side
        assert np.abs(np.subtract(row.gt_value, expected)).max() <= 1
    assert task.parse_strictly(row.answer) == task.truth_of(row.gt_value) == task.parse(row.answer)
    truth = list(row.spatial.truth)
    if task.kind == "coordinate":
        assert coordinate(truth, row.spatial.size[task.answer_image]) == row.gt_value
    elif truth:
        scale = 1 if task.unit == "deg" else 1000
        assert np.abs(scale * np.array(truth) - row.gt_value).max() <= 0.5 + 1e-6
    named = [p for p in row.spatial.points if p.role == "asked"][: task.point_count]
    said = re.findall(r"\[ (\d+) , (\d+) \]", row.question)
    assert [list(map(int, xy)) for xy in said] == [
        coordinate((p.u_px, p.v_px), row.spatial.size[p.image]) for p in named
    ]
    for number, (image, camera, pose) in enumerate(
        zip(result.images, result.cameras, result.world_from_camera, strict=True)
    ):
        assert image.shape == (camera.height, camera.width, 3) and image.dtype == np.uint8
        assert row.spatial.size[number] == (camera.width, camera.height)
        np.testing.assert_array_equal(np.reshape(row.spatial.k[number], (3, 3)), camera.k)
        np.testing.assert_array_equal(np.reshape(row.spatial.world_from_camera[number], (4, 4)), pose)
        old = np.reshape(before.spatial.world_from_camera[number], (4, 4))
        np.testing.assert_array_equal(pose[:3, 3], old[:3, 3], err_msg="turned about its centre")
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert [p.drawn for p in row.spatial.points] == [p.drawn for p in before.spatial.points]
    for point in row.spatial.points:
        if point.drawn:
            found = result.images[point.image][round(point.v_px), round(point.u_px)].astype(int)
            assert np.abs(found - point.rgb).sum() < 90, "the dot is where the row says"


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_every_label_is_right_after_random_augmentations(examples, seed):
    for example in examples:
        assert_right(augmented(example, seed=seed), example)


@pytest.fixture(scope="module")
def many(examples):
    """(row before, row after, warps) of eight draws of every example."""
    found = []
    for example in examples:
        for seed in range(8):
            result = augmented(example, seed=seed)
            found.append((example.row, result.row, result.warps))
    return found


def test_augmentations_do_happen(many):
    """A share of rows may stay as they are; each subtask is turned where it may be."""
    counts = {}
    for row, _, warps in many:
        turned = any(warp.is_turned for warp in warps)
        counts.setdefault(row.question_type, []).append((bool(warps), turned))
    for name, found in counts.items():
        changed, turned = np.mean(found, axis=0)
        assert changed > 0.6, name
        assert turned > 0.6 or name.startswith("object_perception"), name


def test_answers_change_where_geometry_says_so(many):
    """The comparison of labels above is not one of constants."""
    changed = {before.question_type for before, after, _ in many if before.gt_value != after.gt_value}
    same = {n for n in tasks.names() if "distance" in n or n.startswith("object_perception")}
    same.add("visual_correspondence_multiple_choice")
    assert not changed & same, "lengths and letters do not depend on the camera"
    assert {"depth_estimation_dot", "displacement_vector", "yaw_angle", "pitch_angle"} <= changed
    assert {n for n in tasks.names() if "displacement_vector" in n} <= changed
    assert {"visual_correspondence_coor_2_coor", "depth_comparison_coordinate"} <= changed


def test_nearer_and_farther_swap_where_a_turn_makes_them(examples):
    example = next(e for e in examples if e.row.question_type == "depth_comparison_annotated")
    k, pose = (np.reshape(x[0], (n, n)) for x, n in ((example.row.spatial.k, 3), (_poses(example.row), 4)))
    points = []
    for point, u_px, depth_m in zip(example.row.spatial.points, (15.0, 95.0), (2.0, 2.13), strict=True):
        where = pose @ [*(np.linalg.inv(k) @ [u_px, 40.0, 1.0] * depth_m), 1.0]
        at = {"u_px": u_px, "v_px": 40.0, "depth_m": depth_m, "point_in_world_m": tuple(where[:3].tolist())}
        points.append(replace(point, **at))
    spatial = replace(example.row.spatial, points=tuple(points), variant="closer", label="A")
    made = example._replace(row=replace(example.row, spatial=spatial))
    letters = set()
    for seed in range(40):
        result = augmented(made, replace(BOLD, crop_chance=0, zoom_chance=0, turn_deg=(0, 25, 0)), seed)
        depths_m = sorted(p.depth_m for p in result.row.spatial.points)
        assert depths_m[1] >= 1.05 * depths_m[0]
        assert result.row.gt_value == expected_value(result.row, made.row)
        letters.add(result.row.gt_value)
    assert letters == {"A", "B"}


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        ({"min_depth_ratio": 1e3}, ("depth_comparison_annotated", "depth_comparison_coordinate")),
        ({"min_shift_m": 1e3}, ("x_movement", "y_movement", "z_movement")),
        ({"min_turn_deg": 360.0}, ("yaw_movement", "pitch_movement", "yaw_angle", "pitch_angle")),
    ],
)
def test_an_answer_that_a_turn_leaves_without_margin_is_not_asked(examples, limit, names):
    for example in examples:
        if example.row.question_type in names:
            assert augmented(example, replace(BOLD, **limit)).warps == ()
            flat = augmented(example, replace(BOLD, turn_chance=0.0, least_kept=0.3, **limit), seed=1)
            assert flat.warps, "without a turn nothing becomes less certain"


def _poses(row):
    return row.spatial.world_from_camera


def test_dots_do_not_touch(many):
    for before, after, warps in many:
        dots = [p for p in after.spatial.points if p.drawn]
        for number, one in enumerate(dots):
            for other in dots[:number]:
                if warps and one.image == other.image:
                    gap = np.hypot(one.u_px - other.u_px, one.v_px - other.v_px) - 2 * one.radius_px
                    assert gap >= 2, before.id


def test_dots_that_would_touch_are_drawn_anew(examples):
    shrink = replace(STILL, scale=(0.2, 0.9), scale_chance=1.0, tries=20)
    sizes = []
    for example in examples:
        if example.row.question_type == "visual_correspondence_multiple_choice":
            for seed in range(10):
                result = augmented(example, shrink, seed)
                sizes.append(result.cameras[1].width)
                choices = [(p.u_px, p.v_px) for p in result.row.spatial.points if p.role == "choice"]
                apart = np.linalg.norm(np.subtract.outer(choices, choices)[:, [0, 1], :, [0, 1]], axis=0)
                assert apart[~np.eye(4, dtype=bool)].min() >= 8
    assert min(sizes) < 80


def test_lengths_of_vectors_are_invariant(many):
    for before, after, _ in many:
        if "displacement_vector" in before.question_type:
            length_m = np.linalg.norm(before.spatial.truth)
            assert np.linalg.norm(after.spatial.truth) == pytest.approx(length_m, abs=1e-9)


def test_without_changes_the_row_is_the_same_but_for_the_colours_of_its_dots(examples):
    for example in examples:
        result = augmented(example, STILL)
        points = tuple(
            replace(p, rgb=q.rgb)
            for p, q in zip(result.row.spatial.points, example.row.spatial.points, strict=True)
        )
        assert replace(result.row, spatial=replace(result.row.spatial, points=points)) == example.row
        if not any(p.drawn for p in points):
            for got, image in zip(result.images, example.images, strict=True):
                np.testing.assert_array_equal(got, image)


def test_rows_still_fit_the_parquet_schema(examples):
    rows = [augmented(example).row for example in examples]
    assert list(from_table(to_table(rows))) == rows


def test_draws_repeat_with_the_generator_and_differ_without(examples):
    for example in examples[::9]:
        one, two, other = (augmented(example, seed=s) for s in (5, 5, 6))
        assert one.row == two.row != other.row
        for a, b in zip(one.images, two.images, strict=True):
            np.testing.assert_array_equal(a, b)


def test_depth_of_the_new_images_is_the_labels_depth(examples):
    compared = 0
    for example in examples:
        result = augmented(example, seed=3, depths_m=example.depths_m)
        for camera, depth_m in zip(result.cameras, result.depths_m, strict=True):
            assert depth_m.shape == (camera.height, camera.width) and depth_m.dtype == np.float32
        if not example.row.question_type.startswith("depth"):
            continue
        for point in result.row.spatial.points:  # those lie off the edges of depth
            found = result.depths_m[0][round(point.v_px), round(point.u_px)]
            assert found == pytest.approx(point.depth_m, rel=0.05)
            compared += 1
    assert compared > 15


def test_the_images_of_a_pair_get_different_cameras_or_the_same_one_on_request(examples):
    pairs = [e for e in examples if len(e.images) == 2]
    same = sum(len(set(augmented(e).cameras)) == 1 for e in pairs)
    assert same < len(pairs) / 4
    for example in pairs:
        result = augmented(example, replace(BOLD, same=True))
        assert len(set(result.cameras)) == 1
        if result.warps:
            np.testing.assert_array_equal(result.warps[0].rotation, result.warps[1].rotation)


def test_a_still_camera_stays_still(examples):
    still = [e for e in examples if e.row.question_type.endswith("pstudio")]
    turned = 0
    for example in still:
        result = augmented(example, seed=2)
        np.testing.assert_array_equal(*result.world_from_camera)
        turned += any(warp.is_turned for warp in result.warps)
    assert turned > len(still) / 2


def test_pictures_without_points_are_not_cut_or_little(many):
    cut = []
    for row, _, warps in many:
        group = tasks.get(row.question_type).group
        kept = [warp.kept_share for warp in warps]
        if group == "object_size":
            assert all(k == pytest.approx(1.0, abs=1e-9) for k in kept)
        elif group.startswith("camera"):
            assert all(k >= BOLD.least_kept for k in kept)
        else:
            cut += kept
    assert min(cut) < 0.4, "others are cut"


def test_a_row_that_no_draw_fits_stays_as_it_is(examples, depth_row):
    camera = CameraModel.from_fov(80, 60, 0.9)
    row = depth_row(camera, (1.0, 30.0))  # closer to the border than border_px
    image = np.full((60, 80, 3), 99, np.uint8)
    result = augment_row(row, [image], replace(BOLD, colour_chance=0), np.random.default_rng(0))
    assert result.warps == () and result.cameras == (camera,)
    np.testing.assert_array_equal(result.images[0], image)
    assert result.row.spatial == row.spatial
    for example in examples[:4]:
        result = augmented(example, replace(BOLD, border_px=100, tries=3))
        assert result.warps == ()
        assert_right(result, example)


def test_output_size_is_kept_by_every_image(examples):
    config = replace(BOLD, output_size=(96, 80))
    for example in examples:
        for settings_ in (config, replace(config, tries=0)):
            result = augmented(example, settings_, seed=1)
            assert result is not None
            assert {camera.width for camera in result.cameras} == {96}
            assert {camera.height for camera in result.cameras} == {80}
            assert_right(result, example)


# -- held-out fields of view ----------------------------------------------------------------------


def fields_of_view_deg(camera):
    """Edge to edge, and of a centred image with this f."""
    left, right = (np.arctan((u - camera.cx) / camera.fx) for u in (-0.5, camera.width - 0.5))
    return np.degrees([right - left, 2 * np.arctan(camera.width / 2 / camera.fx)])


def test_held_out_fields_of_view_never_occur_in_5000_draws(depth_row):
    rng = np.random.default_rng(0)
    hits = shown = 0
    config = replace(BOLD, turn_chance=0.3, colour_chance=0, tries=3)
    image = np.zeros((24, 32, 3), np.uint8)
    while shown < 5000:
        camera = CameraModel.from_fov(32, 24, np.radians(rng.uniform(55, 115)))
        hits += is_held_out(draw_view(rng, config).warp(camera).target, HELD_OUT_HFOV_DEG)
        result = augment_row(depth_row(camera, (15.0, 11.0)), [image], config, rng)
        if result is None:
            (angle, _) = fields_of_view_deg(camera)
            assert any(low <= angle <= high for low, high in HELD_OUT_HFOV_DEG)
            continue
        shown += 1
        for low, high in HELD_OUT_HFOV_DEG:
            angles = fields_of_view_deg(result.cameras[0])
            assert not ((low <= angles) & (angles <= high)).any()
    assert hits > 300, "without the guard they would occur"


# -- lenses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [-0.25, 0.06, 0.001, -0.001, 0.0]),
        ("plumb_bob", [0.12, -0.05, 0.0, 0.001, 0.0]),
        ("rational_polynomial", [0.3, -0.1, 0.0005, 0.0, 0.01, 0.5, -0.05, 0.0]),
        ("equidistant", [0.02, -0.005, 0.001, 0.0]),
    ],
)
def test_rows_of_a_distorted_lens_become_pinhole_rows(depth_row, model, d):
    k = [90.0, 0, 62.0, 0, 92.0, 50.0, 0, 0, 1]
    camera = CameraModel.from_k(k, 128, 96, d=d, distortion_model=model)
    row = depth_row(camera, (80.0, 40.0), 1.7)
    v, u = np.mgrid[:96, :128]
    spot = np.exp(-((u - 80) ** 2 + (v - 40) ** 2) / (2 * 2.0**2))
    image = np.dstack([np.rint(255 * spot)] * 3).astype(np.uint8)
    config = replace(BOLD, colour_chance=0)
    seen = 0
    for seed in range(10):
        result = augment_row(row, [image], config, np.random.default_rng(seed))
        if not result.warps:
            assert result.cameras == (camera,)
            continue
        seen += 1
        (point,) = result.row.spatial.points
        assert not result.cameras[0].d.size and result.row.spatial.d == ((),)
        pose = np.reshape(result.row.spatial.world_from_camera[0], (4, 4))
        pixel, z_m = projected(point.point_in_world_m, result.cameras[0].k, pose)
        assert np.hypot(*(pixel - (point.u_px, point.v_px))) < 0.01
        assert result.row.gt_value == round(1000 * z_m)
        light = result.images[0][..., 0].astype(float)
        v, u = np.mgrid[: light.shape[0], : light.shape[1]]
        near = np.hypot(u - point.u_px, v - point.v_px) < 8
        light = light * near
        centroid = np.array([(u * light).sum(), (v * light).sum()]) / light.sum()
        if 8 < point.u_px < light.shape[1] - 9 and 8 < point.v_px < light.shape[0] - 9:
            assert np.abs(centroid - (point.u_px, point.v_px)).max() < 0.4
    assert seen >= 8


def test_a_lens_whose_rectification_cuts_is_kept_where_nothing_may_be_cut(examples):
    for example in examples:
        if not example.row.question_type.startswith("object_perception"):
            continue
        count = len(example.row.spatial.size)
        for k1, is_kept in ((-0.2, True), (1e-5, False)):
            bent = {"d": ((k1, 0.0, 0.0, 0.0, 0.0),) * count}
            row = replace(example.row, spatial=replace(example.row.spatial, **bent))
            result = augmented(example._replace(row=row))
            assert (result.warps == ()) == is_kept
            assert (result.row.spatial.d == bent["d"]) == is_kept
            assert result.row.gt_value == example.row.gt_value


def test_depth_of_a_distorted_lens_follows_its_image(depth_row):
    k = [90.0, 0, 62.0, 0, 92.0, 50.0, 0, 0, 1]
    camera = CameraModel.from_k(k, 128, 96, d=[-0.3, 0.08, 0.001, -0.001, 0.0])
    v, u = np.mgrid[:96, :128]
    slope = camera.rays(np.stack([u, v], -1).reshape(-1, 2).astype(float)) @ [0.2, -0.1, 1.0]
    plane = (2.0 / slope).reshape(96, 128).astype(np.float32)
    row = depth_row(camera, (60.0, 50.0), float(plane[50, 60]))
    for seed in range(5):
        result = augment_row(
            row, [np.zeros((96, 128, 3), np.uint8)], BOLD, np.random.default_rng(seed), depths_m=[plane]
        )
        (warp,), (depth_m,) = result.warps, result.depths_m
        v, u = np.mgrid[: depth_m.shape[0], : depth_m.shape[1]]
        rays = warp.target.rays(np.stack([u, v], -1).reshape(-1, 2).astype(float))
        expected = (2.0 / (rays @ warp.rotation @ [0.2, -0.1, 1.0])).reshape(depth_m.shape)
        np.testing.assert_allclose(depth_m, expected, rtol=6e-3)


# -- bad rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        ({"k": ()}, ErrorCode.NO_CALIBRATION, "needs K"),
        ({"k": ((0.0,) * 9,)}, ErrorCode.UNCALIBRATED, "uncalibrated"),
        ({"d": ((float("nan"),) * 5,)}, ErrorCode.BAD_DISTORTION, "NaN"),
        ({"size": ((99, 60),)}, ErrorCode.SIZE_MISMATCH, "80x60 px but its K is for 99x60 px"),
        ({"world_from_camera": ((float("nan"),) * 16,)}, ErrorCode.BAD_NUMBER, "sixteen finite"),
        ({"world_from_camera": ()}, ErrorCode.BAD_NUMBER, "sixteen finite"),
    ],
)
def test_a_bad_row_is_named(depth_row, change, code, words):
    row = depth_row(CameraModel.from_fov(80, 60, 0.9), (30.0, 30.0))
    row = replace(row, spatial=replace(row.spatial, **change))
    with pytest.raises(SpatialError, match=f"row 'made-0'.*{words}") as caught:
        augment_row(row, [np.zeros((60, 80, 3), np.uint8)], BOLD, np.random.default_rng(0))
    assert caught.value.code == code


def test_bad_images_and_depths_are_named(depth_row, examples):
    row = depth_row(CameraModel.from_fov(80, 60, 0.9), (30.0, 30.0))
    good = np.zeros((60, 80, 3), np.uint8)
    rng = np.random.default_rng(0)
    with pytest.raises(SpatialError, match=r"made-0.*1 image.*0 given"):
        augment_row(row, [], BOLD, rng)
    with pytest.raises(SpatialError, match=r"made-0.*uint8, found .* float32"):
        augment_row(row, [good.astype(np.float32)], BOLD, rng)
    with pytest.raises(SpatialError, match=r"made-0.*depth 1 has 40x30 px"):
        augment_row(row, [good], BOLD, rng, depths_m=[np.zeros((30, 40), np.float32)])
    (yaw,) = [e for e in examples if e.row.question_type == "yaw_angle"][:1]
    lost = replace(yaw.row, spatial=replace(yaw.row.spatial, world_up=()))
    with pytest.raises(SpatialError, match=f"row '{lost.id}'.*no world_up"):
        augment_row(lost, yaw.images, BOLD, rng)


@pytest.mark.parametrize(
    "wrong",
    [
        {"zoom": (0.8, 1.2)},
        {"crop": (0.5, 1.1)},
        {"scale": (0.0, 1.0)},
        {"gamma": (2.0, 1.0)},
        {"stretch": 0.9},
        {"turn_deg": (0.0, 60.0, 0.0)},
        {"tries": -1},
    ],
)
def test_ranges_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        AugmentConfig(**wrong)


def test_every_number_of_the_config_is_documented():
    names = {f.name for f in dataclasses.fields(AugmentConfig)}
    assert all(re.search(rf"\b{name}\b", AugmentConfig.__doc__) for name in names)
