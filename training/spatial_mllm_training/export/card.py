"""The model card of a bundle, written from its manifest and its score; the numbers cannot drift apart."""

from __future__ import annotations

from typing import Any

from spatial_mllm_core.model.bundle import Manifest

_HEAD = """# {label}

A first, small camera-aware multimodal language model: a configuration of transformers' Qwen2.5-VL classes
({parameters:.1f} M parameters) with one ray embedding per visual token, four tapped decoder layers and a DPT
depth head. It answers {tasks} MultiSPA subtasks and gives dense depth from the same pass.

**It is weak.** It shows that the whole chain works, from simulated scenes to rewards on a ROS 2 topic; do not
steer a robot by it. A better training replaces the weights only.

## What it was trained on

Simulated table-top scenes (MuJoCo, `make_scenes --domain workspace`): a table in a room, things and a robot arm
or gantry that moves them, seen from 0.65 to 1.4 m, 25 to 60 degrees above the table, horizontal field of view 50
to 85 degrees, with random crops and pixel aspects (K kept right) and 5 % of the samples without a camera. No real
image. {data}
Recipe `{recipe}`: {steps} steps, {minutes} minutes of wall time on a two-core CPU. From scratch; no pretrained weights.

## How good it is, on scenes it never saw

Split: {split}. Scored by the runtime that serves it (`python -m spatial_mllm_training.score`). A length is right
within 20 % of the truth, a coordinate within 5 % of the width (the published rules). *Blind* answers from the
question alone: the training split's median, majority, or the first point named.

| dense depth | AbsRel | delta1 | images |
|---|---|---|---|
| this model | {abs_rel} | {delta1} | {images} |
| constant: training median | {blind_abs_rel} | {blind_delta1} | {images} |

| question | right, % (standard error) | blind, % | n | median error |
|---|---|---|---|---|
"""

_TAIL = """
## Limits

- Input is resized to {width}x{height}: small or far things vanish. Lens distortion is handled in the rays only.
- Depth is trained between 0.3 and 5 m. Confidence orders pixels at best; it is not calibrated.
- Displacement answers come from at most some centimetres of image motion at this resolution and are often the most
  frequent value, 0. Rewards built on them are a demonstration of the interface.
- Words and numbers outside the task templates were not trained: free text gets nonsense.

{precision}. Files and hashes: `manifest.json`. Licence: Apache-2.0.
"""


def write_card(manifest: Manifest, notes: str = "") -> str:
    """The card's text; `manifest.metrics` is what `score` wrote.

    Args:
        notes: Markdown for what was measured elsewhere (sample bags, real images).
    """
    training, metrics = manifest.training, manifest.metrics
    depth: dict[str, Any] = metrics.get("depth", {})
    unknown = "not measured"
    card = _HEAD.format(
        label=manifest.label,
        parameters=training.get("parameters", 0) / 1e6,
        tasks=len(manifest.tasks),
        data=metrics.get("data", ""),
        recipe=training.get("recipe", unknown),
        steps=training.get("steps", unknown),
        minutes=training.get("minutes", unknown),
        split=metrics.get("split", unknown),
        **{
            k: depth.get(k, unknown) for k in ("abs_rel", "delta1", "images", "blind_abs_rel", "blind_delta1")
        },
    )
    card += question_rows(metrics)
    if notes:
        card += f"\n{notes.strip()}\n"
    return card + _TAIL.format(width=manifest.width, height=manifest.height, precision=manifest.precision)


def question_rows(metrics: dict[str, Any] | Any) -> str:
    """One table row per task."""
    rows = ""
    for name, figures in metrics.get("tasks", {}).items():
        error = f"{figures['median_error_mm']:g} mm" if "median_error_mm" in figures else ""
        rows += (
            f"| `{name}` | {figures['accuracy']:g} ({figures['standard_error']:g}) | {figures['blind']:g} "
            f"| {figures['n']} | {error} |\n"
        )
    return rows
