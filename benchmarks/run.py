"""Speed, latency, overhead and memory of the shipped model and nodes on this machine, in one run.

    make bench                                  about five minutes
    .venv/bin/python benchmarks/run.py --quick  less than a minute; figures for a look, not for a table

Prints one table: medians of several repeats with their range, then each goal with how far it is
met or missed. Needs ROS 2 and the built nodes. Exit status: 0 measured, 1 not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pictures
from processes import BenchmarkError, run_script

THREADS = (2, 1)
LIMITS = {"import_s": 0.5, "overhead_ms": 2.0, "peak_mb": 700.0}


@dataclass(frozen=True)
class Effort:
    """How much is measured, and how long a script may take at most, s."""

    repeats: int
    frames: int
    node_frames: int
    limit_s: float


FULL = Effort(repeats=5, frames=20, node_frames=30, limit_s=900)
QUICK = Effort(repeats=1, frames=4, node_frames=8, limit_s=120)


@dataclass(frozen=True)
class Goal:
    """A bound and what was found."""

    name: str
    value: float
    limit: float
    unit: str

    @property
    def is_met(self) -> bool:
        return self.value <= self.limit

    def __str__(self) -> str:
        verdict = "met" if self.is_met else "MISSED"
        by = abs(self.limit - self.value)
        return (
            f"{verdict:6}  by {_number(by)} {self.unit}: {self.name} is {_number(self.value)} {self.unit}, "
            f"at most {_number(self.limit)} {self.unit}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few images, one repeat")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured here, too")
    options = parser.parse_args()
    effort = QUICK if options.quick else FULL
    began_s = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an end that takes the children along
    load_before = os.getloadavg()[0]
    try:
        results = measure(effort)
    except BenchmarkError as fault:
        print(f"bench: {fault}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    about = machine(results, load_before)
    goals = goals_of(results)
    took_s = time.monotonic() - began_s
    _print_table(about, results, effort)
    _print_goals(goals, results)
    print(f"the whole took {took_s:.0f} s" + (", quick: not for a table" if options.quick else ""))
    if options.json is not None:
        document = {
            "metadata": {**about, "quick": options.quick, "effort": asdict(effort), "duration_s": took_s},
            **results,
            "goals": [{**asdict(goal), "met": goal.is_met} for goal in goals],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    return 0


def measure(effort: Effort) -> dict[str, Any]:
    """Everything, each part in processes of its own.

    Raises:
        BenchmarkError: a part failed or took too long.
    """
    results: dict[str, Any] = {}
    _tell("import time")
    results["import"] = run_script("import_time.py", "--repeats", effort.repeats, limit_s=effort.limit_s)
    for threads in THREADS:
        _tell(f"model on {threads} thread(s)")
        results[f"model_{threads}_threads"] = run_script(
            "model_speed.py", "--threads", threads, "--frames", effort.frames, "--repeats", effort.repeats,
            *(["--questions"] if threads == THREADS[0] else []), limit_s=effort.limit_s,
        )  # fmt: skip
    _tell("nodes on DDS")
    results["nodes"] = run_script(
        "node_load.py", "--frames", effort.node_frames, "--repeats", effort.repeats, limit_s=effort.limit_s
    )
    return results


def _tell(what: str) -> None:
    print(f"measuring: {what}", file=sys.stderr, flush=True)


def machine(results: dict[str, Any], load_before: float) -> dict[str, Any]:
    """Where the figures come from; a load of other programs makes them worse."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load_before, 2),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "onnxruntime": version("onnxruntime"),
        "numpy": version("numpy"),
        "rmw": results["nodes"]["rmw"],
        "model": results[f"model_{THREADS[0]}_threads"]["model"],
        "dataset_hash": pictures.dataset_hash(),
    }


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.processor() or "unknown"


def goals_of(results: dict[str, Any]) -> list[Goal]:
    """The goals with what was found, on medians."""
    nodes = results["nodes"]
    return [
        Goal(
            "overhead of the nodes per 1280x720 image, beyond DDS and model",
            nodes["1280x720"]["node_overhead_ms"]["median"], LIMITS["overhead_ms"], "ms",
        ),
        Goal("peak memory of bringup", nodes["serving"]["peak_mb"], LIMITS["peak_mb"], "MB"),
        Goal(
            "import of the whole core", results["import"]["whole_ms"]["median"] / 1e3, LIMITS["import_s"], "s"
        ),
    ]  # fmt: skip


# -- the table --------------------------------------------------------------------------------------


def _print_table(about: dict[str, Any], results: dict[str, Any], effort: Effort) -> None:
    print(
        f"{about['model']} on {about['cpu']}, {about['cores']} cores (load before: {about['load_before']}), "
        f"Python {about['python']}, ONNX Runtime {about['onnxruntime']}, {about['rmw']}"
    )
    print(f"medians of {effort.repeats} repeats, in brackets the range\n")
    for title, lines in (
        ("the model alone, 640x480 images", _model_lines(results)),
        ("CPU time of a process per 640x480 rgb8 image", _node_lines(results["nodes"], "640x480")),
        ("CPU time of a process per 1280x720 rgb8 image", _node_lines(results["nodes"], "1280x720")),
        ("depth through DDS and back, 640x480, 10 images per second", _stream_lines(results["nodes"])),
        ("memory and import", _other_lines(results)),
    ):
        print(title)
        for name, value in lines:
            print(f"  {name:<62} {value}".rstrip())
        print()


