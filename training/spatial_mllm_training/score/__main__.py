"""Measures a bundle for its model card; `python -m spatial_mllm_training.score --help`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.arguments import whole_number
from spatial_mllm_training.benchmark.data import BenchmarkProblem
from spatial_mllm_training.make_multispa import find_all
from spatial_mllm_training.scenes.cameras import DOMAINS
from spatial_mllm_training.score import page, real
from spatial_mllm_training.score.run import Plan, Record, measure
from spatial_mllm_training.sources import SceneProblem

_REPOSITORY = Path(__file__).resolve().parents[3]
_MINI = _REPOSITORY / "tests/fixtures/multispa_sim_mini"
_PUSH = _REPOSITORY / "sample_bags/table_push"
_EXAMPLES = """examples:
  python -m spatial_mllm_training.score --bundle models/spatial-mllm-mini --scenes data/scenes \\
      --scenes data/other-cameras --benchmark data/multispa-sim --episodes data/episodes --run runs/tiny \\
      --out score.json --html score.html
  python -m spatial_mllm_training.export --run runs/tiny --out models/spatial-mllm-mini --metrics score.json
  python -m spatial_mllm_training.score --bundle models/spatial-mllm-mini --scenes data/scenes \\
      --real posed_rgbd my_kitchen "my kitchen, handheld" --option posed_rgbd.world_up=0,1,0
"""


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.score",
        description="Measure a bundle with the runtime that serves it: dense depth, MultiSPA questions, focal "
        "slope, reward trend, and real recordings, each beside a blind figure and with its goal. "
        "A number of 0 leaves a part out.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, help="bundle folder")
    add(
        "--scenes", type=Path, action="append", required=True,
        help="folder of make_scenes, may be repeated: training scenes for the blind figures, test scenes, test "
        "scenes of `make_scenes --cameras held-out`",
    )  # fmt: skip
    add("--held-out", type=_seeds, default=range(100_100, 100_000_000), metavar="FIRST:LAST",
        help="test seeds, last not included (default from 100100 on)")  # fmt: skip
    add("--images", type=whole_number, default=600, help="of each set of cameras (default %(default)s)")
    add(
        "--slope-images", type=whole_number, default=100, help="cut for the focal slope (default %(default)s)"
    )
    add("--blind-images", type=whole_number, default=400,
        help="training images that the blind depth is learnt on (default %(default)s)")  # fmt: skip
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument(
        "--benchmark", type=Path, default=_MINI if _MINI.is_dir() else None,
        help="MultiSPA data set to ask, best what `benchmark make` writes (default: the 26 x 10 rows of the tests)",
    )  # fmt: skip
    asked.add_argument("--benchmark-score", type=Path, help="what `benchmark score --out` wrote, instead")
    add(
        "--episode-count",
        type=whole_number,
        default=12,
        help="simulated pushes to follow; 0: no reward trend at all (default %(default)s)",
    )
    add("--episodes", type=Path, help="folder to keep the drawn pushes in (2 s each)")
    add(
        "--episode-domain",
        choices=sorted(DOMAINS),
        default="workspace",
        help="what make_scenes calls the look and the cameras of the pushes (default %(default)s)",
    )
    add("--real", nargs=3, action="append", metavar=("KIND", "PATH", "NAME"),
        help="a real recording, as make_multispa reads it, and what it shows; may be repeated (default: the "
        "HoloLens and dVRK recordings of this repository)")  # fmt: skip
    add("--option", action="append", default=[], metavar="KIND.NAME=VALUE", help="an option of a source")
    add("--real-images", type=whole_number, default=40, help="of each recording (default %(default)s)")
    add("--real-rows", type=whole_number, default=20, help="of each subtask (default %(default)s)")
    add("--bag", type=Path, action="append",
        help="simulated bag with a truth.json, judged as `spatial-mllm evaluate` does, may be repeated (default: "
        "sample_bags/table_push)")  # fmt: skip
    add("--run", type=Path, help="run folder of `train`, for the learning curve on the page")
    add("--seed", type=whole_number, default=7)
    add("--out", type=Path, help="JSON record for `export --metrics`")
    add("--html", type=Path, help="page with table and plots")
    return parser.parse_args(argv)


def _seeds(text: str) -> range:
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise argparse.ArgumentTypeError(f"expected FIRST:LAST, found '{text}'")
    return range(int(first), int(last))


def run(arguments: argparse.Namespace) -> int:
    """Measure, print and write."""
    plots = page.Plots()
    if arguments.run is not None:
        plots.learning, plots.learning_unit = page.read_learning(arguments.run)
    given, options = arguments.real, arguments.option
    if not given:
        given = [list(d) for d in real.DEFAULTS if Path(d[1]).exists()]
        options = [o for o in real.DEFAULT_OPTIONS if _kind_of(o) in {d[0] for d in given}] + options
    kinds = {kind for kind, _, _ in given}
    names = [name for _, _, name in given]
    if same := {name for name in names if names.count(name) > 1}:
        raise SpatialError(
            ErrorCode.BAD_NUMBER, f"--real: two recordings are called '{min(same)}'; give each its own name"
        )
    for option in options:
        if _kind_of(option) not in kinds:
            raise SpatialError(
                ErrorCode.BAD_NUMBER,
                f"--option expects KIND.NAME=VALUE of a kind given with --real, found '{option}'",
            )
    recordings = tuple(
        real.Recording(name, tuple(find_all([[kind, path]], [o for o in options if _kind_of(o) == kind])))
        for kind, path, name in given
    )
    record = measure(
        Plan(
            bundle=arguments.bundle,
            scenes=tuple(arguments.scenes),
            seeds=arguments.held_out,
            images=arguments.images,
            slope_images=arguments.slope_images,
            blind_images=arguments.blind_images,
            benchmark=arguments.benchmark,
            benchmark_score=arguments.benchmark_score,
            episodes=arguments.episode_count,
            episode_folder=arguments.episodes,
            episode_domain=arguments.episode_domain,
            recordings=recordings,
            real_images=arguments.real_images,
            real_rows=arguments.real_rows,
            bags=tuple(arguments.bag or [b for b in (_PUSH,) if b.exists()]),
            seed=arguments.seed,
        ),
        plots,
    )
    if arguments.out:
        text = json.dumps(record.to_json(), indent=1, allow_nan=False)
        write_atomically(arguments.out, f"{text}\n".encode(), replace=True)
    if arguments.html:
        text = page.page(record.model, record.lines, plots, record.notes)
        write_atomically(arguments.html, text.encode(), replace=True)
    print(table(record))
    return 0


def _kind_of(option: str) -> str:
    return option.partition("=")[0].partition(".")[0]


def table(record: Record) -> str:
    """The figures as lines of text."""
    words = [f"{record.model}: {record.split}"]
    for line in record.lines:
        blind = line.written(line.blind)
        words.append(
            f"{line.value_words:>16}{'blind ' + blind if blind else '':>14}  {line.verdict:<16} "
            f"{line.what}, {line.where} ({line.of_words})"
        )
    return "\n".join(words + record.notes)


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    arguments = parse_arguments(argv)
    try:
        return run(arguments)
    except (BenchmarkProblem, SpatialError, SceneProblem) as error:
        print(one_line(str(error)), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
