"""Read members of an uncompressed .npz as memory maps: only the frames that are used are read."""

from __future__ import annotations

import errno
import resource
import struct
import zipfile
from pathlib import Path

import numpy as np

from spatial_mllm_core.errors import ErrorCode, SpatialError

_LOCAL_HEADER_BYTES = 30


def map_npz(path: Path) -> dict[str, np.ndarray]:
    """Name -> read-only array of every member; views of one memory map of the file.

    A map keeps its file open: a process that reads some thousand files gets as many as the system allows.

    Raises:
        ValueError: a member is compressed or is not an .npy.
        SpatialError: NOT_READY where the system allows no more open files.
    """
    try:
        return _map(path)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == hard:
        raise SpatialError(
            ErrorCode.NOT_READY,
            f"'{path}' cannot be opened beside {hard} open files; raise the limit (ulimit -n) or use fewer scenes",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return map_npz(path)


def _map(path: Path) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    whole = np.memmap(path, np.uint8, "r")
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
            if dtype.hasobject:
                raise ValueError(f"{path}: member {info.filename} holds Python objects")
            count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
            part = whole[raw.tell() : raw.tell() + count]
            array = part.view(dtype).reshape(shape, order="F" if fortran else "C")
            arrays[info.filename[: -len(".npy")]] = array if shape else array[()]
    return arrays
