"""The command on real frames: what each source can give, what it says it cannot, and every broken scene by name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.make_multispa import main, rows_wanted
from spatial_mllm_training.multispa.rows import Row, read_rows

ROOT = Path(__file__).parents[2]
HOLOLENS = ROOT / "tests" / "fixtures" / "hololens"
DVRK = ROOT / "tests" / "fixtures" / "dvrk"
OBJECT_SIZES = {n for n in tasks.names() if n.startswith("object_perception")}
OBJECT_MOTION = {n for n in tasks.names() if n.startswith("tapvid3d")}
STATIC = set(tasks.names()) - OBJECT_SIZES - OBJECT_MOTION


def run(*words: object) -> int:
    return main([*map(str, words), "--workers", "0", "--split", "all"])


@pytest.fixture(scope="module")
def hololens(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    out = tmp_path_factory.mktemp("hololens") / "data"
    up = ("--option", "posed_rgbd.world_up=0,1,0")
    assert run("--source", "posed_rgbd", HOLOLENS, *up, "--rows", "12", "--out", out) == 0
    return out, list(read_rows(out))


def test_hololens_gives_every_static_subtask_without_objects(hololens: tuple[Path, list[Row]]) -> None:
    out, rows = hololens
    assert {r.question_type for r in rows} == STATIC
    missing = json.loads((out / "dataset.json").read_text())["missing"]
    assert set(missing) == OBJECT_SIZES | OBJECT_MOTION
    assert all("no objects" in str(missing[name]) for name in OBJECT_SIZES)


def test_hololens_correspondences_come_back_within_a_pixel(hololens: tuple[Path, list[Row]]) -> None:
    """The second image's own depth at the answer's pixel, carried back by OpenCV, is the asked pixel."""
    names = {"visual_correspondence_coor_2_coor", "visual_correspondence_multiple_choice"}
    checked = 0
    for row in hololens[1]:
        if row.question_type not in names:
            continue
        asked = row.spatial.points[0]
        (answer,) = (p for p in row.spatial.points[1:] if p.role == "answer" or p.label == row.spatial.label)
        depth = cv2.imread(str(HOLOLENS / "depth" / f"{row.spatial.frames[1]}.png"), cv2.IMREAD_UNCHANGED)
        z = depth[int(np.floor(answer.v_px + 0.5)), int(np.floor(answer.u_px + 0.5))] / 1000
        k = np.array(row.spatial.k[1]).reshape(3, 3)
        first, second = (np.array(p).reshape(4, 4) for p in row.spatial.world_from_camera)
        world = second @ np.array([*(np.linalg.inv(k) @ (answer.u_px, answer.v_px, 1) * z), 1])
        back = np.linalg.inv(first)
        pixel, _ = cv2.projectPoints(
            world[None, None, :3],
            cv2.Rodrigues(back[:3, :3])[0],
            back[:3, 3],
            np.array(row.spatial.k[0]).reshape(3, 3),
            None,
        )
        assert np.linalg.norm(pixel.ravel() - (asked.u_px, asked.v_px)) <= 1.0, row.id
        checked += 1
    assert checked == 24


def test_hololens_depths_are_the_depth_images(hololens: tuple[Path, list[Row]]) -> None:
    rows = [r for r in hololens[1] if r.question_type.startswith("depth_estimation")]
    assert len(rows) == 24
    for row in rows:
        (point,) = row.spatial.points
        depth = cv2.imread(str(HOLOLENS / "depth" / f"{row.spatial.frames[0]}.png"), cv2.IMREAD_UNCHANGED)
        assert row.gt_value == depth[int(point.v_px), int(point.u_px)]


def test_dvrk_gives_object_motion_before_a_still_camera(tmp_path: Path) -> None:
    assert run("--source", "object_motion", DVRK, "--rows", "10", "--out", tmp_path / "out") == 0
    types = {r.question_type for r in read_rows(tmp_path / "out")}
    assert types & OBJECT_MOTION == {n for n in OBJECT_MOTION if n.endswith("pstudio")}
    assert not types & OBJECT_SIZES


def test_two_sources_of_which_one_lacks_gravity(tmp_path: Path) -> None:
    words = ("--source", "posed_rgbd", HOLOLENS, "--source", "object_motion", DVRK)
    assert run(*words, "--rows", "4", "--out", tmp_path / "out") == 0
    record = json.loads((tmp_path / "out" / "dataset.json").read_text())
    assert record["scenes"] == 2
    assert not {"yaw_angle", "pitch_movement"} & set(record["rows"])
    assert "world_up" in str(record["missing"]["yaw_angle"])


# -- bad input ------------------------------------------------------------------------------------


def _poses(scene: Path, change: Callable[[list[str]], list[str]]) -> None:
    file = scene / "poses.txt"
    file.write_text("\n".join(change(file.read_text().splitlines())) + "\n")


def _resize_depth(scene: Path) -> None:
    file = sorted((scene / "depth").iterdir())[5]
    depth = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    cv2.imwrite(str(file), cv2.resize(depth, (135, 90), interpolation=cv2.INTER_NEAREST))


def _zero_depth(scene: Path) -> None:
    for file in (scene / "depth").iterdir():
        cv2.imwrite(str(file), np.zeros_like(cv2.imread(str(file), cv2.IMREAD_UNCHANGED)))


def _other_k(scene: Path) -> None:
    k = np.loadtxt(scene / "K.txt").reshape(3, 3)
    k[:2] *= 4
    np.savetxt(scene / "K.txt", k)


def _cut_image(scene: Path) -> None:
    file = sorted((scene / "images").iterdir())[2]
    file.write_bytes(file.read_bytes()[:900])


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing pose": (lambda s: _poses(s, lambda lines: lines[:-2]), "poses.txt"),
    "NaN pose": (lambda s: _poses(s, lambda lines: [" ".join(["nan"] * 16) for _ in lines]), "poses.txt"),
    "zero depth": (_zero_depth, "depth"),
    "K of another resolution": (_other_k, "K.txt"),
    "no K": (lambda s: (s / "K.txt").unlink(), "K.txt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_scene_is_named_and_the_other_completes(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, out = tmp_path / "scenes", tmp_path / "out"
    for name in ("broken", "whole"):
        shutil.copytree(HOLOLENS, scenes / name)
    broke, file = FAULTS[fault]
    broke(scenes / "broken")
    status = run("--source", "posed_rgbd", scenes, "--rows", "depth_estimation_coor=5", "--out", out)
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    assert status == 1
    (sentence,) = json.loads((out / "dataset.json").read_text())["failures"]
    assert "'broken'" in sentence and file in sentence and sentence in said
    assert {r.spatial.scene for r in read_rows(out)} == {"whole"}
    assert [p.name for p in (out / "images").iterdir()] == ["whole"]


@pytest.mark.parametrize("broke", [_resize_depth, _cut_image])
def test_a_broken_frame_costs_itself_or_its_scene_and_is_named(
    broke: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenes, out = tmp_path / "scenes", tmp_path / "out"
    for name in ("broken", "whole"):
        shutil.copytree(HOLOLENS, scenes / name)
    broke(scenes / "broken")
    status = run("--source", "posed_rgbd", scenes, "--rows", "depth_estimation_coor=60", "--out", out)
    said = "".join(capsys.readouterr())
    record = json.loads((out / "dataset.json").read_text())
    assert "Traceback" not in said and status == bool(record["failures"])
    notes = " ".join([*record["failures"], *record["skipped"]])
    assert "'broken'" in notes
    assert record["rows"] == {"depth_estimation_coor": 60}
    assert not [p for p in out.rglob("*") if ".part" in p.name]


def test_one_frame_scene_gives_depth_and_says_what_it_cannot(tmp_path: Path) -> None:
    scene, out = tmp_path / "single", tmp_path / "out"
    shutil.copytree(HOLOLENS, scene)
    for folder in ("images", "depth"):
        for file in sorted((scene / folder).iterdir())[1:]:
            file.unlink()
    _poses(scene, lambda lines: lines[:1])
    assert run("--source", "posed_rgbd", scene, "--rows", "3", "--out", out) == 0
    record = json.loads((out / "dataset.json").read_text())
    assert set(record["rows"]) == {n for n in tasks.names() if n.startswith("depth")}
    assert "total_distance" in record["missing"]


def test_empty_bag_and_torn_npz(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mcap").write_bytes(b"")
    (tmp_path / "scene_00000007.npz").write_bytes(b"PK\x03\x04torn")
    words = ("--source", "rosbag", tmp_path / "empty.mcap", "--source", "simulated", tmp_path)
    status = run(
        *words,
        "--source",
        "posed_rgbd",
        HOLOLENS,
        "--rows",
        "depth_estimation_dot=2",
        "--out",
        tmp_path / "o",
    )
    said = "".join(capsys.readouterr())
    assert status == 1 and "Traceback" not in said
    assert "empty.mcap" in said and "scene_00000007.npz" in said
    assert len(list(read_rows(tmp_path / "o"))) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--source", "lidar", "x"), "lidar"),
        (("--source", "posed_rgbd", "nowhere"), "nowhere"),
        (("--source", "posed_rgbd", HOLOLENS, "--option", "posed_rgbd.colour=1"), "colour"),
        (("--source", "posed_rgbd", HOLOLENS, "--option", "world_up=0,1,0"), "KIND.NAME=VALUE"),
        (("--source", "posed_rgbd", HOLOLENS, "--option", "posed_rgbd.world_up=up"), "world_up"),
        (("--source", "posed_rgbd", HOLOLENS, "--rows", "many"), "'many'"),
        (("--source", "posed_rgbd", HOLOLENS, "--rows", "depth=4"), "depth"),
        (("--source", "posed_rgbd", HOLOLENS, "--rows", "²"), "'²'"),
    ],
)
def test_wrong_words_end_with_one_sentence(
    words: tuple[object, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_rows_wanted() -> None:
    assert set(rows_wanted([]).values()) == {100}
    only = rows_wanted(["yaw_angle=7"])
    assert only["yaw_angle"] == 7 and sum(only.values()) == 7
    mixed = rows_wanted(["5", "yaw_angle=7"])
    assert mixed["yaw_angle"] == 7 and sum(mixed.values()) == 5 * 25 + 7
    with pytest.raises(SpatialError):
        rows_wanted(["5.5"])


@pytest.mark.parametrize(
    "words",
    [
        ("--seed", "-1"), ("--workers", "-2"), ("--workers", "two"), ("--memory-gib", "nan"), ("--memory-gib", "-1"),
        ("--hard-share", "1.5"), ("--hard-share", "nan"),
    ],
)  # fmt: skip
def test_numbers_that_are_none_are_refused_at_once(
    words: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--source", "posed_rgbd", str(HOLOLENS), "--out", str(tmp_path / "out"), *words])
    assert exit_.value.code == 2 and f"argument {words[0]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_hard_distractors_lie_near_the_answer(tmp_path: Path) -> None:
    rows = ("--rows", "visual_correspondence_multiple_choice=12", "--hard-share", "1")
    assert run("--source", "posed_rgbd", HOLOLENS, *rows, "--out", tmp_path / "out") == 0
    made = list(read_rows(tmp_path / "out"))
    assert len(made) == 12
    for row in made:
        choices = {p.label: (p.u_px, p.v_px) for p in row.spatial.points if p.label}
        away = [np.subtract(place, choices[row.spatial.label]) for place in choices.values()]
        assert np.linalg.norm(away, axis=1).max() <= 0.12 * row.spatial.size[1][0], row.id
        assert row.spatial.group.startswith("hard")


def test_ctrl_c_is_one_sentence_and_the_same_command_goes_on(tmp_path: Path) -> None:
    words = [
        "--source",
        "posed_rgbd",
        str(HOLOLENS),
        "--split",
        "all",
        "--workers",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    making = subprocess.Popen(
        [sys.executable, "-m", "spatial_mllm_training.make_multispa", *words, "--rows", "400"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        # a job in the background of a shell inherits an ignored SIGINT, and then nothing interrupts it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert making.stderr is not None
    said = making.stderr.read(len("drafting"))
    making.send_signal(signal.SIGINT)
    said += making.communicate(timeout=60)[1]
    assert making.returncode == 130 and "Traceback" not in said
    assert said.endswith("interrupted; the same command goes on\n")
    assert main([*words, "--rows", "400"]) == 0
    assert not (tmp_path / "out" / "work").exists()
