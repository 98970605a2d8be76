"""The stored 26 x 6 rows of MultiSPA-Sim: whole, held out, and true by a path that is not the engine's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core import tasks
from spatial_mllm_training.benchmark.__main__ import main
from spatial_mllm_training.benchmark.data import load_rows
from spatial_mllm_training.multispa.rows import Row, RowPoint
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED

MINI = Path(__file__).parents[2] / "fixtures" / "multispa_sim_mini"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return load_rows(MINI)


def _pose(row: Row, image: int) -> np.ndarray:
    return np.array(row.spatial.world_from_camera[image]).reshape(4, 4)


def _project(row: Row, point: RowPoint, image: int) -> np.ndarray:
    back = np.linalg.inv(_pose(row, image))
    k = np.array(row.spatial.k[image]).reshape(3, 3)
    turn = Rotation.from_matrix(back[:3, :3]).as_rotvec()
    pixels, _ = cv2.projectPoints(np.array([[point.point_in_world_m]]), turn, back[:3, 3], k, None)
    return pixels.ravel()


def test_six_rows_of_every_subtask_from_held_out_scenes_and_cameras(rows: list[Row]) -> None:
    assert Counter(r.question_type for r in rows) == dict.fromkeys(tasks.names(), 6)
    for row in rows:
        assert row.spatial.split == "benchmark" and int(row.spatial.scene[-8:]) >= FIRST_TEST_SEED
        for k, (width, _) in zip(row.spatial.k, row.spatial.size, strict=True):
            hfov_deg = np.degrees(2 * np.arctan(width / 2 / k[0]))
            assert any(low <= hfov_deg <= high for low, high in HELD_OUT_HFOV_DEG)


def test_every_image_is_there(rows: list[Row]) -> None:
    for path in {p for r in rows for p in (*r.image, *r.spatial.source_image)}:
        assert cv2.imread(str(MINI / "images" / path)) is not None, path


def test_points_lie_where_opencv_projects_them(rows: list[Row]) -> None:
    checked = 0
    for row in rows:
        for point in row.spatial.points:
            pixel = _project(row, point, point.image)
            assert pixel == pytest.approx((point.u_px, point.v_px), abs=0.02), row.id
            checked += 1
    assert checked > 90


def test_camera_truths_by_scipy(rows: list[Row]) -> None:
    words = {
        "x_movement": ("right", "left"),
        "y_movement": ("down", "up"),
        "z_movement": ("forward", "backward"),
    }
    for row in rows:
        if row.question_type.startswith("tapvid3d") or len(row.image) != 2:
            continue
        one, two = _pose(row, 0), _pose(row, 1)
        shift = Rotation.from_matrix(one[:3, :3]).inv().apply(two[:3, 3] - one[:3, 3])
        ahead = [Rotation.from_matrix(p[:3, :3]).apply([0, 0, 1]) for p in (one, two)]
        yaws = [np.degrees(np.arctan2(v[1], v[0])) for v in ahead]
        yaw = (yaws[1] - yaws[0] + 180) % 360 - 180
        pitch = np.degrees(np.arcsin(ahead[1][2]) - np.arcsin(ahead[0][2]))
        name, truth = row.question_type, row.spatial
        if name in words:
            axis = "xyz".index(name[0])
            assert truth.label == words[name][0 if shift[axis] > 0 else 1], row.id
            assert abs(shift[axis]) >= 0.02
        elif name == "displacement_vector":
            assert truth.truth == pytest.approx(shift, abs=1e-9)
            assert row.gt_value == pytest.approx(1000 * shift, abs=0.501)
        elif name == "total_distance":
            assert truth.truth[0] == pytest.approx(np.linalg.norm(shift), abs=1e-9)
        elif name == "yaw_movement":
            assert truth.label == ("left" if yaw > 0 else "right")
        elif name == "pitch_movement":
            assert truth.label == ("up" if pitch > 0 else "down")
        elif name == "yaw_angle":
            assert truth.truth[0] == pytest.approx(abs(yaw), abs=1e-6) and abs(yaw) >= 2
        elif name == "pitch_angle":
            assert truth.truth[0] == pytest.approx(abs(pitch), abs=1e-6)


def test_adt_has_a_moving_camera_and_pstudio_a_still_one(rows: list[Row]) -> None:
    for row in rows:
        if not row.question_type.startswith("tapvid3d"):
            continue
        is_still = np.allclose(_pose(row, 0), _pose(row, 1), atol=1e-9)
        assert is_still == row.question_type.endswith("pstudio"), row.id
        start, end = (np.array(p.point_in_world_m) for p in row.spatial.points)
        moved = Rotation.from_matrix(_pose(row, 0)[:3, :3]).inv().apply(end - start)
        expected = moved if "vector" in row.question_type else [np.linalg.norm(moved)]
        assert row.spatial.truth == pytest.approx(expected, abs=1e-9), row.id


def test_the_command_scores_the_truth_with_100_and_the_blind_far_below(
    rows: list[Row], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"id": r.id, "text": r.answer}) + "\n" for r in rows))
    words = ["score", "--data", str(MINI), "--predictions", str(answers), "--out", str(tmp_path / "s.json")]
    assert main(words) == 0
    table = capsys.readouterr().out
    headline = next(line for line in table.splitlines() if line.startswith("mean of the 12 groups")).split()
    robust, strict = float(headline[6]), float(headline[9])
    assert robust == strict == 100.0
    assert 15 < float(headline[10]) < 45, "the blind baseline stored beside the rows"
