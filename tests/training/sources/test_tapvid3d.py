"""TAPVid-3D files, written as the published scripts write them, and broken ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.tapvid3d import find_scenes

STEPS, POINTS, WIDTH, HEIGHT = 6, 9, 64, 48


def open_one(path: Path, **options):
    (ref,) = find_scenes(path, **options)
    ref = pickle.loads(pickle.dumps(ref))  # noqa: S301 - as a worker process gets it
    return ref.open(*ref.arguments)


def arrays(*, moving_camera: bool) -> dict[str, object]:
    """A video of points of which only the first moves, as the generators hand it to np.savez."""
    rng = np.random.default_rng(3)
    in_world = np.repeat(rng.uniform((-1, -1, 3), (1, 1, 5), (1, POINTS, 3)), STEPS, axis=0)
    in_world[:, 0] += np.linspace(0, 0.5, STEPS)[:, None] * (0.6, 0.0, 0.8)
    camera_from_world = np.tile(np.eye(4), (STEPS, 1, 1))
    if moving_camera:
        turns = Rotation.from_rotvec(np.linspace(0, 0.4, STEPS)[:, None] * (0.3, 1.0, 0.2))
        camera_from_world[:, :3, :3] = turns.as_matrix()
        camera_from_world[:, :3, 3] = np.linspace(0, 1, STEPS)[:, None] * (0.2, -0.1, 0.3)
    in_camera = np.einsum("tij,tnj->tni", camera_from_world[:, :3, :3], in_world)
    in_camera += camera_from_world[:, None, :3, 3]
    return {
        "images_jpeg_bytes": [
            cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), 30 * step, np.uint8))[1].tobytes()
            for step in range(STEPS)
        ],
        "queries_xyt": np.zeros((POINTS, 3)),
        "tracks_XYZ": in_camera,
        "visibility": rng.random((STEPS, POINTS)) < 0.8,
        "fx_fy_cx_cy": np.array([40.0, 41.0, WIDTH / 2, HEIGHT / 2]),
        "extrinsics_w2c": camera_from_world,
        "in_world": in_world,
    }


def save(path: Path, video: dict[str, object], save_as=np.savez, **changed) -> Path:
    kept = {k: v for k, v in {**video, **changed}.items() if v is not None and k != "in_world"}
    save_as(path, **kept)
    return path


@pytest.fixture
def adt(tmp_path) -> Path:
    return save(tmp_path / "Apartment_release_meal_seq136_8.npz", arrays(moving_camera=True))


@pytest.mark.parametrize("save_as", [np.savez, np.savez_compressed])
def test_moving_camera(tmp_path, save_as):
    video = arrays(moving_camera=True)
    scene = open_one(save(tmp_path / "Apartment_release_meal_seq136_8.npz", video, save_as))
    np.testing.assert_allclose(scene.tracks.points_in_world_m, video["in_world"], atol=1e-12)
    np.testing.assert_array_equal(scene.tracks.visible, video["visibility"])
    for frame, camera_from_world in zip(scene.frames, video["extrinsics_w2c"], strict=True):
        np.testing.assert_allclose(frame.world_from_camera @ camera_from_world, np.eye(4), atol=1e-12)
    assert [scene.image(i)[0, 0, 0] for i in range(STEPS)] == pytest.approx([0, 30, 60, 90, 120, 150], abs=1)
    assert [f.state for f in scene.frames] == list(range(STEPS))
    assert scene.moving and scene.world_up is None and scene.tracks.body is None and not scene.skipped
    assert not scene.has_depth
    with pytest.raises(SceneProblem, match="no depth"):
        scene.depth_m(0)


def test_projections_agree_with_opencv_and_the_published_pixels(tmp_path):
    """tapnet draws a point at x f / z + c with pixels counted from the corner; ours lie half a pixel less."""
    video = arrays(moving_camera=True)
    scene = open_one(save(tmp_path / "a_1.npz", video))
    tracks = scene.tracks.points_in_world_m
    for index, frame in enumerate(scene.frames):
        world_to_camera = video["extrinsics_w2c"][index]
        rvec = cv2.Rodrigues(world_to_camera[:3, :3])[0]
        ours = cv2.projectPoints(tracks[index], rvec, world_to_camera[:3, 3], frame.camera.k, None)[0][:, 0]
        x, y, z = video["tracks_XYZ"][index].T
        published = np.column_stack([x * 40 / z + WIDTH / 2, y * 41 / z + HEIGHT / 2])
        np.testing.assert_allclose(ours + 0.5, published, atol=1e-9)


def test_panoptic_studio_has_a_still_camera_without_extrinsics(tmp_path):
    video = arrays(moving_camera=False)
    scene = open_one(save(tmp_path / "boxes_12.npz", video, extrinsics_w2c=None))
    np.testing.assert_allclose(scene.tracks.points_in_world_m, video["in_world"])
    assert all((f.world_from_camera == np.eye(4)).all() for f in scene.frames)


def test_adt_without_extrinsics_is_refused_unless_the_camera_is_said_to_be_still(tmp_path):
    path = save(tmp_path / "Lite_release_seq031_6.npz", arrays(moving_camera=False), extrinsics_w2c=None)
    with pytest.raises(SceneProblem, match="extrinsics_w2c"):
        open_one(path)
    assert len(open_one(path, still_camera=True).frames) == STEPS


def test_images_in_a_folder_beside(tmp_path):
    video = arrays(moving_camera=False)
    path = save(tmp_path / "boxes_12.npz", video, images_jpeg_bytes=None)
    with pytest.raises(SceneProblem, match="'boxes_12' beside"):
        open_one(path)
    (tmp_path / "boxes_12").mkdir()
    for step, data in enumerate(video["images_jpeg_bytes"]):
        (tmp_path / "boxes_12" / f"{step * 5}.jpg").write_bytes(data)  # 5 before 10
    scene = open_one(path)
    assert [scene.image(i)[0, 0, 0] for i in range(STEPS)] == pytest.approx([0, 30, 60, 90, 120, 150], abs=1)


def test_images_are_not_read_until_they_are_asked_for(adt):
    assert isinstance(open_one(adt)._images, np.memmap)


def test_chunks_of_a_recording_and_cameras_of_a_take_are_one_place(tmp_path):
    video = arrays(moving_camera=False)
    for name in (
        "adt/Apartment_seq136_8",
        "adt/Apartment_seq136_2",
        "pstudio/boxes_12",
        "pstudio/tmp/boxes_13",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(tmp_path / f"{name}.npz", video)
    refs = find_scenes(tmp_path)
    assert [(r.name, r.place) for r in refs] == [
        ("Apartment_seq136_2", "Apartment_seq136"),
        ("Apartment_seq136_8", "Apartment_seq136"),
        ("boxes_12", "boxes"),
    ]


def test_up_that_is_given(adt):
    np.testing.assert_allclose(open_one(adt, world_up=(0, 2, 0)).world_up, (0, 1, 0))
    with pytest.raises(SceneProblem, match="up"):
        open_one(adt, world_up=(0, 0, 0))


def test_frames_without_a_pose_are_left_out_and_named(tmp_path):
    video = arrays(moving_camera=True)
    video["extrinsics_w2c"][2, 0, 0] = np.nan
    video["extrinsics_w2c"][4, :3, :3] *= 2
    scene = open_one(save(tmp_path / "x_1.npz", video))
    assert [f.state for f in scene.frames] == [0, 1, 3, 5]
    assert scene.tracks.visible.shape == (4, POINTS) and np.isnan(scene.tracks.points_in_world_m[2]).all()
    np.testing.assert_allclose(scene.tracks.points_in_world_m[3], video["in_world"][3], atol=1e-12)
    assert scene.image(2)[0, 0, 0] == pytest.approx(90, abs=1)
    assert len(scene.skipped) == 2 and "NaN" in scene.skipped[0] and "x_1.npz" in scene.skipped[0]


def test_points_that_are_not_known_are_not_visible(tmp_path):
    video = arrays(moving_camera=True)
    video["tracks_XYZ"][1, 3] = np.nan
    scene = open_one(save(tmp_path / "x_1.npz", video, visibility=np.ones((STEPS, POINTS), bool)))
    assert not scene.tracks.visible[1, 3] and scene.tracks.visible.sum() == STEPS * POINTS - 1


@pytest.mark.parametrize("kept_share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(adt, kept_share):
    data = adt.read_bytes()
    adt.write_bytes(data[: int(kept_share * len(data))])
    with pytest.raises(SceneProblem, match="whole") as problem:
        open_one(adt)
    assert problem.value.scene == adt.stem and problem.value.file == str(adt)


def test_a_damaged_compressed_file_is_named(tmp_path):
    path = save(tmp_path / "x_1.npz", arrays(moving_camera=True), np.savez_compressed)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = bytes(200)
    path.write_bytes(data)
    with pytest.raises(SceneProblem, match="whole"):
        open_one(path)


def test_python_objects_are_refused_with_the_way_out(tmp_path):
    video = arrays(moving_camera=True)
    objects = np.array(video["images_jpeg_bytes"], dtype=object)
    path = save(tmp_path / "x_1.npz", video, images_jpeg_bytes=objects)
    with pytest.raises(SceneProblem, match="Python objects") as problem:
        open_one(path)
    assert "np.array(list(old['images_jpeg_bytes']))" in problem.value.sentence
    with np.load(path, allow_pickle=True) as archive:  # the way out, followed
        old = dict(archive)
    np.savez(path, **{**old, "images_jpeg_bytes": np.array(list(old["images_jpeg_bytes"]))})
    assert len(open_one(path).frames) == STEPS


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tracks_XYZ": None}, "no tracks_XYZ"),
        ({"tracks_XYZ": np.zeros((POINTS, STEPS, 3))}, "expected"),
        ({"tracks_XYZ": np.zeros((STEPS, POINTS, 3), "S4")}, "no numbers in tracks_XYZ"),
        ({"visibility": np.zeros((STEPS, POINTS + 1), bool)}, "visibility"),
        ({"images_jpeg_bytes": [b"x"] * (STEPS - 1)}, "5 images"),
        ({"images_jpeg_bytes": [b"x"] * STEPS}, "neither JPEG nor PNG"),
        ({"images_jpeg_bytes": np.zeros((STEPS, 4, 4, 3), np.uint8)}, "byte strings"),
        ({"fx_fy_cx_cy": np.array([40.0, 40.0, 320.0, 240.0])}, "another resolution"),
        ({"fx_fy_cx_cy": np.array([np.nan, 40.0, 32.0, 24.0])}, "NaN|finite"),
        ({"fx_fy_cx_cy": np.eye(3)}, "fx_fy_cx_cy"),
        ({"extrinsics_w2c": np.eye(4)}, "extrinsics_w2c"),
        ({"extrinsics_w2c": np.full((STEPS, 4, 4), np.nan)}, "no frame with a valid pose"),
    ],
)
def test_broken_files_are_named(tmp_path, changed, words):
    path = save(tmp_path / "x_1.npz", arrays(moving_camera=True), **changed)
    with pytest.raises(SceneProblem, match=words) as problem:
        open_one(path)
    assert problem.value.scene == "x_1" and "x_1.npz" in problem.value.file


def test_a_cut_picture_is_named(tmp_path):
    video = arrays(moving_camera=True)
    video["images_jpeg_bytes"][3] = video["images_jpeg_bytes"][3][:-30]
    scene = open_one(save(tmp_path / "x_1.npz", video))
    with pytest.raises(SceneProblem, match=r"x_1\.npz, image 3"):
        scene.image(3)


def test_an_empty_folder(tmp_path):
    with pytest.raises(SceneProblem, match=r"no \.npz"):
        find_scenes(tmp_path)
