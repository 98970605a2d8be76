"""CameraWarp: pixels, images and depth of another camera at the same place, against OpenCV and analytic scenes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.augment import CameraWarp
from spatial_mllm_training.augment.draws import ViewDraw

CAMERA = CameraModel.from_k([150.0, 0, 85.0, 0, 158.0, 52.0, 0, 0, 1], 160, 120)
SQUARE = CameraModel.from_k([150.0, 0, 85.0, 0, 150.0, 52.0, 0, 0, 1], 160, 120)

degrees = st.floats(-12, 12)
shares = st.floats(0.5, 1.0)
factors = st.floats(0.5, 2.0)
places = st.floats(0, 1)
draws = st.builds(
    ViewDraw,
    st.tuples(degrees, degrees, degrees),
    st.tuples(shares, shares),
    st.floats(1.0, 1.6),
    st.tuples(places, places),
    st.tuples(factors, factors),
)
poses = st.builds(
    lambda angles, at: _pose(angles, at),
    st.tuples(*[st.floats(-170, 170)] * 3),
    st.tuples(*[st.floats(-5, 5)] * 3),
)


def _pose(angles_deg, at_m):
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("zyx", angles_deg, degrees=True).as_matrix()
    pose[:3, 3] = at_m
    return pose


def _projected(points_in_world, world_from_camera, camera):
    """OpenCV's pixels and the z-depths of world points."""
    camera_from_world = np.linalg.inv(world_from_camera)
    vector = Rotation.from_matrix(camera_from_world[:3, :3]).as_rotvec()  # cv2.Rodrigues loses small angles
    d = camera.d if camera.d.size else None
    pixels, _ = cv2.projectPoints(points_in_world, vector, camera_from_world[:3, 3], camera.k, d)
    return pixels[:, 0], (points_in_world @ camera_from_world[:3, :3].T + camera_from_world[:3, 3])[:, 2]


@settings(max_examples=150, deadline=None)
@given(draws, poses, st.integers(0, 10**6))
def test_points_land_where_opencv_projects_them_with_the_new_camera_and_pose(draw, pose, seed):
    warp, rng = draw.warp(CAMERA), np.random.default_rng(seed)
    pixels = rng.uniform([0, 0], [159, 119], (20, 2))
    depths_m = rng.uniform(0.3, 8, 20)
    in_world = CAMERA.unproject(pixels, depths_m) @ pose[:3, :3].T + pose[:3, 3]
    expected, z_m = _projected(in_world, warp.world_from_target(pose), warp.target)
    moved, moved_z_m = warp.points(pixels, depths_m)
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    np.testing.assert_allclose(moved_z_m, z_m, atol=1e-9)


@settings(max_examples=80, deadline=None)
@given(draws, st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_image_content_follows_the_pixels(draw, x, y):
    warp = draw.warp(CAMERA)
    # a spot at a place of the new image, whatever it shows
    target = np.array([x * (warp.target.width - 1), y * (warp.target.height - 1), 1.0])
    at = np.linalg.solve(warp.homography, target)
    at = at[:2] / at[2]
    v, u = np.mgrid[:120, :160]
    spot = np.rint(255 * np.exp(-((u - at[0]) ** 2 + (v - at[1]) ** 2) / (2 * 2.5**2))).astype(np.uint8)
    seen = warp.image(np.dstack([spot] * 3))[..., 1].astype(float)
    assert seen.shape == (warp.target.height, warp.target.width)
    reach = 9 * max(np.linalg.norm(warp.homography[:2, :2], 2), 1)
    v, u = np.mgrid[: seen.shape[0], : seen.shape[1]]
    if not (reach < target[0] < seen.shape[1] - reach and reach < target[1] < seen.shape[0] - reach):
        return  # cut off, so its centre means nothing
    centroid = np.array([(u * seen).sum(), (v * seen).sum()]) / seen.sum()
    assert np.abs(centroid - target[:2]).max() < 0.3


@settings(max_examples=60, deadline=None)
@given(draws, st.tuples(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4)))
def test_depth_is_that_of_a_plane_cast_by_the_new_camera(draw, slope):
    warp = draw.warp(CAMERA)
    normal = np.array([*slope, 1.0])

    def cast(camera, n):
        v, u = np.mgrid[: camera.height, : camera.width]
        rays = camera.rays(np.stack([u, v], -1).reshape(-1, 2).astype(float))
        return (2.0 / (rays @ n)).reshape(camera.height, camera.width)

    source = cast(CAMERA, normal)
    expected = cast(warp.target, warp.rotation @ normal)
    got = warp.depth(source.astype(np.float32))
    assert got.dtype == np.float32
    steps = np.gradient(source)
    nearest = 0.5 * (np.abs(steps[0]).max() + np.abs(steps[1]).max())
    factor = (expected / source.min()).max()
    assert np.abs(got - expected).max() <= 1.15 * nearest * factor + 1e-5
    if slope == (0.0, 0.0):
        np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_depth_of_a_wall_is_exact_after_a_turn_and_none_stays_none():
    warp = CameraWarp.rotated(CAMERA, Rotation.from_euler("yx", [10, -6], degrees=True).as_matrix())
    wall = np.full((120, 160), 2.0, np.float32)
    v, u = np.mgrid[: warp.target.height, : warp.target.width]
    rays = warp.target.rays(np.stack([u, v], -1).reshape(-1, 2).astype(float)) @ warp.rotation
    expected = (2.0 / rays[:, 2]).reshape(warp.target.height, warp.target.width)
    np.testing.assert_allclose(warp.depth(wall), expected, rtol=1e-6)
    assert np.ptp(expected) > 0.2, "the turn must change depths"
    wall[:, :80], wall[50:] = 0, np.nan
    got = warp.depth(wall)
    assert np.isfinite(got).all() and 0.1 < (got > 0).mean() < 0.5
    assert not got[-10:].any() and not got[:, :10].any()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 60), st.integers(0, 40), st.integers(40, 100), st.integers(30, 80), factors, factors)
