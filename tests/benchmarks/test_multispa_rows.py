"""The benchmark of rows: a tiny run on stored scenes prints every subtask with a speed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="the data engine needs the 'training' extra")

ROOT = Path(__file__).parents[2]


def test_a_tiny_run_measures_every_subtask() -> None:
    command = [
        sys.executable,
        "benchmarks/multispa_rows.py",
        "--scenes",
        "tests/fixtures/simulated",
        "--rows",
        "3",
    ]
    done = subprocess.run([*command, "--repeats", "1"], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+)$", done.stdout, re.MULTILINE)
    assert len(lines) == 26, done.stdout
    assert all(int(number) > 0 for line in lines for number in line[1:])


def test_a_folder_without_scenes_is_one_sentence(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/multispa_rows.py", "--scenes", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 1
    assert "holds no scene_" in done.stderr and "Traceback" not in done.stderr
