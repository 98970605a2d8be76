"""One camera and many: the same surface under the new K, one K in all single files, many in the mixed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.cameras import mixed_window, single_window, write_variants
from spatial_mllm_training.mapped_npz import map_npz
from spatial_mllm_training.scenes.cameras import hfov_deg_of, pinhole
from spatial_mllm_training.scenes.split import scene_files


@pytest.fixture
def sources(scenes):
    return scene_files(scenes, held_out=False) + scene_files(scenes, held_out=True)


def test_variants_show_the_same_surfaces_by_their_own_cameras(sources, tmp_path):
    folders = write_variants(sources, tmp_path, (128, 96))
    angles = {}
    for name, folder in folders.items():
        files = sorted(folder.glob("scene_*.npz"))
        assert [f.name for f in files] == sorted(f.name for f in sources)
        angles[name] = [hfov_deg_of(map_npz(f)["k"], 128) for f in files]
    assert angles["single"] == pytest.approx([50.0] * len(sources), abs=0.5)
    assert np.ptp(angles["mixed"]) > 3.0 and min(angles["mixed"]) >= 49.5
    source, mixed = map_npz(sources[0]), map_npz(folders["mixed"] / sources[0].name)
    v, u = np.mgrid[4:92:8, 4:124:8]
    rays = np.stack([u, v, np.ones_like(u)], -1).reshape(-1, 3) @ np.linalg.inv(mixed["k"]).T
    at, _ = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), np.asarray(source["k"]), None)
    # the sources' depth falls evenly from row to row, so that half a pixel is a few millimetres
    found = np.asarray(mixed["depth_mm"][0, 0], float)[v.ravel(), u.ravel()]
    expected = np.interp(at[:, 0, 1], np.arange(192), np.asarray(source["depth_mm"][0, 0, :, 0], float))
    assert np.abs(found - expected).max() < 1600 / 191 * 1.1


def test_no_window_has_a_field_of_view_that_is_held_out():
    camera = CameraModel.from_k(pinhole(256, 192, 108.0), 256, 192)
    single = single_window(camera, (128, 96))
    rng = np.random.default_rng(0)
    views = [
        2 * np.degrees(np.arctan(mixed_window(camera, single, rng).width / 2 / camera.k[0, 0]))
        for _ in range(300)
    ]
    assert min(views) < 55 and 90 < max(views) <= 100.5  # its own 108 degrees are held out, as are 60 to 66
    assert not any(60.5 < v < 65.5 for v in views)


def test_finished_files_are_kept(sources, tmp_path):
    folder = write_variants(sources, tmp_path, (64, 48))["single"]
    before = {f.name: f.stat().st_mtime_ns for f in folder.iterdir()}
    write_variants(sources, tmp_path, (64, 48))
    assert {f.name: f.stat().st_mtime_ns for f in folder.iterdir()} == before


def test_scenes_that_are_too_narrow_are_said(sources, tmp_path):
    narrow = tmp_path / "scene_00000009.npz"
    scene = dict(map_npz(sources[0]))
    np.savez(narrow, **{**scene, "k": np.array([[900.0, 0, 128], [0, 900, 96], [0, 0, 1]])})
    with pytest.raises(SpatialError, match="none of 1 scenes is wide enough for one camera of 50 degrees"):
        write_variants([narrow], tmp_path / "out", (64, 48))
