"""Trains a specialist, the teacher of this repository; `python -m spatial_mllm_training.train_teacher --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.arguments import add_budget, add_depth_sources
from spatial_mllm_training.recipes import EXPERIMENT_RECIPES
from spatial_mllm_training.recipes.config import MixConfig
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.training_loop.setup import DataPaths
from spatial_mllm_training.training_loop.teaching import Lessons, train_teacher

_EXAMPLES = """examples:
  python -m spatial_mllm_training.train_teacher --recipe tiny_cpu --scenes data/scenes --out runs/teacher --minutes 20
  python -m spatial_mllm_training.train --recipe tiny_cpu --scenes data/scenes --rows data/multispa \\
      --depth simulated data/scenes --out runs/taught --teacher specialist --teacher-weights runs/teacher
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.train_teacher",
        description="Train a specialist from image and rays to depth, on what a recipe shows its model. One that "
        "is there already with the same settings is kept.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--recipe", choices=sorted(EXPERIMENT_RECIPES), default="tiny_cpu", help="of the pupil"
    )
    parser.add_argument("--scenes", type=Path, help="folder written by make_scenes")
    parser.add_argument(
        "--rows", type=Path, action="append", default=[], help="folder written by make_multispa, instead"
    )
    parser.add_argument(
        "--held-out-rows", type=Path, action="append", default=[], help="likewise, to measure on"
    )
    add_depth_sources(parser, "sources of the rows' depth images")
    parser.add_argument("--out", type=Path, required=True, help="folder of the specialist")
    add_budget(parser, Lessons.minutes)
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    arguments = parser.parse_args(argv)
    if not arguments.scenes and not arguments.rows:
        parser.error("--scenes or --rows is needed")
    return arguments


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    config = EXPERIMENT_RECIPES[arguments.recipe]()
    mix = MixConfig(pairs=0.0, rows=1.0) if arguments.rows else MixConfig()
    paths = DataPaths(
        scenes=arguments.scenes,
        rows=tuple(arguments.rows),
        held_out_rows=tuple(arguments.held_out_rows),
        depth=tuple((kind, Path(path)) for kind, path in arguments.depth),
    )
    lessons = Lessons(arguments.steps, arguments.minutes)
    device = "cuda" if torch.cuda.is_available() and not arguments.cpu else "cpu"
    try:
        train_teacher(dataclasses.replace(config, mix=mix), paths, arguments.out, lessons, device=device)
    except (SpatialError, SceneProblem, FloatingPointError) as error:
        print(getattr(error, "sentence", error), file=sys.stderr)
        return 2
    print(f"written to {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
