"""From a list of scenes to a data set on disk: draft everywhere, choose evenly, write, gather.

A scene that fails is reported with its reason and the others go on. What was finished before an
interruption is kept, and rows depend on the seed alone, never on the number of workers.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.files import write_atomically
from spatial_mllm_training.multispa import spreading
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.engine import Folders, Outcome, draft_scene, write_scene
from spatial_mllm_training.multispa.pair_sampling import allocate
from spatial_mllm_training.multispa.rows import SCHEMA
from spatial_mllm_training.multispa.split import split_of
from spatial_mllm_training.sources import SceneRef

OVERDRAFT = 4
"""Drafts asked of a scene over its even share, since scenes differ in what they can give."""
FEWEST_DRAFTS = 8
ROWS_PER_SHARD = 20_000
Chosen = dict[str, dict[str, dict[str, int]]]


@dataclass(frozen=True)
class Workers:
    """Where scenes are worked on; see multispa.spreading.spread."""

    count: int = 0
    address: str | None = None
    memory_gib: float = 1.5


@dataclass
class Summary:
    """What a run made; written as dataset.json beside the shards.

    Attributes:
        rows, wanted: per subtask.
        failures: one sentence per scene that failed.
        missing: subtask -> reason -> number of scenes that cannot give it.
        skipped: sentences about frames that were left out.
        digest: sha256 over the rows' ids, questions and truths, in order.
        worker_peak_mib: largest resident memory of a worker.
    """

    rows: dict[str, int] = field(default_factory=dict)
    wanted: dict[str, int] = field(default_factory=dict)
    scenes: int = 0
    frames: int = 0
    failures: list[str] = field(default_factory=list)
    missing: dict[str, dict[str, int]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    digest: str = ""
    worker_peak_mib: float = 0.0
    seconds: float = 0.0


def make_dataset(
    refs: Sequence[SceneRef],
    out: Path,
    wanted: Mapping[str, int],
    *,
    config: MultispaConfig | None = None,
    seed: int = 0,
    split: str | None = "train",
    workers: Workers | None = None,
    quiet: bool = False,
) -> Summary:
    """Write a data set of at most `wanted` rows per subtask from the scenes of one split.

    Args:
        split: the scenes that are used; None uses all, each row then names its scene's own.
        out: gets rows-XXXXX.parquet, images/<scene>/, dataset.json; work/ while it is being made.

    Raises:
        SpatialError: OUTPUT_EXISTS when `out` holds another data set; NOT_WRITABLE; NO_FRAME when
            no scene belongs to the split; NOT_READY when a cluster's machine wrote to a folder of its own.
    """
    config, workers = config or MultispaConfig(), workers or Workers()
    start = time.monotonic()
    folders = Folders(out)
    summary = Summary(wanted={s: n for s, n in wanted.items() if n > 0})
    unique, summary.failures = _without_twins([r for r in refs if split in (None, split_of(r))])
    if not unique:
        raise SpatialError(
            ErrorCode.NO_FRAME, f"none of the {len(refs)} scenes belongs to the split '{split}'"
        )
    _open_plan(folders, unique, summary.wanted, config, seed, split)
    share = {s: max(FEWEST_DRAFTS, math.ceil(OVERDRAFT * n / len(unique))) for s, n in summary.wanted.items()}
    try:
        drafting = functools.partial(_draft, wanted=share, config=config, seed=seed, folders=folders)
        drafted = _collect(drafting, unique, workers, "drafting", quiet, summary)
        chosen = choose({n: o.counts for n, o in drafted.items() if not o.problem}, summary.wanted)
        writing = functools.partial(_write, chosen=chosen, seed=seed, folders=folders)
        written = _collect(
            writing, [r for r in unique if r.name in chosen], workers, "writing", quiet, summary
        )
    finally:
        spreading.stop()
    summary.scenes = sum(not o.problem for o in drafted.values())
    summary.frames = sum(o.frames for o in drafted.values())
    reasons: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in drafted.values():
        summary.skipped += outcome.skipped
        for subtask, reason in outcome.missing.items():
            reasons[subtask][reason] += 1
    summary.missing = {s: dict(c) for s, c in sorted(reasons.items())}
    finished = [r.name for r in unique if r.name in written and not written[r.name].problem]
    for name in finished:
        if not folders.part(name).exists():
            raise SpatialError(
                ErrorCode.NOT_READY,
                f"the rows of scene '{name}' are not in '{out}'; all machines of a cluster must share that folder",
            )
    summary.rows, summary.digest = gather(folders, finished)
    summary.seconds = round(time.monotonic() - start, 1)
    record = {
        **asdict(summary),
        "split": split,
        "seed": seed,
        "config": asdict(config),
        "versions": {name: version(name) for name in ("numpy", "opencv-python-headless", "pyarrow")},
    }
    write_atomically(out / "dataset.json", json.dumps(record, indent=2).encode(), replace=True)
    if not summary.failures:  # else a second run tries the failed scenes again and keeps the others
        shutil.rmtree(out / "work", ignore_errors=True)
    return summary


def choose(drafted: Mapping[str, Mapping[str, Mapping[str, int]]], wanted: Mapping[str, int]) -> Chosen:
    """How many drafts of each scene, subtask and group are written.

    Small groups (overlap bins) are filled first and what they lack goes to the larger ones, and
    in a group the same over scenes.

    Args:
        drafted: scene -> subtask -> group -> drafts there are.
    """
    chosen: Chosen = {}
    for subtask, count in wanted.items():
        by_group: dict[str, dict[str, int]] = defaultdict(dict)
        for scene, counts in drafted.items():
            for group, n in counts.get(subtask, {}).items():
                if n:
                    by_group[group][scene] = n
        quotas = allocate({g: sum(scenes.values()) for g, scenes in sorted(by_group.items())}, count)
        taken: Counter[str] = Counter()
        for group in sorted(quotas, key=lambda g: len(by_group[g])):
            # what does not divide evenly goes to the scenes that have given least
            scenes = sorted(by_group[group], key=lambda scene: taken[scene])
            for scene, n in allocate({s: by_group[group][s] for s in scenes}, quotas[group]).items():
                if n:
                    taken[scene] += n
                    chosen.setdefault(scene, {}).setdefault(subtask, {})[group] = n
    return chosen


def gather(folders: Folders, scenes: Sequence[str]) -> tuple[dict[str, int], str]:
    """Join the scenes' parts into shards; return rows per subtask and the digest."""
    for old in folders.out.glob("rows-*.parquet"):
        old.unlink()
    counts: Counter[str] = Counter()
    digest = hashlib.sha256()
    for number, table in enumerate(_shards(folders, scenes)):
        path = folders.out / f"rows-{number:05d}.parquet"
        part = path.with_name(f".{path.name}.part")
        pq.write_table(table, part, compression="zstd")
        part.replace(path)
        counts.update(table.column("question_type").to_pylist())
        for record in table.select(["id", "conversations", "gt_value"]).to_pylist():
            digest.update(json.dumps(record, sort_keys=True).encode())
    return dict(sorted(counts.items())), digest.hexdigest()


