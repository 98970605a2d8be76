"""Test questions with their images packed for a model, from scene files or from MultiSPA rows.

Each question knows its truth and what an answerer without eyes would have said. Knows no weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_training.benchmark.blind import Asked, Blind
from spatial_mllm_training.benchmark.judging import answer_size, judge, truth_of
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.data.packing import Format, PackedQuestion, Sample, ShownImage, pack
from spatial_mllm_training.data.pairs import PairBuilder, dense_targets
from spatial_mllm_training.data.pictures import Viewer, read_image
from spatial_mllm_training.data.question import Question
from spatial_mllm_training.data.served_words import served_choices
from spatial_mllm_training.multispa.rows import Row
from spatial_mllm_training.supervision.targets import RowTargets, row_targets

Thing = TypeVar("Thing")
_AT_ONCE = 16
_IMAGE_MARK = re.compile(r"(?:Image-\d+: )?<image>\n?")


def parts(things: Sequence[Thing]) -> Iterator[Sequence[Thing]]:
    """As many of them as a model is given at once."""
    for first in range(0, len(things), _AT_ONCE):
        yield things[first : first + _AT_ONCE]


@dataclass(frozen=True)
class Posed:
    """A question of a test.

    Attributes:
        size: (width, height) px of the answer's image.
        blind_is_right: whether the blind baseline answers it.
        choices: the admissible answers where there are few, else ().
    """

    subtask: str
    truth: TaskValue
    size: tuple[int, int]
    blind_is_right: bool
    choices: tuple[str, ...] = ()

    def is_right(self, text: str) -> bool:
        task = tasks.get(self.subtask)
        try:
            return bool(task.is_correct(task.parse(text), self.truth, size=self.size))
        except SpatialError:
            return False


@dataclass(frozen=True, eq=False)
class Item:
    """Images with the questions about them.

    Attributes:
        sample: packed with empty answers; its targets are the true depth.
        told: packed with the true answers.
        questions: in the samples' order.
    """

    sample: Sample
    told: Sample
    questions: tuple[Posed, ...]

    def without_camera(self) -> Item:
        """The same with K untold."""
        shown = tuple(replace(x, rays=np.zeros_like(x.rays), has_camera=False) for x in self.sample.images)
        return replace(self, sample=replace(self.sample, images=shown), told=replace(self.told, images=shown))


def pair_items(
    builder: PairBuilder, count: int, *, seed: int, constants: Mapping[str, TaskValue]
) -> list[Item]:
    """Items from scene files; a model's seed changes nothing in them.

    Args:
        builder: without augmentation.
        constants: blind answers by subtask, of `view_blind.fit_view_blind`.
    """
    cfg = builder.config
    items = []
    for number in range(count):
        view = builder.draw(np.random.default_rng([seed, number]))
        shown = [
            ShownImage(
                pixels, cfg.grid, camera.token_rays(cfg.grid[1], cfg.grid[0]).reshape(-1, 4), has_camera=True
            )
            for pixels, camera in zip(view.images, view.cameras, strict=True)
        ]
        asked = [(q, 1) for q in view.single] + [(q, 2) for q in view.pair]
        if not asked:
            continue
        words = [(q.words(), q.answer(), n) for q, n in asked]
        sample, told = _packed(
            f"pair {number}", shown, words, builder.form, targets=dense_targets(view, maps=False)
        )
        size = (cfg.width, cfg.height)
        posed = tuple(
            Posed(q.task.name, q.truth, size, _blind(q, constants, size), q.choices()) for q, _ in asked
        )
        items.append(Item(sample, told, posed))
    return items


def _packed(
    name: str,
    shown: Sequence[ShownImage],
    words: Sequence[tuple[str, str, int]],
    form: Format,
    *,
    targets: tuple[RowTargets, ...] | None,
) -> tuple[Sample, Sample]:
    """A sample without answers and one with them, of (question, answer, images that it is about)."""
    asked, told = (
        [PackedQuestion(((question, answer if spoken else ""),), n) for question, answer, n in words]
        for spoken in (False, True)
    )
    return pack(name, shown, asked, form, targets=targets), pack(name, shown, told, form)


def _blind(question: Question, constants: Mapping[str, TaskValue], size: tuple[int, int]) -> bool:
    if question.task.kind == "coordinate":
        guess: TaskValue | None = TaskValue(tuple(float(c) for c in question.points[0]))
    else:
        guess = constants.get(question.task.name)
    return guess is not None and bool(question.task.is_correct(guess, question.truth, size=size))


def row_items(
    rows: Sequence[tuple[Row, Path]],
    form: Format,
    viewer: Viewer,
    *,
    blind: Blind,
    questions: int,
    depth: DepthTruth | None = None,
    limit: int | None = None,
) -> list[Item]:
    """Items from rows, each with the images folder it is relative to; rows of equal images together.

    Args:
        questions: of one item, at most.  limit: so many items, spread evenly; None: all.

    Raises:
        SpatialError: an image that does not open, a K of another size. SceneProblem: its depth.
    """
    groups: dict[tuple[Path, tuple[str, ...]], list[Row]] = {}
    for row, home in rows:
        groups.setdefault((home, row.image), []).append(row)
    packs = [
        (home, members[first : first + questions])
        for (home, _), members in groups.items()
        for first in range(0, len(members), questions)
    ]
    if limit is not None and limit < len(packs):
        packs = [packs[i * len(packs) // limit] for i in range(limit)]
    return [_row_item(home, part, form, viewer, blind, depth) for home, part in packs]


def _row_item(
    home: Path, rows: Sequence[Row], form: Format, viewer: Viewer, blind: Blind, depth: DepthTruth | None
) -> Item:
    first = rows[0]
    images = [read_image(home / name) for name in first.image]
    shown = [viewer.show(i, c) for i, c in zip(images, cameras_of(first), strict=True)]
    depths = [None] * len(images) if depth is None else depth.of_row(first)
    targets = None
    if any(d is not None for d in depths):
        targets = tuple(
            row_targets([d], [None], None, grid_h=x.grid[0] * viewer.cells, grid_w=x.grid[1] * viewer.cells)
            for d, x in zip(depths, shown, strict=True)
        )
    words = [(_IMAGE_MARK.sub("", row.question), row.answer, len(row.image)) for row in rows]
    sample, told = _packed(f"row {first.id}", shown, words, form, targets=targets)
    return Item(sample, told, tuple(_posed(row, blind) for row in rows))


def cameras_of(row: Row) -> list[CameraModel | None]:
    """The cameras of a row's images, None where it has no K for each."""
    spatial = row.spatial
    if len(spatial.k) != len(row.image) or not all(len(k) == 9 for k in spatial.k):
        return [None] * len(row.image)
    return [
        CameraModel.from_k(k, *size, d=d, distortion_model=model)
        for k, size, d, model in zip(spatial.k, spatial.size, spatial.d, spatial.distortion, strict=True)
    ]


def _posed(row: Row, blind: Blind) -> Posed:
    guess = judge(row, blind.answer(Asked.of(row)))
    return Posed(row.question_type, truth_of(row), answer_size(row), guess.is_right, served_choices(row))


def true_depths(item: Item) -> list[NDArray[np.float32]]:
    """(h, w) z-depth of each image at the cells of the heads, NaN = none; [] without truth."""
    return [target.depth[0] for target in item.sample.targets or ()]
