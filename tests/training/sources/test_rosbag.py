"""Recordings as scenes: a real one read twice, small ones made on the spot, and broken ones."""

from __future__ import annotations

import contextlib
import pickle
import tracemalloc
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation, Slerp

from spatial_mllm_core.bags import BagWriter, messages
from spatial_mllm_core.bags.message_types import make_header, make_message
from spatial_mllm_core.images import encode_depth_16uc1, encode_depth_32fc1, encode_rgb8
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.rosbag import find_scenes

FIXTURES = Path(__file__).parents[2] / "fixtures"
FIRST_NS, PERIOD_NS = 1_700_000_000 * 10**9, 100_000_000
WIDTH, HEIGHT = 32, 24
K = np.array([[30.0, 0, 15.5], [0, 30.0, 11.5], [0, 0, 1]])
CAMERA = "camera_optical_frame"


def open_one(path: Path, **options):
    (ref,) = find_scenes(path, **options)
    ref = pickle.loads(pickle.dumps(ref))  # noqa: S301 - as a worker process gets it
    return ref.open(*ref.arguments)


# ---- a real recording -----------------------------------------------------------------------


def test_hololens_is_read_as_another_reader_reads_it(hololens_bag):
    scene = open_one(hololens_bag)
    poses, depths, images, infos = {}, {}, {}, {}
    with AnyReader([hololens_bag]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            header = message.transforms[0].header if connection.topic == "/tf" else message.header
            stamp_ns = header.stamp.sec * 10**9 + header.stamp.nanosec
            if connection.topic == "/tf":
                t, q = message.transforms[0].transform.translation, message.transforms[0].transform.rotation
                poses[stamp_ns] = ((t.x, t.y, t.z), Rotation.from_quat((q.x, q.y, q.z, q.w)))
            elif "depth" in connection.topic:
                depths[stamp_ns] = cv2.imdecode(message.data[12:], cv2.IMREAD_UNCHANGED)
            elif "info" in connection.topic:
                infos[stamp_ns] = message.k.reshape(3, 3)
            else:
                images[stamp_ns] = cv2.imdecode(message.data, cv2.IMREAD_COLOR)[..., ::-1]
    assert [int(f.name) for f in scene.frames] == sorted(depths) == sorted(images) and len(depths) == 12
    for index, frame in enumerate(scene.frames):
        position, rotation = poses[int(frame.name)]
        np.testing.assert_allclose(frame.world_from_camera[:3, 3], position, atol=1e-12)
        np.testing.assert_allclose(frame.world_from_camera[:3, :3], rotation.as_matrix(), atol=1e-12)
        np.testing.assert_array_equal(frame.camera.k, infos[int(frame.name)])
        np.testing.assert_allclose(scene.depth_m(index), depths[int(frame.name)] / 1000, atol=1e-6)
        np.testing.assert_array_equal(scene.image(index), images[int(frame.name)])
    assert scene.fixed_frame == "world" and scene.world_up.tolist() == [0, 0, 1]
    assert not scene.skipped
    assert not scene.moving and {f.state for f in scene.frames} == {0}


def test_hololens_depth_of_one_image_lies_where_the_next_one_sees_it(hololens_bag):
    """Poses, K and depth fit each other: the wrong direction or axes would miss by decimetres."""
    scene = open_one(hololens_bag)
    misses = []
    for index in range(11):
        first, second = scene.frames[index], scene.frames[index + 1]
        points = first.camera.point_map(scene.depth_m(index))[::8, ::8].reshape(-1, 3).astype(np.float64)
        points = points[points[:, 2] > 0]
        moved = np.linalg.inv(second.world_from_camera) @ first.world_from_camera
        points = points @ moved[:3, :3].T + moved[:3, 3]
        u, v = np.rint(second.camera.project(points)).T
        inside = (u >= 0) & (v >= 0) & (u < 540) & (v < 360)
        depth_m = scene.depth_m(index + 1)[v[inside].astype(int), u[inside].astype(int)]
        misses.append(np.abs(depth_m - points[inside, 2])[depth_m > 0])
    assert np.median(np.concatenate(misses)) < 0.02


def test_hololens_is_the_posed_folder_it_was_made_of(hololens_bag):
    """The folder's world has y up; images, depth and K are the same numbers."""
    scene, folder = open_one(hololens_bag), FIXTURES / "hololens"
    bag_from_folder = np.array([[0.0, 0, -1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
    poses = np.loadtxt(folder / "poses.txt").reshape(-1, 4, 4)
    files = sorted((folder / "depth").iterdir())
    for index, (pose, file) in enumerate(zip(poses, files, strict=True)):
        np.testing.assert_allclose(scene.frames[index].world_from_camera, bag_from_folder @ pose, atol=1e-5)
        stored_mm = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        np.testing.assert_allclose(scene.depth_m(index), stored_mm / 1000, atol=1e-6)
        picture = cv2.imread(str(folder / "images" / f"{file.stem}.jpg"))[..., ::-1]
        np.testing.assert_array_equal(scene.image(index), picture)
    np.testing.assert_allclose(scene.frames[0].camera.k, np.loadtxt(folder / "K.txt").reshape(3, 3))


def test_every_nth_image_and_a_shortest_baseline(hololens_bag):
    whole = open_one(hololens_bag)
    assert [f.name for f in open_one(hololens_bag, every=7).frames] == [f.name for f in whole.frames[::7]]
    frames = open_one(hololens_bag, min_baseline_m=0.2).frames
    assert 3 < len(frames) < 12
    for a, b in pairwise(frames):
        turn = Rotation.from_matrix(a.world_from_camera[:3, :3].T @ b.world_from_camera[:3, :3]).magnitude()
        shift = np.linalg.norm(a.world_from_camera[:3, 3] - b.world_from_camera[:3, 3])
        assert shift >= 0.2 or turn >= np.radians(5)


def test_things_that_move_make_each_image_a_state(hololens_bag):
    scene = open_one(hololens_bag, moving=True)
    assert scene.moving and [f.state for f in scene.frames] == list(range(12))


# ---- small bags made on the spot ------------------------------------------------------------


def image(stamp_ns, fields, frame_id=CAMERA):
    return make_message(
        "sensor_msgs/msg/Image",
        header=make_header(stamp_ns, frame_id),
        height=fields.height,
        width=fields.width,
        encoding=fields.encoding,
        is_bigendian=fields.is_bigendian,
        step=fields.step,
        data=np.frombuffer(fields.data, np.uint8),
    )


def info(stamp_ns, frame_id=CAMERA, *, k=K, width=WIDTH, height=HEIGHT, d=(0, 0, 0, 0, 0)):
    return messages.camera_info(
        stamp_ns, frame_id, width=width, height=height, distortion_model="plumb_bob",
        d=np.array(d, float), k=k, r=np.eye(3), p=np.hstack([k, np.zeros((3, 1))]),
    )  # fmt: skip


def odometry(stamp_ns, parent, child, matrix):
    x, y, z, w = Rotation.from_matrix(matrix[:3, :3]).as_quat()
    pose = make_message(
        "geometry_msgs/msg/Pose",
        position=make_message(
            "geometry_msgs/msg/Point", **dict(zip("xyz", matrix[:3, 3].tolist(), strict=True))
        ),
        orientation=make_message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
    )
    header = make_header(stamp_ns, parent)
    if child is None:
        return make_message("geometry_msgs/msg/PoseStamped", header=header, pose=pose)
    twist = make_message(
        "geometry_msgs/msg/Twist", linear=messages.vector3((0, 0, 0)), angular=messages.vector3((0, 0, 0))
    )
    return make_message(
        "nav_msgs/msg/Odometry",
        header=header,
        child_frame_id=child,
        pose=make_message("geometry_msgs/msg/PoseWithCovariance", pose=pose, covariance=np.zeros(36)),
        twist=make_message("geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)),
    )


class Trajectory:
    """map -> odom drifts at 4 Hz, odom -> base_link moves at 20 Hz, the camera sits on the base."""

    def __init__(self, count: int) -> None:
        rng = np.random.default_rng(5)
        self.base_from_camera = np.eye(4)
        self.base_from_camera[:3, :3] = Rotation.from_euler("xyz", (-90, 0, -95), degrees=True).as_matrix()
        self.base_from_camera[:3, 3] = (0.1, 0.02, 0.4)
        end_ns = count * PERIOD_NS
        self.samples = {}
        for child, period_ns, size in (("odom", 250_000_000, 0.01), ("base_link", 50_000_000, 0.1)):
            stamps = np.arange(-period_ns, end_ns + 2 * period_ns, period_ns) + 7_000_000
            turns = Rotation.from_rotvec(np.cumsum(rng.normal(scale=size, size=(len(stamps), 3)), axis=0))
            self.samples[child] = (
                stamps,
                turns,
                np.cumsum(rng.normal(scale=size, size=(len(stamps), 3)), axis=0),
            )

    def sample(self, child: str, i: int) -> np.ndarray:
        _, turns, shifts = self.samples[child]
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = turns[i].as_matrix(), shifts[i]
        return matrix

    def at(self, child: str, offset_ns: int) -> np.ndarray:
        stamps, turns, shifts = self.samples[child]
        matrix = np.eye(4)
        matrix[:3, :3] = Slerp(stamps.astype(float), turns)(float(offset_ns)).as_matrix()
        matrix[:3, 3] = [np.interp(offset_ns, stamps, shifts[:, axis]) for axis in range(3)]
        return matrix

    def map_from_camera(self, offset_ns: int) -> np.ndarray:
        return self.at("odom", offset_ns) @ self.at("base_link", offset_ns) @ self.base_from_camera


def write(
    path: Path,
    count: int = 6,
    *,
    tf: bool = True,
    tf_until_ns: int = 10**18,
    nan_sample: int | None = None,
    with_static: bool = True,
    static_parent: str = "base_link",
    with_image: bool = True,
    with_info: bool = True,
    info_frame: str = CAMERA,
    with_depth: bool = True,
    depth_every: int = 1,
    depth_name: str = "/camera/depth/image_raw",
    depth_frame: str = CAMERA,
    depth_scale: int = 1,
    depth_info: bool = False,
    float_depth: bool = False,
    d: tuple[float, ...] = (0, 0, 0, 0, 0),
    pose: str | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> Path:
    """A bag with images at 10 Hz, image i of grey level i and depth 1 + i/1000 m."""
    way = Trajectory(count)
    kinds = {
        "/tf": "tf2_msgs/msg/TFMessage",
        "/tf_static": "tf2_msgs/msg/TFMessage",
        "/camera/image_raw": "sensor_msgs/msg/Image",
        "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
        depth_name: "sensor_msgs/msg/Image",
        "/camera/depth/camera_info": "sensor_msgs/msg/CameraInfo",
        "/pose": "geometry_msgs/msg/PoseStamped",
        "/odom": "nav_msgs/msg/Odometry",
    }
    written = []  # (time, topic, message)
    if with_static and (tf or pose):
        written.append((0, "/tf_static", messages.transform(0, static_parent, CAMERA, way.base_from_camera)))
    for parent, child in (("map", "odom"), ("odom", "base_link")):
        for i, offset_ns in enumerate(way.samples[child][0].tolist()):
            stamp_ns, matrix = FIRST_NS + offset_ns, way.sample(child, i)
            if tf and offset_ns <= tf_until_ns:
                message = messages.transform(stamp_ns, parent, child, matrix)
                if child == "base_link" and i == nan_sample:
                    message.transforms[0].transform.translation.x = float("nan")
                written.append((offset_ns, "/tf", message))
            if child == "base_link" and pose == "/odom":
                written.append((offset_ns, "/odom", odometry(stamp_ns, "odom", "base_link", matrix)))
    for i in range(count):
        offset_ns = i * PERIOD_NS
        stamp_ns = FIRST_NS + offset_ns
        if with_info:
            written.append(
                (
                    offset_ns,
                    "/camera/camera_info",
                    info(stamp_ns, info_frame, d=d, width=size[0], height=size[1]),
                )
            )
        if with_image:
            rgb = np.full((size[1], size[0], 3), i, np.uint8)
            written.append((offset_ns, "/camera/image_raw", image(stamp_ns, encode_rgb8(rgb))))
        if with_depth and i % depth_every == 0:
            shape = (size[1] // depth_scale, size[0] // depth_scale)
            depth = np.full(shape, 1 + i / 1000, np.float32)
            depth[0, 0] = np.nan
            fields = (encode_depth_32fc1 if float_depth else encode_depth_16uc1)(depth)
            late_ns = 3_000_000
            written.append((offset_ns, depth_name, image(stamp_ns + late_ns, fields, depth_frame)))
        if depth_info:
            k = np.diag([1 / depth_scale, 1 / depth_scale, 1]) @ K
            message = info(stamp_ns, depth_frame, k=k, width=shape[1], height=shape[0])
            written.append((offset_ns, "/camera/depth/camera_info", message))
        if pose == "/pose":
            matrix = way.at("odom", offset_ns) @ way.at("base_link", offset_ns) @ way.base_from_camera
            written.append((offset_ns, "/pose", odometry(stamp_ns, "lab/world", None, matrix)))
    with BagWriter(path) as bag:
        for topic in sorted({topic for _, topic, _ in written}):
            bag.add_topic(topic, kinds[topic])
        for offset_ns, topic, message in sorted(written, key=lambda entry: entry[0]):
            bag.write(topic, message, FIRST_NS + 10**9 + offset_ns)
    return path


def test_a_chain_of_transforms_agrees_with_scipy(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap"))
    way = Trajectory(6)
    assert scene.fixed_frame == "map" and scene.world_up.tolist() == [0, 0, 1] and len(scene.frames) == 6
    for i, frame in enumerate(scene.frames):
        np.testing.assert_allclose(frame.world_from_camera, way.map_from_camera(i * PERIOD_NS), atol=1e-6)
        assert frame.time_s == pytest.approx(FIRST_NS / 1e9 + i / 10, abs=1e-6)


def test_images_without_depth_are_left_out_and_said_once(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", depth_every=2))
    assert [int(f.name) for f in scene.frames] == [FIRST_NS + i * PERIOD_NS for i in (0, 2, 4)]
    assert len(scene.skipped) == 1 and "no depth within" in scene.skipped[0]


def test_a_fixed_frame_by_name(tmp_path):
    path = write(tmp_path / "run.mcap")
    way = Trajectory(6)
    odom = open_one(path, fixed_frame="/odom")
    expected = way.at("base_link", 2 * PERIOD_NS) @ way.base_from_camera
    np.testing.assert_allclose(odom.frames[2].world_from_camera, expected, atol=1e-6)
    base = open_one(path, fixed_frame="base_link")
    np.testing.assert_allclose(base.frames[2].world_from_camera, way.base_from_camera, atol=1e-9)
    assert odom.world_up is not None and base.world_up is None
    with pytest.raises(SceneProblem, match="no transforms connect"):
        open_one(path, fixed_frame="elsewhere")


@pytest.mark.parametrize("float_depth", [False, True])
@pytest.mark.parametrize("depth_name", ["/camera/depth/image_raw", "/camera/z_plane"])
def test_depth_is_found_by_its_encoding_and_read(tmp_path, float_depth, depth_name):
    scene = open_one(write(tmp_path / "run.mcap", float_depth=float_depth, depth_name=depth_name))
    for i in (0, 3):
        depth_m = scene.depth_m(i)
        assert depth_m.dtype == np.float32 and depth_m[0, 0] == 0
        np.testing.assert_allclose(depth_m[5, 5], 1 + i / 1000, rtol=1e-6)
        assert (scene.image(i) == i).all()
        assert scene.frames[i].depth_camera is None


def test_depth_of_another_size_has_its_own_camera(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", depth_scale=2, depth_info=True))
    camera = scene.frames[0].depth_camera
    assert (camera.width, camera.height, camera.fx) == (16, 12, 15.0)
    assert scene.depth_m(0).shape == (12, 16)
    with pytest.raises(SceneProblem, match=r"16x12 px.*no CameraInfo"):
        open_one(write(tmp_path / "bare.mcap", depth_scale=2))


def test_depth_of_another_frame_is_refused(tmp_path):
    path = write(tmp_path / "run.mcap", depth_frame="depth_optical_frame")
    with pytest.raises(SceneProblem, match="registered"):
        open_one(path)
    scene = open_one(path, depth="none")
    assert not scene.has_depth and len(scene.frames) == 6


def test_a_bag_without_depth(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", with_depth=False))
    assert not scene.has_depth and len(scene.frames) == 6 and (scene.image(4) == 4).all()
    with pytest.raises(SceneProblem, match="without depth"):
        scene.depth_m(0)


def test_the_lens_stays_in_the_camera(tmp_path):
    camera = open_one(write(tmp_path / "run.mcap", d=(0.1, -0.05, 0.001, 0.002, 0.0))).frames[0].camera
    points = np.array([[0.2, -0.1, 1.0], [-0.3, 0.2, 1.5]])
    expected = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), K, np.array([0.1, -0.05, 0.001, 0.002, 0.0])
    )
    np.testing.assert_allclose(camera.project(points), expected[0][:, 0], atol=1e-9)


def test_odometry_takes_the_place_of_transforms(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", tf=False, pose="/odom"), pose="/odom")
    way = Trajectory(6)
    assert scene.fixed_frame == "odom"
    for i, frame in enumerate(scene.frames):
        expected = way.at("base_link", i * PERIOD_NS) @ way.base_from_camera
        np.testing.assert_allclose(frame.world_from_camera, expected, atol=1e-6)


def test_a_pose_topic_is_the_cameras(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", pose="/pose"), pose="/pose")
    assert scene.fixed_frame == "lab/world" and scene.world_up is not None
    expected = Trajectory(6).map_from_camera(3 * PERIOD_NS)
    np.testing.assert_allclose(scene.frames[3].world_from_camera, expected, atol=1e-9)


def test_images_after_the_last_transform_are_left_out_and_counted(tmp_path):
    scene = open_one(write(tmp_path / "run.mcap", tf_until_ns=310_000_000))
    assert len(scene.frames) < 6
    assert all("run.mcap" in sentence and "only from" in sentence for sentence in scene.skipped)
    assert "2 images are left out" in " ".join(scene.skipped)


def test_a_nan_transform_costs_the_images_beside_it(tmp_path):
    whole = open_one(write(tmp_path / "whole.mcap"))
    spoilt = open_one(write(tmp_path / "spoilt.mcap", nan_sample=7))
    lost = {f.name for f in whole.frames} - {f.name for f in spoilt.frames}
    assert lost == {str(FIRST_NS + 3 * PERIOD_NS)}
    assert "NaN" in spoilt.skipped[0] and "'base_link' in 'odom'" in spoilt.skipped[0]


@pytest.mark.parametrize(
    ("made", "options", "words"),
    [
        ({"tf": False}, {}, f"no transform that leads to the camera's frame '{CAMERA}'"),
        (
            {"tf": False, "pose": "/pose", "static_parent": CAMERA + "_2"},
            {"fixed_frame": "map"},
            "no transforms connect",
        ),
        ({"static_parent": CAMERA}, {}, "loop"),
        ({"tf_until_ns": -1}, {}, "gives no frame"),
        ({"with_image": False, "with_depth": False}, {}, "no message of sensor_msgs/Image"),
        ({"with_image": False}, {}, "only depth images"),
        ({"with_info": False}, {}, "no CameraInfo"),
        ({"info_frame": "other"}, {}, "CameraInfo of 'other'"),
        ({}, {"every": 0}, "every=0"),
        ({}, {"image": "/nothing"}, "/nothing"),
        ({}, {"pose": "/camera/image_raw"}, "no topic '/camera/image_raw' of type"),
        ({}, {"depth_camera_info": "/nothing"}, "/nothing"),
        ({}, {"depth": "/nothing"}, "/nothing"),
    ],
)
def test_what_a_bag_lacks_is_named(tmp_path, made, options, words):
    path = write(tmp_path / "run.mcap", **made)
    with pytest.raises(SceneProblem, match=words) as problem:
        open_one(path, **options)
    assert problem.value.scene == "run" and problem.value.file == str(path)


def test_a_bag_without_transforms_names_the_topics_that_may_be_poses(tmp_path):
    path = write(tmp_path / "run.mcap", tf=False, pose="/odom", with_static=False)
    with pytest.raises(SceneProblem, match="which topic is the camera's pose: /odom"):
        open_one(path)


def test_static_transforms_alone_are_a_still_camera_only_when_said_so(tmp_path):
    path = write(tmp_path / "run.mcap", tf=False, pose="/pose")
    with pytest.raises(SceneProblem, match="only static transforms"):
        open_one(path)
    frames = open_one(path, fixed_frame="base_link").frames
    assert len({frame.world_from_camera.tobytes() for frame in frames}) == 1 and len(frames) == 6
    on_map = open_one(write(tmp_path / "wall.mcap", tf=False, pose="/pose", static_parent="map"))
    assert on_map.fixed_frame == "map" and on_map.world_up is not None


def test_an_empty_bag(tmp_path):
    with BagWriter(tmp_path / "empty"):
        pass
    with pytest.raises(SceneProblem, match="no topics") as problem:
        open_one(tmp_path / "empty")
    assert problem.value.scene == "empty"
    (tmp_path / "nothing.mcap").write_bytes(b"")
    with pytest.raises(SceneProblem, match="is empty"):
        open_one(tmp_path / "nothing.mcap")


@pytest.mark.parametrize("kept", [0.01, 0.3, 0.6, 0.95])
def test_a_truncated_bag_gives_what_is_left_or_a_sentence(tmp_path, kept):
    path = write(tmp_path / "run.mcap", 40)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    if kept < 0.1:
        with pytest.raises(SceneProblem, match="'run'"):
            open_one(path)
        return
    scene = open_one(path)
    assert 0 < len(scene.frames) <= 40
    assert any("partly readable" in sentence for sentence in scene.skipped)
    for index in range(len(scene.frames)):
        assert scene.image(index).shape == (HEIGHT, WIDTH, 3) and scene.depth_m(index).max() > 0


def test_random_damage_never_escapes_as_another_exception(tmp_path):
    path = write(tmp_path / "run.mcap", 3)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    opened = 0
    for _ in range(60):
        data = np.frombuffer(whole, np.uint8).copy()
        data[rng.integers(0, len(data), rng.choice((1, 5, 50)))] = rng.integers(0, 256)
        path.write_bytes(data.tobytes())
        try:
            scene = open_one(path)
        except SceneProblem:
            continue
        opened += 1
        for index in range(len(scene.frames)):
            for read in (scene.image, scene.depth_m):
                with contextlib.suppress(SceneProblem):
                    read(index)
        scene.close()
    assert 0 < opened < 60


def test_a_folder_of_bags_and_a_folder_of_none(tmp_path):
    write(tmp_path / "b_first")
    write(tmp_path / "a_second.mcap")
    assert [ref.name for ref in find_scenes(tmp_path)] == ["a_second", "b_first"]
    (tmp_path / "other").mkdir()
    for path in (tmp_path / "other", tmp_path / "missing"):
        with pytest.raises(SceneProblem, match="is no bag"):
            find_scenes(path)


def test_memory_does_not_grow_with_the_images(tmp_path):
    path = write(tmp_path / "run.mcap", 60, size=(400, 300), with_depth=False)
    assert path.stat().st_size > 20_000_000
    tracemalloc.start()
    scene = open_one(path, depth="none")
    for index in (59, 0, 30):
        assert (scene.image(index) == index).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="the system does not list open files")
def test_a_closed_or_refused_scene_leaves_no_file_open(tmp_path):
    path = write(tmp_path / "run.mcap")

    def is_open() -> bool:
        return any(fd.resolve() == path for fd in Path("/proc/self/fd").iterdir())

    scene = open_one(path)
    assert is_open()
    scene.close()
    assert not is_open()
    with pytest.raises(SceneProblem):
        open_one(path, fixed_frame="elsewhere")
    assert not is_open()
