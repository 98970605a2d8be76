"""Opens a recording of any common kind and iterates its messages; constant memory, never writes.

A folder with or without metadata.yaml, a bare .mcap or .db3 (ROS 2), a .bag (ROS 1). What is damaged
is read as far as it goes, and `BagReader.verdict` says so. Knows nothing of images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from spatial_mllm_core.bags import message_types
from spatial_mllm_core.bags.mcap_scan import McapScan
from spatial_mllm_core.bags.topics import Topic
from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.typesys.store import Typestore

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".mcap", ".db3", ".bag")


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag.

    Attributes:
        topic: its topic.
        type_name: ROS 2 spelling, e.g. "sensor_msgs/msg/Image".
        log_time_ns: when it was recorded (not the header's stamp).
        message: decoded fields as attributes; numeric sequences are numpy arrays.
        raw: the bytes as stored (CDR for ROS 2).
    """

    topic: str
    type_name: str
    log_time_ns: int
    message: Any
    raw: bytes


@dataclass
class BagVerdict:
    """How whole a bag is; grows while messages are read.

    Attributes:
        faults: what is missing or damaged, one phrase each.
    """

    faults: list[str] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        return not self.faults

    @property
    def sentence(self) -> str:
        """One sentence for a person."""
        if self.is_complete:
            return "the bag is complete"
        more = f" (and {len(self.faults) - 3} more faults)" if len(self.faults) > 3 else ""
        return "the bag is only partly readable: " + "; ".join(self.faults[:3]) + more

    def add(self, fault: str) -> None:
        if fault not in self.faults:
            self.faults.append(fault)


@dataclass(frozen=True)
class _Stored:
    """A message before decoding."""

    topic: str
    type_name: str
    log_time_ns: int
    raw: bytes
    definition: str
    is_ros1: bool = False
    digest: str = ""


@dataclass(frozen=True)
class _Span:
    """Times of recording from `start_ns` on, before `stop_ns`; None is open."""

    start_ns: int | None = None
    stop_ns: int | None = None

    def holds(self, log_time_ns: int) -> bool:
        return (self.start_ns is None or log_time_ns >= self.start_ns) and (
            self.stop_ns is None or log_time_ns < self.stop_ns
        )


class _Source(Protocol):
    """One file, or one folder with metadata."""

    def topics(self) -> list[Topic]: ...

    def stored(self, names: frozenset[str] | None, span: _Span) -> Iterator[_Stored]: ...


class BagReader:
    """A recording opened for reading; use it as a context manager.

    Attributes:
        path: what was opened.
        verdict: how whole it is; complete only after `messages` has been iterated to its end.
    """

    def __init__(self, path: Path, sources: Sequence[_Source], verdict: BagVerdict, stack: ExitStack) -> None:
        self.path = path
        self.verdict = verdict
        self._sources = sources
        self._stack = stack
        self._stores: dict[tuple[str, str, bool], Typestore] = {}

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files; closing twice does nothing."""
        self._stack.close()

    @cached_property
    def _topics(self) -> list[Topic]:
        counts: Counter[str] = Counter()
        types: dict[str, str] = {}
        for source in self._sources:
            for topic in source.topics():
                counts[topic.name] += topic.count
                types.setdefault(topic.name, topic.type_name)
        return [Topic(name, types[name], counts[name]) for name in sorted(types)]

    def topics(self) -> list[Topic]:
        """The topics with types and counts, sorted by name."""
        return list(self._topics)

    def messages(
        self,
        topics: Iterable[str] | None = None,
        *,
        start_ns: int | None = None,
        stop_ns: int | None = None,
    ) -> Iterator[BagMessage]:
        """Iterate messages of `topics` (all when None) in the order of recording.

        A message that cannot be decoded is passed over and named in `verdict`.

        Args:
            start_ns, stop_ns: only messages recorded from `start_ns` on and before `stop_ns`; a sound
                bag is then read there alone, by its index.

        Raises:
            SpatialError: BAG_UNREADABLE for a type nobody defines, or compression without metadata.
        """
        names = None if topics is None else frozenset(topics)
        for source in self._sources:
            for stored in source.stored(names, _Span(start_ns, stop_ns)):
                try:
                    message = self._decode(stored)
                except SpatialError:
                    raise
                except Exception as error:  # rosbags and its generated code raise many kinds
                    self.verdict.add(f"a message of {stored.topic} could not be decoded ({_phrase(error)})")
                    continue
                yield BagMessage(stored.topic, stored.type_name, stored.log_time_ns, message, stored.raw)

    def _decode(self, stored: _Stored) -> Any:
        if not stored.is_ros1 and stored.raw[:4] == _ZSTD_MAGIC:
            raise SpatialError(
                ErrorCode.BAG_UNREADABLE,
                f"the messages of {stored.topic} are compressed one by one (zstd) and only the bag's metadata.yaml "
                "can say so; put that file back beside the recording, or convert it with 'ros2 bag convert'",
            )
        store = self._store(stored)
        if stored.is_ros1:
            return store.deserialize_ros1(stored.raw, stored.type_name)
        return store.deserialize_cdr(stored.raw, stored.type_name)

    def _store(self, stored: _Stored) -> Typestore:
        """The types for one message: the bag's own definition, else the ones we know."""
        key = (stored.type_name, stored.definition, stored.is_ros1)
        if key not in self._stores:
            self._stores[key] = _make_store(stored)
        return self._stores[key]


