"""Train a camera-aware model from a recipe; `python -m spatial_mllm_training.train --help`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.arguments import add_depth_sources, positive_amount, positive_number
from spatial_mllm_training.recipes import RECIPES, TrainConfig
from spatial_mllm_training.recipes.config import DistillationConfig
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.teachers import TEACHERS
from spatial_mllm_training.training_loop.loop import run
from spatial_mllm_training.training_loop.memory import plan
from spatial_mllm_training.training_loop.setup import DataPaths

_EXAMPLES = """examples:
  python -m spatial_mllm_training.train --recipe tiny_cpu --scenes data/scenes --rows data/multispa \\
      --depth simulated data/scenes --out runs/tiny
  python -m spatial_mllm_training.train --recipe qwen2_5_vl_3b_lora --plan
  accelerate launch --config_file training/accelerate/fsdp.yaml --num_processes 8 \\
      -m spatial_mllm_training.train --recipe qwen2_5_vl_7b_lora \\
      --rows data/multispa --depth simulated data/scenes --general llava.json --out runs/qwen
  python -m spatial_mllm_training.train --recipe tiny_cpu --scenes data/scenes --rows data/multispa \\
      --depth simulated data/scenes --out runs/taught --teacher specialist --teacher-weights runs/teacher
  torchrun --nproc-per-node 2 -m spatial_mllm_training.train --recipe tiny_cpu --threads 1 \\
      --scenes data/scenes --rows data/multispa --depth simulated data/scenes --out runs/tiny
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.train",
        description="Train a camera-aware model from a recipe. A run that was cut short goes on when the same "
        "command is given again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="tiny_cpu")
    parser.add_argument("--scenes", type=Path, help="folder written by make_scenes")
    parser.add_argument(
        "--rows",
        type=Path,
        action="append",
        default=[],
        help="folder written by make_multispa; may be repeated",
    )
    parser.add_argument(
        "--held-out-rows", type=Path, action="append", default=[], help="likewise, for validation"
    )
    add_depth_sources(parser, "sources whose depth images are the truth of the 3D heads")
    parser.add_argument("--general", type=Path, help="JSON of LLaVA conversations")
    parser.add_argument(
        "--general-images", type=Path, help="folder of their images (default: beside the JSON)"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="folder of the published model, instead of its hub name"
    )
    parser.add_argument(
        "--teacher",
        choices=[name for name in TEACHERS if name != "ground_truth"],
        help="learn this teacher's features, whatever the recipe says",
    )
    parser.add_argument(
        "--teacher-weights",
        default="",
        metavar="PATH",
        help="file, folder or name of its weights (default: the published ones; a specialist has none)",
    )
    parser.add_argument(
        "--teacher-cache", type=Path, help="keep what it says here; for recipes that change no image"
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="FOLDER",
        help="run or bundle with the same model, whose weights a new run begins with",
    )
    parser.add_argument("--out", type=Path, help="run folder; an existing run is resumed")
    parser.add_argument(
        "--plan",
        action="store_true",
        help="print trained and frozen parameters and the memory needed, then stop",
    )
    parser.add_argument("--minutes", type=positive_amount, help="time budget instead of the recipe's")
    parser.add_argument(
        "--steps", type=positive_number, help="optimiser steps as the budget, instead of time"
    )
    parser.add_argument(
        "--threads", type=positive_number, default=2, help="of a process on a CPU (default 2)"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--strict", action="store_true", help="stop at a bad row instead of leaving it out")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    if arguments.out is None and not arguments.plan:
        parser.error("--out is needed, or --plan")
    return arguments


def configured(config: TrainConfig, arguments: argparse.Namespace) -> TrainConfig:
    """The recipe with what the command line changes."""
    changes = {
        name: value for name in ("minutes", "steps") if (value := getattr(arguments, name)) is not None
    }
    if arguments.teacher is not None:
        distillation = config.distillation or DistillationConfig()
        changes["distillation"] = dataclasses.replace(distillation, teacher=arguments.teacher)
    return dataclasses.replace(config, **changes)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    config = configured(RECIPES[arguments.recipe](), arguments)
    paths = DataPaths(
        scenes=arguments.scenes,
        rows=tuple(arguments.rows),
        held_out_rows=tuple(arguments.held_out_rows),
        depth=tuple((kind, Path(path)) for kind, path in arguments.depth),
        general=arguments.general,
        general_images=arguments.general_images,
        checkpoint=arguments.checkpoint,
        teacher_weights=arguments.teacher_weights,
        teacher_cache=arguments.teacher_cache,
        begin_with=arguments.begin_with,
    )
    if config.distillation is None and (arguments.teacher_weights or arguments.teacher_cache):
        print(
            f"recipe '{config.name}' follows no teacher: say with --teacher which one the weights are of",
            file=sys.stderr,
        )
        return 2
    taught = config.distillation is not None and config.distillation.fills_truth
    if not (arguments.plan or arguments.depth or config.mix.pairs or taught):
        print(
            "no --depth: rows alone do not say what is seen how far away, so no dense head learns",
            file=sys.stderr,
        )
    try:
        if arguments.plan:
            print(plan(config, checkpoint=arguments.checkpoint).text())
            if config.distillation is not None:
                print("\nThe teacher and its projector are not counted.")
            return 0
        run(
            config,
            paths,
            arguments.out,
            cpu=arguments.cpu,
            strict=arguments.strict,
            quiet=arguments.quiet,
        )
    except (SpatialError, SceneProblem) as error:
        print(getattr(error, "sentence", error), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
