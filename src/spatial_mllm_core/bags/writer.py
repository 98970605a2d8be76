"""Writes a bag as MCAP: staged under a temporary name, renamed when whole, never over another."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from spatial_mllm_core.bags import message_types
from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from rosbags.rosbag2 import Writer

# Humble reads up to 8; Jazzy and later read it too.
_BAG_VERSION: Literal[8] = 8


class BagWriter:
    """Context manager that writes one bag.

    A path that ends in .mcap becomes a bare file, any other a rosbag2 folder with metadata.yaml.
    When the block ends with an exception nothing is left at `path`. Equal calls give equal bytes.

    Raises:
        SpatialError: OUTPUT_EXISTS when something is at `path` already; NOT_WRITABLE.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._staging: Path | None = None
        self._writer: Writer | None = None
        self._connections: dict[str, Connection] = {}
        refuse_existing(self.path)

    def __enter__(self) -> BagWriter:
        from rosbags.rosbag2 import StoragePlugin, Writer

        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._staging = Path(
                tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=self.path.parent)
            )
            # the folder's name becomes the name of the file inside
            self._writer = Writer(
                self._staging / self.path.stem, version=_BAG_VERSION, storage_plugin=StoragePlugin.MCAP
            )
            self._writer.open()
        except OSError as error:
            self._discard()
            raise _not_writable(self.path, error) from error
        return self

    def add_topic(self, topic: str, type_name: str, *, latched: bool = False) -> None:
        """Declare a topic; declaring it again with the same type does nothing.

        Args:
            latched: record it as transient local, as /tf_static needs to be replayed.
        """
        known = self._connections.get(topic)
        if known is None:
            self._connections[topic] = self._open_writer().add_connection(
                topic,
                type_name,
                typestore=message_types.typestore(),
                offered_qos_profiles=[_latched_qos()] if latched else [],
            )
        elif known.msgtype != type_name:
            raise ValueError(f"{topic} is already of type {known.msgtype}, not {type_name}")

    def write(self, topic: str, message: Any, log_time_ns: int) -> None:
        """Write a message object (`message_types.make_message`), or bytes that are CDR already."""
        connection = self._connections[topic]
        if isinstance(message, (bytes, bytearray, memoryview)):
            data = bytes(message)
        else:
            data = bytes(message_types.typestore().serialize_cdr(message, connection.msgtype))
        try:
            self._open_writer().write(connection, log_time_ns, data)
        except OSError as error:
            raise _not_writable(self.path, error) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        writer, staging = self._open_writer(), self._staging
        assert staging is not None
        try:
            if error is not None:
                writer.abort()
                return
            writer.close()
            refuse_existing(self.path)
            folder = staging / self.path.stem
            if self.path.suffix == ".mcap":
                (folder / f"{folder.name}.mcap").rename(self.path)
            else:
                folder.rename(self.path)
        except OSError as fault:
            raise _not_writable(self.path, fault) from fault
        finally:
            self._discard()

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise RuntimeError("BagWriter is used outside of its with block")
        return self._writer

    def _discard(self) -> None:
        self._writer = None
        if self._staging is not None:
            shutil.rmtree(self._staging, ignore_errors=True)
            self._staging = None


def _latched_qos() -> Any:
    """Reliable and transient local, no deadlines: what a static transform broadcaster offers."""
    from rosbags import interfaces as qos

    unlimited = qos.QosTime(9223372036, 854775807)
    return qos.Qos(
        history=qos.QosHistory.KEEP_LAST,
        depth=1,
        reliability=qos.QosReliability.RELIABLE,
        durability=qos.QosDurability.TRANSIENT_LOCAL,
        deadline=unlimited,
        lifespan=unlimited,
        liveliness=qos.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=unlimited,
        avoid_ros_namespace_conventions=False,
    )


def refuse_existing(path: Path) -> None:
    """Raise OUTPUT_EXISTS when something is at `path`."""
    if path.exists() or path.is_symlink():
        raise SpatialError(
            ErrorCode.OUTPUT_EXISTS,
            f"'{path}' exists already and is not overwritten; remove it or name another output",
        )


def _not_writable(path: Path, error: OSError) -> SpatialError:
    return SpatialError(ErrorCode.NOT_WRITABLE, f"'{path}' cannot be written ({error.strerror or error})")
