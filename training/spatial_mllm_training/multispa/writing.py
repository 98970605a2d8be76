"""From drafts to rows: words from the tasks, images with dots on disk; knows nothing about geometry."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks.text import coordinate_to_pixel, pixel_to_coordinate
from spatial_mllm_training.multispa import dots
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.generators import random_for
from spatial_mllm_training.multispa.rows import Row, RowPoint, Spatial
from spatial_mllm_training.sources import Scene, SceneProblem


class SceneWriter:
    """Turns one scene's drafts into rows and image files.

    Images go to `images/.<scene>.part` and are renamed to `images/<scene>` by `finish`, so that
    a scene's folder is whole or not there.
    """

    def __init__(self, scene: Scene, images: Path, *, split: str, seed: int, jpeg_quality: int = 95) -> None:
        self._scene, self._split, self._seed, self._quality = scene, split, seed, jpeg_quality
        self._folder = images / scene.name
        self._part = images / f".{scene.name}.part"
        shutil.rmtree(self._part, ignore_errors=True)
        self._part.mkdir(parents=True)
        self._written: dict[int, str] = {}

    def row(self, draft: Draft, number: int) -> Row:
        """The row of a draft; writes its images.

        Raises:
            SceneProblem: an image that does not open or cannot be written.
        """
        task = tasks.get(draft.subtask)
        row_id = f"{draft.subtask}-{self._scene.name}-{number:06d}"
        rng = random_for(self._seed, row_id)
        questions = task.questions_of(draft.variant)
        templates = (
            int(rng.integers(len(task.descriptions))),
            int(rng.integers(len(questions))),
            int(rng.integers(len(task.answers))),
        )
        sizes = [self._size(frame) for frame in draft.frames]
        sources = tuple(self._source(frame) for frame in draft.frames)
        asked = [p for p in draft.points if p.role == "asked"]
        named = asked[: task.point_count]
        coordinates = tuple(pixel_to_coordinate((p.u_px, p.v_px), *sizes[p.image]) for p in named)
        images, points = self._draw(task, draft, row_id, sources, rng)
        truth = draft.truth.values
        if task.kind == "coordinate":
            truth = coordinate_to_pixel((truth[0], truth[1]), *sizes[task.answer_image])
        return Row(
            id=row_id,
            question_type=draft.subtask,
            image=images,
            question=task.prompt(
                len(images),
                coordinates,
                templates=templates[:2],
                variant=draft.variant,
                category=draft.category,
            ),
            answer=task.answer_text(
                draft.truth, template=templates[2], variant=draft.variant, category=draft.category
            ),
            gt_value=task.gt_value(draft.truth),
            spatial=Spatial(
                scene=self._scene.name,
                source=self._scene.source,
                split=self._split,
                frames=tuple(self._scene.frames[f].name for f in draft.frames),
                source_image=sources,
                k=tuple(_numbers(self._scene.frames[f].camera.k) for f in draft.frames),
                size=tuple(sizes),
                distortion=tuple(self._scene.frames[f].camera.distortion_model for f in draft.frames),
                d=tuple(_numbers(self._scene.frames[f].camera.d) for f in draft.frames),
                world_from_camera=tuple(
                    _numbers(self._scene.frames[f].world_from_camera) for f in draft.frames
                ),
                world_up=() if self._scene.world_up is None else _numbers(self._scene.world_up),
                points=points,
                truth=truth,
                unit=task.unit,
                label=draft.truth.label,
                variant=draft.variant,
                category=draft.category,
                group=draft.group,
                templates=templates,
            ),
        )

    def finish(self) -> None:
        """Give the images their final folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._part.rename(self._folder)

    def abandon(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._part, ignore_errors=True)

    def _size(self, frame: int) -> tuple[int, int]:
        camera = self._scene.frames[frame].camera
        return camera.width, camera.height

    def _source(self, frame: int) -> str:
        """Path of a frame's image without dots, written when first asked for."""
        if frame not in self._written:
            file = f"{self._scene.frames[frame].name}.jpg"
            self._save(file, self._scene.image(frame))
            self._written[frame] = f"{self._scene.name}/{file}"
        return self._written[frame]

    def _save(self, file: str, image: NDArray[np.uint8]) -> None:
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, self._quality]
        )
        if not done:
            raise SceneProblem(self._scene.name, file, "the image cannot be encoded")
        try:
            (self._part / file).write_bytes(data.tobytes())
        except OSError as error:
            raise SceneProblem(
                self._scene.name, file, f"the image cannot be written ({error.strerror})"
            ) from error

    def _draw(
        self,
        task: tasks.Task,
        draft: Draft,
        row_id: str,
        sources: Sequence[str],
        rng: np.random.Generator,
    ) -> tuple[tuple[str, ...], tuple[RowPoint, ...]]:
        """The row's images, with dots where the subtask refers by dots, and its points."""
        images = list(sources)
        marks: dict[int, dots.DrawnDot] = {}
        if task.reference == "dot":
            for image, frame in enumerate(draft.frames):
                here = [i for i, p in enumerate(draft.points) if p.image == image and p.role != "answer"]
                if not here:
                    continue
                canvas, drawn = dots.draw(
                    self._scene.image(frame),
                    [
                        dots.Dot(draft.points[i].u_px, draft.points[i].v_px, draft.points[i].label)
                        for i in here
                    ],
                    rng,
                )
                marks.update(zip(here, drawn, strict=True))
                file = f"{row_id}_{image + 1}.jpg"
                self._save(file, canvas)
                images[image] = f"{self._scene.name}/{file}"
        points = tuple(_row_point(p, marks.get(i)) for i, p in enumerate(draft.points))
        return tuple(images), points


def _row_point(point: DraftPoint, mark: dots.DrawnDot | None) -> RowPoint:
    return RowPoint(
        image=point.image,
        u_px=point.u_px,
        v_px=point.v_px,
        depth_m=point.depth_m,
        point_in_world_m=point.point_in_world_m,
        role=point.role,
        label=point.label,
        drawn=mark is not None,
        radius_px=mark.radius_px if mark else 0,
        rgb=mark.rgb if mark else (0, 0, 0),
    )


def _numbers(array: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(v) for v in np.ravel(array))
