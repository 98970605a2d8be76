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
    depth_band,
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
    size = 1 if subtask in _VALUES else 2
    asked: dict[int, list[tuple[DraftPoint, ...]]] = {}
    frames, left = usable_frames(prepared, rng), wanted
    while frames and left > 0:
        able = []
        for place, frame in enumerate(frames):
            count = -(-left // (len(frames) - place))  # what a frame lacks goes on to those after it
            if count:
                before = asked.setdefault(frame, [])
                groups = _groups_of_points(prepared, frame, size, count, before, rng)
                before += groups
                left -= len(groups)
                able += [frame] if len(groups) == count else []
        frames = able  # and, at the end, to those that can give more
    found = [(frame, points) for frame, groups in asked.items() for points in groups]
    if size == 1:
        made = [
            Draft(subtask, (frame,), (p,), depth_truth(p.depth_m), group=band_name(depth_band(p.depth_m)))
            for frame, (p,) in found
        ]
    else:
        kinds = in_turn(range(4), len(found), rng)
        made = [
            _comparison(prepared, subtask, frame, (a, b) if kind < 2 else (b, a), _VARIANTS[kind % 2])
            for (frame, (a, b)), kind in zip(found, kinds, strict=True)
        ]
    return [made[i] for i in rng.permutation(len(made))]


def _groups_of_points(
    prepared: PreparedScene,
    frame: int,
    size: int,
    count: int,
    before: list[tuple[DraftPoint, ...]],
    rng: np.random.Generator,
) -> list[tuple[DraftPoint, ...]]:
    """At most `count` single points, or nearer and farther ones, that are not among those `before`."""
    at_most = max(_LEAST_PIXELS, _PIXELS_PER_DRAFT * count)
    old = [(p.u_px, p.v_px) for points in before for p in points]
    pixels = frame_pixels(prepared, frame, at_most, rng, without_px=old)
    if size == 1:
        chosen = choose_evenly(pixels.band, count, rng)
    else:
        chosen = _comparable(pixels, count, prepared.config.points, rng).reshape(-1)
    points = draft_points(prepared, frame, pixels.uv_px[chosen], pixels.depth_m[chosen])
    return list(zip(*(points[i::size] for i in range(size)), strict=True))


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
