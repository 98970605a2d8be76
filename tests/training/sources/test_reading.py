from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.reading import (
    RIGID_TOLERANCE,
    camera_of,
    checked_pose,
    k_of,
    read_json,
    read_k,
    read_pose,
    safe_name,
    scene_folders,
    summarise,
    unit_up,
)


@given(st.text(min_size=1))
def test_any_name_becomes_a_folder_name(text):
    name = safe_name(text)
    assert name and not set(name) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
    assert safe_name(name) == name


def test_usual_names_stay():
    for name in ("scene0000_00", "rgbd_dataset_freiburg1_desk2", "seq-01"):
        assert safe_name(name) == name


@given(st.integers(0, 2**32 - 1))
def test_a_rounded_rotation_is_made_exact(seed):
    rng = np.random.default_rng(seed)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.random(random_state=seed % 2**31).as_matrix()
    pose[:3, 3] = rng.normal(size=3)
    rounded = np.round(pose, 3)
    exact = checked_pose("s", "f", rounded)
    assert np.abs(exact[:3, :3].T @ exact[:3, :3] - np.eye(3)).max() < 1e-12
    turned = Rotation.from_matrix(exact[:3, :3].T @ pose[:3, :3]).magnitude()
    assert turned < 0.002  # scipy takes the nearest rotation too
    np.testing.assert_array_equal(exact[:3, 3], rounded[:3, 3])


@pytest.mark.parametrize("scale", [1 + RIGID_TOLERANCE / 4, 1 - RIGID_TOLERANCE / 4])
def test_a_rotation_within_tolerance_passes(scale):
    assert np.allclose(checked_pose("s", "f", np.diag([scale, scale, scale, 1])), np.eye(4))


@pytest.mark.parametrize("scale", [1 + RIGID_TOLERANCE, 1 - RIGID_TOLERANCE, 0.0, -1.0])
def test_a_scaled_matrix_is_refused(scale):
    with pytest.raises(SceneProblem, match="is not a rotation and a shift"):
        checked_pose("s", "f", np.diag([scale, scale, scale, 1]))


def test_a_pose_file(tmp_path):
    file = tmp_path / "pose.txt"
    with pytest.raises(SceneProblem, match=r"scene 'x', .*pose.txt: is missing, and with it a pose"):
        read_pose("x", file)
    file.write_text("1 0 0 2\t0 1 0 3\n0 0 1 4  0 0 0 1\n")
    np.testing.assert_array_equal(read_pose("x", file)[:3, 3], [2, 3, 4])
    file.write_text("1 0 0 2 0 1 0 3 0 0 1 4")
    with pytest.raises(SceneProblem, match="should hold 4x4 numbers, found 12"):
        read_pose("x", file)
    file.write_text("-1.#IND " * 16)
    with pytest.raises(SceneProblem, match="something else than numbers"):
        read_pose("x", file)


def test_k_of_four_by_four(tmp_path):
    whole = np.eye(4)
    whole[:3, :3] = k_of(500, 510, 320, 240)
    np.savetxt(tmp_path / "k.txt", whole)
    np.testing.assert_array_equal(read_k("x", tmp_path / "k.txt"), [[500, 0, 320], [0, 510, 240], [0, 0, 1]])
    with pytest.raises(SceneProblem, match="cannot be read"):
        read_k("x", tmp_path / "none.txt")


def test_a_camera_must_fit_its_image():
    k = k_of(500, 500, 320, 240)
    assert camera_of("x", "k.txt", k, (640, 480)).fx == 500
    with pytest.raises(SceneProblem, match=r"scene 'x', k.txt: K is of another resolution.*320x240 px image"):
        camera_of("x", "k.txt", k, (320, 240))
    with pytest.raises(SceneProblem, match="K is for 1296x968 px, but the images are 640x480 px"):
        camera_of("x", "k.txt", k, (640, 480), stated_size=(1296, 968))
    with pytest.raises(SceneProblem, match=r"scene 'x', k\.txt"):
        camera_of("x", "k.txt", k_of(0, 0, 0, 0), (640, 480))


def test_up_is_a_unit_vector():
    assert unit_up("x", "f", None) is None
    np.testing.assert_allclose(unit_up("x", "f", (0, -2, 0)), [0, -1, 0])
    for wrong in ((0, 0, 0), (0, 1), "up", (0, np.nan, 1), {"y": 1}):
        with pytest.raises(SceneProblem, match="world_up should be three numbers"):
            unit_up("x", "f", wrong)


def test_json_faults_are_sentences(tmp_path):
    file = tmp_path / "a.json"
    file.write_text('{"a": 1')
    with pytest.raises(SceneProblem, match=r"scene 'x', .*a.json: is not whole JSON"):
        read_json("x", file)
    file.write_text("[1]")
    with pytest.raises(SceneProblem, match="should hold a JSON object"):
        read_json("x", file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SceneProblem, match="cannot be read as text"):
        read_json("x", file)
    file.write_text(json.dumps({"a": [1]}))
    assert read_json("x", file) == {"a": [1]}


def test_equal_faults_are_counted():
    faults = [SceneProblem("s", f"{i}.txt", "holds NaN") for i in range(3)] + [
        SceneProblem("s", "9.png", "is cut")
    ]
    assert summarise(faults) == [
        "scene 's', 0.txt: holds NaN; 3 frames like this are left out",
        "scene 's', 9.png: is cut; the frame is left out",
    ]
    assert summarise([]) == []


def test_scenes_are_found_in_natural_order_and_no_deeper_than_asked(tmp_path, monkeypatch):
    for name in ("b/s10", "b/s9", "a/x/s1"):
        (tmp_path / name).mkdir(parents=True)

    def is_scene(folder):
        return folder.name.startswith("s")

    assert [f.name for f in scene_folders(tmp_path, is_scene, levels=2, expected="s")] == ["s9", "s10"]
    with pytest.raises(SceneProblem, match="expected s"):
        scene_folders(tmp_path, is_scene, levels=1, expected="s")
    monkeypatch.chdir(tmp_path / "b" / "s9")
    (here,) = scene_folders(type(tmp_path)("."), is_scene, expected="s")
    assert here.is_absolute() and here.name == "s9"  # a name, even for "."


def test_a_folder_that_cannot_be_searched(tmp_path):
    def is_scene(folder):
        raise PermissionError(13, "Permission denied")

    with pytest.raises(SceneProblem, match=r"cannot be searched \(Permission denied\)"):
        scene_folders(tmp_path, is_scene, expected="s")
