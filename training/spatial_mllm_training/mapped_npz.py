"""Read members of an uncompressed .npz as memory maps: only the frames that are used are read."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np

_LOCAL_HEADER_BYTES = 30


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """Name -> read-only array of every member; large members are memory maps.

    Raises:
        ValueError: a member is compressed or is not an .npy.
    """
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as raw:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED or not info.filename.endswith(".npy"):
                raise ValueError(f"{path}: member {info.filename} is not a stored .npy")
            raw.seek(info.header_offset)
            header = raw.read(_LOCAL_HEADER_BYTES)
            name_bytes, extra_bytes = struct.unpack("<HH", header[26:30])
            raw.seek(info.header_offset + _LOCAL_HEADER_BYTES + name_bytes + extra_bytes)
            version = np.lib.format.read_magic(raw)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, fortran, dtype = read_header(raw)
            key = info.filename[: -len(".npy")]
            if dtype.hasobject:
                raise ValueError(f"{path}: member {info.filename} holds Python objects")
            if not shape:
                arrays[key] = np.frombuffer(raw.read(dtype.itemsize), dtype)[0]
            else:
                arrays[key] = np.memmap(
                    path, dtype, "r", offset=raw.tell(), shape=shape, order="F" if fortran else "C"
                )
    return arrays
