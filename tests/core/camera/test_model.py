"""CameraModel against OpenCV and image_geometry's written rules; calibration faults by number."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.camera.model import MAX_TOKEN_SLOPE
from spatial_mllm_core.errors import ErrorCode, SpatialError

K = np.array([[500.0, 0, 330], [0, 480, 235], [0, 0, 1]])
LENSES = {
    "pinhole": ("plumb_bob", []),
    "plumb_bob": ("plumb_bob", [-0.28, 0.07, 0.001, -0.0005, 0.01]),
    "rational": ("rational_polynomial", [0.5, -2.6, 0.0003, -0.0002, 1.5, 0.4, -2.4, 1.4]),
    "fisheye": ("equidistant", [-0.01, 0.02, -0.005, 0.001]),
}


@pytest.fixture(params=LENSES)
def camera(request):
    model, d = LENSES[request.param]
    return CameraModel.from_k(K, 640, 480, d=d, distortion_model=model, frame_id="optical")


def opencv_normalized(camera, pixels):
    pixels = np.asarray(pixels, dtype=np.float64)
    until = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 200, 1e-12)
    if camera.distortion_model == "equidistant":
        return cv2.fisheye.undistortPoints(pixels[None], camera.k, camera.d, criteria=until)[0]
    if hasattr(cv2, "undistortPointsIter"):
        args = (pixels[:, None], camera.k, camera.d, None, None, until)
        return cv2.undistortPointsIter(*args)[:, 0]
    return cv2.undistortPoints(pixels[:, None], camera.k, camera.d, criteria=until)[:, 0]


def fault(call, *args, **kwargs):
    with pytest.raises(SpatialError) as caught:
        call(*args, **kwargs)
    return caught.value


# ---- pixels, rays, points ---------------------------------------------------------------------


def test_rays_are_opencvs_undistorted_points(camera):
    rng = np.random.default_rng(0)
    pixels = rng.uniform([0, 0], [639, 479], (200, 2))
    rays = camera.rays(pixels)
    np.testing.assert_allclose(rays[:, :2], opencv_normalized(camera, pixels), atol=1e-7)
    assert (rays[:, 2] == 1).all()


def test_project_and_unproject_are_inverse(camera):
    rng = np.random.default_rng(1)
    points = rng.uniform([-1, -0.8, 1.5], [1, 0.8, 6], (300, 3))
    pixels = camera.project(points)
    np.testing.assert_allclose(camera.unproject(pixels, points[:, 2]), points, atol=1e-8)


def test_project_gives_nan_at_and_behind_the_camera(camera):
    pixels = camera.project([[0.1, 0.1, 0.0], [0.1, 0.1, -1.0], [0.0, 0.0, 1.0]])
    assert np.isnan(pixels[:2]).all()
    np.testing.assert_allclose(pixels[2], [330, 235])


def test_raw_pixel_in_raw_pixel_out(camera):
    rng = np.random.default_rng(2)
    raw = rng.uniform([0, 0], [639, 479], (100, 2))
    ideal = camera.undistort_pixels(raw)
    np.testing.assert_allclose(camera.distort_pixels(ideal), raw, atol=1e-6)
    np.testing.assert_allclose(camera.rectified().rays(ideal), camera.rays(raw), atol=1e-9)


def test_point_map_is_unproject_of_every_pixel(camera):
    small = camera.resized(32, 24)
    depth_m = np.random.default_rng(3).uniform(0.5, 4, (24, 32)).astype(np.float32)
    depth_m[3, 4] = np.nan
    v, u = np.mgrid[:24, :32]
    expected = small.unproject(np.stack([u, v], -1).reshape(-1, 2), depth_m.ravel())
    points = small.point_map(depth_m)
    assert points.dtype == np.float32
    assert np.isnan(points[3, 4]).all()
    np.testing.assert_allclose(points.reshape(-1, 3), expected, rtol=1e-5, atol=1e-6)


def test_point_map_projects_back_onto_its_own_pixels(camera):
    depth_m = np.full((480, 640), 2.0, np.float32)
    points = camera.point_map(depth_m).reshape(-1, 3)[::997].astype(np.float64)
    v, u = np.mgrid[:480, :640]
    pixels = np.stack([u, v], -1).reshape(-1, 2)[::997]
    np.testing.assert_allclose(camera.project(points), pixels, atol=1e-3)


def test_point_map_refuses_depth_of_another_size(camera):
    error = fault(camera.point_map, np.ones((10, 10), np.float32))
    assert error.code == ErrorCode.SIZE_MISMATCH


# ---- token rays -------------------------------------------------------------------------------


@pytest.mark.parametrize(("grid_w", "grid_h"), [(20, 15), (7, 5), (1, 1)])
def test_token_rays_are_opencvs_rays_of_that_pixel_of_the_original_image(camera, grid_w, grid_h):
    pitch_x, pitch_y = 640 / grid_w, 480 / grid_h
    tokens = camera.token_rays(grid_w, grid_h)
    assert tokens.shape == (grid_h, grid_w, 4)
    assert tokens.dtype == np.float32
    for i in range(grid_h):
        u = pitch_x * (np.arange(grid_w) + 0.5) - 0.5
        v = np.full(grid_w, pitch_y * (i + 0.5) - 0.5)
        expected = opencv_normalized(camera, np.column_stack([u, v]))
        np.testing.assert_allclose(tokens[i, :, :2], expected, atol=2e-7)
    np.testing.assert_allclose(tokens[..., 2], math.log(500 / pitch_x), rtol=1e-6)
    np.testing.assert_allclose(tokens[..., 3], math.log(480 / pitch_y), rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 8), st.integers(1, 8), st.integers(20, 1500), st.integers(20, 1500))
def test_token_rays_do_not_depend_on_the_resolution_looked_at(grid_w, grid_h, width, height):
    camera = CameraModel.from_k(K, 640, 480, d=LENSES["plumb_bob"][1])
    np.testing.assert_allclose(
        camera.resized(width, height).token_rays(grid_w, grid_h),
        camera.token_rays(grid_w, grid_h),
        atol=1e-5,
    )


def test_token_rays_tell_cameras_apart():
    wide, tele = (CameraModel.from_fov(640, 480, a) for a in (1.6, 0.6))
    assert np.abs(wide.token_rays(4, 3) - tele.token_rays(4, 3)).max() > 0.3


def test_token_rays_of_a_lens_that_folds_inside_the_image_are_refused():
    camera = CameraModel.from_k(K, 640, 480, d=[-1.5, 0, 0, 0, 0], frame_id="odd")
    error = fault(camera.token_rays, 20, 15)
    assert error.code == ErrorCode.BAD_DISTORTION
    assert "odd" in error.sentence


def test_token_rays_of_a_very_wide_fisheye_are_finite_and_point_outwards():
    k = [[200, 0, 319.5], [0, 200, 239.5], [0, 0, 1]]  # corners at 2 rad, behind the camera
    camera = CameraModel.from_k(k, 640, 480, d=[0, 0, 0, 0], distortion_model="equidistant")
    tokens = camera.token_rays(20, 15)
    assert np.isfinite(tokens).all()
    slope = np.hypot(tokens[..., 0], tokens[..., 1])
    assert slope.max() == pytest.approx(MAX_TOKEN_SLOPE, rel=1e-5)
    assert tokens[0, 0, 0] < 0
    assert tokens[0, 0, 1] < 0
    assert tokens[-1, -1, 0] > 0
    assert tokens[-1, -1, 1] > 0


# ---- resize, crop, bin ------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(*(st.integers(8, 3000) for _ in range(4)))
def test_resizing_twice_is_resizing_once(w1, h1, w2, h2):
    camera = CameraModel.from_k(K, 640, 480)
    twice, once = camera.resized(w1, h1).resized(w2, h2), camera.resized(w2, h2)
    np.testing.assert_allclose(twice.k, once.k, rtol=1e-9, atol=1e-7)
    np.testing.assert_allclose(twice.p, once.p, rtol=1e-9, atol=1e-7)


def test_a_point_lands_on_the_same_place_of_the_resized_image(camera):
    point = [[0.3, -0.2, 2.0]]
    u, v = camera.project(point)[0]
    u2, v2 = camera.resized(320, 120).project(point)[0]
    assert (u2 + 0.5) / 320 == pytest.approx((u + 0.5) / 640)
    assert (v2 + 0.5) / 120 == pytest.approx((v + 0.5) / 480)


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 600), st.integers(0, 400), st.data())
def test_cropping_shifts_pixels_and_leaves_rays(x, y, data):
    w, h = data.draw(st.integers(1, 640 - x)), data.draw(st.integers(1, 480 - y))
    camera = CameraModel.from_k(K, 640, 480, d=LENSES["plumb_bob"][1])
    part = camera.cropped(x, y, w, h)
    assert (part.width, part.height) == (w, h)
    pixels = np.array([[0.0, 0.0], [w - 1.0, h - 1.0]])
    np.testing.assert_allclose(part.rays(pixels), camera.rays(pixels + [x, y]), atol=1e-9)


@pytest.mark.parametrize("part", [(-1, 0, 5, 5), (0, 0, 641, 5), (636, 0, 5, 5), (0, 0, 0, 5)])
def test_a_crop_outside_the_image_is_refused(camera, part):
    assert fault(camera.cropped, *part).code == ErrorCode.BAD_ROI


def test_a_bin_larger_than_the_image_is_refused(camera):
    assert fault(camera.binned, 641, 1).code == ErrorCode.BAD_ROI
    assert fault(camera.binned, 0, 1).code == ErrorCode.BAD_ROI


def test_stereo_baseline_survives_every_change_of_pixels():
    p = np.array([[470.0, 0, 325, -470 * 0.12], [0, 470, 238, 0], [0, 0, 1, 0]])
    camera = CameraModel(640, 480, K, p=p)
    for changed in (camera.resized(320, 240), camera.cropped(9, 7, 99, 98), camera.binned(2, 2)):
        assert -changed.p[0, 3] / changed.p[0, 0] == pytest.approx(0.12)


# ---- building ---------------------------------------------------------------------------------


def test_from_fov_sees_exactly_that_angle():
    camera = CameraModel.from_fov(640, 480, math.radians(70), vfov_rad=math.radians(50))
    assert camera.hfov_rad == pytest.approx(math.radians(70))
    assert (camera.cx, camera.cy) == (319.5, 239.5)
    rays = camera.rays([[319.5, -0.5], [319.5, 479.5]])
    assert np.arctan(rays[1, 1]) - np.arctan(rays[0, 1]) == pytest.approx(math.radians(50))


@pytest.mark.parametrize("angle", [0.0, -1.0, math.pi, math.nan])
def test_from_fov_refuses_an_impossible_angle(angle):
    assert fault(CameraModel.from_fov, 640, 480, angle).code == ErrorCode.BAD_INTRINSICS


def test_fisheye_field_of_view_may_exceed_half_a_turn():
    k = [[200, 0, 319.5], [0, 200, 239.5], [0, 0, 1]]
    camera = CameraModel.from_k(k, 640, 480, d=[0, 0, 0, 0], distortion_model="equidistant")
    assert camera.hfov_rad == pytest.approx(640 / 200)


def test_models_are_values():
    one, same = CameraModel.from_k(K, 640, 480), CameraModel.from_k(K.ravel(), 640, 480)
    other = CameraModel.from_k(K, 640, 480, d=[0.1, 0, 0, 0, 0])
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "camera"
    with pytest.raises(ValueError, match="read-only"):
        one.k[0, 0] = 1.0


def test_the_callers_array_is_copied():
    k = K.copy()
    camera = CameraModel.from_k(k, 640, 480)
    k[0, 0] = 1.0
    assert camera.fx == 500.0


def test_ros1_field_names_are_read(camera_info):
    info = camera_info()
    old = SimpleNamespace(
        **{("KDRP"["kdrp".index(n)] if n in "kdrp" else n): v for n, v in vars(info).items()}
    )
    assert CameraModel.from_camera_info(old) == CameraModel.from_camera_info(info)


def test_camera_info_fields_rebuild_the_same_camera(camera, camera_info):
    for made in (camera, camera.resized(160, 120), camera.cropped(3, 5, 100, 90)):
        out = made.camera_info_fields()
        info = camera_info(frame_id="optical", **{k: getattr(out, k) for k in out.__dataclass_fields__})
        assert CameraModel.from_camera_info(info) == made


def test_camera_info_fields_without_distortion_carry_the_zeros_others_expect():
    fields = CameraModel.from_k(K, 640, 480).camera_info_fields()
    assert fields.d == (0.0,) * 5
    assert fields.p == (500.0, 0.0, 330.0, 0.0, 0.0, 480.0, 235.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert all(type(v) is float for v in (*fields.k, *fields.r, *fields.p))


def test_importing_the_camera_loads_neither_opencv_nor_onnxruntime():
    code = (
        "import sys, spatial_mllm_core.camera, spatial_mllm_core.images, spatial_mllm_core.frames;"
        "sys.exit(bool({'cv2', 'onnxruntime', 'torch', 'rosbags'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- faults of the CameraInfo, numbered as in the fault matrix ------------------------------------


def test_b20_zero_k_is_uncalibrated(camera_info):
    for info in (camera_info(k=[0.0] * 9), camera_info(k=[0.0] * 9, width=0, height=0, d=[])):
        assert fault(CameraModel.from_camera_info, info).code == ErrorCode.UNCALIBRATED


@pytest.mark.parametrize("at", [0, 2, 4, 5, 8])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_b21_nan_and_inf(camera_info, at, value):
    k = list(K.ravel())
    k[at] = value
    error = fault(CameraModel.from_camera_info, camera_info(k=k))
    assert error.code == ErrorCode.BAD_INTRINSICS


@pytest.mark.parametrize(
    "k",
    [
        [-500, 0, 330, 0, 480, 235, 0, 0, 1],
        [500, 0, 330, 0, -480, 235, 0, 0, 1],
        [500, 0, 330, 0, 0, 235, 0, 0, 1],
        [500, 0, 0, 0, 480, 0, 330, 235, 1],  # transposed
        [500, 3, 330, 0, 480, 235, 0, 0, 1],  # skew, which ROS does not know
        [500, 0, 330, 0, 480, 235, 0, 0, 0],
        [500, 0, 330],
    ],
)
def test_b21_not_an_intrinsic_matrix(camera_info, k):
    error = fault(CameraModel.from_camera_info, camera_info(k=k))
    assert error.code == ErrorCode.BAD_INTRINSICS


def test_b21_nan_in_p_or_r(camera_info):
    p = [math.nan, *[0.0] * 11]
    r = [math.inf, *[0.0] * 8]
    for info in (camera_info(p=p), camera_info(r=r)):
        assert fault(CameraModel.from_camera_info, info).code == ErrorCode.BAD_INTRINSICS


def test_b22_principal_point_outside_the_image_is_legal(camera_info):
    k = [500, 0, -40, 0, 480, 900, 0, 0, 1]
    camera = CameraModel.from_camera_info(camera_info(k=k, d=[]))
    assert not camera.principal_point_inside
    np.testing.assert_allclose(camera.rays([[0, 0]])[0], [40 / 500, -900 / 480, 1])


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (160, 120), (960, 720)])
def test_b23_an_exact_ratio_is_scaled_by_pixel_centres(camera_info, size):
    camera = CameraModel.from_camera_info(camera_info(), image_size=size)
    s = size[0] / 640
    assert (camera.width, camera.height) == size
    np.testing.assert_allclose(
        [camera.fx, camera.fy, camera.cx, camera.cy],
        [500 * s, 480 * s, 330.5 * s - 0.5, 235.5 * s - 0.5],
    )


@pytest.mark.parametrize("size", [(480, 640), (640, 400), (641, 480), (320, 241), (0, 0)])
def test_b23_another_shape_is_refused(camera_info, size):
    error = fault(CameraModel.from_camera_info, camera_info(), image_size=size)
    assert error.code == ErrorCode.SIZE_MISMATCH
    assert f"{size[0]}x{size[1]}" in error.sentence
    assert "640x480" in error.sentence


def test_b23_k_without_a_size_is_refused(camera_info):
    error = fault(CameraModel.from_camera_info, camera_info(width=0, height=0), image_size=(640, 480))
    assert error.code == ErrorCode.SIZE_MISMATCH


def image_geometry(info):
    """K, P and size after binning and region of interest, as image_geometry writes them down."""
    k, p = np.array(info.k, float).reshape(3, 3), np.array(info.p, float).reshape(3, 4)
    bin_x, bin_y = max(1, info.binning_x), max(1, info.binning_y)
    roi = info.roi
    full = not any((roi.x_offset, roi.y_offset, roi.width, roi.height))
    width, height = (info.width, info.height) if full else (roi.width, roi.height)
    for m in (k, p):
        m[0, 0] /= bin_x
        m[1, 1] /= bin_y
        m[0, 2] = (m[0, 2] - roi.x_offset) / bin_x
        m[1, 2] = (m[1, 2] - roi.y_offset) / bin_y
    return k, p, (width // bin_x, height // bin_y)


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 4), st.integers(0, 4), st.data())
def test_b24_binning_and_roi_are_image_geometrys(camera_info_values, bin_x, bin_y, data):
    roi = (0, 0, 0, 0)
    if data.draw(st.booleans()):
        x, y = data.draw(st.integers(0, 600)), data.draw(st.integers(0, 440))
        roi = (x, y, data.draw(st.integers(4, 640 - x)), data.draw(st.integers(4, 480 - y)))
    info = camera_info_values(roi=roi, binning_x=bin_x, binning_y=bin_y)
    k, p, size = image_geometry(info)
    camera = CameraModel.from_camera_info(info, image_size=size)
    assert (camera.width, camera.height) == size
    np.testing.assert_allclose(camera.k, k, rtol=1e-12)
    np.testing.assert_allclose(camera.p, p, rtol=1e-12)


@pytest.fixture(scope="module")
def camera_info_values():
    """`camera_info` for hypothesis, which wants a fixture that lives as long as the module."""
    from types import SimpleNamespace as N

    def build(roi, **fields):
        x, y, w, h = roi
        return N(
            header=N(frame_id="camera_optical"),
            width=640,
            height=480,
            distortion_model="plumb_bob",
            d=[],
            k=K.ravel(),
            r=np.eye(3).ravel(),
            p=[470, 0, 325, 0, 0, 470, 238, 0, 0, 0, 1, 0],
            roi=N(x_offset=x, y_offset=y, width=w, height=h, do_rectify=False),
            **fields,
        )

    return build


def test_b24_image_geometry_itself_agrees_where_it_is_installed(camera_info):
    models = pytest.importorskip("image_geometry", reason="image_geometry comes with an apt ROS")
    messages = pytest.importorskip("sensor_msgs.msg")
    ours = camera_info(roi=(40, 20, 400, 300), binning_x=2, binning_y=2)
    theirs = messages.CameraInfo(
        width=640, height=480, distortion_model="plumb_bob", binning_x=2, binning_y=2
    )
    theirs.k, theirs.d = np.array(ours.k), list(ours.d)
    theirs.p, theirs.r = np.array(ours.p), np.array(ours.r)
    theirs.roi.x_offset, theirs.roi.y_offset = 40, 20
    theirs.roi.width, theirs.roi.height = 400, 300
    oracle = models.PinholeCameraModel()
    getattr(oracle, "fromCameraInfo", getattr(oracle, "from_camera_info", None))(theirs)
    camera = CameraModel.from_camera_info(ours)
    k = oracle.K if hasattr(oracle, "K") else oracle.intrinsic_matrix()
    np.testing.assert_allclose(camera.k, np.asarray(k), rtol=1e-9)


def test_b24_binning_reported_beside_a_full_image_keeps_the_full_k(camera_info):
    camera = CameraModel.from_camera_info(camera_info(binning_x=2, binning_y=2), image_size=(640, 480))
    np.testing.assert_array_equal(camera.k, K)


def test_b24_a_full_image_beside_a_partial_roi_is_not_guessed(camera_info):
    info = camera_info(roi=(160, 120, 320, 240))
    error = fault(CameraModel.from_camera_info, info, image_size=(640, 480))
    assert error.code == ErrorCode.SIZE_MISMATCH


@pytest.mark.parametrize(
    "roi", [(600, 0, 100, 100), (0, 400, 100, 100), (10, 0, 0, 0), (0, 0, 100, 0), (2**32 - 1, 0, 9, 9)]
)
def test_b24_roi_outside_the_image_is_refused(camera_info, roi):
    assert fault(CameraModel.from_camera_info, camera_info(roi=roi)).code == ErrorCode.BAD_ROI


def test_b24_binning_larger_than_the_roi_is_refused(camera_info):
    info = camera_info(roi=(0, 0, 8, 8), binning_x=9, binning_y=1)
    assert fault(CameraModel.from_camera_info, info).code == ErrorCode.BAD_ROI


def test_b25_wrong_coefficients_of_a_camera_info(camera_info):
    wrong = fault(CameraModel.from_camera_info, camera_info(d=[0.1, 0.2]))
    unknown = fault(CameraModel.from_camera_info, camera_info(distortion_model="kalibr"))
    assert wrong.code == ErrorCode.BAD_DISTORTION
    assert unknown.code == ErrorCode.UNKNOWN_DISTORTION_MODEL


def test_b25_empty_d_is_no_distortion(camera_info):
    camera = CameraModel.from_camera_info(camera_info(d=[], distortion_model=""))
    np.testing.assert_array_equal(camera.undistort_pixels([[7, 9]]), [[7, 9]])


def test_b26_fisheye_follows_opencv(camera_info):
    d = [-0.01, 0.02, -0.005, 0.001]
    camera = CameraModel.from_camera_info(camera_info(distortion_model="equidistant", d=d))
    points = np.random.default_rng(4).uniform([-3, -3, 1], [3, 3, 2], (50, 3))
    expected = cv2.fisheye.projectPoints(points[None], np.zeros(3), np.zeros(3), K, np.array(d))[0][0]
    np.testing.assert_allclose(camera.project(points), expected, atol=1e-9)


def test_b27_p_all_zero_falls_back_to_k_for_output(camera_info):
    camera = CameraModel.from_camera_info(camera_info(p=[0.0] * 12))
    np.testing.assert_array_equal(camera.p[:, :3], K)


def test_b27_a_raw_topic_uses_k_and_a_rectified_topic_uses_p(camera_info):
    raw = CameraModel.from_camera_info(camera_info())
    rectified = CameraModel.from_camera_info(camera_info(), rectified=True)
    assert (raw.fx, raw.cx, raw.d.size) == (500, 330, 5)
    assert (rectified.fx, rectified.cx, rectified.d.size) == (470, 325, 0)


def test_b27_rectified_without_p_is_refused_unless_nothing_was_to_rectify(camera_info):
    error = fault(CameraModel.from_camera_info, camera_info(p=[0.0] * 12), rectified=True)
    assert error.code == ErrorCode.UNCALIBRATED
    simulated = CameraModel.from_camera_info(camera_info(p=[0.0] * 12, d=[]), rectified=True)
    np.testing.assert_array_equal(simulated.k, K)


def test_b27_rectified_pixels_are_image_geometrys_rectify_point(camera_info):
    """A raw pixel moved by OpenCV onto the rectified image has the same ray, turned by R."""
    info = camera_info(r=cv2.Rodrigues(np.array([0.01, -0.02, 0.005]))[0].ravel())
    raw, rectified = (CameraModel.from_camera_info(info, rectified=r) for r in (False, True))
    pixel = np.array([[100.0, 80.0], [500.0, 400.0]])
    p = np.array(info.p).reshape(3, 4)
    moved = cv2.undistortPoints(pixel[:, None], K, np.array(info.d), R=raw.r, P=p)[:, 0]
    turned = raw.rays(pixel) @ raw.r.T
    np.testing.assert_allclose(rectified.rays(moved), turned / turned[:, 2:], atol=1e-4)


def test_b29_stereo_right_camera_keeps_its_baseline_for_output(camera_info):
    p = [470, 0, 325, -470 * 0.12, 0, 470, 238, 0, 0, 0, 1, 0]
    for rectified in (False, True):
        camera = CameraModel.from_camera_info(camera_info(p=p), rectified=rectified)
        assert camera.camera_info_fields().p[3] == pytest.approx(-56.4)
    # its own optical frame is the origin: a point on its axis is at its principal point
    np.testing.assert_allclose(camera.project([[0, 0, 2.0]]), [[325, 238]])
