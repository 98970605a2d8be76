"""Recorded balls against the robot's own kinematics, the other layout, and broken folders."""

from __future__ import annotations

import pickle
import shutil
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.object_motion import find_scenes
from spatial_mllm_training.sources.sphere_fit import fit_sphere

DVRK = Path(__file__).parents[2] / "fixtures" / "dvrk"


def open_one(path: Path, **options):
    (ref,) = find_scenes(path, **options)
    ref = pickle.loads(pickle.dumps(ref))  # noqa: S301 - as a worker process gets it
    return ref.open(*ref.arguments)


def rows_of(scene) -> list[int]:
    """The rows of the text files that belong to the scene's frames."""
    return [int(frame.name.rpartition("frame")[2]) for frame in scene.frames]


@pytest.fixture
def dvrk_copy(tmp_path) -> Path:
    return Path(shutil.copytree(DVRK, tmp_path / "dvrk"))


class Robot:
    """Where the arm's kinematics put both balls, in the camera.

    The base frame of a da Vinci arm has its origin at the remote centre of motion, through which the
    shaft always passes, so that the balls lie on the line from there to joint 4, each at a fixed
    distance before it. The hand-eye transform (6 numbers) and the two distances are fitted.
    """

    def __init__(self, joint4_m: np.ndarray, centres_m: np.ndarray, near: Robot | None = None) -> None:
        position = np.r_[centres_m.mean(axis=(0, 1)), -0.068, -0.018]
        starts = [np.r_[r.as_rotvec(), position] for r in Rotation.random(8, random_state=0)]
        fits = [
            least_squares(
                lambda p: (self._balls(p, joint4_m) - centres_m).ravel(),
                start,
                x_scale=[1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1],
            )
            for start in (starts if near is None else [near._p])
        ]
        self._p = min(fits, key=lambda fit: fit.cost).x

    def balls_m(self, joint4_m: np.ndarray) -> np.ndarray:
        return self._balls(self._p, joint4_m)

    @staticmethod
    def _balls(p: np.ndarray, joint4_m: np.ndarray) -> np.ndarray:
        along = joint4_m / np.linalg.norm(joint4_m, axis=1, keepdims=True)
        rotation = Rotation.from_rotvec(p[:3])
        return np.stack([rotation.apply(joint4_m + p[6 + k] * along) + p[3:6] for k in range(2)], axis=1)


def test_displacements_agree_with_the_robots_kinematics_within_1_5_mm():
    """All 300 pairs of frames; for each, robot and camera are calibrated on the 23 other frames only.

    What remains is the arm's rather than the fit's: both balls, fitted apart, miss it by the same vector.
    """
    scene = open_one(DVRK, images="ir")
    centres_m = scene.tracks.points_in_world_m
    joint4_m = np.loadtxt(DVRK / "joint4_robot_base_m.txt")
    assert rows_of(scene) == list(range(25)) and scene.tracks.visible.all()
    whole = Robot(joint4_m, centres_m)
    vector_mm, length_mm, moved_mm = [], [], []
    for first, second in combinations(range(25), 2):
        others = [i for i in range(25) if i not in (first, second)]
        balls_m = Robot(joint4_m[others], centres_m[others], near=whole).balls_m(joint4_m[[first, second]])
        told, seen = balls_m[1] - balls_m[0], centres_m[second] - centres_m[first]
        vector_mm.append(1000 * np.linalg.norm(seen - told, axis=1))
        length_mm.append(1000 * np.abs(np.linalg.norm(seen, axis=1) - np.linalg.norm(told, axis=1)))
        moved_mm.append(1000 * np.linalg.norm(told, axis=1))
    for name, error_mm in (("vector", np.array(vector_mm)), ("distance", np.array(length_mm))):
        rms = np.sqrt((error_mm**2).mean(axis=0))
        print(
            f"{name}: RMS {rms.round(2)} mm, max {error_mm.max(axis=0).round(2)} mm (balls of 12 and 10 mm)"
        )
        assert error_mm.max() <= 1.5
    assert np.median(moved_mm) > 15 and np.max(moved_mm) > 50  # the arm does move
    missed = (whole.balls_m(joint4_m) - centres_m).transpose(1, 0, 2).reshape(2, -1)
    assert np.corrcoef(missed)[0, 1] > 0.85


