"""Truth from poses and depth: by hand, and against the simulator's own figures of the sample bag."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.bags import choose, messages, open_bag
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.source import look_around
from spatial_mllm_core.evaluation.truth import (
    BagTruth,
    PoseTrack,
    TransformTree,
    depth_at,
    interpolate,
    surface_point_m,
)

from .conftest import DEPTH_M, POINT_PX, STEP_M, stamp

SAMPLES = Path(__file__).parents[3] / "sample_bags"


def pose(x: float, angle: float = 0.0) -> np.ndarray:
    matrix = np.eye(4)
    c, s = np.cos(angle), np.sin(angle)
    matrix[:2, :2] = [[c, -s], [s, c]]
    matrix[0, 3] = x
    return matrix


def test_interpolation_is_halfway_in_place_and_angle() -> None:
    middle = interpolate(pose(0, 0), pose(2, 1), 0.5)
    assert np.allclose(middle, pose(1, 0.5))


def test_track_refuses_far_stamps() -> None:
    track = PoseTrack()
    track.add(1_000, pose(1))
    track.add(0, pose(0))
    assert np.allclose(track.at(500, 1_000), pose(0.5))
    assert np.allclose(track.at(1_010, 100), pose(1))
    assert track.at(5_000, 100) is None
    assert PoseTrack().at(0) is None


def test_tree_follows_moving_and_fixed_links_and_survives_a_loop() -> None:
    tree = TransformTree()
    tree.add(messages.transform(0, "world", "base", pose(1)).transforms, is_static=False)
    tree.add(messages.transform(0, "base", "/cam", pose(0.5)).transforms, is_static=True)
    root, matrix = tree.root_from("cam", 0)
    assert root == "world"
    assert np.allclose(matrix, pose(1.5))
    assert tree.root_from("cam", 10**12) is None
    tree.add(messages.transform(0, "b", "a", pose(0)).transforms, is_static=True)
    tree.add(messages.transform(0, "a", "b", pose(0)).transforms, is_static=True)
    assert tree.root_from("a", 0) is None


def test_displacement_is_in_the_cameras_axes(push_bag: Path) -> None:
    source = look_around(push_bag)
    with BagTruth(push_bag, source.topics) as truth:
        depth = truth.depth_m(source.first)
        point = surface_point_m(source.first.require_camera(), depth, POINT_PX)
        assert point == pytest.approx([(20 - 31.5) / 50 * DEPTH_M, (30 - 23.5) / 50 * DEPTH_M, DEPTH_M])
        # world +x is towards the camera, that is optical -z
        moved = truth.object_displacement_m("cam", stamp(0), stamp(4), point)
        assert moved == pytest.approx([0, 0, -4 * STEP_M], abs=1e-9)
        assert truth.camera_displacement_m("cam", stamp(0), stamp(4)) == pytest.approx([0, 0, 0])
        assert not truth.camera_moves("cam", stamp(0), stamp(4))
        assert truth.object_displacement_m("other", stamp(0), stamp(4), point) is None


def test_depth_outside_and_missing() -> None:
    depth = np.array([[1.0, np.nan], [0.0, 4.0]])
    assert depth_at(depth, (0.4, -0.4)) == 1
    assert depth_at(depth, (1, 0)) is None
    assert depth_at(depth, (0, 1)) is None
    assert depth_at(depth, (2, 0)) is None
    assert depth_at(depth, (-1, 0)) is None


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"object": {"point_px": [1]}}'])
def test_broken_truth_file_is_a_sentence(push_bag: Path, text: str) -> None:
    (push_bag / "truth.json").write_text(text)
    source = look_around(push_bag)
    with pytest.raises(SpatialError) as caught:
        BagTruth(push_bag, source.topics)
    assert caught.value.code is ErrorCode.BAG_UNREADABLE
    assert "truth.json" in caught.value.sentence


def test_truth_from_poses_equals_the_simulators_own() -> None:
    bag = SAMPLES / "table_push"
    told = json.loads((bag / "truth.json").read_text())
    source = look_around(bag)
    with BagTruth(bag, source.topics) as truth:
        assert truth.file is not None
        depth = truth.depth_m(source.first)
        point = surface_point_m(source.first.require_camera(), depth, truth.file.point_px)
        assert point == pytest.approx(told["object"]["point_in_camera_m"], abs=2e-3)
        for frame in told["frames"]:
            moved = truth.object_displacement_m(
                told["camera_frame"], told["reference_stamp_ns"], frame["stamp_ns"], point
            )
            assert moved == pytest.approx(frame["displacement_m"], abs=2e-3)


def test_world_of_the_hololens_bag_has_z_up(hololens_bag: Path) -> None:
    with open_bag(hololens_bag) as opened:
        topics = choose(opened.topics())
    with BagTruth(hololens_bag, topics) as truth:
        first = 1_600_000_000 * 10**9
        pose_of_camera = truth.root_from_camera("camera_optical_frame", first)
        assert pose_of_camera is not None
        # the recording's camera looks a little down: optical y (down) points to -z, and so does optical z a little
        assert pose_of_camera[2, 1] < -0.8
        assert truth.camera_moves("camera_optical_frame", first, first + 72 * 10**8)
        moved = truth.camera_displacement_m("camera_optical_frame", first, first + 800_000_000)
        assert 0 < np.linalg.norm(moved) < 0.4
