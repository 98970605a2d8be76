"""The teacher of a run, beside the objective: what it says about a batch becomes part of the batch.

It looks at the images as the model sees them, after every augmentation, so that nothing it said can be
kept except where a recipe changes no image. It has no part in what is trained, saved or sent between
processes. Knows no loss and no optimiser.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.model.camera_aware import CameraAwareVLM
from spatial_mllm_training.recipes.config import DistillationConfig, TrainConfig
from spatial_mllm_training.teachers import (
    CachedTeacher,
    Teacher,
    TeacherOutput,
    View,
    build_teacher,
    targets_of,
)
from spatial_mllm_training.teachers.ray_grids import pinhole_of
from spatial_mllm_training.training_loop.batch import Batch, ImageGroup
from spatial_mllm_training.training_loop.setup import DataPaths

_PROBE_PX = 112


@runtime_checkable
class BatchTeacher(Protocol):
    """A teacher that looks at each image alone, and so at a whole batch of them at once."""

    @property
    def needs_camera(self) -> bool:
        """Whether what it says about an image without K means nothing."""
        ...

    def batch_features(
        self, pixels_BHW3: Tensor, rays_BN4: Tensor, has_camera_B: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """((B, h, w, D) last features, (B,) bool where they mean something)."""
        ...


def build_distiller(config: TrainConfig, paths: DataPaths, device: str = "cpu") -> Distiller | None:
    """The teacher that a recipe asks for, or None.

    Raises:
        SpatialError: of `teachers.build_teacher`; BACKEND_UNAVAILABLE for a teacher without features;
            NOT_READY for a cache that no image would be found in again.
    """
    if config.distillation is None:
        return None
    if paths.teacher_cache is not None and (config.mix.pairs or config.rows.augment is not None):
        raise SpatialError(
            ErrorCode.NOT_READY,
            f"recipe '{config.name}' changes its images, so that nothing a teacher said is asked again: "
            "leave out --teacher-cache",
        )
    teacher = build_teacher(config.distillation.teacher, weights=paths.teacher_weights, device=device)
    if paths.teacher_cache is not None:
        if isinstance(teacher, BatchTeacher):
            raise SpatialError(
                ErrorCode.NOT_READY,
                f"teacher '{teacher.name}' looks at whole batches, whose answers are not kept: "
                "leave out --teacher-cache",
            )
        teacher = CachedTeacher(teacher, paths.teacher_cache)
    return Distiller(teacher, config.distillation)


class Distiller:
    """A teacher at work on batches.

    Attributes:
        width: channels of its features.
        identity: of code and weights.
    """

    def __init__(self, teacher: Teacher, config: DistillationConfig) -> None:
        self.teacher, self.config = teacher, config
        probe = teacher.predict([View(np.zeros((_PROBE_PX, _PROBE_PX, 3), np.uint8))])
        if probe.features is None:
            raise SpatialError(
                ErrorCode.BACKEND_UNAVAILABLE,
                f"teacher '{teacher.name}' has no features that could be learnt",
            )
        self.width = int(probe.features[0].shape[-1])
        self.identity = f"{teacher.name} {teacher.version} {teacher.weights_hash()[:16]}"

    @torch.no_grad()
    def taught(self, batch: Batch) -> Batch:
        """The batch with features, and with depth, rays and points in rows without any, if that is asked for."""
        said = _Answers(self.teacher)
        groups = list(batch.groups)
        if self.config.weight:
            groups = [self._with_features(group, said) for group in groups]
        if self.config.fills_truth:
            for row in range(len(batch.ids)):
                groups = self._filled(groups, row, said)
        return replace(batch, groups=tuple(groups))

    def _with_features(self, group: ImageGroup, said: _Answers) -> ImageGroup:
        if isinstance(self.teacher, BatchTeacher):
            rows, columns = group.grid.tolist()
            features, knows = self.teacher.batch_features(
                group.pixels, group.rays, group.has_camera, (rows, columns)
            )
            return replace(group, features=features, is_taught=knows)
        found: list[Tensor | None] = [None] * len(group.place)
        for row in group.row.unique().tolist():
            output = said.about(group, row)
            for i, features in zip(_members(group, row), output.features or (), strict=True):
                found[i] = torch.from_numpy(features)
        stacked = torch.stack([f for f in found if f is not None]).to(group.pixels.device)
        return replace(group, features=stacked, is_taught=torch.ones_like(group.has_camera))

    def _filled(self, groups: list[ImageGroup], row: int, said: _Answers) -> list[ImageGroup]:
        """The groups with the teacher's truth in a row that has none; rows of two sizes are left alone."""
        having = [number for number, group in enumerate(groups) if (group.row == row).any()]
        if len(having) != 1:
            return groups
        group = groups[having[0]]
        members = _members(group, row)
        if group.depth[members].isfinite().any():
            return groups
        views = list(_views(group, members))
        if getattr(self.teacher, "needs_camera", False) and any(view.camera is None for view in views):
            return groups
        output = said.about(group, row)
        height, width = group.depth.shape[1:]
        truth = targets_of(output, grid_h=height, grid_w=width)
        changed = {
            name: _with(getattr(group, name), members, value)
            for name, value in (("depth", truth.depth), ("ray_map", truth.rays), ("point_map", truth.points))
        }
        is_metric = group.is_metric.clone()
        is_metric[row] = truth.is_metric
        groups = [replace(g, is_metric=is_metric) for g in groups]
        groups[having[0]] = replace(groups[having[0]], **changed)
        return groups


class _Answers:
    """What a teacher said about the rows of one batch, asked once."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self._said: dict[tuple[int, int], TeacherOutput] = {}

    def about(self, group: ImageGroup, row: int) -> TeacherOutput:
        """The images of a row that have one size, looked at together."""
        members = _members(group, row)
        key = (row, int(group.place[members[0]]))
        if key not in self._said:
            self._said[key] = self._teacher.predict(list(_views(group, members)))
        return self._said[key]


def add_projector(model: CameraAwareVLM, teacher_width: int) -> None:
    """Give a model the projector that only training with a teacher needs; what is served has none."""
    model.heads = dataclasses.replace(model.heads, teacher_width=teacher_width)
    model.feature_projector = model.heads.feature_projector(model.decoder_config.hidden_size)


def _members(group: ImageGroup, row: int) -> list[int]:
    return torch.nonzero(group.row == row).flatten().tolist()


def _views(group: ImageGroup, members: list[int]) -> Iterator[View]:
    rows, columns = group.grid.tolist()
    height, width = group.pixels.shape[1:3]
    for i in members:
        camera = pinhole_of(group.rays[i], (rows, columns), width, height) if group.has_camera[i] else None
        yield View(group.pixels[i].cpu().numpy(), camera)


def _with(map_: Tensor | None, members: list[int], value: np.ndarray) -> Tensor | None:
    if map_ is None:
        return None
    map_ = map_.clone()
    map_[members] = torch.from_numpy(value).to(map_)
    return map_
