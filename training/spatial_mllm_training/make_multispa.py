"""Makes MultiSPA rows from posed RGB-D scenes; `python -m spatial_mllm_training.make_multispa --help`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.arguments import whole_number
from spatial_mllm_training.multispa.config import MultispaConfig, PointConfig
from spatial_mllm_training.multispa.run import Summary, Workers, make_dataset
from spatial_mllm_training.multispa.split import SPLITS
from spatial_mllm_training.sources import SceneProblem, SceneRef, registry

_EXAMPLES = """examples:
  python -m spatial_mllm_training.make_multispa --source simulated data/scenes --rows 2000 --out data/multispa
  python -m spatial_mllm_training.make_multispa --source rosbag my_robot.mcap --rows 500 --out data/robot
  python -m spatial_mllm_training.make_multispa --source scannet scans --source tapvid3d adt \\
      --rows 1000 --rows displacement_vector=5000 --workers 64 --address auto --out data/multispa
  python -m spatial_mllm_training.make_multispa --source posed_rgbd hololens --option posed_rgbd.world_up=0,1,0 \\
      --split all --out data/hololens
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.make_multispa",
        description="Make question rows with exact truths from any posed RGB-D source. A source that lacks "
        "something (depth, objects, tracks) gives the subtasks it can; the others are named with the reason. "
        "A run that was cut short goes on when the same command is given again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--source",
        nargs=2,
        action="append",
        required=True,
        metavar=("KIND", "PATH"),
        help=f"scenes to read, may be repeated; kinds: {', '.join(registry.READERS)}",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KIND.NAME=VALUE",
        help="an option of a source, e.g. scannet.stride=10 or posed_rgbd.world_up=0,1,0",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the data set")
    parser.add_argument(
        "--rows",
        action="append",
        default=[],
        metavar="[SUBTASK=]N",
        help="rows per subtask (default 100), or of one subtask; may be repeated",
    )
    parser.add_argument(
        "--split", choices=[*SPLITS, "all"], default="train", help="which scenes (default train)"
    )
    parser.add_argument(
        "--hard-share",
        type=_share,
        default=0.0,
        help="part of the multiple-choice rows whose distractors lie near the answer, 0 to 1 (default 0)",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="decides every choice (default 0)")
    parser.add_argument(
        "--workers",
        type=whole_number,
        default=os.cpu_count() or 1,
        help="scenes at a time, in processes of Ray; 0: in this process, without Ray (default: all cores)",
    )
    parser.add_argument(
        "--address",
        help="of a Ray cluster, e.g. auto, whose machines share the sources' and the data set's folders under "
        "the same paths; without it Ray starts on this machine",
    )
    parser.add_argument(
        "--memory-gib", type=_gib, default=1.5, help="kept free per worker by Ray (default 1.5)"
    )
    return parser.parse_args(argv)


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, found '{text}'")
    return float(text)


def _gib(text: str) -> float:
    if not 0 < float(text) < 1e6:
        raise argparse.ArgumentTypeError(f"expected GiB above 0, found '{text}'")
    return float(text)


def rows_wanted(texts: list[str]) -> dict[str, int]:
    """Subtask -> rows from "N" and "SUBTASK=N".

    Raises:
        SpatialError: BAD_NUMBER, UNKNOWN_TASK.
    """
    every = 100
    single: dict[str, int] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        if not number.isdecimal():
            raise SpatialError(ErrorCode.BAD_NUMBER, f"--rows expects N or SUBTASK=N, found '{text}'")
        if equals:
            single[tasks.get(name).name] = int(number)
        else:
            every = int(number)
    if single and not any("=" not in t for t in texts):
        every = 0  # only what was named
    return {name: single.get(name, every) for name in tasks.names()}


def find_all(sources: list[list[str]], options: list[str]) -> list[SceneRef]:
    """The scenes of all sources with their options.

    Raises:
        SpatialError: an unknown kind or option; SceneProblem: nothing there.
    """
    chosen: dict[str, dict[str, str]] = {kind: {} for kind, _ in sources}
    for text in options:
        name, equals, value = text.partition("=")
        kind, dot, option = name.partition(".")
        if not (equals and dot) or kind not in chosen:
            raise SpatialError(
                ErrorCode.BAD_NUMBER,
                f"--option expects KIND.NAME=VALUE of a kind given with --source, found '{text}'",
            )
        chosen[kind][option] = value
    refs: list[SceneRef] = []
    for kind, path in sources:
        refs += registry.find_scenes(kind, Path(path), **chosen[kind])
    return refs


def describe(summary: Summary) -> str:
    """The run in a few lines for a person."""
    lines = [
        f"{sum(summary.rows.values())} rows of {len(summary.rows)} subtasks from {summary.scenes} scenes "
        f"({summary.frames} frames) in {summary.seconds:.0f} s; a worker needed up to {summary.worker_peak_mib:.0f} MiB"
    ]
    lacking: dict[str, list[str]] = {}
    for subtask, wanted in summary.wanted.items():
        got = summary.rows.get(subtask, 0)
        if got < wanted and summary.scenes:
            reasons = summary.missing.get(subtask, {})
            why = "; ".join(f"{reason} (scenes: {n})" for reason, n in reasons.items())
            lacking.setdefault(f"{got} of {wanted}: {why or 'the scenes give no more'}", []).append(subtask)
    lines += [f"  {', '.join(subtasks)}: {words}" for words, subtasks in lacking.items()]
    if summary.skipped:
        lines.append(f"  {len(summary.skipped)} notes on frames left out, in dataset.json")
    if summary.failures:
        lines.append(
            f"  failed scenes: {len(summary.failures)}, with their reasons above and in dataset.json; "
            "the same command tries them again"
        )
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """Make the data set; return the exit status (1 when a scene failed)."""
    wanted = rows_wanted(arguments.rows)
    refs = find_all(arguments.source, arguments.option)
    summary = make_dataset(
        refs,
        arguments.out,
        wanted,
        config=MultispaConfig(points=PointConfig(hard_share=arguments.hard_share)),
        seed=arguments.seed,
        split=None if arguments.split == "all" else arguments.split,
        workers=Workers(arguments.workers, arguments.address, arguments.memory_gib),
    )
    print(describe(summary))
    return 1 if summary.failures else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    try:
        return run(parse_arguments(argv))
    except (SpatialError, SceneProblem) as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
