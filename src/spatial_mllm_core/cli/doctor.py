"""`spatial-mllm doctor`: what this machine has; paste it into a bug report."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from spatial_mllm_core import __version__
from spatial_mllm_core.errors import SpatialError

EXAMPLE = "  spatial-mllm doctor"
GOOD, ABSENT, BAD = "ok", "--", "BAD"
_ROS_TIMEOUT_S = 20
# A separate process: an apt ROS of another Python, or a half-sourced one, must not take this one down.
_ROS_PROBE = (
    "import os, rclpy; from rclpy.utilities import get_rmw_implementation_identifier as rmw; "
    "print(os.environ.get('ROS_DISTRO', 'from wheels'), rmw())"
)
_MSGS_PROBE = (
    "import spatial_mllm_msgs.msg as m; print(len([n for n in dir(m) if n[0].isupper() and '_' not in n]))"
)

Line = tuple[str, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="", metavar="BUNDLE", help="bundle to verify (default: the shipped one)"
    )


def run(options: argparse.Namespace) -> int:
    lines = [
        (GOOD, "spatial_mllm_core", __version__),
        _python(),
        (GOOD, "system", f"{platform.platform()}, {os.cpu_count()} cores"),
        *(_library(name) for name in ("numpy", "rosbags", "tokenizers")),
        _opencv(),
        _onnxruntime(),
        _ros("rclpy and middleware", _ROS_PROBE, "no rclpy here; the core, the CLI and bags work without"),
        _ros("spatial_mllm_msgs", _MSGS_PROBE, "not built here; needed by the nodes only", "{} messages"),
        _model(options.model),
    ]
    width = max(len(name) for _, name, _ in lines)
    for mark, name, words in lines:
        print(f"{mark:<4}{name:<{width}}  {words}")
    return 1 if any(mark == BAD for mark, _, _ in lines) else 0


def _python() -> Line:
    mark = GOOD if sys.version_info >= (3, 10) else BAD
    return mark, "python", f"{platform.python_version()} at {sys.executable}"


def _library(name: str) -> Line:
    return _checked(name, lambda: metadata.version(name))


def _opencv() -> Line:
    def words() -> str:
        import cv2

        return f"{cv2.__version__}, JPEG and PNG {'in' if cv2.haveImageWriter('.jpg') else 'MISSING'}"

    return _checked("opencv", words)


def _onnxruntime() -> Line:
    def words() -> str:
        import onnxruntime

        providers = ", ".join(
            p.removesuffix("ExecutionProvider") for p in onnxruntime.get_available_providers()
        )
        return f"{onnxruntime.__version__}, providers: {providers}"

    return _checked("onnxruntime", words)


def _checked(name: str, words: Callable[[], str]) -> Line:
    try:
        return GOOD, name, words()
    except Exception as error:
        return BAD, name, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _ros(name: str, probe: str, without: str, words: str = "{}") -> Line:
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, timeout=_ROS_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return BAD, name, f"importing it did not end ({type(error).__name__})"
    if done.returncode == 0:
        return GOOD, name, words.format(done.stdout.strip())
    said = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if said.startswith("ModuleNotFoundError"):
        return ABSENT, name, without
    return BAD, name, said


def _model(wanted: str) -> Line:
    from spatial_mllm_core.model.bundle import find_bundle, open_bundle

    try:
        bundle = open_bundle(find_bundle(wanted))
    except SpatialError as fault:
        return BAD, "model", str(fault)
    return GOOD, "model", f"{bundle.manifest.label} at {bundle.folder}, all hashes match"
