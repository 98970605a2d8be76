"""Camera movement against OpenCV and scipy, and under swapping the pair."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from spatial_mllm_core.tasks import camera_motion

SEEDS = st.integers(0, 10_000)
Z_UP = np.array([0.0, 0.0, 1.0])
# optical axes (right, down, forward) of a level camera that looks along world x, z up
LEVEL = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def pose_of(rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3] = rotation
    return pose


@given(SEEDS)
def test_displacement_equals_opencv_composition_and_turns_around_with_the_pair(poses, seed):
    first, second = poses(seed)
    ours = camera_motion.camera_displacement_m(first, second)
    inverse = np.linalg.inv(first)
    rotations = [cv2.Rodrigues(pose[:3, :3])[0] for pose in (second, inverse)]
    translations = [pose[:3, 3].reshape(3, 1) for pose in (second, inverse)]
    # first the second pose, then the inverse of the first: camera 2 -> world -> camera 1
    composed = cv2.composeRT(rotations[0], translations[0], rotations[1], translations[1])[1].ravel()
    np.testing.assert_allclose(ours, composed, atol=1e-9)
    back = camera_motion.camera_displacement_m(second, first)
    one, other = camera_motion.distance_truth(ours), camera_motion.distance_truth(back)
    assert one.values == pytest.approx(other.values)
    np.testing.assert_allclose(first[:3, :3] @ ours, -(second[:3, :3] @ back), atol=1e-9)


@given(st.tuples(*[st.floats(-2, 2).filter(lambda v: abs(v) > 1e-6)] * 3))
def test_every_direction_flips_with_the_pair_when_the_camera_does_not_turn(offset):
    first, second = np.eye(4), np.eye(4)
    second[:3, 3] = offset
    there = camera_motion.direction_truths(camera_motion.camera_displacement_m(first, second))
    back = camera_motion.direction_truths(camera_motion.camera_displacement_m(second, first))
    assert all(there[name].label != back[name].label for name in there)


def test_direction_words_follow_the_optical_axes():
    words = camera_motion.direction_truths(np.array([0.1, -0.2, 0.3]))
    assert {k: v.label for k, v in words.items()} == {
        "x_movement": "right",
        "y_movement": "up",
        "z_movement": "forward",
    }


def published_turn_deg(first: np.ndarray, second: np.ndarray, up: np.ndarray) -> tuple[float, float]:
    """The published way (papers.md 2.3) in a world that scipy turns so that up is z."""
    if np.allclose(up, -Z_UP):
        z_up_from_world = Rotation.from_euler("x", 180, degrees=True)
    else:
        axis = np.cross(up, Z_UP)
        sine = np.linalg.norm(axis)
        angle = np.arctan2(sine, up @ Z_UP)
        z_up_from_world = Rotation.from_rotvec(axis / sine * angle if sine > 0 else np.zeros(3))
    angles = []
    for pose in (first, second):
        axis = z_up_from_world.apply(Rotation.from_matrix(pose[:3, :3]).apply([0, 0, 1]))
        angles.append((np.arctan2(axis[1], axis[0]), np.arcsin(np.clip(axis[2], -1, 1))))
    yaw, pitch = np.degrees(np.subtract(angles[1], angles[0]))
    return (yaw + 180) % 360 - 180, pitch


@given(SEEDS, st.sampled_from([Z_UP, -Z_UP, np.array([0, 1.0, 0]), np.array([0, -1.0, 0]), None]))
def test_turns_equal_the_published_angles_about_any_up(poses, seed, up):
    first, second = poses(seed)
    if up is None:
        up = Rotation.random(random_state=np.random.default_rng(seed)).apply(Z_UP)
    assume(max(abs(p[:3, 2] @ up) for p in (first, second)) < 0.999)
    ours = camera_motion.camera_turn_deg(first, second, 3.0 * up)
    np.testing.assert_allclose(ours, published_turn_deg(first, second, up), atol=1e-5)


@given(SEEDS)
def test_turns_do_not_depend_on_the_choice_of_the_world(poses, seed):
    first, second = poses(seed)
    change = np.eye(4)
    change[:3, :3] = Rotation.random(random_state=np.random.default_rng(seed + 1)).as_matrix()
    ours = camera_motion.camera_turn_deg(first, second, Z_UP)
    theirs = camera_motion.camera_turn_deg(change @ first, change @ second, change[:3, :3] @ Z_UP)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@given(SEEDS)
def test_turns_flip_with_the_pair_and_their_angles_stay(poses, seed):
    first, second = poses(seed)
    there = camera_motion.camera_turn_deg(first, second, Z_UP)
    back = camera_motion.camera_turn_deg(second, first, Z_UP)
    np.testing.assert_allclose(there, np.negative(back), atol=1e-9)
    assume(min(map(abs, there)) > 1e-6)
    one, other = camera_motion.turn_truths(there), camera_motion.turn_truths(back)
    for name in ("yaw_movement", "pitch_movement"):
        assert one[name].label != other[name].label
    for name in ("yaw_angle", "pitch_angle"):
        assert one[name].values == pytest.approx(other[name].values)
        assert 0 <= one[name].values[0] <= 180


@given(
    st.floats(1.0, 170.0),
    st.floats(1.0, 60.0),
    st.sampled_from(["left", "right"]),
    st.sampled_from(["up", "down"]),
)
def test_a_camera_that_turns_and_tilts_is_described_as_a_person_would(yaw, pitch, side, tilt):
    """Seen by the camera itself: after a turn to the left, what was ahead lies to the right."""
    sign = 1 if side == "left" else -1
    turned = Rotation.from_rotvec(Z_UP * np.radians(sign * yaw)).as_matrix() @ LEVEL
    # about the camera's own x axis (right), a positive turn lifts the view
    tilted = turned @ Rotation.from_rotvec([np.radians(pitch if tilt == "up" else -pitch), 0, 0]).as_matrix()
    was_ahead = turned.T @ LEVEL[:, 2]
    assert (was_ahead[0] > 0) == (side == "left")
    turn = camera_motion.camera_turn_deg(pose_of(LEVEL), pose_of(tilted), Z_UP)
    truths = camera_motion.turn_truths(turn)
    assert (truths["yaw_movement"].label, truths["pitch_movement"].label) == (side, tilt)
    assert truths["yaw_angle"].values[0] == pytest.approx(yaw)
    assert truths["pitch_angle"].values[0] == pytest.approx(pitch)


def test_a_turn_across_the_seam_of_the_compass_is_the_short_one():
    headings = [
        Rotation.from_rotvec(Z_UP * np.radians(degrees)).as_matrix() @ LEVEL for degrees in (170.0, -170.0)
    ]
    yaw, _ = camera_motion.camera_turn_deg(pose_of(headings[0]), pose_of(headings[1]), Z_UP)
    assert yaw == pytest.approx(20.0)


def test_half_a_turn_has_one_sign_whatever_the_order():
    half = Rotation.from_rotvec(Z_UP * np.pi).as_matrix() @ LEVEL
    for pair in ((LEVEL, half), (half, LEVEL)):
        yaw, _ = camera_motion.camera_turn_deg(pose_of(pair[0]), pose_of(pair[1]), Z_UP)
        assert abs(yaw) == pytest.approx(180.0)


def test_a_camera_that_looks_straight_down_has_no_heading_but_a_pitch():
    down = np.diag([1.0, -1.0, -1.0])
    turn = camera_motion.camera_turn_deg(pose_of(LEVEL), pose_of(down), Z_UP)
    assert np.isnan(turn[0])
    truths = camera_motion.turn_truths(turn)
    assert set(truths) == {"pitch_movement", "pitch_angle"}
    assert truths["pitch_angle"].values[0] == pytest.approx(90.0)
    assert truths["pitch_movement"].label == "down"


@pytest.mark.parametrize("up", [np.zeros(3), np.array([0, np.nan, 1])])
def test_an_up_without_direction_is_refused(up):
    with pytest.raises(ValueError, match="world_up"):
        camera_motion.camera_turn_deg(np.eye(4), np.eye(4), up)
