"""How predicted depth goes with the focal length, on held-out scenes; the views are those of `ablate.focal`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.ablate.focal import (
    SCALES,
    depths_at_points,
    image_slope,
    views_of_each,
)
from spatial_mllm_training.export.record import SLOPE, Measured, over_scenes
from spatial_mllm_training.score.depth import Predict
from spatial_mllm_training.sources.posed_images import PosedImage

POINTS = 24


@dataclass
class SlopeScore:
    """What was found on a set of images.

    Attributes:
        slopes, blind: scene -> slope of each image; blind is of a depth map that sees nothing.
        curves: per image (S,) mean log depth at each of `SCALES`, that at the middle one is 0.
    """

    slopes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    blind: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    curves: list[np.ndarray] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(
    images: Iterable[PosedImage],
    predict: Predict,
    blind: Predict | None,
    *,
    size: tuple[int, int],
    limit: int,
    seed: int = 0,
) -> SlopeScore:
    """Slopes of the first `limit` images that are wide enough to be cut.

    Args:
        size: (width, height) that every view is resampled to: the model's own, so that nothing else resizes it.
    """
    found = SlopeScore()
    rng = np.random.default_rng(seed)
    for image, views in views_of_each(images, size=size, points=POINTS, rng=rng):
        if len(found.curves) >= limit:
            break
        scene, scales = image.place.scene, [v.scale for v in views]
        try:
            depth_m = depths_at_points(views, [np.asarray(predict(v.image, v.camera)) for v in views])
        except SpatialError as fault:
            found.notes.append(f"scene '{scene}', image {image.place.frame}: {fault.sentence}")
            continue
        found.slopes[scene].append(image_slope(scales, depth_m))
        logs = np.log(depth_m).mean(axis=1)
        found.curves.append(logs - logs[SCALES.index(1.0)])
        if blind is not None:
            told = depths_at_points(views, [np.asarray(blind(v.image, v.camera)) for v in views])
            found.blind[scene].append(image_slope(scales, told))
    return found


def figure(found: SlopeScore, key: str, where: str) -> Measured:
    """The mean slope; a model that ignores K is expected near -1."""
    value, error = over_scenes(found.slopes)
    why = found.notes[0] if found.notes else "no image is wide enough"
    return Measured(
        f"focal_slope/{key}", "slope of log depth against log focal scale", where, value, error,
        over_scenes(found.blind)[0], "mean depth map of training images", len(found.curves), "images",
        len(found.slopes), SLOPE,
        note="" if found.curves else why,
    )  # fmt: skip
