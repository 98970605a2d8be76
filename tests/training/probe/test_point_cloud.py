"""Points in the world and PLY files, read back by a reader of its own."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.probe.point_cloud import Cloud, cloud, clouds, side_by_side, write_ply
from spatial_mllm_training.sources.ply import read_vertices_m


def some_cloud(count=50, seed=0):
    rng = np.random.default_rng(seed)
    return Cloud(
        rng.normal(size=(count, 3)).astype(np.float32),
        rng.integers(0, 255, (count, 3), np.uint8),
        rng.random(count).astype(np.float32),
    )


def test_ply_comes_back_as_it_was(tmp_path):
    points, file = some_cloud(), tmp_path / "new" / "cloud.ply"
    write_ply(file, points, "Küche\nelement vertex 9")
    assert np.array_equal(read_vertices_m("scene", file), points.points_m)
    data = file.read_bytes()
    head, _, body = data.partition(b"\nend_header\n")
    names = [line.split()[-1].decode() for line in head.splitlines() if line.startswith(b"property")]
    assert names == ["x", "y", "z", "red", "green", "blue", "confidence"]
    assert all(byte < 128 for byte in head)
    vertex = np.dtype({"names": names, "formats": ["<f4"] * 3 + ["u1"] * 3 + ["<f4"]})
    table = np.frombuffer(body, vertex)
    assert len(table) == 50
    assert np.array_equal(np.stack([table[c] for c in ("red", "green", "blue")], axis=1), points.rgb)
    assert np.array_equal(table["confidence"], points.confidence)
    write_ply(file, some_cloud(3), "again")
    assert len(read_vertices_m("scene", file)) == 3
    assert [f.name for f in file.parent.iterdir()] == ["cloud.ply"]


def test_points_lie_where_a_loop_over_pixels_puts_them(lifted_pair):
    one = lifted_pair[0]
    camera, pose = one.image.camera, one.image.world_from_camera
    found = cloud(camera, pose, one.image.true_m, one.image.image_rgb, one.confidence)
    expected, colours, sure = [], [], []
    for v in range(camera.height):
        for u in range(camera.width):
            z = float(one.image.true_m[v, u])
            if z > 0:
                x = (u - camera.cx) / camera.fx * z
                y = (v - camera.cy) / camera.fy * z
                expected.append((pose @ [x, y, z, 1])[:3])
                colours.append(one.image.image_rgb[v, u])
                sure.append(one.confidence[v, u])
    assert np.allclose(found.points_m, expected, atol=1e-5)
    assert np.array_equal(found.rgb, colours)
    assert np.array_equal(found.confidence, np.float32(sure))


def test_depth_that_is_nan_and_rays_that_the_lens_does_not_know_give_no_point():
    camera = CameraModel.from_k([30, 0, 31.5, 0, 30, 23.5, 0, 0, 1], 64, 48, d=[-0.9, 0, 0, 0, 0])
    depth = np.ones((48, 64), np.float32)
    depth[20:30, 20:30] = np.nan
    found = cloud(camera, np.eye(4), depth, np.zeros((48, 64, 3), np.uint8))
    assert np.isfinite(found.points_m).all()
    assert 0 < len(found) < 48 * 64 - 100


def test_predicted_and_true_points_are_thinned_evenly_and_repeatably(lifted_pair):
    predicted, true = clouds(lifted_pair, most=400, seed=2)
    assert len(predicted) == 400
    assert len(true) == 200  # the second image has no truth
    again, _ = clouds(lifted_pair, most=400, seed=2)
    assert np.array_equal(predicted.points_m, again.points_m)
    everything, _ = clouds(lifted_pair, most=10**6)
    rows = {tuple(p) for p in everything.points_m.tolist()}
    assert all(tuple(p) in rows for p in predicted.points_m.tolist())


def test_side_by_side_keeps_both_and_leaves_a_gap():
    left, right = some_cloud(seed=1), some_cloud(seed=2)
    both, shift = side_by_side(left, right)
    assert np.array_equal(both.points_m[:50], left.points_m)
    assert np.allclose(both.points_m[50:] - right.points_m, [shift, 0, 0], atol=1e-5)
    assert both.points_m[50:, 0].min() > both.points_m[:50, 0].max()


@pytest.mark.parametrize("empty_first", [True, False])
def test_an_empty_cloud_is_a_file_too(tmp_path, empty_first):
    none = some_cloud(0)
    pair = (none, some_cloud(4)) if empty_first else (some_cloud(4), none)
    both, shift = side_by_side(*pair)
    assert (len(both), shift) == (4, 0.0)
    write_ply(tmp_path / "none.ply", none, "nothing")
    assert b"element vertex 0\n" in (tmp_path / "none.ply").read_bytes()
