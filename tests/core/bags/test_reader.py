"""Bags of every kind open; what is broken ends in a numbered sentence or is read as far as it goes."""

from __future__ import annotations

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spatial_mllm_core.bags import BagWriter, message_types, open_bag
from spatial_mllm_core.errors import ErrorCode, SpatialError

from .conftest import FIRST_NS, PERIOD_NS, raw_image, write_camera_bag

FIXTURES = Path(__file__).parents[2] / "fixtures/bags"


def read_stamps(path: Path, topic: str = "/camera/image_raw") -> tuple[list[int], str]:
    with open_bag(path) as bag:
        stamps = [message_types.stamp_ns_of(m.message) for m in bag.messages([topic])]
        return stamps, bag.verdict.sentence if not bag.verdict.is_complete else ""


def error_of(call: Callable[[], object]) -> SpatialError:
    with pytest.raises(SpatialError) as caught:
        call()
    return caught.value


def test_folder_and_bare_file_give_the_same_messages(camera_bag: Path) -> None:
    expected = [FIRST_NS + i * PERIOD_NS for i in range(5)]
    assert read_stamps(camera_bag) == (expected, "")
    assert read_stamps(camera_bag / "camera.mcap") == (expected, "")


def test_sqlite_bag_without_definitions_uses_the_known_types(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    store = message_types.typestore()
    with Writer(tmp_path / "old", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection("/camera/image_raw", "sensor_msgs/msg/Image", typestore=store)
        data = bytes(store.serialize_cdr(raw_image(FIRST_NS, 7), "sensor_msgs/msg/Image"))
        writer.write(connection, FIRST_NS, data)
    assert read_stamps(tmp_path / "old") == ([FIRST_NS], "")
    assert read_stamps(tmp_path / "old/old.db3") == ([FIRST_NS], "")


def test_ros1_bag_reads_with_ros2_names() -> None:
    with open_bag(FIXTURES / "fiducials_aruco_marker.bag") as bag:
        kinds = {m.topic: m for m in bag.messages()}
    info = kinds["/raspicam_node/camera_info"]
    assert info.type_name == "sensor_msgs/msg/CameraInfo"
    assert message_types.stamp_ns_of(info.message) == 1480460739453215654
    assert kinds["/raspicam_node/image/compressed"].message.data[:2].tolist() == [0xFF, 0xD8]


@pytest.mark.parametrize("cut", [False, True])
def test_part_of_a_bag_by_time_of_recording(camera_bag: Path, tmp_path: Path, cut: bool) -> None:
    path = camera_bag / "camera.mcap"
    if cut:  # without its index, so that it is scanned
        data = path.read_bytes()
        path = tmp_path / "cut.mcap"
        path.write_bytes(data[: data.rindex(b"\x89MCAP0") - 20])
    second, fourth = FIRST_NS + PERIOD_NS, FIRST_NS + 3 * PERIOD_NS
    with open_bag(path) as bag:
        times = [m.log_time_ns for m in bag.messages(["/camera/image_raw"], start_ns=second, stop_ns=fourth)]
        assert times == [second, second + PERIOD_NS]
        assert len(list(bag.messages(["/camera/image_raw"], start_ns=fourth))) == 2
        assert len(list(bag.messages(["/camera/image_raw"], stop_ns=second))) == 1


def test_missing_bag() -> None:
    error = error_of(lambda: open_bag("no/such/bag"))
    assert error.code is ErrorCode.BAG_MISSING and "no/such/bag" in error.sentence


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n" + b"\xff" * 200])
def test_file_that_is_no_recording(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.mcap"
    file.write_bytes(content)
    assert error_of(lambda: open_bag(file)).code is ErrorCode.BAG_UNREADABLE


@pytest.mark.parametrize("name", ["x.db3", "x.bag", "x.txt"])
def test_other_storage_that_is_no_recording(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a recording" * 20)
    assert error_of(lambda: open_bag(tmp_path / name)).code is ErrorCode.BAG_UNREADABLE


def test_empty_folder(tmp_path: Path) -> None:
    assert error_of(lambda: open_bag(tmp_path)).code is ErrorCode.BAG_UNREADABLE


def test_messages_compressed_one_by_one_end_in_a_sentence() -> None:
    with open_bag(FIXTURES / "amber_soccer_goal_12.mcap") as bag:
        assert [(t.name, t.type_name) for t in bag.topics()] == [
            ("/camera/image_raw", "sensor_msgs/msg/Image")
        ]
        error = error_of(lambda: list(bag.messages()))
    assert (
        error.code is ErrorCode.BAG_UNREADABLE
        and "zstd" in error.sentence
        and "metadata.yaml" in error.sentence
    )


def test_folder_without_metadata_reads_its_files_in_natural_order(tmp_path: Path) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    for part in (2, 10):
        with BagWriter(tmp_path / f"part_{part}.mcap") as bag:
            bag.add_topic("/camera/image_raw", "sensor_msgs/msg/Image")
            bag.write("/camera/image_raw", raw_image(part, 0), part)
        shutil.move(tmp_path / f"part_{part}.mcap", folder / f"part_{part}.mcap")
    assert read_stamps(folder) == ([2, 10], "")


def test_missing_split_file_is_named_and_the_rest_is_read(camera_bag: Path) -> None:
    metadata = camera_bag / "metadata.yaml"
    text = metadata.read_text()
    assert "- camera.mcap" in text
    metadata.write_text(text.replace("- camera.mcap", "- camera.mcap\n  - camera_1.mcap"))
    stamps, verdict = read_stamps(camera_bag)
    assert len(stamps) == 5 and "camera_1.mcap" in verdict


@pytest.mark.parametrize("metadata", ["", "{{{", "rosbag2_bagfile_information: 3", "[]"])
def test_broken_metadata_is_a_fault_but_the_file_is_read(camera_bag: Path, metadata: str) -> None:
    (camera_bag / "metadata.yaml").write_text(metadata)
    stamps, verdict = read_stamps(camera_bag)
    assert len(stamps) == 5 and "partly readable" in verdict


def test_metadata_cannot_point_outside_of_the_bag(camera_bag: Path, tmp_path: Path) -> None:
    write_camera_bag(tmp_path / "secret.mcap", 2)
    metadata = camera_bag / "metadata.yaml"
    metadata.write_text(metadata.read_text().replace("- camera.mcap", "- ../secret.mcap"))
    assert len(read_stamps(camera_bag)[0]) == 5


@pytest.mark.parametrize("compression", ["", "zstd"])
@pytest.mark.parametrize("kept", [0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_recording_is_read_as_far_as_it_goes(tmp_path: Path, kept: float, compression: str) -> None:
    # large random payloads so that there is more than one chunk
    path = tmp_path / "long.mcap"
    rng = np.random.default_rng(1)
    with BagWriter(path) as bag:
        bag.add_topic("/data", "std_msgs/msg/UInt8MultiArray")
        for i in range(40):
            layout = message_types.make_message("std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
            data = rng.integers(0, 255, 200_000, dtype=np.uint8)
            bag.write(
                "/data",
                message_types.make_message("std_msgs/msg/UInt8MultiArray", layout=layout, data=data),
                i,
            )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with open_bag(path) as bag:
        times = [m.log_time_ns for m in bag.messages(["/data"])]
        assert "cut" in bag.verdict.sentence or "ends" in bag.verdict.sentence
    assert times == list(range(len(times)))
    # the chunk that is cut is read up to the cut (zstd gives whole blocks only)
    assert 40 * kept - (2 if compression else 1.1) <= len(times) <= 40


def test_damaged_chunk_is_passed_over_and_named(tmp_path: Path) -> None:
    path = write_camera_bag(tmp_path / "long.mcap", 1500)
    whole = bytearray(path.read_bytes())
    chunks, position = [], 8
    while whole[position] != 0x0F:
        if whole[position] == 0x06:
            chunks.append(position)
        position += 9 + int.from_bytes(whole[position + 1 : position + 9], "little")
    assert len(chunks) > 2
    # the length of the first record inside the second chunk (chunk header: 9 + 40 bytes, no compression)
    whole[chunks[1] + 50 : chunks[1] + 58] = b"\xff" * 8
    path.write_bytes(bytes(whole))
    stamps, verdict = read_stamps(path)
    assert verdict
    assert 500 < len(stamps) < 1500 and stamps == sorted(stamps)
    assert stamps[-1] == FIRST_NS + 1499 * PERIOD_NS


def test_every_truncation_of_a_small_bag_reads_or_refuses(tmp_path: Path) -> None:
    whole = write_camera_bag(tmp_path / "small.mcap", 2).read_bytes()
    cut = tmp_path / "cut.mcap"
    codes = set()
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        try:
            stamps, verdict = read_stamps(cut)
        except SpatialError as error:
            codes.add(error.code)
        else:
            # without its index a file may still hold every message
            assert verdict or len(stamps) == 2
    assert codes == {ErrorCode.BAG_UNREADABLE}


def test_random_damage_never_escapes_as_another_exception(tmp_path: Path) -> None:
    whole = write_camera_bag(tmp_path / "small.mcap", 2).read_bytes()
    rng = np.random.default_rng(3)
    hurt = tmp_path / "hurt.mcap"
    for _ in range(150):
        data = bytearray(whole)
        for position in rng.integers(0, len(data), 8):
            data[position] = int(rng.integers(0, 256))
        hurt.write_bytes(bytes(data))
        try:
            with open_bag(hurt) as bag:
                list(bag.messages())
        except SpatialError:
            pass


def test_unknown_type_without_definition_is_a_sentence(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "odd", version=8, storage_plugin=StoragePlugin.SQLITE3) as writer:
        connection = writer.add_connection(
            "/odd", "odd_msgs/msg/Odd", msgdef="int32 x\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(connection, 1, b"\x00\x01\x00\x00\x01\x00\x00\x00")
    import sqlite3

    with sqlite3.connect(tmp_path / "odd/odd.db3") as database:
        database.execute("DROP TABLE message_definitions")
        database.execute("UPDATE schema SET schema_version = 3")
    with open_bag(tmp_path / "odd") as bag:
        error = error_of(lambda: list(bag.messages()))
    assert error.code is ErrorCode.BAG_UNREADABLE and "odd_msgs/msg/Odd" in error.sentence


def test_custom_type_with_definition_reads(tmp_path: Path) -> None:
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / "odd", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection(
            "/odd", "odd_msgs/msg/Odd", msgdef="int32 x\n", rihs01="RIHS01_" + "0" * 64
        )
        writer.write(connection, 1, b"\x00\x01\x00\x00\x2a\x00\x00\x00")
    with open_bag(tmp_path / "odd") as bag:
        assert [m.message.x for m in bag.messages()] == [42]


def test_one_undecodable_message_is_passed_over(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "b.mcap") as bag:
        bag.add_topic("/camera/image_raw", "sensor_msgs/msg/Image")
        bag.write("/camera/image_raw", raw_image(1, 0), 1)
        bag.write("/camera/image_raw", b"\x00\x01\x00\x00abc", 2)
        bag.write("/camera/image_raw", raw_image(3, 0), 3)
    stamps, verdict = read_stamps(tmp_path / "b.mcap")
    assert stamps == [1, 3] and "/camera/image_raw" in verdict


def test_memory_does_not_grow_with_the_bag(tmp_path: Path) -> None:
    peaks = []
    for count in (1000, 4000):
        path = write_camera_bag(tmp_path / f"bag_{count}", count)
        with open_bag(path) as bag:
            tracemalloc.start()
            assert sum(1 for _ in bag.messages(["/camera/image_raw"])) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # four times the messages (9 MB more) may cost index entries, not payloads
    assert peaks[1] < peaks[0] + 1_000_000
