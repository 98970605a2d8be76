"""Trains what finds the dots of dot subtasks; `python -m spatial_mllm_training.train_dots --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.model.bundle import DOTS
from spatial_mllm_training.arguments import add_budget
from spatial_mllm_training.export.onnx_files import export_dots
from spatial_mllm_training.training_loop.finding_dots import Finding, train_dot_finder

RECORD = "dots.json"
_EXAMPLES = """examples:
  python -m spatial_mllm_training.train_dots --scenes data/mat --out runs/dots
  python -m spatial_mllm_training.export --run runs/tiny --dots runs/dots --out models/my-model --version 0.1.0
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.train_dots",
        description="Train a small network that finds the dots which MultiSPA draws into images, and their letters. "
        "A bundle with one asks about dots as it asks about coordinates.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--scenes", type=Path, required=True, help="folder written by make_scenes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the graph and what was measured")
    add_budget(parser, Finding.minutes)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    lessons = Finding(arguments.steps, arguments.minutes)
    try:
        finder, record = train_dot_finder(arguments.scenes, lessons)
        arguments.out.mkdir(parents=True, exist_ok=True)
        export_dots(finder, arguments.out / DOTS)
        write_atomically(arguments.out / RECORD, json.dumps(record, indent=2).encode(), replace=True)
    except OSError as error:
        print(f"'{arguments.out}' cannot be written ({error.strerror or error})", file=sys.stderr)
        return 2
    except (SpatialError, FloatingPointError, ValueError) as error:
        print(getattr(error, "sentence", error), file=sys.stderr)
        return 2
    words = ", ".join(
        f"{name.replace('_', ' ')} {100 * value:.1f} %" for name, value in record["held_out"].items()
    )
    print(f"validation scenes: {words}; written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
