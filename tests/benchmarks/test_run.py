"""The benchmark: a quick run gives every figure and goal, children obey their limit, an interrupt leaves none."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
BENCHMARKS = REPOSITORY / "benchmarks"
NEEDED = ("rclpy", "spatial_mllm_msgs", "spatial_mllm")
HARD_LIMIT_S = 240

needs_nodes = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs ROS 2 and the built nodes"
)


@pytest.fixture(scope="module")
def processes() -> Any:
    """The module benchmarks/processes.py."""
    spec = importlib.util.spec_from_file_location("benchmark_processes", BENCHMARKS / "processes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def figures(node: Any) -> Iterator[float]:
    if isinstance(node, dict):
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from figures(item)
    elif isinstance(node, float):
        yield node


def of_session(session: int) -> list[int]:
    """Processes of a session other than its leader; the scripts of the benchmark open sessions of their own."""
    members = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if entry.name.isdigit() and fields[0] != "Z" and int(fields[3]) == session:
            members.append(int(entry.name))
    return members


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(c) for t in tasks.iterdir() for c in (t / "children").read_text().split()]


@needs_nodes
@pytest.mark.slow
@pytest.mark.timeout(HARD_LIMIT_S + 30)
def test_quick_run(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run.py"), "--quick", "--json", str(file)],
        capture_output=True, text=True, timeout=HARD_LIMIT_S, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert all(math.isfinite(value) for value in figures(found))
    assert len(found["goals"]) == 3
    assert done.stdout.count("  met ") + done.stdout.count("  MISSED ") == 5
    assert found["import"]["unwanted"] == {
        "after importing the core": [],
        "after loading and using a model": [],
    }
    # a kept prefix saves work, on any machine
    for count in ("one", "two"):
        asked = found["model_2_threads"][f"{count}_frame_question"]
        assert asked["kept_p50_ms"]["median"] < asked["cold_p50_ms"]["median"]
        assert asked["tokens_per_answer"]["min"] >= 1
    for size in ("640x480", "1280x720"):
        nodes = found["nodes"][size]
        assert nodes["depth_ms"]["median"] > nodes["model_ms"]["median"] > 0
        assert nodes["bare_ms"]["median"] > 0
        stream = nodes["depth_stream"]
        sent = stream["BasicPerformanceMetrics.NUM_FRAMES_SENT"]["median"]
        missed = stream["BasicPerformanceMetrics.NUM_MISSED_FRAMES"]["median"]
        assert 0 <= missed < sent == 8
        assert stream["BasicPerformanceMetrics.MEAN_LATENCY"]["median"] > 0
    served = found["nodes"]["serving"]["served"]
    assert min(served["depth"], served["rewards"], served["answers"]) > 0
    assert found["nodes"]["serving"]["peak_mb"] >= found["nodes"]["serving"]["loaded_mb"]


@needs_nodes
@pytest.mark.slow
def test_interrupt_leaves_no_process(tmp_path: Path) -> None:
    running = subprocess.Popen(
        [sys.executable, str(BENCHMARKS / "node_load.py"), "--frames", "8", "--repeats", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path, start_new_session=True,
    )  # fmt: skip
    try:
        until_s = time.monotonic() + 60
        while len(children_of(running.pid)) < 3 and time.monotonic() < until_s:
            time.sleep(0.1)
        assert len(children_of(running.pid)) == 3
        running.send_signal(signal.SIGTERM)
        assert running.wait(40) == 143
        assert of_session(running.pid) == []
    finally:
        try:
            os.killpg(running.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        running.wait()


def test_the_kernel_ends_a_child_at_its_limit(processes: Any) -> None:
    began_s = time.monotonic()
    with (
        processes.Child(
            ["-c", "import time; print('still here', flush=True); time.sleep(60)"], limit_s=1
        ) as child,
        pytest.raises(processes.BenchmarkError, match="ended with status -14: still here"),
    ):
        while time.monotonic() < began_s + 20:
            child.check()
            time.sleep(0.05)
    assert time.monotonic() - began_s < 20


def test_a_script_that_fails_or_hangs_is_told_in_one_sentence(processes: Any, tmp_path: Path) -> None:
    failing, hanging = tmp_path / "failing.py", tmp_path / "hanging.py"
    failing.write_text("raise SystemExit('the reason')")
    hanging.write_text("import time; time.sleep(60)")
    with pytest.raises(processes.BenchmarkError, match=r"ended with status 1: the reason$"):
        processes.run_script(failing, limit_s=20)
    with pytest.raises(processes.BenchmarkError, match="took longer than 1 s"):
        processes.run_script(hanging, limit_s=1)


def test_cpu_time_is_that_of_proc(processes: Any) -> None:
    busy = "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True); time.sleep(60)"
    with processes.Child(["-c", busy], limit_s=30) as child:
        last = -1.0
        while (now := child.cpu_s()) != last or now < 0.5:
            last = now
            time.sleep(0.2)
        pid = child._process.pid
        utime, stime = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        assert child.cpu_s() == pytest.approx((int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK"), abs=0.03)
