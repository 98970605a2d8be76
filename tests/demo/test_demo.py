"""The demo on real DDS: a short run answers every image and replays bit for bit; faults are one sentence."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "demo/run_demo.py"
FIXTURES = REPOSITORY / "tests/fixtures/bags"
NEEDED = ("rclpy", "spatial_mllm_msgs", "spatial_mllm")

pytestmark = [
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="needs ROS 2 and the built nodes",
    ),
    pytest.mark.skipif(
        not (REPOSITORY / "models/spatial-mllm-mini/manifest.json").exists(), reason="needs the shipped model"
    ),
]


def demo(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(DEMO), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110, cwd=REPOSITORY, check=False)


@pytest.mark.slow
def test_short_run_on_the_sample_bag(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = demo("--limit", 8, "--rate", 4, "--report", report, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1] == str(report)
    assert "8 in, 8 answered, 0 dropped" in done.stdout
    assert "8 depth images, 16 answers and 7 rewards are equal bit for bit" in done.stdout
    assert "task 'push' set through the service" in done.stdout
    assert done.stdout.count("streamed:") == 2
    assert "<!doctype html>" in report.read_text()


@pytest.mark.slow
def test_bag_of_ros1_with_one_image(tmp_path: Path) -> None:
    done = demo(
        "--bag", FIXTURES / "fiducials_aruco_marker.bag", "--report", tmp_path / "r.html", "--out", tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "1 in, 1 answered, 0 dropped" in done.stdout
    assert "equal bit for bit" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--bag", "no/such/bag"], "demo: E601 BAG_MISSING: there is no bag at 'no/such/bag'"),
        (["--bag", FIXTURES / "amber_soccer_goal_12.mcap"], "demo: E602 BAG_UNREADABLE"),
        (["--model", "no/such/model"], "demo: E501 MODEL_MISSING"),
    ],
)
def test_faults_before_anything_starts(arguments: list[object], words: str) -> None:
    done = demo(*arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_interrupt_ends_the_nodes_and_leaves_no_half_recording(tmp_path: Path) -> None:
    page, out = tmp_path / "r.html", tmp_path / "out"
    command = [sys.executable, str(DEMO), "--rate", "0.5", "--report", str(page), "--out", str(out)]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        # a job in the background of a shell inherits an ignored SIGINT, and then nothing interrupts it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert running.stdout is not None
    try:
        for line in running.stdout:
            if line.startswith("reward"):
                break
        time.sleep(1.0)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130
    assert errors == "demo: interrupted\n"
    assert list(out.iterdir()) == []
    assert not page.exists()
