"""Faults of files, on every layout whose frames are files."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.sources import SceneProblem, registry


def prepared(scene):
    return prepare(scene, MultispaConfig(), np.random.default_rng(0))


def cut(file, share=0.5):
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])


def empty_depth(file):
    samples = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    assert cv2.imwrite(str(file), np.zeros_like(samples))


def test_what_is_read_is_the_room(written, room):
    scene = written.open()
    assert len(scene.frames) == len(written.images) and scene.skipped == []
    assert scene.source == written.kind and scene.has_depth
    unit_m = 1 / 5000 if written.kind == "tum" else 0.001
    if written.kind == "seven_scenes":
        for index in range(len(scene.frames)):
            assert (scene.depth_m(index)[:4, :5] == 0).all()
            assert (scene.depth_m(index)[4:] > 0).all()
        for file in written.depths:  # the corner that the sensor lost is not to be compared
            samples = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            _, depth_m = room.render(room.k, room.size, room.poses[written.depths.index(file)])
            samples[:4, :5] = np.round(depth_m[:4, :5] * 1000)
            cv2.imwrite(str(file), samples)
    room.assert_shown(scene, depth_unit_m=unit_m, colour_tolerance=2 if written.kind == "scannet" else 1)
    for frame, pose in zip(scene.frames, room.poses, strict=True):
        np.testing.assert_allclose(frame.world_from_camera, pose, atol=2e-5)


def test_names_are_unique_and_safe(written):
    names = [frame.name for frame in written.open().frames]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").replace("-", "").isalnum() for name in names)


def test_a_ref_opens_in_another_process(written):
    (ref,) = registry.find_scenes(written.kind, written.folder, stride=1, **written.options)
    again = pickle.loads(pickle.dumps(ref))  # noqa: S301 - our own bytes
    assert len(again.open(*again.arguments).frames) == len(written.images)


def test_a_folder_of_scenes(request, written, tmp_path):
    write = request.getfixturevalue(f"write_{written.kind}")
    other = write(written.folder.parent / "seq-02")
    refs = registry.find_scenes(written.kind, written.folder.parent)
    assert [ref.name for ref in refs] != [] and len(refs) == 2
    assert {ref.arguments[0] for ref in refs} == {written.folder, other.folder}
    assert len({ref.name for ref in refs}) == 2


def test_a_stride_keeps_every_nth(written):
    assert [f.name for f in written.open(stride=2).frames] == [f.name for f in written.open().frames[::2]]
    with pytest.raises(SceneProblem, match="stride should be 1 or more, found 0"):
        written.open(stride=0)


def test_a_missing_pose(written):
    written.set_pose(2, None)
    if written.kind == "posed_rgbd":  # a line is lost, and nobody can tell which
        with pytest.raises(SceneProblem, match=r"'kitchen', .*poses.txt: has 5 poses for 6 images"):
            written.open()
        return
    scene = written.open()
    assert len(scene.frames) == 5
    (sentence,) = scene.skipped
    assert sentence.startswith(f"scene '{scene.name}', ") and "the frame is left out" in sentence
    assert (
        written.images[2].name if written.kind == "tum" else written.images[2].stem.split(".")[0]
    ) in sentence
    assert "pose" in sentence


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_poses_of_nan_are_counted(written, value):
    for index in (1, 4):
        written.set_pose(index, np.full((4, 4), value))
    scene = written.open()
    assert len(scene.frames) == 4
    (sentence,) = scene.skipped
    assert sentence.startswith(f"scene '{scene.name}', ") and "2 frames like this are left out" in sentence


def _scaled(pose):
    return pose @ np.diag([1.2, 1.2, 1.2, 1])


def _mirrored(pose):
    return pose @ np.diag([1, -1, 1, 1.0])


def _sheared(pose):
    return pose + np.eye(4)[[1, 0, 2, 3]] * 0.1


def _bottom(pose):
    return np.vstack([pose[:3], [0, 0, 0, 2]])


@pytest.mark.parametrize("written", ["posed_rgbd", "seven_scenes", "scannet"], indirect=True)
@pytest.mark.parametrize("spoil", [_scaled, _mirrored, _sheared, _bottom])
def test_a_matrix_that_is_no_rigid_motion(written, room, spoil):
    written.set_pose(3, spoil(room.poses[3]))
    scene = written.open()
    assert len(scene.frames) == 5
    assert (
        len(scene.skipped) == 1 and "is not a rotation and a shift; the frame is left out" in scene.skipped[0]
    )


def test_no_pose_at_all(written):
    for index in range(len(written.images)):
        written.set_pose(index, np.full((4, 4), np.nan))
    with pytest.raises(SceneProblem, match=r"NaN|no frame of the scene can be used"):
        written.open()


@pytest.mark.parametrize("which", ["images", "depths"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_a_cut_file_costs_its_frame(written, which, share):
    file = getattr(written, which)[2]
    cut(file, share)
    scene = written.open()
    assert len(scene.frames) == 5
    (sentence,) = scene.skipped
    assert sentence.startswith(f"scene '{scene.name}', {file}: ") and "the frame is left out" in sentence


@pytest.mark.parametrize("which", ["images", "depths"])
def test_all_files_cut(written, which):
    for file in getattr(written, which):
        cut(file)
    with pytest.raises(SceneProblem, match="no frame of the scene can be used") as caught:
        written.open()
    assert caught.value.file == str(getattr(written, which)[0])


@pytest.mark.parametrize("written", ["posed_rgbd", "seven_scenes", "tum"], indirect=True)
@pytest.mark.parametrize("which", ["images", "depths"])
def test_a_png_with_a_whole_end_but_broken_inside(written, which):
    file = getattr(written, which)[2]
    data = bytearray(file.read_bytes())
    middle = slice(len(data) // 3, len(data) // 2)
    data[middle] = bytes(len(data[middle]))
    file.write_bytes(data)
    scene = written.open()
    with pytest.raises(SceneProblem) as caught:
        scene.image(2) if which == "images" else scene.depth_m(2)
    assert str(caught.value).startswith(f"scene '{scene.name}', {file}: ")


def test_the_first_frame_broken_inside(written):
    file = written.depths[0]
    file.write_bytes(file.read_bytes()[:60] + bytes(40) + file.read_bytes()[100:])
    scene = written.open()
    assert len(scene.frames) == 5 and str(file) in scene.skipped[0]


def test_a_missing_depth_image(written):
    written.depths[1].unlink()
    scene = written.open()
    assert len(scene.frames) == 5
    assert str(written.depths[1]) in scene.skipped[0] and "does not exist" in scene.skipped[0]


def test_depth_that_is_empty(written):
    empty_depth(written.depths[1])
    scene = written.open()
    about = prepared(scene)
    assert 1 not in about.states[0].frames and len(about.states[0].frames) == 5
    (sentence,) = about.skipped
    assert sentence.startswith(f"scene '{scene.name}', {written.depths[1]}: holds no depth at all")


def test_all_depth_is_empty(written):
    for file in written.depths:
        empty_depth(file)
    with pytest.raises(SceneProblem, match="holds no depth at all") as caught:
        prepared(written.open())
    assert caught.value.file == str(written.depths[0])


def _resize_depth(written):
    for file in written.depths:
        samples = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert cv2.imwrite(str(file), samples[::2, ::2])


def test_depth_of_another_size(written):
    _resize_depth(written)
    with pytest.raises(SceneProblem) as caught:
        written.open()
    if written.kind == "scannet":  # has intrinsics for depth: those are what does not fit
        assert caught.value.file.endswith("intrinsic_depth.txt")
        assert caught.value.sentence == "K is for 96x72 px, but the images are 48x36 px"
    else:
        assert caught.value.file == str(written.depths[0])
        assert "is 48x36 px, but the colour image is 96x72 px, and there are no intrinsics" in str(
            caught.value
        )


def test_one_depth_image_of_another_size(written):
    samples = cv2.imread(str(written.depths[3]), cv2.IMREAD_UNCHANGED)
    assert cv2.imwrite(str(written.depths[3]), samples[::2, ::2])
    scene = written.open()
    with pytest.raises(SceneProblem, match=r"is 48x36 px, expected 96x72 as in other frames"):
        scene.depth_m(3)
    assert len(prepared(scene).states[0].frames) == 5


def test_one_image_of_another_size(written):
    rgb = cv2.imread(str(written.images[3]))
    assert cv2.imwrite(str(written.images[3]), rgb[::2, ::2])
    with pytest.raises(SceneProblem, match=r"px, expected \d+x\d+ as in other frames"):
        written.open().image(3)


def test_k_of_another_resolution(written):
    """A K for twice the size has its principal point outside."""
    if written.k_file is None:
        with pytest.raises(SceneProblem, match="K is of another resolution"):
            written.open(intrinsics=(160, 164, 98, 73))
        return
    numbers = np.loadtxt(written.k_file)
    numbers[:2] *= 2.2
    np.savetxt(written.k_file, numbers)
    with pytest.raises(
        SceneProblem, match="K is of another resolution: its principal point lies outside"
    ) as caught:
        written.open()
    assert caught.value.file == str(written.k_file)


@pytest.mark.parametrize("written", ["posed_rgbd", "tum", "scannet"], indirect=True)
@pytest.mark.parametrize(
    ("text", "words"),
    [("1 2 3", "found 3"), ("a b c", "something else than numbers"), ("nan " * 9, "NaN"), ("0 " * 9, "K")],
)
def test_k_that_is_none(written, text, words):
    written.k_file.write_text(text)
    with pytest.raises(SceneProblem, match=words) as caught:
        written.open()
    assert caught.value.file == str(written.k_file)


def test_an_empty_folder(written, tmp_path):
    (tmp_path / "nothing").mkdir()
    with pytest.raises(SceneProblem, match=r"'nothing', .*: there is no scene here, expected .+"):
        registry.find_scenes(written.kind, tmp_path / "nothing")
    with pytest.raises(SceneProblem, match="does not exist or is not a folder"):
        registry.find_scenes(written.kind, tmp_path / "nowhere")


def test_a_scene_without_images(written):
    for file in written.images:
        file.unlink()
    with pytest.raises(SceneProblem) as caught:
        written.open()
    assert str(written.folder) in str(caught.value)


def test_one_frame_is_readable(written):
    keep = written.images[0]
    if written.kind == "posed_rgbd":
        lines = (written.folder / "poses.txt").read_text().splitlines()
        (written.folder / "poses.txt").write_text(lines[0])
    for file in written.images:
        if file != keep:
            file.unlink()
    scene = written.open()
    assert len(scene.frames) == 1
    about = prepared(scene)
    assert about.states[0].frames == (0,) and about.states[0].count(0) > 0
