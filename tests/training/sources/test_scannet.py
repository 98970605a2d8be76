from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.object_size import missing
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.scannet import find_scenes


def opened(folder, **options):
    (ref,) = find_scenes(folder, **{"stride": 1, **options})
    return ref.open(*ref.arguments)


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_colour_and_depth_have_their_own_cameras(write_scannet):
    frame = opened(write_scannet().folder).frames[0]
    assert (frame.camera.width, frame.camera.height, frame.camera.fx) == (130, 98, 111)
    assert (frame.depth_camera.width, frame.depth_camera.height, frame.depth_camera.fx) == (96, 72, 80)


def test_world_is_aligned_and_z_is_up(write_scannet, room):
    """Poses are written in the scan's own axes, turned 37 degrees against the walls."""
    written = write_scannet()
    scene = written.open()
    np.testing.assert_array_equal(scene.world_up, [0, 0, 1])
    stored = np.loadtxt(written.folder / "pose" / "2.txt")
    np.testing.assert_allclose(scene.frames[2].world_from_camera, room.aligned_from_scan @ stored, atol=1e-5)
    facts = written.folder / "scene0000_00.txt"
    facts.write_text(facts.read_text().replace("axisAlignment", "unknown"))
    np.testing.assert_allclose(written.open().frames[2].world_from_camera, stored, atol=1e-6)
    facts.unlink()
    np.testing.assert_allclose(written.open().frames[2].world_from_camera, stored, atol=1e-6)


def test_scans_of_a_room_are_one_place(write_scannet, tmp_path):
    for name in ("scene0000_00", "scene0000_01", "scene0010_00"):
        write_scannet(tmp_path / "scannet" / "scans" / name)
    refs = find_scenes(tmp_path / "scannet")
    assert [(ref.name, ref.place) for ref in refs] == [
        ("scene0000_00", "scene0000"),
        ("scene0000_01", "scene0000"),
        ("scene0010_00", "scene0010"),
    ]
    assert find_scenes(tmp_path / "scannet" / "scans") == refs


@pytest.mark.parametrize(
    ("numbers", "stride", "expected"),
    [
        ([0, 1, 2, 3, 4, 5], None, [0, 5]),
        ([0, 20, 40, 60, 80, 100], None, [0, 20, 40, 60, 80, 100]),  # left out at export already
        ([1, 21, 41, 61, 81, 101], 40, [1, 41, 81]),
        ([0, 2, 4, 6, 8, 10], 5, [0, 10]),
    ],
)
def test_stride_counts_numbers_in_names(write_scannet, numbers, stride, expected):
    folder = write_scannet().folder
    for name, ending in (("color", "jpg"), ("depth", "png"), ("pose", "txt")):
        for i in reversed(range(6)):
            (folder / name / f"{i}.{ending}").rename(folder / name / f"{numbers[i]}.{ending}")
    (ref,) = find_scenes(folder) if stride is None else find_scenes(folder, stride=stride)
    assert [int(frame.name) for frame in ref.open(*ref.arguments).frames] == expected


def test_mesh_is_in_the_aligned_world(write_scannet, room):
    points = opened(write_scannet().folder).points_m(0)
    assert points.dtype == np.float32 and points.shape[1] == 3
    np.testing.assert_allclose(points[:806].min(axis=0), [-3, -2.5, 0], atol=1e-5)
    np.testing.assert_allclose(points[:806].max(axis=0), [3, 2.5, 0], atol=1e-5)


def test_objects_have_their_boxes(write_scannet, room):
    scene = opened(write_scannet().folder)
    floor, can = scene.objects(0)
    assert (floor.category, can.category, can.name) == ("floor", "trash can", "Trash can_1")
    low, high = room.box_m
    np.testing.assert_allclose(can.size_m, high - low, atol=1e-5)
    np.testing.assert_allclose(can.world_from_box[:3, 3], (low + high) / 2, atol=1e-5)
    np.testing.assert_array_equal(can.world_from_box[:3, :3], np.eye(3))
    on_box = scene.points_m(0)[can.point_ids]
    assert len(on_box) == 9**3 - 7**3 and len(set(can.point_ids)) == len(on_box)
    assert ((on_box > low - 1e-5) & (on_box < high + 1e-5)).all()
    assert missing(scene, MultispaConfig()) == {}


