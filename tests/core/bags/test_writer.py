"""A bag is there whole or not at all, and never replaces another."""

from __future__ import annotations

from pathlib import Path

import pytest

from spatial_mllm_core.bags import BagWriter, open_bag
from spatial_mllm_core.errors import ErrorCode, SpatialError

from .conftest import raw_image, write_camera_bag


@pytest.mark.parametrize("name", ["out", "out.mcap", "deep/er/out"])
def test_existing_output_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    path = write_camera_bag(tmp_path / name, 1)
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    with pytest.raises(SpatialError) as caught, BagWriter(path):
        pass
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


@pytest.mark.parametrize("name", ["out", "out.mcap"])
def test_output_that_appears_meanwhile_is_not_replaced(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpatialError) as caught, BagWriter(tmp_path / name) as bag:
        bag.add_topic("/i", "sensor_msgs/msg/Image")
        (tmp_path / name).write_text("mine")
    assert caught.value.code is ErrorCode.OUTPUT_EXISTS
    assert [f.name for f in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "mine"


def test_failed_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), BagWriter(tmp_path / "out") as bag:
        bag.add_topic("/i", "sensor_msgs/msg/Image")
        bag.write("/i", raw_image(1, 1), 1)
        assert not (tmp_path / "out").exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_equal_calls_give_equal_bytes(tmp_path: Path) -> None:
    one = write_camera_bag(tmp_path / "a/bag", 3)
    two = write_camera_bag(tmp_path / "b/bag", 3)
    for file in ("bag.mcap", "metadata.yaml"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_unwritable_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SpatialError) as caught, BagWriter(tmp_path / "file/out"):
        pass
    assert caught.value.code is ErrorCode.NOT_WRITABLE


def test_bytes_are_written_as_they_are(tmp_path: Path) -> None:
    path = write_camera_bag(tmp_path / "in", 1)
    with open_bag(path) as bag, BagWriter(tmp_path / "copy") as copy:
        for message in bag.messages():
            copy.add_topic(message.topic, message.type_name)
            copy.write(message.topic, message.raw, message.log_time_ns)
    assert (tmp_path / "copy/copy.mcap").stat().st_size > 0
    with open_bag(path) as one, open_bag(tmp_path / "copy") as two:
        assert [m.raw for m in one.messages()] == [m.raw for m in two.messages()]
