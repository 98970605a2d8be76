"""The command line of `probe`; runs nothing."""

from __future__ import annotations

import argparse
from pathlib import Path

from spatial_mllm_training.multispa.split import SPLITS
from spatial_mllm_training.probe.quality import MEASURES
from spatial_mllm_training.sources import registry

_EXAMPLES = """examples:
  python -m spatial_mllm_training.probe depth --run runs/tiny \\
      --scenes simulated data/scenes --hidden 64 --out probes/tiny
  python -m spatial_mllm_training.probe depth --model Qwen/Qwen2.5-VL-3B-Instruct \\
      --scenes scannet scans --out probes/qwen
  python -m spatial_mllm_training.probe depth --run runs/qwen --checkpoint Qwen2.5-VL-3B-Instruct \\
      --scenes scannet scans --out probes/trained
  python -m spatial_mllm_training.probe lift --bundle models/spatial-mllm-mini --scenes rosbag sample_bags/table_push \\
      --out lifted --rrd
  python -m spatial_mllm_training.probe quality --data data/multispa-sim --lifting lifted/images.jsonl \\
      --bundle models/spatial-mllm-mini
  python -m spatial_mllm_training.probe trend --checkpoint a/lift.json a/score.json \\
      --checkpoint b/lift.json b/score.json --checkpoint c/lift.json c/score.json
  python -m spatial_mllm_training.probe matches --bundle models/my-model --scenes data/mat
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments; `verb` says which command."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.probe",
        description="Look into a model: what its hidden states know of depth, what its 3D head sees, and how both "
        "go with its answers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{depth,lift,quality,trend,matches}")
    _depth(
        verbs.add_parser(
            "depth", help="train a depth probe on frozen features and judge it on held-out places"
        )
    )
    _lift(verbs.add_parser("lift", help="write point clouds, sheets and recordings of a model's own depth"))
    _quality(verbs.add_parser("quality", help="accuracy by quarter of lifting quality, and the slope"))
    _trend(verbs.add_parser("trend", help="rank correlation of lifting and accuracy over checkpoints"))
    _matches(
        verbs.add_parser("matches", help="how often what a bundle tells questions about two images is right")
    )
    return parser.parse_args(argv)


def _matches(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--bundle", type=Path, required=True, help="bundle folder, with a matcher")
    verb.add_argument("--scenes", type=Path, required=True, help="folder written by make_scenes")
    verb.add_argument("--test", action="store_true", help="the test scenes instead of the validation scenes")
    verb.add_argument("--pairs", type=int, default=200, help="of images of different cameras (default 200)")
    verb.add_argument(
        "--far", action="store_true", help="pairs that see as little of each other as MultiSPA's"
    )
    verb.add_argument("--out", type=Path, help="JSON file to write")


def _depth(verb: argparse.ArgumentParser) -> None:
    model = verb.add_mutually_exclusive_group(required=True)
    model.add_argument("--run", type=Path, help="run folder of train")
    model.add_argument("--model", help="published checkpoint, folder or hub name; it stays frozen")
    verb.add_argument("--additions", type=Path, help="trained additions beside --model")
    verb.add_argument("--adapter", type=Path, help="folder of a LoRA adapter beside --model")
    _base(verb)
    verb.add_argument(
        "--size", help="WIDTHxHEIGHT px that images are brought to for --model (default 448x336)"
    )
    _scenes(verb, frames=8)
    verb.add_argument(
        "--held-out", choices=SPLITS[1:], default="benchmark", help="split to report on (default benchmark)"
    )
    verb.add_argument(
        "--hidden",
        type=int,
        default=512,
        help="width of the probe (default 512, the published one; 64 suits a CPU)",
    )
    verb.add_argument("--epochs", type=int, default=10, help="(default 10)")
    verb.add_argument("--batch", type=int, default=8, help="(default 8)")
    verb.add_argument(
        "--max-depth", type=float, default=10.0, help="metres; truth beyond is none (default 10)"
    )
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--device", default="", help="cpu, cuda, ... (default: cuda where there is one)")


def _lift(verb: argparse.ArgumentParser) -> None:
    model = verb.add_mutually_exclusive_group(required=True)
    model.add_argument("--bundle", type=Path, help="bundle folder, lifted with the runtime that serves it")
    model.add_argument("--run", type=Path, help="run folder of train")
    _base(verb)
    _scenes(verb, frames=6)
    verb.add_argument("--split", choices=[*SPLITS, "all"], default="all", help="which scenes (default all)")
    verb.add_argument("--data", type=Path, help="lift exactly the frames that this data set's rows show")
    verb.add_argument(
        "--figures-only", action="store_true", help="write lift.json and images.jsonl, but nothing to look at"
    )
    verb.add_argument("--points", type=int, default=200_000, help="most points of a cloud (default 200000)")
    verb.add_argument("--rrd", action="store_true", help="also write a rerun recording of each scene")


def _base(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--checkpoint",
        type=Path,
        help="folder of the base of a --run on a published model, as for train (default: its hub name)",
    )


def _scenes(verb: argparse.ArgumentParser, *, frames: int) -> None:
    verb.add_argument(
        "--scenes",
        nargs=2,
        action="append",
        required=True,
        metavar=("KIND", "PATH"),
        help=f"scenes with depth, may be repeated; kinds: {', '.join(registry.READERS)}",
    )
    verb.add_argument(
        "--option", action="append", default=[], metavar="KIND.NAME=VALUE", help="an option of a source"
    )
    verb.add_argument(
        "--frames", type=int, default=frames, help=f"frames of each scene, spread evenly (default {frames})"
    )
    verb.add_argument(
        "--out", type=Path, required=True, help="folder to write; a run that was cut short goes on"
    )


def _quality(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data", type=Path, required=True, help="data set folder (rows-*.parquet, images/)")
    verb.add_argument(
        "--lifting", type=Path, required=True, help="images.jsonl of `probe depth` or `probe lift`"
    )
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument("--predictions", type=Path, help='JSON lines {"id": ..., "text": ...}')
    source.add_argument("--bundle", type=Path, help="bundle folder, asked with the runtime that serves it")
    verb.add_argument("--measure", choices=MEASURES, default="rmse_m", help="lifting error (default rmse_m)")
    verb.add_argument("--out", type=Path, help="JSON file to write")


def _trend(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--checkpoint",
        nargs=2,
        action="append",
        required=True,
        type=Path,
        metavar=("LIFTING", "SCORE"),
        help="probe.json or lift.json, and the JSON of `benchmark score`; repeat for every checkpoint",
    )