def _shards(folders: Folders, scenes: Sequence[str]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for scene in scenes:
        table = pq.read_table(folders.part(scene), schema=SCHEMA)
        if rows and rows + table.num_rows > ROWS_PER_SHARD:
            yield pa.concat_tables(waiting)
            waiting, rows = [], 0
        waiting.append(table)
        rows += table.num_rows
    if rows:
        yield pa.concat_tables(waiting)


def _draft(ref: SceneRef, **how: Any) -> dict[str, Any]:
    return asdict(draft_scene(ref, **how))


def _write(ref: SceneRef, chosen: Chosen, **how: Any) -> dict[str, Any]:
    return asdict(write_scene(ref, chosen[ref.name], split_of(ref), **how))


def _collect(
    job: Callable[[SceneRef], dict[str, Any]],
    refs: Sequence[SceneRef],
    workers: Workers,
    step: str,
    quiet: bool,
    summary: Summary,
) -> dict[str, Outcome]:
    """Outcomes by scene name, in the order of `refs`; failures go into the summary as they happen."""
    found: dict[int, Outcome] = {}
    with tqdm(total=len(refs), unit="scene", desc=step, disable=quiet) as bar:
        for index, fields in spreading.spread(
            job, refs, workers=workers.count, address=workers.address, memory_gib=workers.memory_gib
        ):
            found[index] = outcome = Outcome(**fields)
            summary.worker_peak_mib = max(summary.worker_peak_mib, outcome.peak_mib)
            if outcome.problem:
                bar.write(outcome.problem)
            bar.update()
    for index, ref in enumerate(refs):
        if index not in found:
            found[index] = Outcome(
                ref.name, problem=f"scene '{ref.name}': its worker died while {step} (out of memory?)"
            )
        if found[index].problem:
            summary.failures.append(found[index].problem)
    return {refs[index].name: found[index] for index in sorted(found)}


def _without_twins(refs: Sequence[SceneRef]) -> tuple[list[SceneRef], list[str]]:
    """The first scene of every name, and a sentence for each further one."""
    first: dict[str, SceneRef] = {}
    problems = []
    for ref in refs:
        other = first.setdefault(ref.name, ref)
        if other is not ref:
            problems.append(
                f"scene '{ref.name}', {_place(ref)}: another scene has this name ({_place(other)}); rename one"
            )
    return list(first.values()), problems


def _place(ref: SceneRef) -> str:
    return str(ref.arguments[0]) if ref.arguments else ref.source


def refuse_finished(out: Path) -> None:
    """Raises SpatialError: OUTPUT_EXISTS when nothing is left to do in `out`; NOT_WRITABLE when it is a file."""
    if out.exists() and not out.is_dir():
        raise SpatialError(ErrorCode.NOT_WRITABLE, f"'{out}' is a file, expected a folder for the data set")
    if (out / "dataset.json").exists() and not _plan_file(out).exists():
        raise SpatialError(
            ErrorCode.OUTPUT_EXISTS, f"'{out}' holds a finished data set; name another folder or remove it"
        )


def _plan_file(out: Path) -> Path:
    return out / "work" / "plan.json"


def _open_plan(
    folders: Folders,
    refs: Sequence[SceneRef],
    wanted: Mapping[str, int],
    config: MultispaConfig,
    seed: int,
    split: str | None,
) -> None:
    """Begin a data set, or go on with the same one: cut short, or finished but for scenes that failed."""
    plan = {
        "scenes": [[r.name, r.source, [str(a) for a in r.arguments]] for r in refs],
        "wanted": dict(wanted),
        "config": asdict(config),
        "seed": seed,
        "split": split,
    }
    text = json.dumps(plan, sort_keys=True)
    refuse_finished(folders.out)
    path = _plan_file(folders.out)
    if path.exists():
        if path.read_text() != text:
            raise SpatialError(
                ErrorCode.OUTPUT_EXISTS,
                f"'{folders.out}' holds another, unfinished data set (other scenes, counts, seed or numbers); "
                "name another folder or remove it",
            )
        return
    write_atomically(path, text.encode())
