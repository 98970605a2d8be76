"""A counter that one process writes and another reads: frames, model calls and the model's CPU time."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import NamedTuple

_LAYOUT = struct.Struct("<qqd")


class Reading(NamedTuple):
    """Totals since the start."""

    frames: int = 0
    model_calls: int = 0
    model_cpu_s: float = 0.0


class Meter:
    """The writing side; a write takes a few microseconds."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        self._total = Reading()

    def add(self, *, frames: int = 0, model_calls: int = 0, model_cpu_s: float = 0.0) -> None:
        old = self._total
        self._total = Reading(
            old.frames + frames, old.model_calls + model_calls, old.model_cpu_s + model_cpu_s
        )
        os.pwrite(self._file, _LAYOUT.pack(*self._total), 0)


def read(path: Path) -> Reading:
    """The totals so far; zeros before the first."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return Reading()
    return Reading(*_LAYOUT.unpack(data)) if len(data) == _LAYOUT.size else Reading()