def test_crop_and_resize_are_those_of_the_camera_model_and_of_opencv(x, y, width, height, sx, sy):
    crop = CameraWarp.cropped(CAMERA, x, y, width, height)
    size = (round(width * sx), round(height * sy))
    warp = CameraWarp.resized(crop.target, *size).after(crop)
    assert warp.target == CAMERA.cropped(x, y, width, height).resized(*size)
    image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    window = image[y : y + height, x : x + width]
    if (size[0] <= width) == (size[1] <= height):
        how = cv2.INTER_AREA if size[0] <= width else cv2.INTER_LINEAR
        expected = cv2.resize(window, size, interpolation=how)
        assert np.abs(warp.image(image).astype(int) - expected).max() <= 1
    np.testing.assert_array_equal(crop.image(image), window)
    depth = np.arange(1, 160 * 120 + 1, dtype=np.float32).reshape(120, 160)
    np.testing.assert_array_equal(crop.depth(depth), depth[y : y + height, x : x + width])


@settings(max_examples=60, deadline=None)
@given(draws, draws, draws)
def test_composition_is_associative_and_the_same_as_step_by_step(one, two, three):
    a = one.warp(CAMERA)
    b = two.warp(a.target)
    c = three.warp(b.target)
    left, right = c.after(b).after(a), c.after(b.after(a))
    assert left.source == CAMERA and left.target == c.target == right.target
    np.testing.assert_allclose(left.rotation, right.rotation, atol=1e-14)
    np.testing.assert_allclose(left.homography, right.homography, atol=1e-9)
    pixels, depths_m = np.array([[80.0, 60.0], [70.0, 50.0]]), np.array([1.0, 3.0])
    stepwise = c.points(*b.points(*a.points(pixels, depths_m)))
    for got, expected in zip(left.points(pixels, depths_m), stepwise, strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-8)
    pose = _pose((10, 20, 30), (1, 2, 3))
    np.testing.assert_allclose(
        left.world_from_target(pose),
        c.world_from_target(b.world_from_target(a.world_from_target(pose))),
        atol=1e-12,
    )


@settings(max_examples=60, deadline=None)
@given(draws)
def test_new_image_shows_nothing_that_was_not_taken(draw):
    warp = draw.warp(CAMERA)
    w, h = warp.target.width - 0.5, warp.target.height - 0.5
    corners = np.array([[[-0.5, -0.5], [w, -0.5], [w, h], [-0.5, h]]])
    seen = cv2.perspectiveTransform(corners, np.linalg.inv(warp.homography))[0]
    assert (seen >= -0.5 - 1e-4).all() and (seen <= np.array([159.5, 119.5]) + 1e-4).all()
    assert warp.kept_share == pytest.approx(cv2.contourArea(seen.astype(np.float32)) / (160 * 120), rel=1e-4)


