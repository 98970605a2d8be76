"""Generated scenes: the same for a seed, consistent between views and times, whole on disk or absent."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError

if importlib.util.find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed: scenes cannot be drawn", allow_module_level=True)

from spatial_mllm_training import make_scenes
from spatial_mllm_training.scenes import mat, render
from spatial_mllm_training.scenes.generate import make_scene
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.split import scene_path
from spatial_mllm_training.scenes.views import NoViewError

try:
    render.choose_gl()
except SpatialError as fault:
    pytest.skip(fault.sentence, allow_module_level=True)

SEEDS = range(100_000, 100_008)
FIELDS = ("rgb", "depth_mm", "body_id", "k", "world_from_camera", "world_from_body", "body_size_m")


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(seed) for seed in SEEDS]


def equal(one, other):
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in FIELDS) and list(
        one.body_category
    ) == list(other.body_category)


def surface_points(scene, step, view, every=7):
    """Return pixels (N, 2), ids (N,) and world points (N, 3) of a picture."""
    v, u = np.mgrid[0 : scene.rgb.shape[2] : every, 0 : scene.rgb.shape[3] : every].reshape(2, -1)
    z = scene.depth_mm[step, view, v, u] / 1000
    rays = np.stack([u, v, np.ones_like(u)], 1) @ np.linalg.inv(scene.k).T
    pose = scene.world_from_camera[view]
    points = (rays * z[:, None]) @ pose[:3, :3].T + pose[:3, 3]
    keep = z > 0
    return np.stack([u, v], 1)[keep], scene.body_id[step, view, v, u][keep], points[keep]


def look_up(scene, step, view, points):
    """Return z of `points` in a camera, and depth and id of the pixels they fall on (None outside)."""
    pose = scene.world_from_camera[view]
    in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
    pixels = in_camera @ scene.k.T
    uv = np.round(pixels[:, :2] / np.where(pixels[:, 2:] > 0.05, pixels[:, 2:], np.nan))
    height, width = scene.rgb.shape[2:4]
    inside = (uv >= 0).all(1) & (uv[:, 0] < width) & (uv[:, 1] < height) & (in_camera[:, 2] > 0.05)
    u, v = uv[inside].astype(int).T
    return (
        inside,
        in_camera[inside, 2],
        scene.depth_mm[step, view, v, u] / 1000,
        scene.body_id[step, view, v, u],
    )


def test_points_of_one_view_are_found_at_their_depth_in_the_others(scenes):
    agreeing = total = 0
    for scene in scenes:
        _, ids, points = surface_points(scene, 0, 0)
        for view in range(1, scene.rgb.shape[1]):
            inside, z, seen_m, seen_id = look_up(scene, 0, view, points)
            # A seen depth well in front hides the point; behind it would be a contradiction.
            hidden = seen_m < 0.97 * z
            agrees = np.abs(seen_m / z - 1) < 0.03
            contradicts = ~hidden & ~agrees
            # At silhouettes, and on floors seen at a grazing angle, half a pixel is more than 3 %.
            assert contradicts.mean() < 0.08
            agreeing += int((agrees & (seen_id == ids[inside])).sum())
            total += int((~hidden).sum())
    assert total > 5000 and agreeing > 0.93 * total


def test_points_on_moved_bodies_are_found_where_the_poses_carry_them(scenes):
    found = total = 0
    for scene in scenes:
        for step in range(1, scene.rgb.shape[0]):
            _, ids, points = surface_points(scene, 0, 0, every=2)
            motion = scene.world_from_body[step] @ np.linalg.inv(scene.world_from_body[0])
            travel = np.linalg.norm(motion[:, :3, 3], axis=1)
            moved = np.isin(ids, np.flatnonzero(travel > 0.02))
            if not moved.any():
                continue
            carried = np.einsum("nij,nj->ni", motion[ids[moved], :3, :3], points[moved])
            carried += motion[ids[moved], :3, 3]
            inside, z, seen_m, seen_id = look_up(scene, step, 0, carried)
            visible = seen_m > 0.97 * z
            found += int((seen_id == ids[moved][inside])[visible].sum())
            total += int(visible.sum())
    assert total > 500 and found > 0.85 * total


def turns_deg(scene, first, second):
    rotations = scene.world_from_camera[:, :3, :3]
    traces = np.einsum("nij,nij->n", rotations[first], rotations[second])
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def test_cameras_are_drawn_from_the_promised_ranges(scenes):
    for scene in scenes:
        height, width = scene.rgb.shape[2:4]
        hfov_deg = np.degrees(2 * np.arctan(width / 2 / scene.k[0, 0]))
        assert 39.9 < hfov_deg <= 60 or 66 <= hfov_deg <= 100
        assert 0.9 <= scene.k[1, 1] / scene.k[0, 0] <= 1.1
        assert abs(scene.k[0, 2] - (width - 1) / 2) <= 0.08 * width
        for pose in scene.world_from_camera:
            assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
        assert np.median(scene.depth_mm[scene.depth_mm > 0]) > 200
        assert all(image.std() > 5 for image in scene.rgb.reshape(-1, height, width, 3))


def test_views_of_a_workspace_stay_near_the_first():
    for seed in (1, 2):
        scene = make_scene(seed, domain="workspace", steps=1, views=8, supersample=1)
        at = scene.world_from_camera[:, :3, 3]
        assert np.linalg.norm(at - at[0], axis=1).max() <= 0.6 + 1e-9
        # 20, and up to 5 where the camera turned back to its target
        assert turns_deg(scene, np.zeros(8, int), np.arange(8)).max() <= 25.1


def test_squares_of_a_mat_measure_what_they_say():
    """Brightness of a table top, over its own metres, goes with a chessboard of that side and no other."""
    for seed in (3, 8):
        scene = make_scene(seed, domain="mat", width=320, height=240, steps=1, views=2, supersample=1)
        table = int(np.flatnonzero(scene.body_category == "table")[0])
        v, u = np.nonzero(scene.body_id[0, 0] == table)
        rays = np.stack([u, v, np.ones(len(u))], 1) @ np.linalg.inv(scene.k).T
        points = rays * scene.depth_mm[0, 0, v, u, None] / 1e3
        pose = np.linalg.inv(scene.world_from_body[0, table]) @ scene.world_from_camera[0]
        on_table = points @ pose[:3, :3].T + pose[:3, 3]
        top = on_table[:, 2] > on_table[:, 2].max() - 0.004
        bright = scene.rgb[0, 0, v, u].mean(1)[top]
        fits = {side: board_fit(on_table[top, :2], bright, side) for side in (0.1, mat.SQUARE_M, 0.25)}
        assert fits[mat.SQUARE_M] > 0.8 > 0.4 > max(fits[0.1], fits[0.25]), fits


def board_fit(xy_m, bright, side_m):
    """Best correlation of brightness with a chessboard over all shifts of the board."""
    shifts = np.linspace(0, 2, 16, endpoint=False)
    waves = [[np.sign(np.sin(np.pi * (xy_m[:, i] / side_m + s))) for s in shifts] for i in (0, 1)]
    return max(abs(np.corrcoef(a * b, bright)[0, 1]) for a in waves[0] for b in waves[1])


def in_common_percent(scene, first, second):
    """Intersection over union of the points two views see, each point tested in both depth images."""
    seen = []
    for view in (first, second):
        _, _, points = surface_points(scene, 0, view, every=3)
        inside, z, seen_m, _ = look_up(scene, 0, second if view == first else first, points)
        # A point counts by the area that its pixel stands for, so that near and far views weigh alike.
        area = np.linalg.norm(points - scene.world_from_camera[view, :3, 3], axis=1) ** 2
        seen.append((area[inside][np.abs(seen_m - z) < np.maximum(0.05, 0.03 * z)].sum(), area.sum()))
    shared = (seen[0][0] + seen[1][0]) / 2
    return 100 * shared / (seen[0][1] + seen[1][1] - shared)


def test_sixteen_views_share_little_or_much_and_move_by_centimetres_or_metres():
    overlaps, shifts, turns = [], [], []
    first, second = np.triu_indices(16, 1)
    for seed in SEEDS[:4]:
        scene = make_scene(seed, steps=1, views=16, supersample=1)
        at = scene.world_from_camera[:, :3, 3]
        shifts += np.linalg.norm(at[first] - at[second], axis=1).tolist()
        turns += turns_deg(scene, first, second).tolist()
        overlaps += [in_common_percent(scene, a, b) for a, b in zip(first, second, strict=True)]
        mine = np.array(overlaps[-len(first) :]).reshape(-1)
        best = np.zeros(16)
        np.maximum.at(best, first, mine)
        np.maximum.at(best, second, mine)
        assert best.min() > 3  # every view has something in common with another
    counts, _ = np.histogram(overlaps, [6, 12, 18, 24, 30, 36])
    assert counts.min() >= 15 and counts.sum() >= 120  # of 480 pairs, evenly enough
    shifts, turns = np.array(shifts), np.array(turns)
    used = (np.array(overlaps) > 6) & (np.array(overlaps) < 35)
    assert (shifts < 0.15).sum() >= 10 and (shifts[used] > 1).sum() >= 15
    assert (turns < 5).sum() >= 10 and (turns[used] > 60).sum() >= 10


def test_bodies_have_names_sizes_and_rigid_poses(scenes):
    for scene in scenes:
        assert scene.body_category[0] == "world" and (scene.body_size_m[1:] > 0).all()
        assert np.array_equal(scene.world_from_body[:, 0], np.tile(np.eye(4), (4, 1, 1)))
        rotations = scene.world_from_body[..., :3, :3]
        assert np.allclose(rotations @ rotations.swapaxes(-1, -2), np.eye(3), atol=1e-9)
    kinds = {scene.kind for scene in scenes}
    assert kinds == {"tabletop", "indoor"}


def test_seen_surfaces_lie_inside_their_bodies_boxes(scenes):
    for scene in scenes:
        _, ids, points = surface_points(scene, 1, 2)
        inverse = np.linalg.inv(scene.world_from_body[1])
        local = np.einsum("nij,nj->ni", inverse[ids, :3, :3], points) + inverse[ids, :3, 3]
        outside = (np.abs(local) - scene.body_size_m[ids] / 2).max(axis=1)
        assert outside[ids > 0].max() < 0.006  # depth is kept in millimetres


def test_a_seed_gives_one_scene_in_any_process_and_worker_count(scenes, tmp_path, capsys):
    seeds = f"{SEEDS[0]}:{SEEDS[3]}"
    for workers in ("1", "2"):
        out = tmp_path / workers
        assert make_scenes.main(["--out", str(out), "--seeds", seeds, "--workers", workers]) == 0
        for index in range(3):
            assert equal(SceneRecord.load(scene_path(out, SEEDS[index])), scenes[index])
        assert not list(out.glob("*.part"))
    assert "3 scenes made, 0 kept, 0 failed; 48 frames" in capsys.readouterr().out


def test_whole_scenes_are_kept_and_broken_ones_made_anew(scenes, tmp_path):
    good, broken = scene_path(tmp_path, SEEDS[0]), scene_path(tmp_path, SEEDS[1])
    scenes[0].save(good)
    scenes[1].save(broken)
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    before = good.stat().st_mtime_ns
    rest = ((256, 192), 4, 4, 2)
    assert make_scenes.write_scene(tmp_path, SEEDS[0], *rest) == "kept"
    assert good.stat().st_mtime_ns == before
    assert make_scenes.write_scene(tmp_path, SEEDS[1], *rest) == "made"
    assert equal(SceneRecord.load(broken), scenes[1])
    assert make_scenes.write_scene(tmp_path, SEEDS[0], (64, 48), 1, 1, 1) == "made"  # of another size


def test_a_truncated_or_foreign_file_is_named(scenes, tmp_path):
    path = scene_path(tmp_path, 3)
    scenes[0].save(path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(SpatialError, match=r"scene_00000003\.npz is not a whole scene"):
        SceneRecord.load(path)
    np.savez(path, rgb=np.zeros(3))
    with pytest.raises(SpatialError, match="not a whole scene"):
        SceneRecord.load(path)


def test_held_out_cameras_are_the_tests_alone(tmp_path, capsys):
    seed, rest = 100_100, ((64, 48), 1, 1, 1)
    assert make_scenes.write_scene(tmp_path, seed, *rest) == "made"
    # A whole scene of other cameras is not kept.
    assert make_scenes.write_scene(tmp_path, seed, *rest, cameras="held-out") == "made"
    assert make_scenes.write_scene(tmp_path, seed, *rest, cameras="held-out") == "kept"
    hfov_deg = np.degrees(2 * np.arctan(32 / SceneRecord.load(scene_path(tmp_path, seed)).k[0, 0]))
    assert 60 <= hfov_deg <= 66 or 100 <= hfov_deg <= 110
    with pytest.raises(ValueError, match="held-out cameras are for seeds from 100100 on, found seed 100099"):
        make_scene(100_099, camera_set="held-out")
    with pytest.raises(SystemExit):
        make_scenes.main(["--out", str(tmp_path), "--seeds", "100099:100101", "--cameras", "held-out"])
    assert "held-out cameras are for test seeds, from 100100 on" in capsys.readouterr().err


def test_nothing_is_left_when_saving_an_invalid_scene(scenes, tmp_path):
    broken = SceneRecord(**{**vars(scenes[0]), "depth_mm": scenes[0].depth_mm[..., :-1]})
    with pytest.raises(ValueError, match="depth_mm"):
        broken.save(tmp_path / "scene.npz")
    assert not list(tmp_path.iterdir())


def test_a_scene_that_fails_is_reported_and_stops_nothing(tmp_path, monkeypatch, capsys):
    def failing(seed, **_):
        raise NoViewError(f"seed {seed}: no view is good enough") if seed == 1 else MemoryError("too much")

    monkeypatch.setattr(make_scenes, "make_scene", failing)
    rest = ((256, 192), 4, 4, 2)
    assert make_scenes.write_scene(tmp_path, 1, *rest) == "seed 1: no view is good enough"
    assert make_scenes.write_scene(tmp_path, 2, *rest) == "seed 2: MemoryError: too much"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "5:1"], "no seeds between"),
        (["--seeds", "a:b"], "expected FIRST:LAST"),
        (["--seeds", "0:1", "--size", "0x5"], "expected WIDTHxHEIGHT"),
        (["--seeds", "0:1", "--workers", "0"], "expected a whole number above 0"),
    ],
)
def test_wrong_arguments_end_with_a_sentence(arguments, sentence, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        make_scenes.main(["--out", str(tmp_path), *arguments])
    assert stop.value.code == 2 and sentence in capsys.readouterr().err


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert make_scenes.main(["--out", str(tmp_path / "file"), "--seeds", "0:1"]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_ctrl_c_finishes_the_scenes_in_hand_and_leaves_the_others(tmp_path):
    words = ["--out", str(tmp_path), "--seeds", "0:400", "--size", "64x48", "--views", "2", "--steps", "1"]
    made = subprocess.Popen(
        [sys.executable, "-m", "spatial_mllm_training.make_scenes", *words],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        # a job in the background of a shell inherits an ignored SIGINT, and then nothing interrupts it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    said = ""
    while not re.search(r"\| [1-9]\d*/400", said):
        piece = made.stderr.read(1)
        assert piece, said
        said += piece
    os.killpg(made.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    said += made.communicate(timeout=60)[1]
    assert made.returncode == 130
    assert "interrupted; the same command goes on" in said and "Traceback" not in said
    scenes = list(tmp_path.iterdir())
    assert 1 <= len(scenes) < 100 and all(SceneRecord.load(path) for path in scenes)


def test_a_machine_without_opengl_is_told_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(render, "_loads", lambda name: False)
    with pytest.raises(SpatialError, match="libosmesa6") as fault:
        render.choose_gl()
    assert fault.value.code == ErrorCode.BACKEND_UNAVAILABLE
