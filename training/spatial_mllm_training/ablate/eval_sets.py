"""The test sets of an experiment: questions, true depth and focal views, from scene files or from rows.

A set is of one kind of cameras. Sets are the same for every arm and seed. Knows no weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.ablate.focal import LEAST_VIEW_DEG, FocalView, views_of_each
from spatial_mllm_training.ablate.questions import Item, cameras_of, pair_items, row_items
from spatial_mllm_training.ablate.view_blind import fit_view_blind
from spatial_mllm_training.augment.draws import is_held_out
from spatial_mllm_training.benchmark.blind import fit_blind
from spatial_mllm_training.benchmark.data import BenchmarkProblem, each_row
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.data.pictures import Viewer, read_image
from spatial_mllm_training.multispa.rows import Row
from spatial_mllm_training.recipes.config import TrainConfig
from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED, scene_files, seed_of
from spatial_mllm_training.training_loop.setup import Learner

SEED = 41
PAIRS = 96
IN_DISTRIBUTION, HELD_OUT = "in distribution", "held-out focal lengths"


@dataclass(frozen=True)
class EvalSize:
    """How much is tested.

    Attributes:
        samples: of each set: image pairs of scene files, or packs of rows spread over the data set; None:
            `PAIRS` pairs, all rows.
        slope_images: of which focal views are made.  points: of each of them.
        least_view_deg: horizontal field of view of the narrowest focal view, at least.
    """

    samples: int | None = None
    slope_images: int = 60
    points: int = 24
    least_view_deg: float = LEAST_VIEW_DEG


@dataclass(frozen=True, eq=False)
class EvalSet:
    """What a run is measured on.

    Attributes:
        name: which cameras.
        views: per image of the slope, its focal views.
        blind_depth_m: the one depth that a blind answerer gives; NaN where no depth is known.
    """

    name: str
    items: tuple[Item, ...]
    views: tuple[tuple[FocalView, ...], ...]
    blind_depth_m: float


def scene_tests(
    folder: Path, training: Path, config: TrainConfig, learner: Learner, size: EvalSize, *, name: str = ""
) -> list[EvalSet]:
    """Sets from the test seeds of a folder, training cameras apart from held-out ones.

    Args:
        training: folder whose training seeds the blind baseline learns from.
        name: of one set of all cameras, instead.

    Raises:
        SpatialError: NO_FRAME without test scenes.
    """
    files = [f for f in scene_files(folder, held_out=True) if seed_of(f) >= FIRST_TEST_SEED]
    if not files:
        raise SpatialError(
            ErrorCode.NO_FRAME,
            f"'{folder}' holds no scene of a test seed ({FIRST_TEST_SEED} or more); make some with make_scenes",
        )
    plain = replace(config.data, camera_dropout=0.0)
    whole = partial(PairBuilder, tokenizer=learner.tokenizer, config=plain, augment=False, form=learner.form)
    known = whole(scene_files(training, held_out=False))
    blind = fit_view_blind(known, np.random.default_rng(SEED))
    builder = whole(files)
    kinds: dict[str, list[Path]] = {}
    for file in files:
        other = is_held_out(_camera_of(builder.views.scenes[file]), HELD_OUT_HFOV_DEG)
        kinds.setdefault(name or (HELD_OUT if other else IN_DISTRIBUTION), []).append(file)
    found = []
    for kind in sorted(kinds, key=lambda k: (k != IN_DISTRIBUTION, k)):
        part = whole(kinds[kind])
        items = pair_items(part, size.samples or PAIRS, seed=SEED, constants=blind.answers)
        views = _views(_scene_images(part), (plain.width, plain.height), size)
        found.append(EvalSet(kind, tuple(items), views, blind.depth_m))
    return found


def row_tests(
    folders: Sequence[Path],
    training: Sequence[Path],
    depth: DepthTruth | None,
    config: TrainConfig,
    learner: Learner,
    size: EvalSize,
) -> list[EvalSet]:
    """Sets from the rows of data sets, by the horizontal field of view of their images.

    Args:
        training: data sets that the blind baseline learns from.

    Raises:
        SpatialError: a data set that cannot be read, or an image. SceneProblem: a depth image.
    """
    try:
        blind = fit_blind(row for folder in training for row in each_row(folder))
        rows = [(row, folder / "images") for folder in folders for row in each_row(folder)]
    except BenchmarkProblem as problem:
        raise SpatialError(ErrorCode.NOT_READY, str(problem)) from None
    viewer = Viewer(learner.model.framing, learner.model.processing, config.rows.size)
    kinds: dict[str, list[tuple[Row, Path]]] = {}
    for row, home in rows:
        other = any(c is not None and is_held_out(c, HELD_OUT_HFOV_DEG) for c in cameras_of(row))
        kinds.setdefault(HELD_OUT if other else IN_DISTRIBUTION, []).append((row, home))
    blind_m = float("nan")
    if depth is not None:
        some = (row for folder in training for row in each_row(folder))
        blind_m = _median_depth_m(depth, some)
    found = []
    for kind in sorted(kinds, key=lambda k: k != IN_DISTRIBUTION):
        members = kinds[kind]
        items = row_items(
            members,
            learner.form,
            viewer,
            blind=blind,
            questions=config.rows.questions,
            depth=depth,
            limit=size.samples,
        )
        shape = config.rows.size or (config.data.width, config.data.height)
        views = () if depth is None else _views(_row_images(members, depth), shape, size)
        found.append(EvalSet(kind, tuple(items), views, blind_m))
    return found


# -- images for the slope -------------------------------------------------------------------------


class _Image(NamedTuple):
    image_rgb: NDArray[np.uint8]
    camera: CameraModel
    true_m: NDArray[np.floating]


def _views(
    images: Iterator[_Image], shape: tuple[int, int], size: EvalSize
) -> tuple[tuple[FocalView, ...], ...]:
    each = views_of_each(
        images,
        size=shape,
        points=size.points,
        rng=np.random.default_rng([SEED, 2]),
        least_view_deg=size.least_view_deg,
    )
    return tuple(tuple(views) for _, views in islice(each, size.slope_images))


def _camera_of(scene: dict[str, np.ndarray]) -> CameraModel:
    height, width = scene["depth_mm"].shape[2:]
    return CameraModel.from_k(np.asarray(scene["k"], np.float64), width, height)


def _scene_images(builder: PairBuilder) -> Iterator[_Image]:
    """First one image of every scene, then the next: few images are of many scenes."""
    places = [(v, p) for p, s in builder.views.scenes.items() for v in range(s["depth_mm"].shape[1])]
    for view, path in sorted(places):
        scene = builder.views.scenes[path]
        depth_m = np.asarray(scene["depth_mm"][0, view], np.float32) / 1e3
        yield _Image(np.asarray(scene["rgb"][0, view]), _camera_of(scene), depth_m)


def _row_images(rows: Sequence[tuple[Row, Path]], depth: DepthTruth) -> Iterator[_Image]:
    seen = set()
    for row, home in rows:
        name, camera = row.spatial.source_image[0], cameras_of(row)[0]
        if (home, name) in seen or camera is None:
            continue
        seen.add((home, name))
        true_m = depth.of_row(row)[0]
        if true_m is not None:
            yield _Image(read_image(home / name), camera, true_m)


def _median_depth_m(depth: DepthTruth, rows: Iterator[Row], images: int = 200) -> float:
    found, seen = [], set()
    for row in rows:
        if len(found) >= images:
            break
        if (key := (row.spatial.scene, row.spatial.frames[0])) in seen:
            continue
        seen.add(key)
        true_m = depth.of_row(row)[0]
        if true_m is not None and (true_m > 0).any():
            found.append(true_m[true_m > 0][::97])
    return float(np.median(np.concatenate(found))) if found else float("nan")
