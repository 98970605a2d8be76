"""The committed push bag says what it claims: counts, one calibration, poses, depth and truth agree."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.bags import messages, open_bag
from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.images import decode_any, decode_depth

BAG = Path(__file__).resolve().parents[2] / "sample_bags" / "table_push"
FRAMES = 56
COUNTS = {
    "/camera/image_raw/compressed": FRAMES,
    "/camera/camera_info": FRAMES,
    "/camera/depth/image_raw/compressedDepth": FRAMES // 8,
    "/object/pose": FRAMES,
    "/tf": FRAMES,
    "/tf_static": 1,
}


@pytest.fixture(scope="module")
def bag():
    content = defaultdict(list)
    with open_bag(BAG) as reader:
        for item in reader.messages():
            content[item.topic].append((item.log_time_ns, item.message))
    return content


@pytest.fixture(scope="module")
def truth():
    return json.loads((BAG / "truth.json").read_text())


@pytest.fixture(scope="module")
def camera(bag):
    return CameraModel.from_camera_info(bag["/camera/camera_info"][0][1])


@pytest.fixture(scope="module")
def world_from_camera(bag):
    (transform,) = bag["/tf_static"][0][1].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("world", "camera_color_optical_frame")
    return messages.matrix_of(transform.transform)


@pytest.fixture(scope="module")
def depths(bag):
    return {stamp_ns_of(m): decode_depth(m) for _, m in bag["/camera/depth/image_raw/compressedDepth"]}


def pose_matrix(message):
    p, q = message.pose.position, message.pose.orientation
    matrix = np.eye(4)
    matrix[:3, :3] = messages.rotation_of(q.x, q.y, q.z, q.w)
    matrix[:3, 3] = p.x, p.y, p.z
    return matrix


def test_every_topic_has_its_messages_and_the_bag_is_small(bag):
    assert {topic: len(found) for topic, found in bag.items()} == COUNTS
    assert sum(f.stat().st_size for f in BAG.iterdir()) < 4_600_000
    qos = (BAG / "metadata.yaml").read_text()
    assert "transient_local" in qos or "durability: 1" in qos  # a late listener must get /tf_static


def test_log_times_are_the_stamps_at_2_5_hz(bag):
    for topic in ("/camera/image_raw/compressed", "/camera/camera_info", "/object/pose"):
        log_times = [t for t, _ in bag[topic]]
        assert log_times == [stamp_ns_of(m) for _, m in bag[topic]]
        assert set(np.diff(log_times)) == {400_000_000}
    images = {stamp_ns_of(m) for _, m in bag["/camera/image_raw/compressed"]}
    assert all(stamp_ns_of(m) in images for _, m in bag["/camera/depth/image_raw/compressedDepth"])


def test_calibration_never_changes_and_is_of_a_69_degree_camera(bag, camera):
    first = bag["/camera/camera_info"][0][1]
    for _, info in bag["/camera/camera_info"]:
        assert np.array_equal(info.k, first.k) and np.array_equal(info.p, first.p)
        assert (info.width, info.height, info.header.frame_id) == (640, 480, "camera_color_optical_frame")
    assert np.degrees(camera.hfov_rad) == pytest.approx(69.0, abs=0.2)


def test_images_are_pictures_of_a_changing_scene(bag):
    images = [decode_any(m) for _, m in bag["/camera/image_raw/compressed"][::5]]
    assert all(i.shape == (480, 640, 3) and 40 < i.mean() < 200 and i.std() > 20 for i in images)
    changed = np.abs(images[-1].astype(int) - images[0]).max(axis=-1) > 40
    assert 0.01 < changed.mean() < 0.5


def test_the_objects_centre_projects_into_its_mask_and_behind_its_surface(
    bag, truth, camera, world_from_camera, depths
):
    half_diagonal = np.linalg.norm(truth["object"]["size_m"]) / 2
    on_surface = 0
    for (_, message), frame in zip(bag["/object/pose"], truth["frames"], strict=True):
        assert message.header.frame_id == "world" and stamp_ns_of(message) == frame["stamp_ns"]
        centre = np.linalg.inv(world_from_camera) @ pose_matrix(message)[:, 3]
        u, v = camera.project(centre[None, :3])[0]
        left, top, right, bottom = frame["object_box_px"]
        assert left <= u <= right and top <= v <= bottom
        assert frame["has_depth"] == (frame["stamp_ns"] in depths)
        if frame["has_depth"]:
            surface = depths[frame["stamp_ns"]][round(v), round(u)]
            assert surface <= centre[2]  # something stands in front of a solid's centre
            on_surface += centre[2] - surface < half_diagonal
    assert on_surface >= 0.9 * FRAMES / 8  # elsewhere the arm is in front


def test_truth_follows_from_poses_and_the_first_depth_image(bag, truth, camera, world_from_camera, depths):
    u, v = truth["object"]["point_px"]
    first_ns = truth["reference_stamp_ns"]
    in_camera = camera.unproject(np.array([[u, v]], float), np.array([depths[first_ns][v, u]]))[0]
    in_world = world_from_camera @ np.array([*in_camera, 1.0])
    poses = [pose_matrix(m) for _, m in bag["/object/pose"]]
    in_body = np.linalg.inv(poses[0]) @ in_world
    size = np.array(truth["object"]["size_m"])
    # The tracked pixel lies on the box: on one of its faces, within the others.
    outside = np.abs(in_body[:3]) - size / 2
    assert abs(outside.max()) < 0.003
    for pose, frame in zip(poses, truth["frames"], strict=True):
        moved = world_from_camera[:3, :3].T @ (pose @ in_body - in_world)[:3]
        assert moved == pytest.approx(frame["displacement_m"], abs=1e-3)
        assert np.linalg.norm(frame["displacement_m"]) == pytest.approx(frame["distance_m"], abs=1e-5)


def test_the_push_is_0_35_m_and_not_a_clock(truth):
    distances = np.array([f["distance_m"] for f in truth["frames"]])
    steps = np.diff(distances)
    assert distances[0] == 0 and distances[-1] == pytest.approx(0.35, abs=0.03)
    assert (steps < -1e-3).sum() >= 5  # pulled back
    assert (np.abs(steps) < 1e-4).sum() >= 15  # rests


def test_the_questions_are_known_tasks_with_answers_that_hold(bag, truth, depths):
    depth, compare, moved = truth["questions"]
    for question in truth["questions"]:
        task = tasks.get(question["task"])
        assert task.frame_count == len(question["stamps_ns"])
        assert task.point_count == len(question["points_px"])
        assert len(question["values"]) == {"scalar": 1, "pixel": 2}[question["kind"]]
    image = depths[depth["stamps_ns"][0]]
    (u, v), (other_u, other_v) = compare["points_px"]
    assert depth["points_px"] == [[u, v]]
    assert depth["values"][0] == pytest.approx(float(image[v, u]), abs=1e-3)
    nearer = [u, v] if image[v, u] < image[other_v, other_u] else [other_u, other_v]
    assert compare["values"] == nearer
    assert abs(image[v, u] / image[other_v, other_u] - 1) > 0.1
    assert moved["values"][0] == truth["frames"][-1]["distance_m"]


def test_the_picture_shows_the_object_where_truth_says(bag, truth):
    """The tracked patch of the first image is found again inside the object's box, mid-way."""
    first = decode_any(bag["/camera/image_raw/compressed"][0][1])
    u, v = truth["object"]["point_px"]
    patch = first[v - 20 : v + 21, u - 20 : u + 21]
    for index in (20, 33):
        image = decode_any(bag["/camera/image_raw/compressed"][index][1])
        _, score, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(image, patch, cv2.TM_CCOEFF_NORMED))
        left, top, right, bottom = truth["frames"][index]["object_box_px"]
        assert score > 0.5 and left <= x + 20 <= right and top <= y + 20 <= bottom
