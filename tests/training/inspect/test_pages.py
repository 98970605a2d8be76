"""The pages show what the rows hold: marks where OpenCV projects the truth, counts that add up."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.inspect import overlay, row_page, statistics_page
from spatial_mllm_training.inspect.__main__ import draw_rows, main
from spatial_mllm_training.multispa.rows import Row, RowPoint, Spatial, to_table

WIDTH, HEIGHT = 320, 240
K = np.array([[300.0, 0, 150], [0, 280.0, 125], [0, 0, 1]])
PUSH = "tapvid3d_displacement_vector_coord_adt"


def _pose(rotation_vector: tuple[float, float, float], position: tuple[float, float, float]) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = cv2.Rodrigues(np.array(rotation_vector))[0]
    matrix[:3, 3] = position
    return matrix


FIRST = _pose((0.1, -0.2, 0.05), (0.3, -0.1, 0.2))
SECOND = _pose((0.05, -0.1, 0.0), (0.4, -0.15, 0.25))


def _row(
    number: int, subtask: str, truth: TaskValue, points: list[RowPoint], *, group: str = "", scene: str = "s"
) -> Row:
    task = tasks.get(subtask)
    images = tuple(f"{scene}/{i}.jpg" for i in range(task.frame_count))
    answers = [p for p in points if p.role == "answer"]
    return Row(
        id=f"{subtask}-{scene}-{number:06d}",
        question_type=subtask,
        image=images,
        question="<b>How?</b>",
        answer=task.answer_text(truth),
        gt_value=task.gt_value(truth),
        spatial=Spatial(
            scene=scene,
            source="simulated",
            split="train",
            frames=tuple(str(i) for i in range(task.frame_count)),
            source_image=images,
            k=(tuple(K.ravel()),) * task.frame_count,
            size=((WIDTH, HEIGHT),) * task.frame_count,
            distortion=("plumb_bob",) * task.frame_count,
            d=((),) * task.frame_count,
            world_from_camera=tuple(tuple(p.ravel()) for p in (FIRST, SECOND)[: task.frame_count]),
            world_up=(0.0, 0.0, 1.0),
            points=tuple(points),
            truth=(answers[0].u_px, answers[0].v_px) if task.kind == "coordinate" else truth.values,
            unit=task.unit,
            label=truth.label,
            group=group,
        ),
    )


def _point(u: float, v: float, depth_m: float, role: str = "asked", image: int = 0) -> RowPoint:
    pose = (FIRST, SECOND)[image]
    in_camera = np.linalg.inv(K) @ np.array([u, v, 1.0]) * depth_m
    world = pose[:3, :3] @ in_camera + pose[:3, 3]
    return RowPoint(image, u, v, depth_m, tuple(world.tolist()), role, "", False, 0, (0, 0, 0))


def _push(number: int = 0) -> Row:
    return _row(number, PUSH, TaskValue((0.12, -0.03, 0.2)), [_point(100.5, 90.0, 1.4)], group="0.2 m")


class _Marks(HTMLParser):
    """Collects SVG circles and lines of class "true"."""

    def __init__(self) -> None:
        super().__init__()
        self.circles: list[tuple[float, float]] = []
        self.lines: list[tuple[float, ...]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if values.get("class") == "true" and tag == "circle":
            self.circles.append((float(values["cx"]), float(values["cy"])))
        if values.get("class") == "true" and tag == "line":
            self.lines.append(tuple(float(values[key]) for key in ("x1", "y1", "x2", "y2")))


def _marks(svg: str) -> _Marks:
    parser = _Marks()
    parser.feed(svg)
    return parser


def _cv_project(world: np.ndarray, world_from_camera: np.ndarray) -> np.ndarray:
    camera_from_world = np.linalg.inv(world_from_camera)
    rotation = cv2.Rodrigues(camera_from_world[:3, :3])[0]
    pixels, _ = cv2.projectPoints(world.reshape(1, 1, 3), rotation, camera_from_world[:3, 3], K, None)
    return pixels.reshape(2)


def test_moved_point_is_marked_where_opencv_projects_it() -> None:
    row = _push()
    end = np.array(row.spatial.points[0].point_in_world_m) + FIRST[:3, :3] @ np.array(row.spatial.truth)
    second = _marks(overlay.over_image(row, 1))
    assert second.circles == [pytest.approx(_cv_project(end, SECOND), abs=0.01)]
    (line,) = _marks(overlay.over_image(row, 0)).lines
    assert line[:2] == pytest.approx((100.5, 90.0), abs=0.01)
    assert line[2:] == pytest.approx(_cv_project(end, FIRST), abs=0.01)


def test_answer_pixel_is_marked_in_its_image_only() -> None:
    name = "visual_correspondence_coor_2_coor"
    points = [_point(40, 50, 1.0), _point(200.25, 120.5, 1.1, "answer", 1)]
    row = _row(0, name, TaskValue((626.0, 502.0)), points)
    assert _marks(overlay.over_image(row, 0)).circles == []
    assert _marks(overlay.over_image(row, 1)).circles == [(200.25, 120.5)]


def _data_set(folder: Path) -> list[Row]:
    rows = [_push(i) for i in range(6)]
    rows += [_row(i, "x_movement", TaskValue(label=("right", "left")[i % 3 == 0]), []) for i in range(9)]
    (folder / "images" / "s").mkdir(parents=True)
    for i in range(2):
        cv2.imwrite(str(folder / "images" / "s" / f"{i}.jpg"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    pq.write_table(to_table(rows), folder / "rows-00000.parquet")
    return rows


def test_command_writes_both_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = _data_set(tmp_path)
    assert main(["--data", str(tmp_path), "--rows", "2", "--out", str(tmp_path / "pages")]) == 0
    text = (tmp_path / "pages" / "rows.html").read_text()
    assert text.count("<article") == 4
    assert "&lt;b&gt;How?&lt;/b&gt;" in text and "<b>How?" not in text, "words of a data set are no HTML"
    assert "(0.1200, -0.0300, 0.2000) m" in text and "[120, -30, 200]" in text
    assert "http" not in text.replace("http-equiv", ""), "the page loads nothing"
    statistics = (tmp_path / "pages" / "statistics.html").read_text()
    assert f"{len(rows)} rows of 2 subtasks from 1 scenes" in statistics
    assert capsys.readouterr().out.count(".html") == 2


def test_missing_data_and_unknown_rows_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path)]) == 2
    assert "holds no rows-*.parquet" in capsys.readouterr().err
    _data_set(tmp_path)
    assert main(["--data", str(tmp_path), "--id", "nothing"]) == 2
    assert "has no row 'nothing'" in capsys.readouterr().err
    assert main(["--data", str(tmp_path), "--subtask", "x_movment"]) == 2
    assert "x_movment" in capsys.readouterr().err


def test_a_torn_shard_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _data_set(tmp_path)
    shard = tmp_path / "rows-00000.parquet"
    whole = shard.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"rows"):
        shard.write_bytes(content)
        assert main(["--data", str(tmp_path), "--out", str(tmp_path / "pages")]) == 2
        said = capsys.readouterr().err
        assert "rows-00000.parquet is not a whole shard" in said and said.count("\n") == 1
    assert not (tmp_path / "pages").exists()


@pytest.mark.parametrize("words", [("--rows", "-1"), ("--seed", "-1"), ("--rows", "²")])
def test_numbers_that_are_none_are_refused(
    words: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--data", "x", *words])
    assert "expected a whole number" in capsys.readouterr().err


def test_the_side_view_says_from_which_side_it_is_seen() -> None:
    """The viewer looks along the page's right times the page's down, and so stands on the opposite side."""
    axes = {}
    for name, step in (("right", (1, 0, 0)), ("down", (0, 1, 0)), ("forward", (0, 0, 1))):
        row = _row(0, "total_distance", TaskValue((1.0,)), [])
        poses = (tuple(np.eye(4).ravel()), tuple(_pose((0.0, 0.0, 0.0), step).ravel()))
        row = dataclasses.replace(row, spatial=dataclasses.replace(row.spatial, world_from_camera=poses))
        side = overlay.camera_plan(row).split("<figure")[2]
        (x, y), *_ = re.findall(r'class="way" x1="0" y1="0" x2="(\S+)" y2="(\S+)"', side)
        axes[name] = np.sign([float(x), float(y)]).tolist()
    assert axes == {"right": [0, 0], "down": [0, 1], "forward": [1, 0]}
    looks_along = np.cross((0, 0, 1), (0, 1, 0))  # the page's right is forward, its down is down
    assert looks_along.tolist() == [-1, 0, 0] and "from the right:" in side


def test_an_image_that_does_not_open_is_said_on_the_page(tmp_path: Path) -> None:
    _data_set(tmp_path)
    (tmp_path / "images" / "s" / "1.jpg").write_bytes(b"no picture")
    assert "1.jpg does not open" in row_page.page("t", [_push()], tmp_path / "images")


def test_statistics_count_what_is_there() -> None:
    rows = [_push(i) for i in range(4)]
    rows += [_row(i, "x_movement", TaskValue(label=("right", "left")[i == 0]), []) for i in range(5)]
    counted = statistics_page.count(rows)
    assert counted.subtasks["x_movement"].labels == {"right": 4, "left": 1}
    assert counted.subtasks[PUSH].signs.tolist() == [4, 0, 4]
    assert counted.subtasks[PUSH].lengths == pytest.approx([float(np.linalg.norm((0.12, -0.03, 0.2)))] * 4)
    assert counted.hfov_deg[0] == pytest.approx(2 * np.degrees(np.arctan(WIDTH / 2 / 300)))


def test_reservoir_is_even_and_repeats() -> None:
    rows = [_push(i) for i in range(40)]
    counts = np.zeros(40)
    for seed in range(400):
        for row in draw_rows(iter(rows), 5, seed):
            counts[int(row.id[-6:])] += 1
    assert counts.sum() == 2000
    assert counts.min() > 25 and counts.max() < 80, "expected 50 each, standard deviation 6.6"
    assert draw_rows(iter(rows), 5, 3) == draw_rows(iter(rows), 5, 3)
