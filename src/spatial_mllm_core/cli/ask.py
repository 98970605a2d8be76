"""`spatial-mllm ask`: a question about one or more image files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from spatial_mllm_core.cli.common import (
    add_camera_options,
    add_model_options,
    frame_of,
    load_model,
    parse_numbers,
    positive,
)
from spatial_mllm_core.errors import ErrorCode, SpatialError

EXAMPLE = """  spatial-mllm ask kitchen.jpg --hfov 69 --task depth_estimation_coor --pixel 320,240
  spatial-mllm ask before.png after.png --k 465,465,319.5,239.5 --task total_distance --json
  spatial-mllm ask kitchen.jpg --hfov 69 --question "How deep is [ 500 , 500 ] in mm?"
  spatial-mllm ask --list-tasks"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images", type=Path, nargs="*", help="JPEG or PNG files, Image-1 first; all of one camera"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--task", metavar="NAME", help="MultiSPA subtask, see --list-tasks")
    what.add_argument("--question", metavar="TEXT", help="a question in free words")
    what.add_argument("--list-tasks", action="store_true", help="show the tasks and what they need")
    parser.add_argument(
        "--pixel",
        action="append",
        default=[],
        metavar="U,V",
        help="raw pixel of the first image; once per point",
    )
    parser.add_argument(
        "--category", default="", metavar="NAME", help="what an object-size task asks about, such as chair"
    )
    parser.add_argument(
        "--variant",
        default="",
        metavar="NAME",
        help="what a comparison asks for: closer (default) or farther",
    )
    parser.add_argument(
        "--max-new-tokens", type=positive, default=48, help="bound on the answer (default %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")
    add_camera_options(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from spatial_mllm_core import tasks
    from spatial_mllm_core.answers import AskRequest

    if options.list_tasks:
        _list_tasks(options)
        return 0
    if not options.images:
        raise SpatialError(ErrorCode.WRONG_FRAME_COUNT, "no image is given; see spatial-mllm ask --help")
    if not options.task and not options.question:
        raise SpatialError(
            ErrorCode.EMPTY_QUESTION, "give --task or --question; --list-tasks shows the tasks"
        )
    if options.task:
        tasks.get(options.task).require_frame_count(len(options.images))
    points = tuple(parse_numbers(p, 2, "--pixel takes two numbers U,V") for p in options.pixel)
    frames = tuple(frame_of(options, path, number) for number, path in enumerate(options.images, start=1))
    request = AskRequest(
        task=options.task or "",
        frames=frames,
        points_px=tuple((p[0], p[1]) for p in points),
        question=options.question or "",
        category=options.category,
        variant=options.variant,
        max_new_tokens=options.max_new_tokens,
    )
    answer = load_model(options).ask(request)
    if options.json:
        json.dump(asdict(answer), sys.stdout, indent=2, ensure_ascii=False)
        print()
        return 0
    from spatial_mllm_core.evaluation.scorer import format_answer

    words = format_answer(answer).replace("\u00a0", " ")
    print(f"{words}  (confidence {answer.confidence:.2f}, {answer.latency_s * 1000:.0f} ms)")
    return 0


def _list_tasks(options: argparse.Namespace) -> None:
    """One line a task; what the model that would answer was not trained for is marked."""
    from spatial_mllm_core import tasks
    from spatial_mllm_core.model.bundle import find_bundle, read_manifest

    try:
        manifest = read_manifest(find_bundle(options.model))
        trained, label = frozenset(manifest.tasks), manifest.label
    except SpatialError:
        if options.model:
            raise
        trained, label = frozenset(tasks.names()), ""  # the list is of use where no model is installed
    for name in tasks.names():
        task = tasks.get(name)
        images = str(task.frame_count)
        if task.max_frame_count > task.frame_count:
            images += f" to {task.max_frame_count}"
        needs = [f"{images} image(s)", f"{task.point_count} point(s)"]
        needs += ["dots drawn in"] if task.reference == "dot" else []
        needs += ["a category"] if task.reference == "category" else []
        needs += [f"variant {' or '.join(task.variants)}"] if task.variants else []
        mark = f"  (not trained into {label})" if name not in trained else ""
        print(f"{name}: {', '.join(needs)}, answer: {task.kind}{mark}")
