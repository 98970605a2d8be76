"""Compares arms of training over seeds; `python -m spatial_mllm_training.ablate --help`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

import torch

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.ablate.arms import EXPERIMENTS, Experiment, experiment, groups_of
from spatial_mllm_training.ablate.eval_sets import EvalSize
from spatial_mllm_training.ablate.page import page
from spatial_mllm_training.ablate.report import Report, report, text
from spatial_mllm_training.ablate.running import Plan, Tests, run_all, subtasks_of, with_teacher
from spatial_mllm_training.arguments import add_depth_sources, positive_amount, positive_number
from spatial_mllm_training.recipes import EXPERIMENT_RECIPES, TrainConfig
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.training_loop.beginning import record_of
from spatial_mllm_training.training_loop.setup import DataPaths
from spatial_mllm_training.training_loop.teaching import Lessons, held_out_figures

_EXAMPLES = """examples:
  python -m spatial_mllm_training.ablate camera --scenes data/scenes --out runs/ablate --minutes 6
  python -m spatial_mllm_training.ablate semi --rows data/train --test-rows data/test --depth simulated data/scenes \\
      --out runs/ablate --steps 2000
  python -m spatial_mllm_training.ablate camera --scenes data/scenes --out runs/ablate --arms rgb rays-augmentation \\
      --recipe small_gpu --steps 20000
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.ablate",
        description="Train the arms of an experiment with equal steps, measure them on held-out scenes and compare "
        "them over seeds. Finished runs are kept; one that was cut short goes on when the same command is given again.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--scenes", type=Path, help="folder written by make_scenes, all seeds")
    parser.add_argument("--test-scenes", type=Path, help="folder with the test seeds (default: --scenes)")
    parser.add_argument(
        "--rows", type=Path, action="append", default=[], help="data set of make_multispa; may be repeated"
    )
    parser.add_argument("--test-rows", type=Path, action="append", default=[], help="likewise, for the tests")
    add_depth_sources(parser, "sources whose depth images are the truth of the rows")
    parser.add_argument(
        "--teacher",
        default="",
        metavar="PATH",
        help="file or folder of the specialist that distilled arms learn from (default: one is trained once, on the "
        "training data, into OUT/teacher)",
    )
    parser.add_argument(
        "--teacher-minutes",
        type=positive_amount,
        help="of its training (default: those of a run, or as many steps as a run has)",
    )
    parser.add_argument(
        "--begin-with",
        type=Path,
        metavar="FOLDER",
        help="run or bundle with the same model, whose weights every run begins with (default: from nothing)",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--arms", nargs="+", default=[], help="only these (default: all)")
    parser.add_argument("--seeds", type=positive_number, default=3, help="runs of every arm (default 3)")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", type=positive_number, help="of every run (default: the recipe's)")
    budget.add_argument(
        "--minutes", type=positive_amount, help="of the slowest arm's run; all get as many steps"
    )
    parser.add_argument(
        "--recipe",
        choices=sorted(EXPERIMENT_RECIPES),
        default="micro",
        help="model and batch (default micro)",
    )
    parser.add_argument(
        "--test-samples",
        type=positive_number,
        help="of each test set (default: 96 pairs of views, or all rows)",
    )
    parser.add_argument(
        "--slope-images",
        type=positive_number,
        default=EvalSize.slope_images,
        help="of each (default %(default)s)",
    )
    parser.add_argument(
        "--least-view-deg",
        type=float,
        default=EvalSize.least_view_deg,
        help="images whose narrowest focal view is narrower are not used for the slope (default %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive_number,
        default=1,
        help="of a CPU (default 1; more wait for each other where cores are shared)",
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    arguments = parser.parse_args(argv)
    if not arguments.scenes and not arguments.rows:
        parser.error("--scenes or --rows is needed")
    if arguments.rows and not arguments.test_rows:
        parser.error("--rows needs --test-rows to be measured on")
    return arguments


def planned(arguments: argparse.Namespace) -> Plan:
    """What the command line asks for.

    Raises:
        SpatialError: an unknown arm, or rows that an experiment lacks.
    """
    rows = tuple(arguments.rows)
    groups = groups_of(subtasks_of(rows)) if arguments.experiment == "tasks" else ()
    chosen: Experiment = experiment(arguments.experiment, from_rows=bool(rows), groups=groups)
    base: TrainConfig = EXPERIMENT_RECIPES[arguments.recipe]()
    if arguments.steps is not None:
        base = dataclasses.replace(base, steps=arguments.steps)
    return Plan(
        experiment=chosen,
        arms=chosen.chosen(arguments.arms),
        seeds=tuple(range(arguments.seeds)),
        base=base,
        paths=DataPaths(
            scenes=arguments.scenes,
            rows=rows,
            depth=tuple((kind, Path(path)) for kind, path in arguments.depth),
            teacher_weights=arguments.teacher,
            begin_with=arguments.begin_with,
        ),
        out=arguments.out,
        test_scenes=arguments.test_scenes,
        test_rows=tuple(arguments.test_rows),
        minutes=arguments.minutes,
        lessons=lessons(arguments, base),
        begins=record_of(arguments.begin_with) if arguments.begin_with else {},
        size=EvalSize(
            samples=arguments.test_samples,
            slope_images=arguments.slope_images,
            least_view_deg=arguments.least_view_deg,
        ),
        cpu=arguments.cpu,
        device="cuda" if torch.cuda.is_available() and not arguments.cpu else "cpu",
        quiet=arguments.quiet,
    )


def lessons(arguments: argparse.Namespace, base: TrainConfig) -> Lessons:
    """How long a teacher learns: as long as its pupils, unless told otherwise."""
    minutes = arguments.teacher_minutes or arguments.minutes
    return Lessons(steps=base.steps) if minutes is None else Lessons(minutes=minutes)


def compared(plan: Plan) -> Report:
    """Run a plan and write table.txt, results.json and report.html into its folder."""
    tests = Tests.needed(plan)
    plan = with_teacher(plan)
    steps, results = run_all(plan, tests)
    samples = steps * plan.base.batch * plan.base.accumulate
    settings = (
        f"{len(plan.arms)} arms, {len(plan.seeds)} seeds, {steps} steps of {plan.base.batch * plan.base.accumulate} "
        f"samples each ({samples} in all), recipe '{plan.base.name}'"
    )
    notes = []
    if plan.begins:
        notes.append(
            "Every run begins with the weights of one of {steps} steps, recipe '{recipe}'.".format(
                **plan.begins
            )
        )
    if plan.base.model.deep_pointers and not all(arm.depth_head for arm in plan.arms):
        notes.append(
            "No arm has deep pointers, as the recipe would: not all arms train the head that they ask."
        )
    if plan.is_distilled:
        notes.append(_of_teacher(held_out_figures(Path(plan.paths.teacher_weights))))
    found = report(plan.experiment, plan.arms, results, settings=settings, notes=notes)
    for name, content in (
        ("table.txt", text(found) + "\n"),
        ("results.json", json.dumps(found.to_json(), indent=2) + "\n"),
        ("report.html", page(found)),
    ):
        write_atomically(plan.folder / name, content.encode(), replace=True)
    return found


def _of_teacher(figures: dict[str, float]) -> str:
    told = "The teacher is a specialist that is told K, in every arm that learns from it"
    if not figures:
        return f"{told}; how good it is was not measured."
    return (
        f"{told}; its own depth on held-out images of the training's cameras: AbsRel {figures['abs_rel']:.3f}, "
        f"of one constant {figures['blind_abs_rel']:.3f}."
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    torch.set_num_threads(arguments.threads)
    try:
        found = compared(planned(arguments))
    except (SpatialError, SceneProblem) as error:
        print(getattr(error, "sentence", error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    print(text(found))
    print(f"\nwritten to {arguments.out / arguments.experiment}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
