"""Questions about the depth of pixels of one image; knows neither words nor pictures.

A pixel's truth is what the depth image holds there. All frames are asked about equally often, and
in a frame every depth band that it shows, or near floors and tables would be most answers. The
band is the draft's group, by which the run evens out depths over scenes, too.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.depth import (
    DEPTH_COMPARISON,
    DEPTH_COMPARISON_DOT,
    DEPTH_VALUE,
    DEPTH_VALUE_DOT,
    LETTERS,
    comparison_truth,
    depth_truth,
    letter_truth,
)
from spatial_mllm_training.multispa.config import MultispaConfig, PointConfig
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.pair_sampling import choose_evenly
from spatial_mllm_training.multispa.picking import (
    FramePixels,
    band_name,
    coordinate,
    draft_points,
    frame_pixels,
    in_turn,
    usable_frames,
)
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.sources import Scene

_VALUES = (DEPTH_VALUE_DOT.name, DEPTH_VALUE.name)
SUBTASKS = (*_VALUES, DEPTH_COMPARISON_DOT.name, DEPTH_COMPARISON.name)
_VARIANTS = ("closer", "farther")
_LEAST_PIXELS, _PIXELS_PER_DRAFT = 2048, 64


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    return {} if scene.has_depth else dict.fromkeys(SUBTASKS, "the scene has no depth")


def drafts(prepared: PreparedScene, subtask: str, wanted: int, rng: np.random.Generator) -> list[Draft]:
    """At most `wanted` questions in random order, the same number from every frame that can give them.

    No pixel is asked about twice. Comparisons ask for the closer and for the farther point, and
    have the right one first and second, equally often.

    Raises:
        SceneProblem: a depth image no longer opens.
    """
    found: list[Draft] = []
    pairs: list[tuple[int, DraftPoint, DraftPoint]] = []
    frames = usable_frames(prepared, rng)
    for place, frame in enumerate(frames):
        left = wanted - len(found) - len(pairs)
        if left <= 0:
            break
        count = -(-left // (len(frames) - place))  # what one frame lacks goes on to those after it
        pixels = frame_pixels(prepared, frame, max(_LEAST_PIXELS, _PIXELS_PER_DRAFT * count), rng)
        if subtask in _VALUES:
            chosen = choose_evenly(pixels.band, count, rng)
            points = draft_points(prepared, frame, pixels.uv_px[chosen], pixels.depth_m[chosen])
            found += [
                Draft(subtask, (frame,), (point,), depth_truth(point.depth_m), group=band_name(band))
                for point, band in zip(points, pixels.band[chosen].tolist(), strict=True)
            ]
        else:
            chosen = _comparable(pixels, count, prepared.config.points, rng).reshape(-1)
            points = draft_points(prepared, frame, pixels.uv_px[chosen], pixels.depth_m[chosen])
            pairs += [(frame, *both) for both in zip(points[::2], points[1::2], strict=True)]
    for (frame, nearer, farther), kind in zip(pairs, in_turn(range(4), len(pairs), rng), strict=True):
        both = (nearer, farther) if kind < 2 else (farther, nearer)
        found.append(_comparison(prepared, subtask, frame, both, _VARIANTS[kind % 2]))
    return [found[i] for i in rng.permutation(len(found))]


def _comparable(
    pixels: FramePixels, count: int, config: PointConfig, rng: np.random.Generator
) -> NDArray[np.int64]:
    """(n, 2) indices of a nearer and a farther pixel, apart in the image and in depth; n <= count."""
    some = choose_evenly(pixels.band, _PIXELS_PER_DRAFT * count // 2, rng)
    pairs = some[: len(some) // 2 * 2].reshape(-1, 2)
    pairs = np.take_along_axis(pairs, np.argsort(pixels.depth_m[pairs], axis=1, kind="stable"), axis=1)
    near, far = pixels.depth_m[pairs].T
    (u, v) = (pixels.uv_px[pairs[:, 0]] - pixels.uv_px[pairs[:, 1]]).T
    good = (far > near) & (far >= config.min_depth_ratio * near)
    good &= np.hypot(u, v) >= config.min_separation_px
    return pairs[good][:count]


def _comparison(
    prepared: PreparedScene, subtask: str, frame: int, points: tuple[DraftPoint, DraftPoint], variant: str
) -> Draft:
    first, second = points
    depths_m = (first.depth_m, second.depth_m)
    if subtask == DEPTH_COMPARISON_DOT.name:
        lettered = tuple(replace(p, label=letter) for p, letter in zip(points, LETTERS, strict=True))
        return Draft(subtask, (frame,), lettered, letter_truth(depths_m, variant), variant=variant)
    places = coordinate(prepared, frame, first), coordinate(prepared, frame, second)
    return Draft(subtask, (frame,), points, comparison_truth(places, depths_m, variant), variant=variant)