def test_joint_4_told_by_the_two_balls_moves_as_the_robot_says():
    """No calibration but one number: joint 4 lies on the line of the balls, at a fixed share of their distance."""
    scene = open_one(DVRK, images="ir")
    upper, lower = scene.tracks.points_in_world_m.transpose(1, 0, 2)
    joint4_m = np.loadtxt(DVRK / "joint4_robot_base_m.txt")[rows_of(scene)]
    seen = lower + (lower - upper) / np.linalg.norm(lower - upper, axis=1, keepdims=True) * 0.0175
    first, second = np.triu_indices(len(seen), 1)
    errors_mm = 1000 * np.abs(
        np.linalg.norm(seen[first] - seen[second], axis=1)
        - np.linalg.norm(joint4_m[first] - joint4_m[second], axis=1)
    )
    print(f"joint 4: RMS {np.sqrt((errors_mm**2).mean()):.2f} mm, max {errors_mm.max():.2f} mm")
    assert errors_mm.max() <= 1.5


def test_centres_are_those_of_the_published_fit():
    centres_mm = 1000 * open_one(DVRK, images="ir").tracks.points_in_world_m
    given_mm = np.loadtxt(DVRK / "ball_centres_ircam_mm.txt").reshape(-1, 2, 3)
    assert np.linalg.norm(centres_mm - given_mm, axis=2).max() < 0.15


def test_centres_fall_on_the_red_balls_of_the_colour_image():
    scene = open_one(DVRK)
    for index, frame in enumerate(scene.frames):
        pixels = np.rint(frame.camera.project(scene.tracks.points_in_world_m[index])).astype(int)
        for u, v in pixels:
            r, g, b = scene.image(index)[v - 3 : v + 4, u - 3 : u + 4].astype(int).mean(axis=(0, 1))
            assert r > max(g, b) + 40


def test_both_pictures_show_the_same_movement():
    rgb, ir = open_one(DVRK), open_one(DVRK, images="ir")
    common = [rows_of(ir).index(row) for row in rows_of(rgb)]
    lengths = [
        np.linalg.norm(t[1:] - t[:-1], axis=2)
        for t in (rgb.tracks.points_in_world_m, ir.tracks.points_in_world_m[common])
    ]
    np.testing.assert_allclose(*lengths, atol=2e-4)


def test_depth_moved_into_the_colour_camera_lies_on_the_balls():
    scene = open_one(DVRK)
    for index in (0, 7):
        camera, depth_m = scene.frames[index].depth_camera, scene.depth_m(index)
        assert depth_m.shape == (camera.height, camera.width) == (300, 400)
        v, u = np.nonzero(depth_m)
        points_m = camera.unproject(np.column_stack([u, v]), depth_m[v, u])
        for centre_m, radius_m in zip(scene.tracks.points_in_world_m[index], (0.012, 0.010), strict=True):
            distance_m = np.linalg.norm(points_m - centre_m, axis=1)
            # half a pixel of 0.5 mm turns into a millimetre on the steep rim
            assert (np.abs(distance_m - radius_m) < 1.0e-3).sum() > 300


