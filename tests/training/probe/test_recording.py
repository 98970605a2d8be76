"""Rerun recordings read back with rerun's own reader; without rerun, one sentence."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.probe.point_cloud import cloud
from spatial_mllm_training.probe.recording import import_rerun, write_recording


def test_without_rerun_there_is_one_sentence_and_no_file(monkeypatch, tmp_path, lifted_pair):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(
        SpatialError, match=r"install the extra: pip install 'spatial-mllm-training\[look\]'"
    ) as fault:
        write_recording(tmp_path / "a.rrd", lifted_pair, "name")
    assert fault.value.code == ErrorCode.BACKEND_UNAVAILABLE
    assert list(tmp_path.iterdir()) == []


def test_recording_holds_cameras_pictures_and_points_of_both(tmp_path, lifted_pair):
    pytest.importorskip("rerun", reason="recordings need rerun, the 'look' extra")
    chunk = pytest.importorskip("rerun.chunk", reason="this rerun has no reader of its own recordings")
    file = tmp_path / "new" / "a.rrd"
    write_recording(file, lifted_pair, "name")
    assert [f.name for f in file.parent.iterdir()] == ["a.rrd"]
    found: dict[str, list] = {}
    for part in chunk.RrdReader(str(file)).stream():
        batch = part.to_record_batch()
        for column in batch.schema.names:
            found.setdefault(f"{part.entity_path}:{column}", []).extend(batch.column(column).to_pylist())
    paths = {key.split(":")[0] for key in found}
    assert {
        "/world/camera",
        "/world/camera/image",
        "/world/predicted",
        "/world/true",
        "/pictures/predicted",
        "/pictures/true",
        "/pictures/confidence",
    } <= paths
    one = lifted_pair[0]
    positions = [p for p in found["/world/true:Points3D:positions"] if p]
    expected = cloud(one.image.camera, one.image.world_from_camera, one.image.true_m, one.image.image_rgb)
    assert np.allclose(positions[0], expected.points_m, atol=1e-6)
    matrix = next(m for m in found["/world/camera:Pinhole:image_from_camera"] if m)
    assert np.allclose(np.reshape(matrix[0], (3, 3)).T, one.image.camera.k)
    assert import_rerun().__name__ == "rerun"
