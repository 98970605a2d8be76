from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.posed_rgbd import find_scenes

HOLOLENS = Path(__file__).parents[2] / "fixtures" / "hololens"


def opened(folder, **options):
    (ref,) = find_scenes(folder, **options)
    return ref.open(*ref.arguments)


def describe(folder, **values):
    (folder / "scene.json").write_text(json.dumps(values))


def agreement(scene, first, second, poses) -> tuple[float, float]:
    """Share of the first frame's depth that falls into the second, and share of those that agree with it.

    Unprojected and projected by OpenCV; points that the second frame sees something nearer of are hidden.
    """
    k = scene.frames[first].camera.k
    depth_m, other_m = scene.depth_m(first), scene.depth_m(second)
    v, u = (axis[::7] for axis in np.nonzero(depth_m))
    ideal = cv2.undistortPoints(np.stack([u, v], 1).astype(float)[:, None], k, None)[:, 0]
    points = np.column_stack([ideal, np.ones(len(ideal))]) * depth_m[v, u, None]
    second_from_first = np.linalg.inv(poses[second]) @ poses[first]
    points = points @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    points = points[points[:, 2] > 0.1]
    pixels = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, None)[0][:, 0]
    u, v = np.round(pixels).T
    inside = (u >= 0) & (v >= 0) & (u < other_m.shape[1]) & (v < other_m.shape[0])
    seen_m = other_m[v[inside].astype(int), u[inside].astype(int)]
    z = points[inside, 2]
    tolerance_m = np.maximum(0.05, 0.03 * seen_m)
    told = (seen_m > 0) & ~(seen_m < z - tolerance_m)
    agrees = np.abs(z - seen_m)[told] <= tolerance_m[told]
    return inside.sum() / len(ideal), agrees.sum() / max(1, len(agrees))


def test_real_depth_of_two_frames_agrees():
    """HoloLens frames: a point of one, moved by the poses, is as far as the other's depth says."""
    scene = opened(HOLOLENS, world_up=(0, 1, 0))
    poses = [frame.world_from_camera for frame in scene.frames]
    overlaps, agreements = [], []
    for first in range(len(poses)):
        for second in range(len(poses)):
            overlap, agrees = agreement(scene, first, second, poses)
            if first != second and overlap > 0.2:
                overlaps.append(overlap)
                agreements.append(agrees)
    assert len(agreements) > 40 and min(overlaps) < 0.3 < 0.9 < max(overlaps)
    assert min(agreements) > 0.9 and np.median(agreements) > 0.97
    # Read the other way round, as camera_from_world, the poses do not fit.
    inverse = [np.linalg.inv(pose) for pose in poses]
    wrong = [agreement(scene, i, i + 1, inverse)[1] for i in range(len(poses) - 1)]
    assert (
        np.median(wrong) < 0.8 < 0.97 < np.median([agreement(scene, i, i + 1, poses)[1] for i in range(11)])
    )


def test_real_frames_are_upright_where_y_is_up():
    """The person held the camera level: its y axis (down) is against world_up by less than 45 deg."""
    scene = opened(HOLOLENS, world_up=(0, 1, 0))
    down = np.array([frame.world_from_camera[:3, 1] for frame in scene.frames])
    assert (down @ scene.world_up < -np.cos(np.pi / 4)).all()


def test_the_real_folder():
    scene = opened(HOLOLENS)
    assert scene.name == "hololens" and scene.source == "posed_rgbd" and not scene.moving
    assert len(scene.frames) == 12 and scene.skipped == [] and scene.world_up is None
    assert scene.image(0).shape == (360, 540, 3) and scene.depth_m(0).shape == (360, 540)
    assert scene.depth_m(0)[scene.depth_m(0) > 0].min() > 0.3 and scene.depth_m(0).max() < 8
    lines = (HOLOLENS / "poses.txt").read_text().splitlines()
    np.testing.assert_allclose(
        scene.frames[5].world_from_camera.ravel(), np.array(lines[5].split(), float), atol=2e-5
    )
    assert opened(HOLOLENS, stride=5).frames[1].name == scene.frames[5].name


def test_poses_go_with_images_in_natural_order(write_posed_rgbd, room):
    """8.png, 9.png, 10.png, ...: sorted as text, 10.png would get the first pose."""
    scene = write_posed_rgbd().open()
    assert [frame.name for frame in scene.frames] == ["8", "9", "10", "11", "12", "13"]
    room.assert_shown(scene)


def test_scene_json_says_name_place_up_and_unit(write_posed_rgbd):
    folder = write_posed_rgbd().folder
    as_millimetres = opened(folder).depth_m(0)
    describe(
        folder, name="my kitchen", place="flat", world_up=[0, 0, 2], depth_scale=0.002, image_size=[96, 72]
    )
    (ref,) = find_scenes(folder)
    assert (ref.name, ref.place) == ("my_kitchen", "flat")
    scene = ref.open(*ref.arguments)
    assert scene.name == ref.name
    np.testing.assert_array_equal(scene.world_up, [0, 0, 1])
    np.testing.assert_allclose(scene.depth_m(0), 2 * as_millimetres, rtol=1e-6)


