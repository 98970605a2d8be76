"""MultiSPA rows as a numbered source of packed samples.

Rows about the same images are packed together. An epoch shows every row once, in an order that follows
from the seed and the epoch.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError, one_line
from spatial_mllm_training.augment import augment_row
from spatial_mllm_training.data.depth_truth import DepthTruth
from spatial_mllm_training.data.packing import Format, LeftOutError, PackedQuestion, Sample, pack
from spatial_mllm_training.data.pictures import Viewer, read_image
from spatial_mllm_training.data.rows_config import RowsConfig
from spatial_mllm_training.data.served_words import served_answer, served_choices, served_question
from spatial_mllm_training.multispa.rows import Row, from_table, shard_files
from spatial_mllm_training.sources import SceneProblem
from spatial_mllm_training.supervision.targets import RowTargets, row_targets

_IMAGE_MARK = re.compile(r"(?:Image-\d+: )?<image>\n?")


@dataclass(frozen=True, eq=False)
class _Views:
    """The images that one sample shows, with what is known of each."""

    images: Sequence[NDArray[np.uint8]]
    cameras: Sequence[CameraModel | None]
    world_from_camera: NDArray[np.float64] | None
    depths_m: Sequence[NDArray[np.float32] | None]


class RowSource:
    """Samples of one or more data sets of `make_multispa`; tables stay in memory, shared by workers."""

    def __init__(
        self,
        folders: Sequence[Path],
        form: Format,
        viewer: Viewer,
        config: RowsConfig,
        seed: int,
        *,
        depth: DepthTruth | None = None,
    ) -> None:
        self.form, self.viewer, self.config, self.seed, self.depth = form, viewer, config, seed, depth
        self._folders = list(folders)
        self._tables: list[pa.Table] = []
        self._homes: list[Path] = []
        for folder in self._folders:
            for shard in shard_files(folder):
                self._tables.append(_table(shard))
                self._homes.append(folder / "images")
        if not self._tables:
            names = ", ".join(f"'{f}'" for f in self._folders)
            raise SpatialError(ErrorCode.NO_FRAME, f"no rows-*.parquet in {names}; run make_multispa first")
        self._groups = self._grouped()
        self.packs = sum(-(-len(g) // config.questions) for g in self._groups)
        self._epoch = lru_cache(maxsize=2)(self._order)

    def digest(self) -> str:
        """The data sets' own digests where they have one, else the names and sizes of their shards."""
        found = []
        for folder in self._folders:
            try:
                found.append(str(json.loads((folder / "dataset.json").read_text())["digest"]))
            except (OSError, ValueError, KeyError):
                found += [f"{p.name} {p.stat().st_size}" for p in shard_files(folder)]
        return hashlib.sha256("\n".join(found).encode()).hexdigest()

    def subtasks(self) -> frozenset[str]:
        """Names of the subtasks of the rows whose answers are used."""
        return frozenset(
            kind
            for table in self._tables
            for row_id, kind in zip(
                table.column("id").to_pylist(), table.column("question_type").to_pylist(), strict=True
            )
            if self._is_answered(row_id)
        )

    def sample(self, number: int) -> Sample:
        """Sample `number`.

        Raises:
            SpatialError: a row that cannot be used, by its id. LeftOutError: its augmentation cannot be shown.
        """
        epoch, place = divmod(number, self.packs)
        chosen = self._epoch(epoch)[place]
        rows = [self._row(i) for i in chosen]
        home = self._homes[chosen[0][0]]
        first = rows[0]
        try:
            return self._packed(rows, home, number)
        except SceneProblem as problem:
            raise SpatialError(ErrorCode.BAD_DEPTH, f"row '{first.id}': {problem}") from None
        except SpatialError as error:
            if f"'{first.id}'" in error.sentence or error.sentence.startswith("row '"):
                raise
            raise SpatialError(error.code, f"row '{first.id}': {error.sentence}") from None
        except ValueError as error:
            raise SpatialError(ErrorCode.QUESTION_TOO_LONG, f"row '{first.id}': {error}") from None

    # -- one sample -------------------------------------------------------------------------------

    def _packed(self, rows: list[Row], home: Path, number: int) -> Sample:
        if self.config.augment is None:
            views = self._as_they_are(rows[0], home)
        else:
            rows, views = self._augmented(rows, home, number)
        shown = [self.viewer.show(i, c) for i, c in zip(views.images, views.cameras, strict=True)]
        rng = np.random.default_rng([self.seed, number, 3])
        served = rng.random(len(rows)) < self.config.served_words
        questions = [
            self._question(row, served=bool(is_served))
            for row, is_served in zip(rows, served, strict=True)
            if self._is_answered(row.id)
        ]
        return pack(
            f"row {rows[0].id}",
            shown,
            questions,
            self.form,
            targets=self._targets(views, [x.grid for x in shown]),
            max_tokens=self.config.max_tokens,
        )

    def _question(self, row: Row, *, served: bool) -> PackedQuestion:
        try:
            tasks.get(row.question_type).parse(row.answer)
        except SpatialError as error:
            raise SpatialError(
                error.code, f"row '{row.id}': its answer does not parse: {error.sentence}"
            ) from None
        if served:
            turn = (served_question(row), served_answer(row))
            return PackedQuestion((turn,), len(row.image), served_choices(row))
        return PackedQuestion(((_IMAGE_MARK.sub("", row.question), row.answer),), len(row.image))

    def _is_answered(self, row_id: str) -> bool:
        """Whether the answer of a row is used; the same in every epoch."""
        if self.config.answers_share >= 1.0:
            return True
        draw = hashlib.sha256(f"{self.seed} {row_id}".encode()).digest()
        return int.from_bytes(draw[:6], "big") / 2**48 < self.config.answers_share

    def _as_they_are(self, row: Row, home: Path) -> _Views:
        images = [read_image(home / name) for name in row.image]
        return _Views(images, self._cameras(row), _poses(row), self._depths(row))

    def _augmented(self, rows: list[Row], home: Path, number: int) -> tuple[list[Row], _Views]:
        """The first row drawn at random, and those of the others that the same draw can show."""
        assert self.config.augment is not None
        first = rows[0]
        self._cameras(first)  # says what is missing before anything is read
        sources = [read_image(home / name) for name in first.spatial.source_image]
        depths = self._depths(first)
        taken, views = [], None
        for row in rows:
            rng = np.random.default_rng([self.seed, number])
            changed = augment_row(row, sources, self.config.augment, rng, depths_m=depths)
            if changed is None:
                if views is None:
                    raise LeftOutError(first.id)
                continue
            found = _Views(
                changed.images, changed.cameras, np.stack(changed.world_from_camera), changed.depths_m
            )
            if views is None:
                views = found
            elif not _same_cameras(views, found):
                continue
            taken.append(changed.row)
        assert views is not None
        return taken, views

    def _cameras(self, row: Row) -> list[CameraModel | None]:
        spatial = row.spatial
        if len(spatial.k) != len(row.image) or not all(len(k) == 9 for k in spatial.k):
            if self.config.require_camera:
                raise SpatialError(
                    ErrorCode.NO_CALIBRATION,
                    f"row '{row.id}' has no K for each of its {len(row.image)} image(s), which the recipe requires",
                )
            return [None] * len(row.image)
        try:
            return [
                CameraModel.from_k(k, *size, d=d, distortion_model=model)
                for k, size, d, model in zip(
                    spatial.k, spatial.size, spatial.d, spatial.distortion, strict=True
                )
            ]
        except SpatialError as error:
            raise SpatialError(error.code, f"row '{row.id}': {error.sentence}") from None

    def _depths(self, row: Row) -> list[NDArray[np.float32] | None]:
        return [None] * len(row.image) if self.depth is None else self.depth.of_row(row)

    def _targets(self, views: _Views, grids: Sequence[tuple[int, int]]) -> tuple[RowTargets, ...] | None:
        if all(depth is None for depth in views.depths_m):
            return None
        found = []
        for i, (gh, gw) in enumerate(grids):
            poses = None if views.world_from_camera is None else views.world_from_camera[[0, i]]
            both = row_targets(
                [None, views.depths_m[i]],
                [None, views.cameras[i]],
                poses,
                grid_h=gh * self.viewer.cells,
                grid_w=gw * self.viewer.cells,
            )
            found.append(RowTargets(both.depth[1:], both.rays[1:], both.points[1:]))
        return tuple(found)

    # -- order ------------------------------------------------------------------------------------

    def _grouped(self) -> list[list[tuple[int, int]]]:
        """(table, row) of the rows of every image tuple."""
        groups: dict[tuple[Path, tuple[str, ...]], list[tuple[int, int]]] = {}
        for t, table in enumerate(self._tables):
            for r, images in enumerate(table.column("image").to_pylist()):
                groups.setdefault((self._homes[t], tuple(images)), []).append((t, r))
        return list(groups.values())

    def _order(self, epoch: int) -> list[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, 11, epoch])
        packs = []
        for group in self._groups:
            order = [group[i] for i in rng.permutation(len(group))]
            packs += [
                order[i : i + self.config.questions] for i in range(0, len(order), self.config.questions)
            ]
        return [packs[i] for i in rng.permutation(len(packs))]

    def _row(self, where: tuple[int, int]) -> Row:
        return next(from_table(self._tables[where[0]].slice(where[1], 1)))


def _table(shard: Path) -> pa.Table:
    try:
        return pq.read_table(shard)
    except (OSError, pa.ArrowException) as error:
        raise SpatialError(
            ErrorCode.NOT_READY, f"'{shard}' is not a whole shard of MultiSPA rows: {one_line(str(error))}"
        ) from None


def _poses(row: Row) -> NDArray[np.float64] | None:
    poses = row.spatial.world_from_camera
    if len(poses) != len(row.image) or not all(len(p) == 16 for p in poses):
        return None
    return np.asarray(poses, np.float64).reshape(-1, 4, 4)


def _same_cameras(a: _Views, b: _Views) -> bool:
    assert a.world_from_camera is not None and b.world_from_camera is not None
    return all(
        x is not None
        and y is not None
        and (x.width, x.height) == (y.width, y.height)
        and np.array_equal(x.k, y.k)
        for x, y in zip(a.cameras, b.cameras, strict=True)
    ) and np.array_equal(a.world_from_camera, b.world_from_camera)
