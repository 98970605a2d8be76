"""The model card of a bundle, written from its manifest and its score; the numbers cannot drift apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spatial_mllm_core.model.bundle import Manifest
from spatial_mllm_training.export.record import Measured

_HEAD = """# {label}

A small camera-aware multimodal language model: a configuration of the {family} family ({parameters:.1f} M parameters)
with one ray embedding per visual token, {taps} tapped decoder layers and a DPT depth head. It answers {tasks} of the
26 MultiSPA subtasks and gives dense depth from the same pass.

{verdict}

## What it was trained on

{data}Trained by {before}recipe `{recipe}`: {steps} steps, {minutes} minutes of wall time.

## How good it is

Measured by the runtime that serves it (`python -m spatial_mllm_training.score`){split}. A length is right within
20 % of the truth, a coordinate within 5 % of the width (the published rules). *Blind* sees no image. Behind ± stands
the standard error over scenes. A slope near 0 says something only where the depth itself is better than blind, and a
trend only where a clock has none.

| figure | on | value | blind | goal | | of |
|---|---|---|---|---|---|---|
"""

_BEFORE = "recipe `{recipe}`: {steps} steps, {minutes} minutes; then "

_TAIL = """
## Limits

- Input is resized to {width}x{height}: small or far things vanish. Lens distortion is handled in the rays only.
- Depths and fields of view other than those of the training scenes were not trained. Confidence orders pixels at
  best; it is not calibrated.
- Words and numbers outside the task templates were not trained: free text gets nonsense.

{precision}. Files and hashes: `manifest.json`. Licence: Apache-2.0.
"""

_QUESTIONS = (
    "\n| question{where} | right, % (standard error) | blind, % | n | median error |\n|---|---|---|---|---|\n"
)


def write_card(manifest: Manifest, notes: str = "") -> str:
    """The card's text; `manifest.metrics` is what `score` wrote, or {}.

    Args:
        notes: Markdown for what the figures do not say (how the training went, what was tried).
    """
    training, metrics = manifest.training, manifest.metrics
    unknown = "not recorded"
    lines = [Measured.from_json(f) for f in metrics.get("figures", ())]
    card = _HEAD.format(
        label=manifest.label,
        family=manifest.family,
        parameters=training.get("parameters", 0) / 1e6,
        taps=len(manifest.tap_layers),
        tasks=len(manifest.tasks),
        verdict=verdict(lines),
        data=f"{metrics['data']}. " if metrics.get("data") else "",
        split=f": {metrics['split']}" if metrics.get("split") else "",
        before="".join(_BEFORE.format(**stage) for stage in _stages_before(training)),
        recipe=training.get("recipe", unknown),
        steps=training.get("steps", unknown),
        minutes=training.get("minutes", unknown),
    )
    card += figure_rows(lines)
    for where, table in {"": metrics.get("tasks", {}), **_real(metrics)}.items():
        if table:
            card += _QUESTIONS.format(where=f", {where}" if where else "") + question_rows(table)
    for note in metrics.get("notes", ()):
        card += f"\n- {note}"
    if notes:
        card += f"\n{notes.strip()}\n"
    return card + _TAIL.format(width=manifest.width, height=manifest.height, precision=manifest.precision)


def verdict(lines: Sequence[Measured]) -> str:
    """Which goals are met, in one paragraph."""
    goals = [line for line in lines if line.goal is not None]
    if not goals:
        return "**Not measured yet.** Do not steer a robot by it."
    met = sum(line.verdict == "met" for line in goals)
    if met == len(goals):
        return f"It meets all {met} goals of the table below, on simulated scenes."
    return (
        f"**It meets {met} of {len(goals)} goals** of the table below. It shows that the whole chain works, from "
        "simulated scenes to rewards on a ROS 2 topic; do not steer a robot by it."
    )


def figure_rows(lines: Sequence[Measured]) -> str:
    """One table row per figure."""
    rows = ""
    for line in lines:
        blind = line.written(line.blind)
        said = ". ".join(filter(None, (line.verdict, line.note)))
        cells = (
            line.what, line.where, line.value_words, f"{blind} ({line.blind_name})" if blind else "",
            "" if line.goal is None else line.goal.words, said, line.of_words,
        )  # fmt: skip
        rows += f"| {' | '.join(c.replace('|', '/') for c in cells)} |\n"
    return rows


def question_rows(table: Mapping[str, Any]) -> str:
    """One table row per task."""
    rows = ""
    for name, figures in table.items():
        error = f"{figures['median_error_mm']:g} mm" if "median_error_mm" in figures else ""
        blind = "" if figures["blind"] is None else f"{figures['blind']:g}"
        rows += (
            f"| `{name}` | {figures['accuracy']:g} ({figures['standard_error']:g}) | {blind} "
            f"| {figures['n']} | {error} |\n"
        )
    return rows


def _stages_before(training: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the run began with, the first stage first."""
    stages: list[Mapping[str, Any]] = []
    while training := training.get("began_with", {}):
        stages.insert(0, training)
    return stages


def _real(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {f"real: {name}": table for name, table in metrics.get("real_tasks", {}).items()}
