"""The table of an experiment: figures of the arms over seeds, as text and as JSON. Knows no run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spatial_mllm_core.tasks import GROUPS
from spatial_mllm_training.ablate.arms import Arm, Experiment
from spatial_mllm_training.ablate.running import Results
from spatial_mllm_training.ablate.statistics import Mean, difference, over_seeds, with_images

FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Column:
    """A figure that is compared.

    Attributes:
        key: in the figures of a run, behind the test set.  blind: of the same figure without eyes.
        digits: shown.  unit: "%" or "".
    """

    key: str
    title: str
    blind: str
    digits: int
    unit: str = ""


COLUMNS = (
    Column("answers", "right answers, mean of groups", "blind", 1, "%"),
    Column("loss", "loss of the true answers, nats a token (blind: with others' images)", "blind_loss", 3),
    Column("abs_rel", "depth AbsRel", "blind_abs_rel", 3),
    Column("delta1", "depth delta1", "blind_delta1", 1, "%"),
    Column("slope", "slope of log depth against log focal scale (0 is right)", "", 3),
)


@dataclass(frozen=True)
class Cell:
    """One arm in one figure.

    Attributes:
        error: standard error over seeds, for the slope over images and seeds.
        blind: mean of the blind baseline; None where there is none.
        against_first: paired difference from the first arm of the panel; None for that arm itself.
    """

    arm: str
    words: str
    mean: Mean
    error: float
    blind: float | None
    against_first: Mean | None


@dataclass(frozen=True)
class Panel:
    """All arms in one figure on one test set."""

    test: str
    column: Column
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Report:
    """Everything that is shown.

    Attributes:
        settings: of the runs, in words.
        notes: what a reader must know.
    """

    name: str
    title: str
    settings: str
    panels: tuple[Panel, ...]
    published: tuple[str, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return _without_nan(asdict(self))


def report(
    experiment: Experiment, arms: Sequence[Arm], results: Results, *, settings: str, notes: Sequence[str] = ()
) -> Report:
    """Compare the arms; a figure that a seed of an arm lacks leaves the arm out of that panel."""
    tests = list(
        dict.fromkeys(key.rsplit("/", 1)[0] for runs in results.values() for f in runs.values() for key in f)
    )
    panels = [
        Panel(test, column, _cells(_asked(arms, column), results, f"{test}/", column))
        for test in tests
        for column in (*COLUMNS, *(_group_columns(results, test) if experiment.name == "tasks" else ()))
    ]
    seeds = len(next(iter(results.values()), {}))
    more = []
    if seeds < FEWEST_SEEDS:
        more.append(f"{seeds} seed(s): standard errors need at least {FEWEST_SEEDS} to mean anything.")
    if not any(panel.column.key == "slope" for panel in panels if panel.cells):
        more.append(
            "No focal slope: no arm with a depth head, or no test image so wide that its narrowest view is one "
            "that cameras have (--least-view-deg)."
        )
    return Report(
        experiment.name,
        experiment.title,
        settings,
        tuple(panel for panel in panels if panel.cells),
        experiment.published,
        (*notes, *more),
    )


def text(found: Report) -> str:
    """Aligned tables for the terminal."""
    width = max([len(c.arm) for p in found.panels for c in p.cells] or [0]) + 2
    lines = [f"{found.title}: {found.settings}"]
    for panel in found.panels:
        column = panel.column
        first = panel.cells[0].arm
        unit = f", {column.unit}" if column.unit else ""
        lines += [
            "",
            f"{panel.test}: {column.title}{unit}",
            f"  {'arm':<{width}}{'mean':>9}{'± SE':>8}{'blind':>9}{f'less {first}':>20}{'± SE':>8}  seeds",
        ]
        for cell in panel.cells:
            digits, against = column.digits, cell.against_first
            values = " ".join(f"{v:.{digits}f}" for v in cell.mean.values)
            lines.append(
                f"  {cell.arm:<{width}}{number(cell.mean.mean, digits):>9}{number(cell.error, digits):>8}"
                f"{number(cell.blind, digits):>9}{number(against and against.mean, digits, sign=True):>20}"
                f"{number(against and against.standard_error, digits):>8}  {values}"
            )
    lines += [
        "",
        "SE: standard error over seeds; of the slope over images and seeds. blind: sees no image, or one of others.",
    ]
    lines += [f"published: {p}" for p in found.published]
    return "\n".join([*lines, *(f"note: {n}" for n in found.notes)])


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """A figure, or a dash."""
    if value is None or math.isnan(value):
        return "-"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _cells(arms: Sequence[Arm], results: Results, prefix: str, column: Column) -> tuple[Cell, ...]:
    cells: list[Cell] = []
    first: dict[int, float | None] = {}
    for arm in arms:
        runs = results[arm.name]
        values = {seed: f.get(prefix + column.key) for seed, f in runs.items()}
        mean = over_seeds(list(values.values()))
        if mean is None:
            continue
        blind = over_seeds([f.get(prefix + column.blind) for f in runs.values()]) if column.blind else None
        error = mean.standard_error
        if column.key == "slope":
            images = over_seeds([f.get(f"{prefix}slope_error", math.nan) for f in runs.values()])
            error = with_images(error, images.mean if images else math.nan)
        cells.append(
            Cell(
                arm.name,
                arm.words,
                mean,
                error,
                blind.mean if blind else None,
                difference(values, first) if cells else None,
            )
        )
        if len(cells) == 1:
            first = values
    return tuple(cells)


def _asked(arms: Sequence[Arm], column: Column) -> list[Arm]:
    """The arms that were trained on what a column asks: one group's arm knows no other group."""
    group = column.key.partition(":")[2]
    if group:
        return [arm for arm in arms if arm.data in ("balanced", group)]
    return [arm for arm in arms if arm.data not in GROUPS]


def _group_columns(results: Results, test: str) -> list[Column]:
    prefix = f"{test}/group:"
    keys = sorted({k for runs in results.values() for f in runs.values() for k in f if k.startswith(prefix)})
    groups = [key[len(prefix) :] for key in keys]
    words = {g: g.replace("_", " ") for g in groups}
    return [Column(f"group:{g}", words[g], f"blind:{g}", 1, "%") for g in groups] + [
        Column(f"loss:{g}", f"{words[g]}: loss of the true answers, nats a token", f"blind_loss:{g}", 3)
        for g in groups
    ]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value
