from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.tum import associate, find_scenes, poses_at

FREIBURG1 = (517.306408, 516.469215, 318.643040, 255.313989)


def opened(folder, **options):
    (ref,) = find_scenes(folder, **{"stride": 1, **options})
    return ref.open(*ref.arguments)


def published_rule(first_s, second_s, max_offset_s):
    """All pairs, nearest first, each time used once: what associate.py says it does."""
    candidates = sorted((abs(a - b), a, b) for a in first_s for b in second_s if abs(a - b) < max_offset_s)
    free_first, free_second, pairs = set(first_s), set(second_s), []
    for _, a, b in candidates:
        if a in free_first and b in free_second:
            free_first.remove(a)
            free_second.remove(b)
            pairs.append((a, b))
    return sorted(pairs)


@pytest.mark.parametrize("seed", range(20))
def test_association_is_the_published_rule(seed):
    rng = np.random.default_rng(seed)
    start_s = 1305031102.0
    first_s = np.sort(start_s + np.arange(80) / 30 + rng.normal(0, 0.006, 80))
    second_s = np.sort(start_s + rng.uniform(0, 0.03) + np.arange(70) / 30 + rng.normal(0, 0.012, 70))
    pairs = [(first_s[i], second_s[j]) for i, j in associate(first_s, second_s)]
    expected = published_rule(first_s.tolist(), second_s.tolist(), 0.02)
    assert pairs == expected and 20 < len(expected) < 70
    assert [(i, j) for j, i in sorted(associate(second_s, first_s), key=lambda p: p[1])] == associate(
        first_s, second_s
    )


def test_association_takes_unsorted_times():
    assert associate(np.array([0.0, 1.0]), np.array([1.005, 0.001, 0.5])) == [(0, 1), (1, 0)]
    assert associate(np.array([0.0]), np.array([0.02])) == []


@pytest.mark.parametrize("seed", range(5))
def test_poses_between_samples(seed):
    """A body that turns evenly about a fixed axis and moves on a line is known at every time."""
    rng = np.random.default_rng(seed)
    axis, start = rng.normal(size=3), Rotation.random(random_state=seed)
    times_s = np.sort(rng.uniform(0, 2, 60))
    wanted_s = np.concatenate([rng.uniform(-0.2, 2.2, 200), times_s[:10]])

    def truth(t):
        poses = np.tile(np.eye(4), (len(t), 1, 1))
        poses[:, :3, :3] = (Rotation.from_rotvec(np.outer(t, axis)) * start).as_matrix()
        poses[:, :3, 3] = np.outer(t, [0.5, -1, 2]) + 1
        return poses

    found = poses_at(times_s, truth(times_s), wanted_s)
    after = np.searchsorted(times_s, wanted_s)
    for pose, expected, t, i in zip(found, truth(wanted_s), wanted_s, after, strict=True):
        known = t in times_s or (0 < i < len(times_s) and times_s[i] - times_s[i - 1] <= 0.1)
        if known:
            np.testing.assert_allclose(pose, expected, atol=1e-9)
        else:
            assert np.isnan(pose).all()
    assert np.isnan(found).any() and np.isfinite(found).any()


def test_rotations_take_the_short_way():
    """q and -q are one rotation; between 179 and -179 degrees lies 180, not 0."""
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("z", [[179], [-179]], degrees=True).as_matrix()
    (middle,) = poses_at(np.array([0.0, 0.1]), poses, np.array([0.05]))
    np.testing.assert_allclose(middle[:3, :3], np.diag([-1, -1, 1]), atol=1e-9)


def test_one_sample_has_a_pose_at_its_time_only():
    found = poses_at(np.array([1.0]), np.eye(4)[None], np.array([0.99, 1.0, 1.01]))
    assert np.isnan(found[[0, 2]]).all() and (found[1] == np.eye(4)).all()


def test_times_and_up(write_tum):
    scene = write_tum().open()
    np.testing.assert_allclose([f.time_s for f in scene.frames], 1305031102 + 0.4 * np.arange(6))
    np.testing.assert_array_equal(scene.world_up, [0, 0, 1])
    assert not scene.moving and {frame.state for frame in scene.frames} == {0}


