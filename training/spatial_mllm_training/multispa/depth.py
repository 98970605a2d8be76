"""Questions about the depth of pixels of one image; knows neither words nor pictures.

A pixel's truth is what the depth image holds there. Frames are asked about in turn, and pixels are
spread evenly over the depths that a frame shows, or near floors and tables would be most answers.
"""

from __future__ import annotations

import numpy as np

from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.depth import (
    DEPTH_COMPARISON,
    DEPTH_COMPARISON_DOT,
    DEPTH_VALUE,
    DEPTH_VALUE_DOT,
    LETTERS,
    depth_truth,
    letter_truth,
)
from spatial_mllm_training.multispa.config import MultispaConfig
from spatial_mllm_training.multispa.draft import Draft
from spatial_mllm_training.multispa.picking import FramePixels, frame_pixels, usable_frames
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

_VALUES = (DEPTH_VALUE_DOT.name, DEPTH_VALUE.name)
SUBTASKS = (*_VALUES, DEPTH_COMPARISON_DOT.name, DEPTH_COMPARISON.name)
_VARIANTS = ("closer", "farther")
_TRIES = 20


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    return {} if scene.has_depth else dict.fromkeys(SUBTASKS, "the scene has no depth")


def drafts(prepared: PreparedScene, subtask: str, wanted: int, rng: np.random.Generator) -> list[Draft]:
    """At most `wanted` questions, the same number from every frame."""
    frames = usable_frames(prepared, rng)
    counts = {frame: wanted // len(frames) + (i < wanted % len(frames)) for i, frame in enumerate(frames)}
    found: list[Draft] = []
    for frame, count in counts.items():
        pixels = frame_pixels(prepared, frame) if count else None
        if pixels is None:
            continue
        if subtask in _VALUES:
            found += [_value(subtask, pixels, int(i)) for i in pixels.draw(count, rng)]
        else:
            found += _comparisons(subtask, pixels, count, rng)
    return [found[i] for i in rng.permutation(len(found))]


def _value(subtask: str, pixels: FramePixels, index: int) -> Draft:
    point = pixels.point(index)
    return Draft(subtask, (pixels.frame,), (point,), depth_truth(point.depth_m))


def _comparisons(subtask: str, pixels: FramePixels, count: int, rng: np.random.Generator) -> list[Draft]:
    """Pairs of pixels apart in the image and in depth, in random order."""
    config = pixels.prepared.config.points
    first, second = pixels.draw(_TRIES * count, rng), pixels.draw(_TRIES * count, rng)
    ratio = pixels.depth_m[first] / pixels.depth_m[second]
    apart = np.linalg.norm(pixels.uv_px[first] - pixels.uv_px[second], axis=1) >= config.min_separation_px
    good = np.flatnonzero(apart & (np.maximum(ratio, 1 / ratio) >= config.min_depth_ratio))[:count]
    size = pixels.prepared.scene.frames[pixels.frame].camera
    found = []
    for place in good:
        variant = _VARIANTS[int(rng.integers(2))]
        indices = (int(first[place]), int(second[place]))
        if subtask == DEPTH_COMPARISON_DOT.name:
            points = tuple(pixels.point(i, label=letter) for i, letter in zip(indices, LETTERS, strict=True))
            truth = letter_truth((points[0].depth_m, points[1].depth_m), variant)
        else:
            points = tuple(pixels.point(i) for i in indices)
            order = sorted(range(2), key=lambda i: points[i].depth_m)
            right = order[0] if variant == "closer" else order[1]
            u, v = points[right].u_px, points[right].v_px
            truth = TaskValue((1000 * u / size.width, 1000 * v / size.height))
        found.append(Draft(subtask, (pixels.frame,), points, truth, variant=variant))
    return found
