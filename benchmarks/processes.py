"""Child processes of the benchmark: a hard time limit, an orderly end, their CPU time and memory.

The kernel holds the limit itself (alarm(2) survives exec), so no child outlives it even when the
benchmark is killed. Knows nothing of ROS or models. Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GRACE_S = 15  # after the limit, for an orderly end
_ENDS = (signal.SIGINT, signal.SIGTERM)


class BenchmarkError(Exception):
    """The benchmark cannot be taken; the text is one sentence."""


def run_script(name: str, *arguments: object, limit_s: float) -> dict[str, Any]:
    """Run a script of this folder and return the JSON on its last line.

    Raises:
        BenchmarkError: it failed or took longer than `limit_s`.
    """
    process = _started(
        [HERE / name, *arguments],
        limit_s=limit_s + GRACE_S,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        raise BenchmarkError(f"{name} took longer than {limit_s:.0f} s") from None
    finally:
        _end_group(process)
    if process.returncode != 0:
        raise BenchmarkError(f"{name} ended with status {process.returncode}: {_last_line(errors)}")
    return dict(json.loads(output.splitlines()[-1]))


def _started(arguments: Sequence[object], *, limit_s: float, **options: Any) -> subprocess.Popen[Any]:
    """A child of this interpreter. An end from outside that comes while it is started ends it, too.

    For the main thread. Masks would not do: any other thread takes the signal, and this one raises.
    """
    came: list[int] = []
    usual = {n: signal.signal(n, lambda number, _: came.append(number)) for n in _ENDS}
    try:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)], preexec_fn=partial(signal.alarm, int(limit_s)), **options
        )
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    if came:
        process.kill()
        process.wait()
        signal.raise_signal(came[0])
    return process


def _end_group(process: subprocess.Popen[str]) -> None:
    """End a script and whatever it started: first asked, so that it can take its own children down."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S - 3)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


class Child:
    """A process that is watched while it runs; use in a `with` block.

    Args:
        arguments: for the interpreter of this process.
        limit_s: the kernel ends it after this long.
    """

    def __init__(self, arguments: Sequence[object], *, limit_s: float) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed on exit
        self._process = _started(arguments, limit_s=limit_s, stdout=self._log, stderr=subprocess.STDOUT)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        for number, patience_s in ((signal.SIGINT, 6.0), (signal.SIGKILL, 3.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        self._log.close()

    def check(self) -> None:
        """Raise BenchmarkError with its last words when it has ended."""
        if self._process.poll() is not None:
            self._log.seek(0)
            said = _last_line(self._log.read())
            raise BenchmarkError(f"a node ended with status {self._process.returncode}: {said}")

    def cpu_s(self) -> float:
        """User and system time of all its threads so far: what /proc/<pid>/stat counts, in nanoseconds."""
        # the CPU clock of another process (clock_getcpuclockid(3)); /proc rounds to 10 ms
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def memory_mb(self, name: str) -> float:
        """VmRSS (resident now) or VmHWM (resident at most), in MB of 2^20 bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(name)) / 1024
