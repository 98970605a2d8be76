"""`spatial-mllm evaluate`: figures and a report of a bag; or a recording held against a fresh run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spatial_mllm_core.cli.common import Progress, add_bag_options, add_model_options, load_model, open_source
from spatial_mllm_core.cli.main import DONE, INCOMPLETE

if TYPE_CHECKING:
    from spatial_mllm_core.evaluation.results import Evaluation

EXAMPLE = """  spatial-mllm evaluate sample_bags/table_push --report report.html
  spatial-mllm evaluate sample_bags/table_push --against live_outputs.mcap
The second judges what the nodes published and proves, for every recorded stamp, that a fresh offline run gives the
same depth, answers and rewards bit for bit; it ends with status 3 and the first difference otherwise."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bag_options(parser)
    parser.add_argument(
        "--against", type=Path, metavar="BAG", help="recorded outputs to judge and to compare"
    )
    parser.add_argument("--report", type=Path, metavar="HTML", help="write a page with pictures and curves")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the figures as JSON ('-' = to stdout)"
    )
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from spatial_mllm_core.evaluation.evaluate import evaluate_bag, evaluate_recording
    from spatial_mllm_core.files import write_atomically
    from spatial_mllm_core.pipeline import SpatialPipeline

    source = open_source(options)
    pipeline = SpatialPipeline(load_model(options))
    with Progress("images") as progress:
        if options.against is not None:
            evaluation = evaluate_recording(source, options.against, pipeline, progress=progress)
        else:
            evaluation = evaluate_bag(source, pipeline, limit=options.limit, progress=progress)
    to_stdout = options.json is not None and str(options.json) == "-"
    print(evaluation.to_json() if to_stdout else table(evaluation))
    if options.json is not None and not to_stdout:
        write_atomically(options.json, evaluation.to_json().encode(), replace=True)
    if options.report is not None:
        from spatial_mllm_core.evaluation.report import write_report

        write_report(options.report, evaluation)
        print(options.report, file=sys.stderr if to_stdout else sys.stdout)
    for note in evaluation.notes:
        print(f"spatial-mllm: {note}", file=sys.stderr)
    differs = evaluation.replay is not None and not evaluation.replay.is_equal
    return INCOMPLETE if evaluation.is_partial or differs else DONE


def table(e: Evaluation) -> str:
    """The figures as lines of text."""
    lines = [
        ("bag", f"{e.bag}, {e.duration_s:.1f} s"),
        ("model", e.model),
        ("frames", e.frames_words),
    ]
    if e.depth is not None:
        d = e.depth
        lines.append(
            (
                "depth",
                f"AbsRel {d.abs_rel:.3f}, delta1 {d.delta1:.3f}, RMSE {d.rmse_m:.3f} m over {d.images} images",
            )
        )
    if e.aligned is not None:
        a = e.aligned
        lines.append(
            ("depth, best scale", f"AbsRel {a.abs_rel:.3f}, delta1 {a.delta1:.3f} (mean scale {a.scale:.3f})")
        )
    if e.displacement is not None:
        m = e.displacement
        words = f"vector off by {m.mean_m * 100:.1f} cm, length by {m.length_mean_m * 100:.1f} cm over {m.count} images"
        lines.append(("displacement", words))
    if e.rewards:
        lines.append(("reward trend", e.trend_words))
    for number, q in enumerate(e.questions, start=1):
        verdict = "unknown" if q.is_correct is None else "right" if q.is_correct else "wrong"
        answer = q.fault or f"{q.answer}, truth {q.truth or 'unknown'}: {verdict}"
        lines.append((f"question {number}", f"{q.asked} {answer}".replace("\u00a0", " ")))
    if e.replay is not None:
        lines.append(("replay", e.replay.sentence))
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {words}" for name, words in lines)
