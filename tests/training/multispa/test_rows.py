"""Rows survive Parquet and JSON to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spatial_mllm_training.multispa.rows import SCHEMA, Row, RowPoint, Spatial, read_rows, to_table


def _row(number: int, gt_value: int | list[int] | str) -> Row:
    return Row(
        id=f"displacement_vector-room-{number:06d}",
        question_type="displacement_vector",
        image=("room/a.jpg", "room/b.jpg"),
        question="Image-1: <image>\nImage-2: <image>\nHow?",
        answer="`[1, -2, 3]`",
        gt_value=gt_value,
        spatial=Spatial(
            scene="room",
            source="scannet",
            split="train",
            frames=("a", "b"),
            source_image=("room/a.jpg", "room/b.jpg"),
            k=((1 / 3, 0.0, 2.0, 0.0, 5.1, 6.0, 0.0, 0.0, 1.0),) * 2,
            size=((640, 480), (320, 200)),
            distortion=("plumb_bob", "plumb_bob"),
            d=((), (0.1, 0.0, 0.0, 0.0, 0.0)),
            world_from_camera=(tuple(float(i) / 7 for i in range(16)),) * 2,
            world_up=(0.0, 0.0, 1.0),
            points=(RowPoint(1, 3.25, 7.1, 1.7, (0.1, 0.2, 0.3), "asked", "", True, 3, (255, 0, 7)),),
            truth=(0.1 + number, 0.2, 1e-17),
            unit="m",
            label="",
            group="overlap 12 %",
            templates=(1, 2, 3),
        ),
    )


@pytest.mark.parametrize("gt_value", [17, [1, -2, 3], "left"])
def test_parquet_and_json_give_the_row_back(tmp_path: Path, gt_value: int | list[int] | str) -> None:
    rows = [_row(i, gt_value) for i in range(5)]
    pq.write_table(to_table(rows[:3]), tmp_path / "rows-00000.parquet")
    pq.write_table(to_table(rows[3:]), tmp_path / "rows-00001.parquet")
    assert list(read_rows(tmp_path)) == rows
    for row in rows:
        assert Row.from_conversation(json.loads(json.dumps(row.conversation()))) == row


def test_the_published_keys_are_there() -> None:
    record = _row(0, 5).conversation()
    published = {"id", "image", "conversations", "height_list", "width_list", "question_type", "gt_value"}
    assert set(record) == published | {"spatial"}
    assert record["height_list"] == [480, 200] and record["width_list"] == [640, 320]
    assert set(record) == set(SCHEMA.names)
    assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]


def test_another_layout_is_refused() -> None:
    record = _row(0, 5).conversation()
    record["spatial"].pop("unit")
    with pytest.raises(TypeError):
        Row.from_conversation(record)
