"""Reads a damaged MCAP file from its start, record by record, as far as it is sound.

Ordinary files go through rosbags, which needs the footer and the index; a recording that was cut
(full disk, power loss) has neither. This module knows the container, not the messages.
Layout: https://mcap.dev/spec
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

MAGIC = b"\x89MCAP0\r\n"
MAX_CHUNK_BYTES = 1 << 30
_FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x02, 0x03, 0x04, 0x05, 0x06, 0x0F


@dataclass(frozen=True)
class ScannedChannel:
    """One channel: its topic, type and the definition that the file carries ("" when none)."""

    topic: str
    type_name: str
    definition: str
    definition_format: str
    message_encoding: str


@dataclass(frozen=True)
class ScannedMessage:
    """One message as stored."""

    channel: ScannedChannel
    log_time_ns: int
    data: bytes


class _DamagedError(Exception):
    """The sound part ends here; the text says why."""


class McapScan:
    """Iterate the messages of a file in file order; constant memory (one chunk).

    Attributes:
        damage: what was found wrong, one phrase each; filled while iterating.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damage: list[str] = []
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._channels: dict[int, ScannedChannel] = {}

    def __iter__(self) -> Iterator[ScannedMessage]:
        self.damage.clear()
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                self.damage.append("the file does not start like an MCAP file")
                return
            try:
                yield from self._records(file, size)
            except _DamagedError as damage:
                self.damage.append(str(damage))

    def _records(self, stream: BinaryIO, end: int) -> Iterator[ScannedMessage]:
        """Yield messages until `end`; raises _DamagedError at a record that is cut."""
        while True:
            offset = stream.tell()
            head = stream.read(9)
            if len(head) < 9:
                raise _DamagedError(f"it ends at byte {offset}, in the middle of the recording")
            opcode, length = struct.unpack("<BQ", head)
            if opcode in (_FOOTER, _DATA_END):
                return
            if offset + 9 + length > end:
                if opcode == _CHUNK:
                    yield from self._chunk(stream.read(min(length, MAX_CHUNK_BYTES)), offset, is_cut=True)
                raise _DamagedError(f"it is cut at byte {end}, inside a record that starts at byte {offset}")
            if opcode == _CHUNK:
                yield from self._chunk(stream.read(length), offset, is_cut=False)
            elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                message = self._plain(opcode, stream.read(length), offset)
                if message is not None:
                    yield message
            else:
                stream.seek(length, 1)

    def _chunk(self, record: bytes, offset: int, *, is_cut: bool) -> Iterator[ScannedMessage]:
        """Yield a chunk's messages; one that is wrong inside is passed over, one that is cut is read up to there."""
        try:
            size, crc, name_length = struct.unpack_from("<QII", record, 16)
            compression = record[32 : 32 + name_length].decode()
            (packed_length,) = struct.unpack_from("<Q", record, 32 + name_length)
            packed = record[40 + name_length : 40 + name_length + packed_length]
            raw = _decompress(packed, compression, size)
            if not is_cut and len(raw) != size:
                raise ValueError(f"{size} bytes expected, {len(raw)} found")
            if not is_cut and crc and crc32(raw) != crc:
                raise ValueError("its checksum does not match")
        except Exception as error:  # each decompressor has its own exception family
            if not is_cut:
                self.damage.append(f"the chunk at byte {offset} was passed over: {error}")
            return
        inner = BytesIO(raw)
        while inner.tell() < len(raw):
            head = inner.read(9)
            opcode, length = struct.unpack("<BQ", head) if len(head) == 9 else (0, len(raw))
            if length > len(raw) - inner.tell():
                if not is_cut:
                    self.damage.append(f"the chunk at byte {offset} ends inside a record")
                return
            body = inner.read(length)
            if opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                message = self._plain(opcode, body, offset)
                if message is not None:
                    yield message

    def _plain(self, opcode: int, body: bytes, offset: int) -> ScannedMessage | None:
        """Read a schema, channel or message record."""
        try:
            if opcode == _SCHEMA:
                stream = BytesIO(body[2:])
                name, encoding, text = (_text(stream) for _ in range(3))
                self._schemas[struct.unpack_from("<H", body)[0]] = (name, encoding, text)
            elif opcode == _CHANNEL:
                key, schema = struct.unpack_from("<HH", body)
                stream = BytesIO(body[4:])
                topic, message_encoding = _text(stream), _text(stream)
                name, encoding, text = self._schemas.get(schema, ("", "", ""))
                self._channels[key] = ScannedChannel(topic, name, text, encoding, message_encoding)
            else:
                key, _, log_time_ns = struct.unpack_from("<HIQ", body)
                channel = self._channels.get(key)
                if channel is not None:
                    return ScannedMessage(channel, log_time_ns, body[22:])
        except (struct.error, UnicodeDecodeError) as error:
            self.damage.append(f"a record at byte {offset} is malformed ({error})")
        return None


def _text(stream: BytesIO) -> str:
    (length,) = struct.unpack("<I", stream.read(4))
    return stream.read(length).decode()


def _decompress(packed: bytes, compression: str, size: int) -> bytes:
    """Return at most `size` bytes (fewer when the input is cut); never allocates more than `MAX_CHUNK_BYTES`."""
    if size > MAX_CHUNK_BYTES:
        raise ValueError(f"it claims {size} bytes")
    if compression == "":
        raw = packed
    elif compression == "zstd":
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
        raw = zstd.ZstdDecompressor().decompress(packed, max_length=size + 1)
    elif compression == "lz4":
        from lz4.frame import LZ4FrameDecompressor

        raw = LZ4FrameDecompressor().decompress(packed, max_length=size + 1)
    else:
        raise ValueError(f"unknown compression '{compression}'")
    return raw
