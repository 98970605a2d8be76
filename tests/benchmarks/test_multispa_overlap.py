"""The overlap benchmark: a tiny run measures both ways, finds them equal and prints ratio and growth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pandas", reason="the published way bins with pandas; it comes with ray[data]")
pytest.importorskip("ray", reason="the data engine needs the 'training' extra")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "multispa_overlap.py"


def run(*arguments):
    command = [sys.executable, str(SCRIPT), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_a_tiny_run_measures_everything(tmp_path):
    report = tmp_path / "report.json"
    done = run(
        "--frames", 12, "--points", 3000, "--size", 64, 48, "--repeats", 1, "--table", 4, 8,
        "--published-up-to", 4, "--json", report,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(report.read_text())
    assert results["agreement"]["pairs_in_range"] > 3
    assert results["agreement"]["largest_difference_percent"] < 1e-4
    assert [sorted(line) for line in results["table"]] == [
        ["frames", "ours", "published"],
        ["frames", "ours"],
    ]
    for run_of in (*results["runs"]["ours"], *results["runs"]["published"]):
        assert all(run_of[key] > 0 for key in ("visible_s", "overlap_s", "sample_s", "peak_mib"))
    ours, published = (results["runs"][way][0]["total_s"] for way in ("ours", "published"))
    assert results["ratio"]["median"] == pytest.approx(published / ours)
    for words in ("ratio", "growth", "8 frames, ours", "times faster than the published way", "peak memory"):
        assert words in done.stdout


def test_numbers_below_one_are_refused():
    done = run("--frames", 0)
    assert done.returncode == 2 and "at least 1" in done.stderr