def _model_lines(results: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    for threads in THREADS:
        depth = results[f"model_{threads}_threads"]["depth"]
        lines.append((f"depth on {threads} thread{'s' * (threads > 1)}", _range(depth["fps"], "images/s")))
        lines.append(("  each", _range(depth["ms"], "ms")))
    for count, words in (("one", "question about one frame"), ("two", "question about two frames")):
        asked = results[f"model_{THREADS[0]}_threads"][f"{count}_frame_question"]
        tokens = _number(asked["tokens_per_answer"]["median"])
        lines.append((f"{words}, {THREADS[0]} threads, {tokens} tokens in the answer", ""))
        for state, meaning in (
            ("cold", "frames not seen before"),
            ("first_kept", "the first known, as for a reward"),
            ("kept", "prefix kept"),
        ):
            if f"{state}_p50_ms" not in asked:
                continue
            gain = "" if state == "cold" else f"  {_number(asked[f'{state}_gain']['median'])} times faster"
            lines.append((f"  {meaning}, p50", _range(asked[f"{state}_p50_ms"], "ms") + gain))
            lines.append(("    p95", _range(asked[f"{state}_p95_ms"], "ms")))
    return lines


def _node_lines(nodes: dict[str, Any], size: str) -> list[tuple[str, str]]:
    r = nodes[size]
    lines = [
        ("(a) bare rclpy subscriber that views the pixels", "bare_ms", ""),
        ("(a') bare node with all topics of bringup, in and out", "echo_ms", "echo_over_bare"),
        ("(b) bringup, nobody subscribed", "intake_ms", "intake_over_bare"),
        ("(c) bringup, depth subscribed, without the model", "depth_without_model_ms",
         "depth_without_model_over_bare"),
    ]  # fmt: skip
    shown = [
        (name, _range(r[key], "ms") + (f"  {_number(r[ratio]['median'])} x (a)" if ratio else ""))
        for name, key, ratio in lines
    ]
    shown.append(("    the model in (c)", _range(r["model_ms"], "ms")))
    shown.append(("(a) without images, per second", _range(r["bare_idle_ms_per_s"], "ms/s")))
    shown.append(("(b) without images, per second", _range(r["bringup_idle_ms_per_s"], "ms/s")))
    shown.append(("intake beyond the bare subscriber, (b) - (a)", _range(r["intake_overhead_ms"], "ms")))
    shown.append(
        (
            "nodes beyond DDS and model, (c) - (a')",
            _range(r["node_overhead_ms"], "ms")
            + f"  {_number(r['depth_without_model_over_echo']['median'])} x (a')",
        )
    )
    return shown


def _stream_lines(nodes: dict[str, Any]) -> list[tuple[str, str]]:
    stream = nodes["640x480"]["depth_stream"]
    return [
        (words, _range(stream[f"BasicPerformanceMetrics.{key}"], unit))
        for words, key, unit in (
            ("depth received", "MEAN_FRAME_RATE", "images/s"),
            ("images without depth", "NUM_MISSED_FRAMES", "images"),
            ("image sent to depth received, p50", "P50_LATENCY", "ms"),
            ("  p95", "P95_LATENCY", "ms"),
            ("jitter, mean", "MEAN_JITTER", "ms"),
        )
    ]


def _other_lines(results: dict[str, Any]) -> list[tuple[str, str]]:
    serving, imports = results["nodes"]["serving"], results["import"]
    served = ", ".join(f"{count} {name}" for name, count in serving["served"].items())
    return [
        ("peak resident memory of bringup", f"{_number(serving['peak_mb'])} MB  ({served})"),
        ("  when loaded, before the first image", f"{_number(serving['loaded_mb'])} MB"),
        ("import spatial_mllm_core", _range(imports["core_ms"], "ms")),
        ("  what the nodes need", _range(imports["pipeline_ms"], "ms")),
        ("  with ONNX Runtime and bags: all", _range(imports["whole_ms"], "ms")),
    ]


def _print_goals(goals: list[Goal], results: dict[str, Any]) -> None:
    print("goals")
    for goal in goals:
        print(f"  {goal}")
    for when, unwanted in results["import"]["unwanted"].items():
        verdict = "MISSED" if unwanted else "met"
        found = f"{' and '.join(unwanted)} imported" if unwanted else "neither torch nor rclpy in sys.modules"
        print(f"  {verdict:6}  {when}: {found}")


def _range(values: dict[str, Any], unit: str) -> str:
    return f"{_number(values['median']):>7} {unit}  ({_number(values['min'])} to {_number(values['max'])})"


def _number(value: float) -> str:
    """Three digits, never an exponent."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
