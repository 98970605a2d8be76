"""`spatial-mllm annotate`: a bag in; a bag with depth, answers and rewards out, through the nodes' own pipeline."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spatial_mllm_core.cli.common import Progress, add_bag_options, add_model_options, load_model, open_source
from spatial_mllm_core.cli.main import DONE, INCOMPLETE

EXAMPLE = """  spatial-mllm annotate my_bag --out my_bag_spatial
  spatial-mllm annotate my_bag.mcap --out out.mcap --float --confidence --limit 100
Topics in the output are those of the nodes (/spatial_mllm/depth/..., answers, reward), stamped as the images."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_bag_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, help="new bag folder, or a file that ends in .mcap"
    )
    parser.add_argument(
        "--float", action="store_true", help="depth as 32FC1 (exact, large) instead of 16-bit mm PNG"
    )
    parser.add_argument("--confidence", action="store_true", help="write the confidence images, too (32FC1)")
    parser.add_argument("--depth-only", action="store_true", help="no reward task and no questions")
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    from spatial_mllm_core.bags.writer import refuse_existing
    from spatial_mllm_core.evaluation.evaluate import annotate
    from spatial_mllm_core.evaluation.outputs import OutputWriter
    from spatial_mllm_core.evaluation.plan import standard_plan
    from spatial_mllm_core.evaluation.run import Plan
    from spatial_mllm_core.evaluation.truth import BagTruth
    from spatial_mllm_core.pipeline import SpatialPipeline

    refuse_existing(options.out)
    source = open_source(options)
    pipeline = SpatialPipeline(load_model(options))
    plan = Plan()
    if not options.depth_only:
        with BagTruth(source.path, source.topics) as truth:
            plan = standard_plan(source, truth, limit=options.limit)
    writer = OutputWriter(options.out, with_confidence=options.confidence, as_float=options.float)
    with writer, Progress("images") as progress:
        notes = annotate(source, pipeline, plan, writer, limit=options.limit, progress=progress)
    for note in notes:
        print(f"spatial-mllm: {note}", file=sys.stderr)
    print(options.out)
    return INCOMPLETE if notes else DONE