def test_the_mesh_is_seen_where_it_is(write_scannet, room):
    """The depth images show those points of the box that a ray reaches first: mesh, poses, alignment
    and depth belong together."""
    scene = opened(write_scannet().folder)
    visible = prepare(scene, MultispaConfig(), np.random.default_rng(0)).states[0]
    can = scene.objects(0)[1].point_ids
    on_faces = np.isclose(scene.points_m(0)[can][:, None], room.box_m, atol=1e-4)
    # The sides across the view; along the others, depth within a pixel varies more than the tolerance.
    can = can[(on_faces.sum(axis=(1, 2)) == 1) & on_faces[:, :, 0].any(axis=1)]
    reached_seen, hidden_seen = [], []
    for index in visible.frames:
        frame = scene.frames[index]
        origin = frame.world_from_camera[:3, 3]
        rays = scene.points_m(0)[can] - origin
        with np.errstate(divide="ignore"):
            enters = np.minimum(*((room.box_m - origin)[:, None] / rays)).max(axis=1)
        in_camera = rays @ frame.world_from_camera[:3, :3]
        u, v = frame.depth_camera.project(in_camera).T
        inside = (u > 1) & (v > 1) & (u < 94) & (v < 70)
        seen = np.isin(can, visible.ids(index))
        reached_seen += seen[inside & (enters > 0.999)].tolist()
        hidden_seen += seen[inside & (enters < 0.85)].tolist()  # far behind the side that is seen
    assert len(reached_seen) > 100 and np.mean(reached_seen) > 0.97
    assert len(hidden_seen) > 100 and np.mean(hidden_seen) < 0.03


def test_without_mesh_or_annotation(write_scannet):
    written = write_scannet()
    for file in written.folder.glob("*.json"):
        file.unlink()
    scene = written.open()
    assert scene.points_m(0) is not None and scene.objects(0) == [] and missing(scene, MultispaConfig())
    (written.folder / "scene0000_00_vh_clean_2.ply").unlink()
    assert written.open().points_m(0) is None


def test_the_other_name_of_the_aggregation(write_scannet):
    folder = write_scannet().folder
    (folder / "scene0000_00.aggregation.json").rename(folder / "scene0000_00_vh_clean.aggregation.json")
    assert len(opened(folder).objects(0)) == 2


def test_an_aggregation_of_another_mesh(write_scannet):
    folder = write_scannet().folder
    file = folder / "scene0000_00.aggregation.json"
    edit(file, lambda content: content["segGroups"][1].update(segments=[121, 122]))
    with pytest.raises(SceneProblem, match="it is of another mesh") as caught:
        opened(folder)
    assert caught.value.file == str(file)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("scene0000_00.aggregation.json", '{"segGroups": [', "is not whole JSON"),
        ("scene0000_00.aggregation.json", "{}", "segGroups should hold objects"),
        ("scene0000_00.aggregation.json", '{"segGroups": [{"label": 3}]}', "segGroups should hold objects"),
        ("scene0000_00_vh_clean_2.0.010000.segs.json", "{}", "segIndices should be 1192 whole numbers"),
        ("scene0000_00_vh_clean_2.0.010000.segs.json", '{"segIndices": [1, 2]}', "should be 1192 whole"),
        ("scene0000_00_vh_clean_2.0.010000.segs.json", '{"segIndices": [1, [2]]}', "should be 1192 whole"),
        ("scene0000_00_vh_clean_2.ply", "ply\nformat ascii 1.0\n", "is not a PLY mesh that opens"),
        ("scene0000_00.txt", "axisAlignment = 1 0 0\n", "axisAlignment should be 16 numbers, found 3"),
        ("scene0000_00.txt", "axisAlignment =" + " 2" * 16, "axisAlignment is not a rotation and a shift"),
        ("scene0000_00.txt", "axisAlignment =" + " nan" * 16, "axisAlignment should hold finite numbers"),
        ("intrinsic/intrinsic_depth.txt", None, "cannot be read"),
        ("intrinsic/extrinsic_depth.txt", "1 0 0 .04 0 1 0 0 0 0 1 0 0 0 0 1", "of different places"),
    ],
)
def test_a_broken_file_is_named(write_scannet, name, text, words):
    folder = write_scannet().folder
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(SceneProblem, match=words) as caught:
        opened(folder)
    assert caught.value.scene == "scene0000_00" and caught.value.file == str(folder / name)


def test_colour_that_was_resized_without_its_k(write_scannet):
    """SensReader can write smaller images beside the K of the full size."""
    written = write_scannet()
    for file in written.images:
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), (96, 72)))
    with pytest.raises(SceneProblem, match="K is for 130x98 px, but the images are 96x72 px"):
        written.open()