def test_an_option_is_believed_before_scene_json(write_posed_rgbd):
    folder = write_posed_rgbd().folder
    describe(folder, world_up=[0, 0, 1], depth_scale=0.002)
    scene = opened(folder, world_up=(0, 1, 0), depth_scale=0.001)
    np.testing.assert_array_equal(scene.world_up, [0, 1, 0])
    assert scene.depth_m(0).max() < 10


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"worldup": [0, 1, 0]}, "has unknown names worldup; known are name, place, world_up"),
        ({"world_up": [0, 0, 0]}, "world_up should be three numbers"),
        ({"depth_scale": 1000}, "depth_scale should be metres per step, above 0 and up to 1, found 1000"),
        ({"depth_scale": True}, "depth_scale should be metres per step"),
        ({"depth_scale": "mm"}, "depth_scale should be metres per step"),
        ({"image_size": [192, 144]}, "K is for 192x144 px, but the images are 96x72 px"),
        ({"image_size": 96}, r"image_size should be \[width, height\]"),
    ],
)
def test_a_wrong_scene_json(write_posed_rgbd, values, words):
    folder = write_posed_rgbd().folder
    describe(folder, **values)
    with pytest.raises(SceneProblem, match=words) as caught:
        opened(folder)
    assert caught.value.scene == "kitchen"
    assert Path(caught.value.file).name == ("K.txt" if words.startswith("K") else "scene.json")


@pytest.mark.parametrize(
    ("line", "words"),
    [("1 0 0 0", "pose 3 should be 16 numbers"), ("a " * 16, "pose 3 should be 16 numbers")],
)
def test_a_line_that_is_no_pose(write_posed_rgbd, line, words):
    file = write_posed_rgbd().folder / "poses.txt"
    lines = file.read_text().splitlines()
    lines[2] = line
    file.write_text("\n".join(lines))
    with pytest.raises(SceneProblem, match=words) as caught:
        opened(file.parent)
    assert caught.value.file == str(file)


def test_a_bad_pose_names_the_image(write_posed_rgbd):
    written = write_posed_rgbd()
    written.set_pose(2, np.full((4, 4), np.nan))
    scene = written.open()
    assert "poses.txt of image 10.png" in scene.skipped[0]
    assert [frame.name for frame in scene.frames] == ["8", "9", "11", "12", "13"]


@pytest.mark.parametrize("name", ["K.txt", "poses.txt"])
def test_a_missing_file_is_named(write_posed_rgbd, name):
    folder = write_posed_rgbd().folder
    (folder / name).unlink()
    with pytest.raises(SceneProblem, match=f"scene 'kitchen', .*{name}: cannot be read"):
        opened(folder)


def test_depth_of_another_size_with_its_own_k(write_posed_rgbd, room):
    written = write_posed_rgbd()
    k = room.k.copy()
    k[:2] /= 2
    for file, pose in zip(written.depths, room.poses, strict=True):
        _, depth_m = room.render(k, (48, 36), pose)
        cv2.imwrite(str(file), np.round(depth_m * 1000).astype(np.uint16))
    np.savetxt(written.folder / "K_depth.txt", k)
    scene = written.open()
    assert (scene.frames[0].depth_camera.width, scene.frames[0].camera.width) == (48, 96)
    room.assert_shown(scene)


def test_eight_bit_depth_is_refused(write_posed_rgbd):
    written = write_posed_rgbd()
    for file in written.depths:
        cv2.imwrite(str(file), np.full((72, 96), 9, np.uint8))
    with pytest.raises(SceneProblem, match="is not a 16-bit one-channel PNG"):
        written.open().depth_m(0)


def test_a_broken_scene_json_costs_that_scene_alone(write_posed_rgbd, tmp_path):
    for name in ("flat/kitchen", "flat/hall"):
        write_posed_rgbd(tmp_path / name)
    (tmp_path / "flat" / "hall" / "scene.json").write_text('{"name": ')
    hall, kitchen = find_scenes(tmp_path / "flat")
    assert (hall.name, kitchen.name) == ("hall", "kitchen")
    assert len(kitchen.open(*kitchen.arguments).frames) == 6
    with pytest.raises(SceneProblem, match=r"scene 'hall', .*scene.json: is not whole JSON"):
        hall.open(*hall.arguments)


def test_two_images_of_one_name(write_posed_rgbd):
    """9.jpg and 9.png would share a depth image and a name."""
    written = write_posed_rgbd()
    written.images[2].rename(written.images[2].with_name("9.jpg"))
    with pytest.raises(SceneProblem, match=r"9.png: has the same name as 9.jpg, apart from its ending"):
        written.open()
