"""The followed point and its way against scipy and OpenCV; real balls against the robot's own kinematics."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.render import choose_gl
from spatial_mllm_training.score import episodes
from spatial_mllm_training.sources.object_motion import find_scenes as find_recordings
from spatial_mllm_training.sources.simulated import SimulatedScene, find_scenes

DVRK = Path(__file__).parents[2] / "fixtures" / "dvrk"
HEIGHT, WIDTH = 48, 64
STEPS = 5
K = np.array([[60.0, 0, 31], [0, 62.0, 24], [0, 0, 1]])


def _scene(steps: int = STEPS) -> SimulatedScene:
    """A still camera (and a second one) before a cup that slides and a robot that goes farther."""
    ids = np.zeros((steps, 2, HEIGHT, WIDTH), np.uint8)
    ids[:, :, 10:40, 4:28] = 1
    ids[:, :, 10:40, 34:60] = 2
    camera = np.eye(4)
    camera[:3, :3] = Rotation.from_euler("xyz", [0.3, -0.2, 0.1]).as_matrix()
    camera[:3, 3] = [0.1, 0.2, 0.3]
    other = camera.copy()
    other[0, 3] += 1.0
    bodies = np.tile(np.eye(4), (steps, 3, 1, 1))
    for t in range(steps):
        bodies[t, 1, :3, 3] = [0.05 * t, -0.02 * t * t, 0.01 * t]
        bodies[t, 1, :3, :3] = Rotation.from_rotvec([0, 0, 0.1 * t]).as_matrix()
        bodies[t, 2, :3, 3] = [0.0, 0.5 * t, 0.0]
    record = SceneRecord(
        rgb=np.random.default_rng(0).integers(0, 255, (*ids.shape, 3), dtype=np.uint8),
        depth_mm=np.full(ids.shape, 900, np.uint16),
        body_id=ids,
        k=K,
        world_from_camera=np.stack([camera, other]),
        world_from_body=bodies,
        body_size_m=np.full((3, 3), 0.1),
        body_category=np.array(["world", "cup", "robot_tip"]),
        kind="tabletop",
        seed=100_100,
    )
    record.validate()
    return SimulatedScene("scene", record)


def test_a_thing_is_followed_and_no_robot():
    scene = _scene()
    found = episodes.read(scene)
    assert len(found.frames) == STEPS
    assert len({f.stamp_ns for f in found.frames}) == STEPS
    u, v = (round(x) for x in found.point_px)
    assert scene.record.body_id[0, 0, v, u] == 1, "the point lies on the cup"
    # its way, by scipy from the pixel, the depth and the poses
    pose = scene.record.world_from_camera[0]
    turn = Rotation.from_matrix(pose[:3, :3])
    ray = cv2.undistortPoints(np.array([[found.point_px]]), K, None).ravel()
    start = turn.apply([ray[0] * 0.9, ray[1] * 0.9, 0.9]) + pose[:3, 3]
    for t in range(STEPS):
        after = Rotation.from_rotvec([0, 0, 0.1 * t]).apply(start) + scene.record.world_from_body[t, 1, :3, 3]
        assert found.moved_m[t] == pytest.approx(turn.inv().apply(after - start), abs=1e-4)
    assert found.distance_m[0] == 0
    for t, frame in enumerate(found.frames):
        assert (frame.image_rgb == scene.record.rgb[t, 0]).all(), "one camera only"


def test_few_frames_and_scenes_without_tracks_are_no_episode():
    assert episodes.read(_scene(episodes.LEAST_FRAMES - 1)) is None
    assert episodes.read(_scene(episodes.LEAST_FRAMES)) is not None


def test_recorded_balls_go_as_the_robot_says():
    """Kinematics of the wrist between the balls: another instrument, another origin."""
    refs = find_recordings(DVRK, images="ir")
    found = next(episodes.each(refs))
    robot_m = np.loadtxt(DVRK / "joint4_robot_base_m.txt")
    assert len(found.frames) == 25
    robot_m = np.linalg.norm(robot_m - robot_m[0], axis=1)
    known = np.isfinite(found.distance_m)
    assert known.sum() > 15
    assert spearmanr(found.distance_m[known], robot_m[known]).statistic > 0.95
    assert np.isfinite(found.point_px).all()


def test_pushes_are_drawn_once_and_no_clock_follows_them(tmp_path):
    try:
        choose_gl()
    except SpatialError as error:
        pytest.skip(error.sentence)
    (ref,) = episodes.make_pushes(tmp_path, 1)
    kept = tmp_path / "workspace"
    drawn = {f: f.stat().st_mtime_ns for f in kept.iterdir()}
    assert episodes.make_pushes(tmp_path, 1)[0].name == ref.name
    assert {f: f.stat().st_mtime_ns for f in kept.iterdir()} == drawn
    assert ref.seed >= episodes.FIRST_SEED and find_scenes(kept)[0].seed == ref.seed
    found = next(episodes.each([ref]))
    distance_m = found.distance_m
    assert len(found.frames) > 20 and distance_m.max() > 0.08
    assert (np.diff(distance_m) < -1e-3).any(), "it goes back"
    assert spearmanr(np.arange(len(distance_m)), distance_m).statistic < 0.9
    (other,) = episodes.make_pushes(tmp_path, 1, domain="mat")
    images = [next(episodes.each([r])).frames[0].image_rgb for r in (ref, other)]
    assert (images[0] != images[1]).any(), "another domain is drawn anew beside it"
