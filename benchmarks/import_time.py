"""How long a fresh interpreter takes to import the core, and that it brings neither torch nor ROS along.

    python import_time.py --repeats 7

Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from samples import summary

LIMIT_S = 60
STATEMENTS = {
    "core": "import spatial_mllm_core",
    "pipeline": "import spatial_mllm_core.pipeline",
    "whole": "import spatial_mllm_core.pipeline, spatial_mllm_core.model.ort_engine, spatial_mllm_core.bags",
}
UNWANTED = ("torch", "rclpy")
WATCH = f"import sys; print(' '.join(m for m in {UNWANTED} if m in sys.modules))"
LOAD = """
import numpy as np
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
image_rgb = np.zeros((480, 640, 3), np.uint8)
SpatialModel.load().perceive(Frame(1, 'camera', image_rgb, CameraModel.from_fov(640, 480, 1.0)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        # compiled once, as after an installation, and nothing written beside the sources
        os.environ["PYTHONPYCACHEPREFIX"] = cache
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        print(json.dumps(_measure(options.repeats)))


def _measure(repeats: int) -> dict[str, Any]:
    for statement in ("pass", *STATEMENTS.values()):
        _fresh(statement)
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(repeats):
        bare_s = _timed("pass")
        for name, statement in STATEMENTS.items():
            times[name].append(1e3 * (_timed(statement) - bare_s))
    result: dict[str, Any] = {f"{name}_ms": summary(values) for name, values in times.items()}
    result["unwanted"] = {
        "after importing the core": _fresh(f"{STATEMENTS['whole']}\n{WATCH}").split(),
        "after loading and using a model": _fresh(f"{LOAD}\n{WATCH}").split(),
    }
    return result


def _timed(statement: str) -> float:
    began_s = time.perf_counter()
    _fresh(statement)
    return time.perf_counter() - began_s


def _fresh(code: str) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S).stdout


if __name__ == "__main__":
    main()
