"""Pages about a MultiSPA data set; `python -m spatial_mllm_training.inspect --help`."""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.arguments import whole_number
from spatial_mllm_training.inspect import row_page, statistics_page
from spatial_mllm_training.multispa.rows import Row, read_rows, shard_files


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Return the command's arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m spatial_mllm_training.inspect",
        description="Write two pages for a browser: rows with their images and truth drawn, and statistics "
        "of answers, bins and directions.",
        epilog="example: python -m spatial_mllm_training.inspect --data data/multispa --rows 4 --out pages",
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of a data set (rows-*.parquet, images/)"
    )
    parser.add_argument(
        "--out", type=Path, help="folder for rows.html and statistics.html (default: the data's)"
    )
    parser.add_argument(
        "--rows", type=whole_number, default=4, help="rows shown of each subtask, drawn at random (default 4)"
    )
    parser.add_argument("--subtask", action="append", help="only this subtask; may be repeated")
    parser.add_argument("--id", action="append", help="show exactly this row; may be repeated")
    parser.add_argument("--seed", type=whole_number, default=0, help="of the random draw (default 0)")
    return parser.parse_args(argv)


def draw_rows(rows: Iterator[Row], each: int, seed: int) -> list[Row]:
    """`each` rows of every subtask by reservoir sampling, in the published order of subtasks."""
    rng = np.random.default_rng(seed)
    kept: dict[str, list[Row]] = defaultdict(list)
    seen: dict[str, int] = defaultdict(int)
    for row in rows:
        name = row.question_type
        seen[name] += 1
        if len(kept[name]) < each:
            kept[name].append(row)
        elif (place := int(rng.integers(seen[name]))) < each:
            kept[name][place] = row
    return [row for name in tasks.names() for row in kept[name]]


def run(arguments: argparse.Namespace) -> int:
    """Write the pages."""
    data: Path = arguments.data
    if not shard_files(data):
        raise SpatialError(
            ErrorCode.NOT_READY, f"'{data}' holds no rows-*.parquet; make_multispa writes them"
        )
    wanted = {tasks.get(name).name for name in arguments.subtask or tasks.names()}
    if arguments.id:
        named = set(arguments.id)
        rows = [row for row in read_rows(data) if row.id in named]
        if len(rows) < len(named):
            unknown = sorted(named - {row.id for row in rows})
            raise SpatialError(ErrorCode.BAD_NUMBER, f"'{data}' has no row '{unknown[0]}'")
    else:
        chosen = (row for row in read_rows(data) if row.question_type in wanted)
        rows = draw_rows(chosen, arguments.rows, arguments.seed)
    out: Path = arguments.out or data
    title = data.resolve().name
    pages = {
        "rows.html": row_page.page(f"{title}: rows", rows, data / "images"),
        "statistics.html": statistics_page.page(
            f"{title}: statistics", statistics_page.count(read_rows(data))
        ),
    }
    for name, text in pages.items():
        write_atomically(out / name, text.encode(), replace=True)
        print(out / name)
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the command."""
    try:
        return run(parse_arguments(argv))
    except SpatialError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
