"""The vertices of a PLY mesh; knows nothing about faces and colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.sources.base import SceneProblem

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2",
    "ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4",
    "float": "f4", "float32": "f4", "double": "f8", "float64": "f8",
}  # fmt: skip
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_LONGEST_HEADER = 1 << 16


@dataclass
class _Element:
    name: str
    count: int
    properties: list[tuple[str, str]] = field(default_factory=list)
    has_list: bool = False


def read_vertices_m(scene: str, file: Path) -> NDArray[np.float32]:
    """(P, 3) x, y, z of the vertices of an ASCII or binary PLY, in the file's order and axes.

    Raises:
        SceneProblem: no PLY, cut short, or without vertices of x, y and z.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SceneProblem(scene, str(file), f"cannot be read ({error.strerror or error})") from error
    try:
        return _vertices(data)
    except (ValueError, IndexError) as error:
        raise SceneProblem(scene, str(file), f"is not a PLY mesh that opens: {error}") from error


def _vertices(data: bytes) -> NDArray[np.float32]:
    order, elements, start = _header(data)
    for element in elements:
        if element.name == "vertex":
            break
        if element.has_list or not order:
            raise ValueError(f"'{element.name}' stands before the vertices")
        start += element.count * _dtype(element, order).itemsize
    else:
        raise ValueError("it has no vertices")
    names = [name for _, name in element.properties]
    if element.has_list or not {"x", "y", "z"} <= set(names):
        raise ValueError("its vertices are not plain x, y, z")
    if order:
        dtype = _dtype(element, order)
        if len(data) - start < element.count * dtype.itemsize:
            raise ValueError(f"it ends before its {element.count} vertices")
        table = np.frombuffer(data, dtype, element.count, start)
        points = np.stack([table[axis] for axis in "xyz"], axis=1)
    else:
        lines = data[start:].split(b"\n", element.count)[: element.count]
        values = np.array([line.split() for line in lines], np.float64).reshape(len(lines), -1)
        if values.shape != (element.count, len(names)):
            raise ValueError(f"it ends before its {element.count} vertices")
        points = values[:, [names.index(axis) for axis in "xyz"]]
    if not len(points) or not np.isfinite(points).all():
        raise ValueError("it has no vertices, or some that are NaN")
    return np.ascontiguousarray(points, np.float32)


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    """Byte order ("" for ASCII), elements in order, and where the data starts."""
    end = data.find(b"end_header", 0, _LONGEST_HEADER)
    stop = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or stop < 0:
        raise ValueError("it has no PLY header")
    order: str | None = None
    elements: list[_Element] = []
    for line in data[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = _ORDERS.get(words[1])
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2])))
            if elements[-1].count < 0:
                raise ValueError(f"it has {words[2]} of '{words[1]}'")
        elif words[:2] == ["property", "list"]:
            elements[-1].has_list = True
        elif words[:1] == ["property"]:
            if words[1] not in _TYPES:
                raise ValueError(f"it has a property of type '{words[1]}'")
            elements[-1].properties.append((_TYPES[words[1]], words[2]))
    if order is None:
        raise ValueError("its format is unknown")
    return order, elements, stop + 1


def _dtype(element: _Element, order: str) -> np.dtype[np.void]:
    return np.dtype([(name, order + kind) for kind, name in element.properties])