def _make_store(stored: _Stored) -> Typestore:
    from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

    if stored.definition:
        store = get_typestore(Stores.EMPTY)
        separator = "=" * 80 + "\n"
        try:
            if stored.definition.startswith(f"{separator}IDL: "):
                for part in stored.definition.split(separator)[1:]:
                    store.register(get_types_from_idl(part.partition("\n")[2]))
            else:
                store.register(get_types_from_msg(stored.definition, stored.type_name))
        except Exception as error:
            raise SpatialError(
                ErrorCode.BAG_UNREADABLE,
                f"the bag's own definition of {stored.type_name} cannot be read ({_phrase(error)})",
            ) from error
        return store
    store = get_typestore(Stores.ROS1_NOETIC) if stored.is_ros1 else message_types.typestore()
    if stored.type_name not in store.types:
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"the bag carries no definition of {stored.type_name} and it is none of ROS 2's common types; "
            "record it again as MCAP, which keeps definitions",
        )
    if stored.digest and not stored.is_ros1 and store.hash_rihs01(stored.type_name) != stored.digest:
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"the bag was recorded with another version of {stored.type_name} and does not carry its definition",
        )
    return store


def open_bag(path: Path | str) -> BagReader:
    """Open a recording.

    Raises:
        SpatialError: BAG_MISSING when there is nothing at `path`; BAG_UNREADABLE when it is no
            recording, or nothing of it can be read.
    """
    path = Path(path)
    if not path.exists():
        raise SpatialError(ErrorCode.BAG_MISSING, f"there is no bag at '{path}'")
    verdict = BagVerdict()
    with ExitStack() as stack:
        try:
            sources = (
                _open_folder(path, verdict, stack) if path.is_dir() else [_open_file(path, verdict, stack)]
            )
        except OSError as error:
            raise SpatialError(
                ErrorCode.BAG_UNREADABLE, f"'{path}' cannot be read ({error.strerror or error})"
            ) from error
        return BagReader(path, sources, verdict, stack.pop_all())
    raise AssertionError("unreachable")


def _open_folder(path: Path, verdict: BagVerdict, stack: ExitStack) -> list[_Source]:
    """A rosbag2 folder; without (sound) metadata its files one after the other."""
    if (path / "metadata.yaml").exists():
        try:
            return [_RosbagsSource(path, verdict, stack)]
        except SpatialError as error:
            verdict.add(error.sentence)
    else:
        verdict.add("metadata.yaml is missing")
    files = sorted((f for f in path.iterdir() if f.suffix in _SUFFIXES and f.is_file()), key=_natural)
    if not files:
        found = (
            "it holds no .mcap, .db3 or .bag file"
            if verdict.faults == ["metadata.yaml is missing"]
            else (verdict.faults[0])
        )
        raise SpatialError(ErrorCode.BAG_UNREADABLE, f"'{path}' is not a readable bag: {found}")
    if verdict.faults == ["metadata.yaml is missing"]:
        verdict.faults.clear()  # every file is read whole, so nothing is lost
    sources: list[_Source] = []
    for file in files:
        try:
            sources.append(_open_file(file, verdict, stack))
        except SpatialError as error:
            verdict.add(error.sentence)
    if not sources:
        raise SpatialError(ErrorCode.BAG_UNREADABLE, verdict.faults[-1])
    return sources


