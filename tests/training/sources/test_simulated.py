"""Simulated scenes as a source: frames, fused points, boxes and tracks agree with every pixel's truth."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.sources.simulated import find_scenes

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "simulated"
NAMES = ["scene_00100122", "scene_00100126"]  # a room, a table


def opened(ref):
    return ref.open(*ref.arguments)


@pytest.fixture(scope="module")
def scenes():
    return [opened(ref) for ref in find_scenes(FOLDER)]


@pytest.fixture(scope="module")
def records():
    return [SceneRecord.load(FOLDER / f"{name}.npz") for name in NAMES]


def projected(record, view, points):
    """Pixels (N, 2) of world points by OpenCV, and their z in the camera."""
    camera_from_world = np.linalg.inv(record.world_from_camera[view])
    turn, _ = cv2.Rodrigues(camera_from_world[:3, :3])
    pixels, _ = cv2.projectPoints(
        np.ascontiguousarray(points, float), turn, camera_from_world[:3, 3], record.k, np.zeros(4)
    )
    return pixels[:, 0], points @ camera_from_world[2, :3] + camera_from_world[2, 3]


def test_frames_are_every_step_through_every_still_camera(scenes, records):
    for scene, record in zip(scenes, records, strict=True):
        steps, views, height, width = record.depth_mm.shape
        assert len(scene.frames) == steps * views == len({f.name for f in scene.frames})
        assert np.array_equal(scene.world_up, [0, 0, 1])
        assert scene.moving and not scene.depth_is_noisy and scene.has_depth
        for index, frame in enumerate(scene.frames):
            step, view = int(frame.name[1:3]), int(frame.name[5:7])
            assert frame.state == step == frame.time_s
            assert np.array_equal(frame.world_from_camera, record.world_from_camera[view])
            assert (frame.camera.width, frame.camera.height) == (width, height)
            assert np.array_equal(frame.camera.k, record.k)
            assert np.array_equal(scene.image(index), record.rgb[step, view])
            assert np.allclose(scene.depth_m(index), record.depth_mm[step, view] / 1000, atol=1e-6)


def test_references_are_small_picklable_and_carry_the_seed(scenes):
    refs = pickle.loads(pickle.dumps(find_scenes(FOLDER)))  # noqa: S301 - our own bytes
    assert [r.name for r in refs] == NAMES and [r.seed for r in refs] == [100122, 100126]
    assert len(pickle.dumps(refs[0])) < 1000
    assert [f.name for f in opened(refs[1]).frames] == [f.name for f in scenes[1].frames]
    (one,) = find_scenes(FOLDER / f"{NAMES[0]}.npz")
    assert one.seed == 100122


def test_points_lie_on_the_surfaces_that_the_pixels_show(scenes, records):
    for scene, record in zip(scenes, records, strict=True):
        for state in range(len(record.depth_mm)):
            points = scene.points_m(state)
            assert points.dtype == np.float32 and 2000 < len(points) <= 200_000
            best = np.full(len(points), np.inf)
            for view in range(record.depth_mm.shape[1]):
                pixels, z = projected(record, view, points.astype(float))
                u, v = np.round(pixels).T
                height, width = record.depth_mm.shape[2:]
                inside = (z > 0) & (u >= 0) & (v >= 0) & (u < width) & (v < height)
                seen = record.depth_mm[state, view, v[inside].astype(int), u[inside].astype(int)] / 1000
                best[inside] = np.minimum(best[inside], np.abs(seen - z[inside]))
            assert best.max() < 1e-4  # each point is a pixel's own measurement


def test_objects_are_upright_named_boxes_of_the_bodies_size_around_their_points(scenes, records):
    for scene, record in zip(scenes, records, strict=True):
        for state in range(len(record.depth_mm)):
            points, found = scene.points_m(state), scene.objects(state)
            assert len(found) >= 3 and len({o.name for o in found}) == len(found)
            for thing in found:
                body = int(thing.name.rsplit("_", 1)[1])
                assert thing.category == record.body_category[body]
                assert not thing.category.startswith(("world", "robot", "gantry"))
                assert np.array_equal(thing.size_m, record.body_size_m[body])
                assert np.array_equal(thing.world_from_box, record.world_from_body[state, body])
                assert thing.world_from_box[2, 2] > np.cos(np.radians(1))
                inverse = np.linalg.inv(thing.world_from_box)
                local = points[thing.point_ids] @ inverse[:3, :3].T + inverse[:3, 3]
                assert len(local) and (np.abs(local) < thing.size_m / 2 + 0.005).all()


def test_a_lid_is_an_object_only_while_it_lies_flat(scenes, records):
    record = records[0]
    lid = list(record.body_category).index("chest lid")
    flat = record.world_from_body[:, lid, 2, 2] > np.cos(np.radians(1))
    shown = ["chest lid" in {o.category for o in scenes[0].objects(t)} for t in range(len(flat))]
    assert flat.any() and not flat.all() and shown == flat.tolist()


def test_small_things_have_points_enough_to_tell_their_size(scenes, records):
    small = [o for o in scenes[1].objects(0) if o.size_m.max() < 0.4]
    assert len(small) >= 3 and max(len(o.point_ids) for o in small) > 150
    seen = np.bincount(records[1].body_id[0].ravel(), minlength=99)
    for thing in small:
        if seen[int(thing.name.rsplit("_", 1)[1])] > 300:
            assert len(thing.point_ids) > 50


def test_tracks_are_carried_by_the_true_poses_of_their_bodies(scenes, records):
    for scene, record in zip(scenes, records, strict=True):
        tracks = scene.tracks
        assert tracks.points_in_world_m.shape == (len(record.rgb), len(tracks.body), 3)
        assert np.bincount(tracks.body).max() <= 40 and set(tracks.body) >= {0}
        for body in np.unique(tracks.body):
            own = tracks.points_in_world_m[:, tracks.body == body]
            for step, pose in enumerate(record.world_from_body[:, body]):
                back = np.linalg.inv(record.world_from_body[0, body])
                in_body = own[0] @ back[:3, :3].T + back[:3, 3]
                assert np.allclose(own[step], in_body @ pose[:3, :3].T + pose[:3, 3], atol=1e-9)
                if body:
                    assert (np.abs(in_body) < record.body_size_m[body] / 2 + 0.006).all()


def test_visible_tracks_agree_with_a_loop_over_pixels(scenes, records):
    """Visible means: the pixel OpenCV projects to shows this body, at this depth."""
    for scene, record in zip(scenes, records, strict=True):
        tracks = scene.tracks
        assert tracks.visible.shape == (len(scene.frames), len(tracks.body))
        assert tracks.visible.any(axis=0).mean() > 0.97  # each was seen somewhere
        height, width = record.depth_mm.shape[2:]
        for index, frame in enumerate(scene.frames):
            step, view = frame.state, index % record.depth_mm.shape[1]
            pixels, z = projected(record, view, tracks.points_in_world_m[step])
            for n in range(len(tracks.body)):
                u, v = np.floor(pixels[n] + 0.5)
                truth = z[n] > 0 and 0 <= u < width and 0 <= v < height
                if truth:
                    shown = record.body_id[step, view, int(v), int(u)]
                    depth_m = record.depth_mm[step, view, int(v), int(u)] / 1000
                    truth = shown == tracks.body[n] and abs(depth_m - z[n]) <= max(0.01, 0.01 * z[n])
                assert tracks.visible[index, n] == truth


def test_a_displaced_point_is_found_on_its_body_in_the_later_frame(scenes, records):
    """Points visible before and unoccluded after land on their own body: displacement is true to pixels."""
    moved = 0
    for scene, record in zip(scenes, records, strict=True):
        tracks, views = scene.tracks, record.depth_mm.shape[1]
        last = len(record.rgb) - 1
        travel = np.linalg.norm(tracks.points_in_world_m[last] - tracks.points_in_world_m[0], axis=1)
        for view in range(views):
            both = tracks.visible[view] & tracks.visible[last * views + view] & (travel > 0.05)
            pixels, _ = projected(record, view, tracks.points_in_world_m[last, both])
            u, v = np.round(pixels).astype(int).T
            assert (record.body_id[last, view, v, u] == tracks.body[both]).all()
            moved += int(both.sum())
    assert moved > 40


def test_tracks_and_points_do_not_change_when_opened_again(scenes):
    for scene, ref in zip(scenes, find_scenes(FOLDER), strict=True):
        again = opened(ref)
        assert np.array_equal(again.tracks.points_in_world_m, scene.tracks.points_in_world_m)
        assert np.array_equal(again.tracks.visible, scene.tracks.visible)
        assert np.array_equal(again.points_m(1), scene.points_m(1))


def test_faulty_files_end_with_a_sentence_that_names_scene_and_file(tmp_path):
    with pytest.raises(SceneProblem, match=r"holds no scene_\*\.npz"):
        find_scenes(tmp_path)
    whole = (FOLDER / f"{NAMES[0]}.npz").read_bytes()
    truncated = tmp_path / "scene_00000001.npz"
    truncated.write_bytes(whole[: len(whole) // 2])
    (ref,) = find_scenes(tmp_path)
    with pytest.raises(SceneProblem, match=r"scene 'scene_00000001', .*scene_00000001\.npz: is not a whole"):
        opened(ref)
    np.savez(truncated, rgb=np.zeros(3))
    with pytest.raises(SceneProblem, match="is not a whole scene"):
        opened(ref)
    # A benchmark scene under a training seed's name would leak into training.
    shutil.copy(FOLDER / f"{NAMES[0]}.npz", truncated)
    with pytest.raises(SceneProblem, match="holds the scene of seed 100122"):
        opened(ref)
    truncated.unlink()
    with pytest.raises(SceneProblem, match="is not a whole scene"):
        opened(ref)
    (tmp_path / "scene_a.npz").write_bytes(whole)
    with pytest.raises(SceneProblem, match="is not named scene_<seed>"):
        find_scenes(tmp_path)
