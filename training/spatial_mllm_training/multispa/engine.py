"""What one worker does with one scene: draft its questions, later write those that were chosen.

Both steps leave one file a scene, written whole or not at all, so that a run that was cut short
goes on where it stopped. Knows nothing about how scenes are spread over workers.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from spatial_mllm_core.errors import SpatialError, one_line
from spatial_mllm_core.files import write_atomically
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.multispa import generators
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.multispa.rows import to_table
from spatial_mllm_training.multispa.writing import SceneWriter
from spatial_mllm_training.sources import SceneProblem, SceneRef

_CHOICE = b"spatial_mllm.chosen"
"""Key of a part's metadata: which drafts it was written from, so that another choice writes it anew."""


@dataclass(frozen=True)
class Folders:
    """Where a data set and its intermediate files lie."""

    out: Path

    @property
    def images(self) -> Path:
        return self.out / "images"

    def drafts(self, scene: str) -> Path:
        return self.out / "work" / "drafts" / f"{scene}.json"

    def part(self, scene: str) -> Path:
        return self.out / "work" / "parts" / f"{scene}.parquet"


@dataclass(frozen=True)
class Outcome:
    """What a step made of a scene; small, since it travels between processes.

    Attributes:
        problem: one sentence why the scene failed, "" when it did not.
        counts: {subtask: {group: drafts}} after drafting, {subtask: {"": rows}} after writing.
        missing: subtask -> why the scene cannot give it.
        skipped: sentences about frames that were left out.
        seconds: of this step; 0 when an earlier run had done it.
        peak_mib: largest resident memory of the worker so far.
    """

    scene: str
    problem: str = ""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    frames: int = 0
    seconds: float = 0.0
    peak_mib: float = 0.0


def draft_scene(
    ref: SceneRef, wanted: Mapping[str, int], config: MultispaConfig, seed: int, folders: Folders
) -> Outcome:
    """Draft at most `wanted` questions of each subtask into one file; never raises for a bad scene."""
    path = folders.drafts(ref.name)
    if (kept := _kept_outcome(path)) is not None:
        return kept
    start = time.perf_counter()

    def work() -> Outcome:
        scene = ref.open(*ref.arguments)
        try:
            prepared = prepare(scene, config, generators.random_for(seed, ref.name, "prepare"))
            found = generators.drafts(prepared, dict(wanted), seed)
            outcome = Outcome(
                scene=ref.name,
                counts={
                    s: dict(sorted(Counter(_key(d) for d in ds).items())) for s, ds in found.items() if ds
                },
                missing=generators.missing(scene, config),
                skipped=[*scene.skipped, *(s for s in prepared.skipped if s not in scene.skipped)],
                frames=len(scene.frames),
                seconds=time.perf_counter() - start,
                peak_mib=_peak_mib(),
            )
        finally:
            scene.close()
        record = {"outcome": asdict(outcome), "drafts": [asdict(d) for ds in found.values() for d in ds]}
        write_atomically(path, json.dumps(record).encode(), replace=True)
        return outcome

    return _guarded(ref, work)


def write_scene(
    ref: SceneRef, chosen: Mapping[str, Mapping[str, int]], split: str, seed: int, folders: Folders
) -> Outcome:
    """Write the rows and images of the first `chosen` drafts of each subtask and group."""
    path = folders.part(ref.name)
    choice = json.dumps(chosen, sort_keys=True).encode()
    if (kept := _kept_rows(path, choice)) is not None:
        return Outcome(scene=ref.name, counts=kept)
    start = time.perf_counter()

    def work() -> Outcome:
        left = {subtask: dict(groups) for subtask, groups in chosen.items()}
        scene = ref.open(*ref.arguments)
        writer = SceneWriter(scene, folders.images, split=split, seed=seed)
        rows, numbers = [], Counter[str]()
        try:
            for draft in load_drafts(folders.drafts(ref.name)):
                groups = left.get(draft.subtask, {})
                if groups.get(_key(draft), 0) <= 0:
                    continue
                groups[_key(draft)] -= 1
                rows.append(writer.row(draft, numbers[draft.subtask]))
                numbers[draft.subtask] += 1
            writer.finish()
        except BaseException:
            writer.abandon()
            raise
        finally:
            scene.close()
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        pq.write_table(to_table(rows).replace_schema_metadata({_CHOICE: choice}), part, compression="zstd")
        part.replace(path)
        return Outcome(
            scene=ref.name,
            counts={subtask: {"": n} for subtask, n in sorted(numbers.items())},
            seconds=time.perf_counter() - start,
            peak_mib=_peak_mib(),
        )

    return _guarded(ref, work)


def load_drafts(path: Path) -> list[Draft]:
    """The drafts of a scene in the order they were made."""
    return [
        Draft(
            **{
                **record,
                "frames": tuple(record["frames"]),
                "points": tuple(
                    DraftPoint(**{**p, "point_in_world_m": tuple(p["point_in_world_m"])})
                    for p in record["points"]
                ),
                "truth": TaskValue(tuple(record["truth"]["values"]), record["truth"]["label"]),
            }
        )
        for record in json.loads(path.read_text())["drafts"]
    ]


def _key(draft: Draft) -> str:
    """What a draft is balanced by over all scenes; displacement bins are each scene's own."""
    return "" if draft.subtask.startswith("tapvid3d") else draft.group


def _kept_outcome(path: Path) -> Outcome | None:
    """What an earlier run drafted; None where it did not, or where a power cut left the file empty."""
    try:
        return Outcome(**{**json.loads(path.read_bytes())["outcome"], "seconds": 0.0})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _kept_rows(path: Path, choice: bytes) -> dict[str, dict[str, int]] | None:
    """Counts of the rows that an earlier run wrote from the same choice of drafts, None as above."""
    try:
        if (pq.read_schema(path).metadata or {}).get(_CHOICE) != choice:
            return None
        types = pq.read_table(path, columns=["question_type"]).column(0).to_pylist()
    except (OSError, pa.ArrowException):
        return None
    return {subtask: {"": n} for subtask, n in sorted(Counter(types).items())}


def _guarded(ref: SceneRef, work: Callable[[], Outcome]) -> Outcome:
    """Run a step; a scene that fails is an outcome with its reason."""
    try:
        return work()
    except SceneProblem as problem:
        return Outcome(scene=ref.name, problem=one_line(str(problem)))
    except SpatialError as error:
        return Outcome(scene=ref.name, problem=one_line(f"scene '{ref.name}': {error.sentence}"))
    except Exception as error:  # one scene must never stop the others
        return Outcome(
            scene=ref.name, problem=one_line(f"scene '{ref.name}': {type(error).__name__}: {error}")
        )


def _peak_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