def _open_file(path: Path, verdict: BagVerdict, stack: ExitStack) -> _Source:
    if path.suffix not in _SUFFIXES:
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"'{path}' is not a bag; expected a rosbag2 folder or a file that ends in {', '.join(_SUFFIXES)}",
        )
    if path.stat().st_size == 0:
        raise SpatialError(ErrorCode.BAG_UNREADABLE, f"'{path}' is empty")
    if path.suffix == ".db3":
        wal = path.with_name(path.name + "-wal")
        if wal.exists() and wal.stat().st_size:
            verdict.add(f"{wal.name} holds messages that were never merged into {path.name}")
    try:
        return _RosbagsSource(path, verdict, stack)
    except SpatialError as error:
        if path.suffix != ".mcap":
            raise
        scan = _ScanSource(path, verdict)
        if not scan.topics():
            raise SpatialError(
                ErrorCode.BAG_UNREADABLE,
                f"nothing in '{path}' can be read: {(verdict.faults or [error.sentence])[0]}",
            ) from error
        return scan


class _RosbagsSource:
    """A file or folder that rosbags can open."""

    def __init__(self, path: Path, verdict: BagVerdict, stack: ExitStack) -> None:
        import rosbags.rosbag1
        import rosbags.rosbag2

        self._path = path
        self._verdict = verdict
        self._is_ros1 = path.suffix == ".bag"
        self._reader: rosbags.rosbag1.Reader | rosbags.rosbag2.Reader
        try:
            self._reader = rosbags.rosbag1.Reader(path) if self._is_ros1 else rosbags.rosbag2.Reader(path)
            self._reader.open()
        except Exception as error:  # rosbags lets struct.error, KeyError, UnicodeDecodeError through
            raise SpatialError(
                ErrorCode.BAG_UNREADABLE, f"'{path}' cannot be read ({_phrase(error)})"
            ) from error
        stack.callback(self._reader.close)

    def topics(self) -> list[Topic]:
        counts: Counter[tuple[str, str]] = Counter()
        for connection in self._reader.connections:
            counts[connection.topic, _type_name(connection.msgtype)] += connection.msgcount
        return [Topic(name, type_name, count) for (name, type_name), count in counts.items()]

    def stored(self, names: frozenset[str] | None, span: _Span) -> Iterator[_Stored]:
        wanted = [c for c in self._reader.connections if names is None or c.topic in names]
        if not wanted:
            return
        last_ns = -1
        try:
            for connection, log_time_ns, raw in self._reader.messages(wanted, span.start_ns, span.stop_ns):
                last_ns = log_time_ns
                yield self._as_stored(connection, log_time_ns, bytes(raw))
        except (GeneratorExit, SpatialError):
            raise
        except Exception as error:
            self._verdict.add(f"{self._path.name}: {_phrase(error)}")
            if self._path.suffix == ".mcap":
                # what lies behind the damage may still be sound
                for stored in _ScanSource(self._path, self._verdict).stored(names, span):
                    if stored.log_time_ns > last_ns:
                        yield stored

    def _as_stored(self, connection: Connection, log_time_ns: int, raw: bytes) -> _Stored:
        return _Stored(
            connection.topic,
            _type_name(connection.msgtype),
            log_time_ns,
            raw,
            connection.msgdef.data,
            self._is_ros1,
            "" if self._is_ros1 else connection.digest,
        )


class _ScanSource:
    """A damaged MCAP file, read from its start as far as it is sound."""

    def __init__(self, path: Path, verdict: BagVerdict) -> None:
        self._path = path
        self._verdict = verdict

    def topics(self) -> list[Topic]:
        counts: Counter[tuple[str, str]] = Counter()
        scan = McapScan(self._path)
        for message in scan:
            counts[message.channel.topic, _type_name(message.channel.type_name)] += 1
        for damage in scan.damage:
            self._verdict.add(f"{self._path.name}: {damage}")
        return [Topic(name, type_name, count) for (name, type_name), count in counts.items()]

    def stored(self, names: frozenset[str] | None, span: _Span) -> Iterator[_Stored]:
        scan = McapScan(self._path)
        for message in scan:
            channel = message.channel
            if not span.holds(message.log_time_ns):
                continue
            if (names is None or channel.topic in names) and channel.message_encoding == "cdr":
                yield _Stored(
                    channel.topic,
                    _type_name(channel.type_name),
                    message.log_time_ns,
                    message.data,
                    channel.definition,
                )
        for damage in scan.damage:
            self._verdict.add(f"{self._path.name}: {damage}")


def _type_name(name: str) -> str:
    """ROS 2 spelling of a type name: sensor_msgs/Image -> sensor_msgs/msg/Image."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key under which part_10 follows part_9."""
    return [(1, int(p), "") if p.isdigit() else (0, 0, p) for p in re.split(r"(\d+)", path.name)]


def _phrase(error: BaseException) -> str:
    """An error's words without a closing full stop."""
    return (str(error) or type(error).__name__).rstrip(".")