@pytest.mark.parametrize("roll_deg", [0.0, 4.0, -9.0])
def test_a_roll_keeps_the_largest_window(roll_deg):
    warp = CameraWarp.rotated(SQUARE, Rotation.from_euler("z", roll_deg, degrees=True).as_matrix())
    angle = np.radians(abs(roll_deg))
    share = min(
        160 / (160 * np.cos(angle) + 120 * np.sin(angle)), 120 / (120 * np.cos(angle) + 160 * np.sin(angle))
    )
    assert (warp.target.width, warp.target.height) == (int(160 * share + 1e-9), int(120 * share + 1e-9))


@pytest.mark.parametrize("roll_deg", [7.0, -3.0])
def test_a_roll_is_opencvs_turn_about_the_principal_point(roll_deg):
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (120, 160, 3), dtype=np.uint8), (0, 0), 2)
    # a camera that rolls clockwise (about z, forward) sees the image turn counter-clockwise
    source_from_target = Rotation.from_euler("z", roll_deg, degrees=True).as_matrix()
    warp = CameraWarp.rotated(SQUARE, source_from_target.T)
    matrix = cv2.getRotationMatrix2D((SQUARE.cx, SQUARE.cy), roll_deg, 1.0)
    matrix[:, 2] += np.array([warp.target.cx, warp.target.cy]) - (SQUARE.cx, SQUARE.cy)
    np.testing.assert_allclose(warp.homography, np.vstack([matrix, [0, 0, 1]]), atol=1e-9)
    size = (warp.target.width, warp.target.height)
    expected = cv2.warpAffine(image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    assert np.abs(warp.image(image).astype(int) - expected).max() <= 2


@pytest.mark.parametrize("turn_deg", [0.0, 5.0])
def test_fine_patterns_turn_grey_when_they_shrink(turn_deg):
    checker = np.dstack([np.indices((120, 160)).sum(0) % 2 * 255] * 3).astype(np.uint8)
    warp = ViewDraw((0.0, 0.0, turn_deg), scale=(0.5, 0.5)).warp(CAMERA)
    seen = warp.image(checker).astype(float)[2:-2, 2:-2]
    assert seen.std() < 20 and abs(seen.mean() - 127.5) < 3
    aliased = checker[::2, ::2]
    assert aliased.std() == 0 and aliased.mean() == 0, "without a filter all would be black"


def test_a_warp_that_needs_padding_or_a_distorted_lens_is_refused():
    wider = CameraModel.from_k(CAMERA.k * [[0.9, 1, 1], [1, 0.9, 1], [1, 1, 1]], 160, 120)
    with pytest.raises(SpatialError, match="more than the source") as caught:
        CameraWarp(CAMERA, wider)
    assert caught.value.code == ErrorCode.BAD_ROI
    bent = CameraModel.from_k(CAMERA.k, 160, 120, d=[-0.1, 0.01, 0, 0])
    with pytest.raises(SpatialError, match="rectify it first") as caught:
        CameraWarp.identity(bent)
    assert caught.value.code == ErrorCode.BAD_DISTORTION
    with pytest.raises(SpatialError, match="rectify"):
        CameraWarp.identity(
            CameraModel.from_k(CAMERA.k, 160, 120, d=[0.0] * 4, distortion_model="equidistant")
        )
    with pytest.raises(SpatialError, match="turned so far"):
        CameraWarp.rotated(CAMERA, Rotation.from_euler("y", 100, degrees=True).as_matrix())
    with pytest.raises(ValueError, match="begin with the camera"):
        CameraWarp.resized(wider, 80, 60).after(CameraWarp.identity(CAMERA))
    with pytest.raises(ValueError, match="rotation matrix"):
        CameraWarp(CAMERA, CAMERA, 2 * np.eye(3))
    with pytest.raises(SpatialError, match="80x60 px does not belong"):
        CameraWarp.identity(CAMERA).image(np.zeros((60, 80, 3), np.uint8))


def test_points_behind_the_new_camera_have_no_pixel():
    warp = CameraWarp.rotated(CAMERA, Rotation.from_euler("y", 20, degrees=True).as_matrix())
    far_aside = CAMERA.project(np.array([[5.0, 0, 0.5], [-5.0, 0, 0.5]]))
    pixels, depths_m = warp.points(far_aside, [0.5, 0.5])
    assert np.isnan(depths_m).tolist() in ([True, False], [False, True])
    np.testing.assert_array_equal(np.isnan(pixels).all(axis=1), np.isnan(depths_m))


def test_images_are_copies_that_the_caller_may_draw_into():
    image = np.zeros((120, 160, 3), np.uint8)
    same = CameraWarp.identity(CAMERA).image(image)
    same[:] = 9
    assert not image.any()