def test_a_gap_in_the_trajectory(write_tum, tmp_path):
    written = write_tum()
    file = written.folder / "groundtruth.txt"
    lines = file.read_text().splitlines()
    near = [line for line in lines if line[0] == "#" or not 0.75 < float(line.split()[0]) - 1305031102 < 0.87]
    assert len(lines) - len(near) == 12
    file.write_text("\n".join(near))
    scene = written.open()
    assert len(scene.frames) == 5
    assert "1305031102.800000.png: has no pose: groundtruth.txt has a gap over 0.1 s" in scene.skipped[0]


def test_an_image_without_depth_in_time(write_tum):
    written = write_tum()
    file = written.folder / "depth.txt"
    lines = file.read_text().splitlines()
    time, name = lines[3].split()
    lines[3] = f"{float(time) + 0.03:.6f} {name}"
    file.write_text("\n".join(lines))
    scene = written.open()
    assert len(scene.frames) == 5 and "has no depth image within 20 ms" in scene.skipped[0]


def test_quaternions_that_are_no_rotations(write_tum):
    written = write_tum()
    file = written.folder / "groundtruth.txt"
    lines = file.read_text().splitlines()
    words = lines[50].split()
    lines[50] = " ".join([*words[:4], "0", "0", "0", "0"])
    file.write_text("\n".join(lines))
    with pytest.raises(SceneProblem, match="quaternions that are not of length 1") as caught:
        written.open()
    assert caught.value.file == str(file) and caught.value.scene == "rgbd_dataset_own_desk"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("rgb.txt", "# nothing\n", "names no images"),
        ("rgb.txt", "1305031102.0\n", "line 1 should be a timestamp and a file"),
        ("depth.txt", "# a\nnan depth/a.png\n", "line 2 should be a timestamp and a file"),
        ("groundtruth.txt", "1 2 3 4 5 6 7\n", "line 1 should be timestamp tx ty tz qx qy qz qw"),
        ("groundtruth.txt", "# empty\n", "holds no pose"),
        ("groundtruth.txt", None, "cannot be read"),
        ("depth.txt", None, "cannot be read"),
    ],
)
def test_a_broken_list_is_named(write_tum, name, text, words):
    written = write_tum()
    file = written.folder / name
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(SceneProblem, match=words) as caught:
        written.open()
    assert caught.value.file == str(file)


def test_cameras_by_folder(write_tum, tmp_path, room):
    """The lens of freiburg1 and 2 is distorted: K and coefficients go together."""
    k = np.array([[FREIBURG1[0], 0, FREIBURG1[2]], [0, FREIBURG1[1], FREIBURG1[3]], [0, 0, 1]])
    d = (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)
    written = write_tum(tmp_path / "rgbd_dataset_freiburg1_xyz", k=k, size=(640, 480), d=d)
    written.k_file.unlink()
    scene = opened(written.folder, stride=3)
    np.testing.assert_allclose(scene.frames[0].camera.d, d)
    room.assert_shown(scene, depth_unit_m=1 / 5000)

    def k_named(name, **options):
        (ref,) = find_scenes(written.folder.rename(tmp_path / name), **options)
        camera = ref.open(*ref.arguments).frames[0].camera
        written.folder = tmp_path / name
        return (camera.fx, camera.fy, camera.cx, camera.cy), camera.d.any(), ref.place

    assert k_named("freiburg2_desk") == ((520.908620, 521.007327, 325.141442, 249.701764), True, "freiburg2")
    assert k_named("freiburg3_office") == ((535.4, 539.2, 320.1, 247.6), False, "freiburg3")
    assert k_named("office") == ((525.0, 525.0, 319.5, 239.5), False, "")
    assert k_named("freiburg1_b", intrinsics=(500, 501, 320, 240)) == (
        (500, 501, 320, 240),
        False,
        "freiburg1",
    )


def test_people_make_every_frame_a_state_of_its_own(write_tum, tmp_path):
    written = write_tum(tmp_path / "freiburg3_walking_xyz")
    scene = written.open()
    assert scene.moving and [frame.state for frame in scene.frames] == list(range(6))
    still = written.open(moving=False)
    assert not still.moving and {frame.state for frame in still.frames} == {0}
