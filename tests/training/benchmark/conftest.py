"""Rows that are made by the tasks themselves, without scenes: text, truth and geometry, no pictures."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.tasks import TaskValue
from spatial_mllm_core.tasks.text import coordinate_to_pixel
from spatial_mllm_training.multispa.rows import Row, RowPoint, Spatial, to_table

SIZE = (640, 480)


def truth_for(task, rng) -> TaskValue:
    """A truth of the kind that the task has, whole in the published unit."""
    if task.kind == "label":
        return TaskValue(label=task.labels[int(rng.integers(len(task.labels)))])
    if task.kind == "coordinate":
        return TaskValue((float(rng.integers(100, 900)), float(rng.integers(100, 900))))
    if task.kind == "angle":
        return TaskValue((float(rng.integers(5, 60)),))
    if task.kind == "vector":
        return TaskValue(tuple(float(v) / 1000 for v in rng.integers(-900, 900, 3)))
    return TaskValue((float(rng.integers(200, 4000)) / 1000,))


def _make_row(
    subtask: str,
    number: int = 0,
    *,
    truth: TaskValue | None = None,
    scene: str = "room",
    split: str = "benchmark",
    points: tuple[tuple[int, int], ...] | None = None,
    variant: str | None = None,
    category: str = "",
    size: tuple[int, int] = SIZE,
    image: tuple[str, ...] | None = None,
    seed: int = 0,
) -> Row:
    task = tasks.get(subtask)
    rng = np.random.default_rng([seed, number])
    count = task.frame_count
    if points is None:
        points = tuple((int(x), int(y)) for x, y in rng.integers(50, 950, (task.point_count, 2)))
    if truth is None:
        truth = truth_for(task, rng)
        if task.kind == "coordinate" and task.point_count > 1:
            truth = TaskValue(tuple(float(c) for c in points[int(rng.integers(2))]))
    variant = (task.variants[0] if task.variants else "") if variant is None else variant
    category = category or ("chair" if task.reference == "category" else "")
    images = image or tuple(f"{scene}/{i}.jpg" for i in range(count))
    row_points = tuple(
        RowPoint(0, *coordinate_to_pixel(p, *size), 1.0, (0.0, 0.0, 1.0), "asked", "", False, 0, (0, 0, 0))
        for p in points
    )
    k = (500.0, 0.0, size[0] / 2, 0.0, 500.0, size[1] / 2, 0.0, 0.0, 1.0)
    return Row(
        id=f"{subtask}-{scene}-{number:06d}",
        question_type=subtask,
        image=images,
        question=task.prompt(count, points, variant=variant, category=category),
        answer=task.answer_text(truth, variant=variant, category=category),
        gt_value=task.gt_value(truth),
        spatial=Spatial(
            scene=scene,
            source="simulated",
            split=split,
            frames=tuple(f"f{i}" for i in range(count)),
            source_image=images,
            k=(k,) * count,
            size=(size,) * count,
            distortion=("plumb_bob",) * count,
            d=((),) * count,
            world_from_camera=(tuple(np.eye(4).ravel().tolist()),) * count,
            world_up=(0.0, 0.0, 1.0),
            points=row_points,
            truth=truth.values,
            unit=task.unit,
            label=truth.label,
            variant=variant,
            category=category,
        ),
    )


@pytest.fixture(scope="session")
def make_row():
    """A function (subtask, number, ...) -> Row with a random truth unless one is given."""
    return _make_row


@pytest.fixture(scope="session")
def every_row():
    """A function (rows per subtask, ...) -> rows of all 26 subtasks over five scenes."""

    def make(count: int = 4, **options):
        options.setdefault("seed", 1)
        return [
            _make_row(name, i, scene=f"room{i % 5}", **options)
            for name in tasks.names()
            for i in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def write_rows():
    """A function (folder, rows) that writes a data set folder of one shard."""

    def write(folder, rows):
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(rows), folder / "rows-00000.parquet")
        return folder

    return write