def test_depth_of_the_infrared_image_is_the_file_in_hundredths_of_a_millimetre():
    scene = open_one(DVRK, images="ir")
    stored = cv2.imread(str(DVRK / "depth_ir" / "frame0.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(scene.depth_m(0), stored * 1e-5, rtol=1e-6)
    assert scene.image(0).shape == (400, 640, 3)


def test_says_what_it_is():
    scene = open_one(DVRK)
    assert [f.state for f in scene.frames] == list(range(12))
    assert [f.name.rpartition("frame")[2] for f in scene.frames][:3] == ["0", "2", "5"]  # not 0, 10, 12
    assert scene.moving and scene.has_depth and scene.world_up is None and scene.source == "object_motion"
    assert (scene.tracks.body == 0).all()  # both balls on one shaft


def test_a_ball_is_found_among_a_shaft_and_flying_pixels():
    rng = np.random.default_rng(0)
    centre = np.array([0.03, -0.02, 0.3])
    normals = rng.normal(size=(4000, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    cap = centre + 0.012 * normals[normals @ centre < -0.1 * np.linalg.norm(centre)]
    shaft = centre + np.column_stack([0.004 * rng.normal(size=(500, 2)), rng.uniform(-0.02, 0.0, 500)])
    flying = centre + rng.uniform(-0.02, 0.03, (150, 3))
    cloud = np.concatenate([cap, shaft, flying]) + rng.normal(scale=1e-4, size=(len(cap) + 650, 3))
    fit = fit_sphere(cloud, 0.012)
    assert np.linalg.norm(fit.centre_m - centre) < 1e-4
    assert fit.inliers >= len(cap) * 0.95


def test_nothing_round_gives_no_sphere():
    assert fit_sphere(np.zeros((0, 3)), 0.01) is None
    assert fit_sphere(np.zeros((10, 3)), 0.01) is None


def test_a_frame_without_any_depth_has_no_tracks(dvrk_copy):
    cv2.imwrite(str(dvrk_copy / "depth_ir" / "frame2.png"), np.zeros((400, 640), np.uint16))
    for images, row in (("rgb", 1), ("ir", 2)):
        scene = open_one(dvrk_copy, images=images)
        assert not scene.depth_m(row).any()
        assert not scene.tracks.visible[row].any() and scene.tracks.visible[row + 1].all()


def test_a_single_frame_is_a_scene(dvrk_copy):
    for file in (dvrk_copy / "RGB").iterdir():
        if file.stem != "frame24":
            file.unlink()
    scene = open_one(dvrk_copy)
    assert len(scene.frames) == 1 and scene.tracks.points_in_world_m.shape == (1, 2, 3)


def test_a_frame_without_one_of_the_balls_has_no_tracks(dvrk_copy):
    file = dvrk_copy / "depth_ir" / "frame2.png"
    depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    depth[:, :250] = 0  # the upper ball
    cv2.imwrite(str(file), depth)
    tracks = open_one(dvrk_copy).tracks
    assert not tracks.visible[1].any() and np.isnan(tracks.points_in_world_m[1]).all()
    assert tracks.visible[[0, *range(2, 12)]].all()


# ---- your own recordings --------------------------------------------------------------------


@pytest.fixture
def own(tmp_path) -> Path:
    folder = tmp_path / "mine"
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    for step in range(3):
        cv2.imwrite(str(folder / "images" / f"f{step * 5}.jpg"), np.full((24, 32, 3), 40 * step, np.uint8))
        cv2.imwrite(str(folder / "depth" / f"f{step * 5}.png"), np.full((24, 32), 1000 + step, np.uint16))
    np.savetxt(folder / "K.txt", [[30, 0, 15.5], [0, 30, 11.5], [0, 0, 1]])
    points = np.arange(18, dtype=np.float64).reshape(3, 2, 3)
    points[1, 1] = np.nan
    np.savez(folder / "tracks.npz", points_in_camera_m=points, visible=np.ones((3, 2), bool))
    return folder


def test_own_recording(own):
    scene = open_one(own)
    assert [f.name for f in scene.frames] == ["0000_f0", "0001_f5", "0002_f10"]
    assert scene.depth_m(2)[0, 0] == np.float32(1.002)
    assert scene.image(1)[0, 0, 0] == pytest.approx(40, abs=1)
    assert scene.tracks.visible.tolist() == [[True, True], [True, False], [True, True]]
    assert scene.tracks.points_in_world_m[2, 1, 2] == 17 and scene.tracks.body is None


def test_several_recordings_beside_each_other(own):
    shutil.copytree(own, own.with_name("other"))
    assert [ref.name for ref in find_scenes(own.parent)] == ["mine", "other"]


def test_own_recording_without_depth(own):
    shutil.rmtree(own / "depth")
    scene = open_one(own)
    assert not scene.has_depth
    with pytest.raises(SceneProblem, match="no depth"):
        scene.depth_m(0)


def _k_of_another_size(folder):
    np.savetxt(folder / "K.txt", [[300, 0, 159.5], [0, 300, 119.5], [0, 0, 1]])


def _nan_k(folder):
    (folder / "K.txt").write_text("nan 0 15.5 0 30 11.5 0 0 1")


def _truncated_tracks(folder):
    file = folder / "tracks.npz"
    file.write_bytes(file.read_bytes()[:-100])


def _objects(folder):
    np.savez(folder / "tracks.npz", points_in_camera_m=np.array([{}], object), visible=np.ones((3, 2), bool))


def _transposed(folder):
    np.savez(folder / "tracks.npz", points_in_camera_m=np.zeros((2, 3, 3)), visible=np.ones((2, 3), bool))


def _numbers_as_visible(folder):
    np.savez(folder / "tracks.npz", points_in_camera_m=np.zeros((3, 2, 3)), visible=np.ones((3, 2)))


@pytest.mark.parametrize(
    ("break_it", "file", "words"),
    [
        (_k_of_another_size, "K.txt", "another resolution"),
        (_nan_k, "K.txt", "finite"),
        (lambda f: (f / "K.txt").unlink(), "K.txt", "cannot be read as text"),
        (lambda f: shutil.rmtree(f / "images"), "mine", "no images"),
        (_truncated_tracks, "tracks.npz", "whole"),
        (_objects, "tracks.npz", "Object arrays"),
        (_transposed, "tracks.npz", r"expected \(3, N, 3\)"),
        (_numbers_as_visible, "tracks.npz", "bool"),
    ],
)
def test_a_broken_recording_is_named(own, break_it, file, words):
    break_it(own)
    with pytest.raises(SceneProblem, match=words) as problem:
        open_one(own)
    assert problem.value.scene == "mine" and file in problem.value.file


def test_pictures_of_another_size_and_cut_ones_are_named(own, dvrk_copy):
    cv2.imwrite(str(own / "images" / "f5.jpg"), np.zeros((10, 10, 3), np.uint8))
    cv2.imwrite(str(own / "depth" / "f10.png"), np.zeros((10, 10), np.uint16))
    jpeg = own / "images" / "f10.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-40])
    scene = open_one(own)
    for call, file in ((scene.image, "f5.jpg"), (scene.depth_m, "f10.png"), (scene.image, "f10.jpg")):
        with pytest.raises(SceneProblem, match=f"mine.*{file}"):
            call(1 if file == "f5.jpg" else 2)
    (dvrk_copy / "depth_ir" / "frame5.png").write_bytes(b"no png")
    with pytest.raises(SceneProblem, match=r"dvrk.*frame5\.png"):
        open_one(dvrk_copy).tracks  # noqa: B018


def test_an_image_without_depth_is_left_out_and_named(dvrk_copy):
    (dvrk_copy / "depth_ir" / "frame8.png").unlink()
    scene = open_one(dvrk_copy)
    assert len(scene.frames) == 11 and "frame8.jpg" in scene.skipped[0]


def test_a_folder_of_neither_layout(tmp_path):
    with pytest.raises(SceneProblem, match=r"tracks\.npz"):
        find_scenes(tmp_path)


def test_unknown_pictures_are_refused():
    with pytest.raises(SceneProblem, match="'rgb' or 'ir'"):
        open_one(DVRK, images="uv")
