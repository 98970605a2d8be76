"""Real recordings: depth, questions and movement of each, with its domain named.

Given as `KIND PATH NAME`, kinds as `make_multispa` reads them. By default the recordings of the repository.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.benchmark.blind import Blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem
from spatial_mllm_training.export.record import Measured
from spatial_mllm_training.score import depth, episodes, images, questions, trend
from spatial_mllm_training.sources import SceneProblem, SceneRef

_REPOSITORY = Path(__file__).resolve().parents[3]
DEFAULTS = (
    ("posed_rgbd", str(_REPOSITORY / "tests/fixtures/hololens"), "HoloLens, a real room"),
    ("object_motion", str(_REPOSITORY / "tests/fixtures/dvrk"), "dVRK, two balls on a surgical arm"),
)
DEFAULT_OPTIONS = ("posed_rgbd.world_up=0,1,0",)


@dataclass(frozen=True)
class Recording:
    """Scenes of one real source; `name` says for people what they show."""

    name: str
    refs: tuple[SceneRef, ...]

    @property
    def key(self) -> str:
        return "".join(c if c.isalnum() else "_" for c in self.refs[0].name.lower())


@dataclass
class Found:
    """Lines of the record, the table of all subtasks asked, traces for the page, and notes."""

    lines: list[Measured]
    table: questions.Table
    traces: trend.TrendScore
    notes: list[str]


@contextmanager
def _noted(what: str, notes: list[str]) -> Iterator[None]:
    """A recording that breaks in the middle costs what was measured on it then, not the other figures."""
    try:
        yield
    except (BenchmarkProblem, SceneProblem, SpatialError) as fault:
        notes.append(f"{what}, {fault}")


def measure(
    model: SpatialModel,
    bundle: Path,
    recording: Recording,
    *,
    blind_depth: depth.BlindDepth | None,
    blind: Blind | None,
    image_count: int,
    rows: int,
    episode_count: int,
    seed: int,
) -> Found:
    """Everything that a recording allows; what it does not is said in a note."""
    where, notes = f"real: {recording.name}", []
    found = Found([], {}, trend.TrendScore(), notes)
    refs: Sequence[SceneRef] = recording.refs
    if image_count:
        with _noted(f"{recording.name}: no depth", notes):
            picked = images.draw(refs, image_count, seed)
            told = depth.judge(images.posed(picked, notes), depth.predictor(model), blind_depth, seed=seed)
            found.lines += depth.figures(told, recording.key, where, has_goal=False)
            notes += told.notes[:1]
    if rows:
        served = tuple(model.manifest.tasks)
        with _noted(f"{recording.name}: no questions", notes), tempfile.TemporaryDirectory() as folder:
            answers = questions.ask_scenes(bundle, refs, rows, served, blind, Path(folder) / "rows")
            found.lines += questions.real_lines(answers, recording.key, where)
            found.table = answers.table()
    if episode_count:
        with _noted(f"{recording.name}: no movement", notes):
            found.traces = trend.judge(model, episodes.each(refs[:episode_count]))
    if found.traces.traces:
        found.lines.append(trend.figure(found.traces, recording.key, where, has_goal=False))
    return found
