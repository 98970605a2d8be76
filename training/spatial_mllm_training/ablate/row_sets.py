"""Parts of MultiSPA data sets as data sets of their own: half of the answers, one group, equal groups."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.multispa.rows import Row, read_rows, to_table


def is_answered(row_id: str, *, seed: int, share: float) -> bool:
    """Whether a run of this seed uses the answer of a row: the rule of `data.rows_stream.RowSource`."""
    draw = hashlib.sha256(f"{seed} {row_id}".encode()).digest()
    return int.from_bytes(draw[:6], "big") / 2**48 < share


def balanced(folders: Sequence[Path], group: str | None = None) -> Callable[[Row], bool]:
    """Keeps as many rows of every group as the smallest has; of one group alone where it is named."""
    place = {row.id: _group(row) for folder in folders for row in read_rows(folder)}
    fewest = min(Counter(place.values()).values(), default=0)
    order: dict[str, list[str]] = {}
    for row_id in sorted(place, key=lambda i: hashlib.sha256(i.encode()).digest()):
        order.setdefault(place[row_id], []).append(row_id)
    kept = {i for g, ids in order.items() if group in (None, g) for i in ids[:fewest]}
    return lambda row: row.id in kept


def write_part(folders: Sequence[Path], out: Path, keeps: Callable[[Row], bool]) -> tuple[Path, ...]:
    """A data set in `out` for each folder, with the rows that are kept and a link to its images.

    Raises:
        SpatialError: NO_FRAME when no row is kept; NOT_READY of a torn shard; NOT_WRITABLE.
    """
    written = []
    for number, folder in enumerate(folders):
        target = out / f"part-{number}"
        shard = target / "rows-00000.parquet"
        if not shard.exists():
            kept = [row for row in read_rows(folder) if keeps(row)]
            if not kept:
                continue
            try:
                target.mkdir(parents=True, exist_ok=True)
                images = target / "images"
                if not images.is_symlink():
                    images.symlink_to((folder / "images").resolve(), target_is_directory=True)
                part = target / ".rows.part"
                pq.write_table(to_table(kept), part)
                part.replace(shard)
            except OSError as error:
                raise SpatialError(
                    ErrorCode.NOT_WRITABLE, f"'{target}' cannot be written ({error.strerror or error})"
                ) from error
        written.append(target)
    if not written:
        names = ", ".join(f"'{f}'" for f in folders)
        raise SpatialError(ErrorCode.NO_FRAME, f"no row of {names} is left for '{out.name}'")
    return tuple(written)


def _group(row: Row) -> str:
    return tasks.get(row.question_type).group
