"""Scores answers on a MultiSPA data set; `python -m spatial_mllm_training.benchmark --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from spatial_mllm_core.errors import SpatialError, one_line
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.arguments import whole_number
from spatial_mllm_training.benchmark import html_report, text_report
from spatial_mllm_training.benchmark.blind import FILE_NAME, Blind, fit_blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem, each_row, load_rows, read_predictions
from spatial_mllm_training.benchmark.scoring import score
from spatial_mllm_training.scenes.cameras import DOMAINS
from spatial_mllm_training.sources import SceneProblem

_EXAMPLES = """examples:
  python -m spatial_mllm_training.benchmark make --out data/multispa-sim --workers 4
  python -m spatial_mllm_training.benchmark score --data data/multispa-sim --predictions answers.jsonl \\
      --out score.json --html score.html
  python -m spatial_mllm_training.benchmark score --data data/multispa-sim --bundle models/spatial-mllm-mini
  python -m spatial_mllm_training.benchmark blind --train data/multispa-train --out data/multispa-sim/blind.json
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.benchmark",
        description="Score a predictions file or a bundle by the published MultiSPA rules: 26 subtasks, "
        "12 groups, their mean (the paper's headline) and the mean of the subtasks, beside a blind baseline.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{score,blind,make}")

    verb = verbs.add_parser("score", help="judge answers", description="Judge the answers of a model.")
    verb.add_argument("--data", type=Path, required=True, help="data set folder (rows-*.parquet, images/)")
    source = verb.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--predictions", type=Path, help='JSON lines {"id": ..., "text": ...}; rows without a line are wrong'
    )
    source.add_argument("--bundle", type=Path, help="bundle folder, asked with the runtime that serves it")
    verb.add_argument("--blind", type=Path, help=f"blind baseline (default {FILE_NAME} in the data folder)")
    verb.add_argument("--out", type=Path, help="JSON file to write")
    verb.add_argument("--html", type=Path, help="HTML page to write, self-contained")
    verb.set_defaults(run=run_score)

    verb = verbs.add_parser(
        "blind",
        help="compute the blind baseline",
        description="Learn the best answers that need no image, from training rows.",
    )
    verb.add_argument("--train", type=Path, required=True, help="data set folder of training rows")
    verb.add_argument("--out", type=Path, required=True, help="JSON file to write")
    verb.set_defaults(run=run_blind)

    verb = verbs.add_parser(
        "make",
        help="make MultiSPA-Sim",
        description="Render held-out scenes and write the fixed benchmark MultiSPA-Sim with its blind baseline. "
        "A run that was cut short goes on when the same command is given again.",
    )
    verb.add_argument("--out", type=Path, required=True, help="folder for the data set")
    verb.add_argument("--mini", action="store_true", help="26 x 20 rows of small images instead of 26 x 300")
    verb.add_argument(
        "--workers", type=whole_number, default=1, help="processes (default 1); 0: in this one, without Ray"
    )
    verb.add_argument(
        "--domain",
        choices=sorted(DOMAINS),
        default="broad",
        help="of make_scenes (default broad: MultiSPA-Sim itself; figures of others say the domain)",
    )
    verb.set_defaults(run=run_make)
    return parser.parse_args(argv)


def run_score(arguments: argparse.Namespace) -> int:
    """Print the table; write JSON and page where asked."""
    rows = load_rows(arguments.data)
    beside = arguments.data / FILE_NAME
    blind_file = arguments.blind or (beside if beside.exists() else None)
    blind = Blind.load(blind_file) if blind_file else None
    if arguments.predictions:
        predictions = read_predictions(arguments.predictions, rows)
    else:
        from spatial_mllm_training.benchmark.serving import ask_bundle

        predictions = ask_bundle(arguments.bundle, rows, arguments.data / "images")
    result = score(rows, predictions, blind, data=arguments.data.resolve().name)
    if arguments.out:
        text = json.dumps(result.to_json(), indent=2)
        write_atomically(arguments.out, f"{text}\n".encode(), replace=True)
    if arguments.html:
        write_atomically(arguments.html, html_report.page(result).encode(), replace=True)
    print(text_report.table(result))
    return 0


def run_blind(arguments: argparse.Namespace) -> int:
    """Fit the blind baseline and say which rules it chose."""
    blind = fit_blind(each_row(arguments.train))
    blind.save(arguments.out)
    for name, rule in blind.rules.items():
        print(f"{name:<46}{rule.accuracy:>6.1f} %  {rule.words}")
    print(
        f"{blind.rows} training rows of {blind.scenes} scenes, each rule tried on scenes it was not fitted to"
    )
    return 0


def run_make(arguments: argparse.Namespace) -> int:
    """Make MultiSPA-Sim; return 1 when rows are missing."""
    # MuJoCo and Ray are needed only here
    from spatial_mllm_training.benchmark.multispa_sim import make_benchmark

    summary = make_benchmark(
        arguments.out, mini=arguments.mini, workers=arguments.workers, domain=arguments.domain
    )
    short = {s: n for s, n in summary.wanted.items() if summary.rows.get(s, 0) < n}
    print(f"{sum(summary.rows.values())} rows in {arguments.out}, digest {summary.digest[:16]}")
    for subtask, wanted in short.items():
        print(f"  {subtask}: only {summary.rows.get(subtask, 0)} of {wanted} rows", file=sys.stderr)
    return 1 if short or summary.failures else 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    try:
        return int(arguments.run(arguments))
    except (BenchmarkProblem, SpatialError, SceneProblem) as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
