"""Asks a bundle the questions of a benchmark with the runtime that serves it; knows no truths."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.benchmark.data import BenchmarkProblem, Predictions
from spatial_mllm_training.data.served_words import served_choices, served_question
from spatial_mllm_training.multispa.rows import Row

_FRAMES_KEPT = 8


def ask_bundle(bundle: str | Path, rows: Sequence[Row], images: Path, *, quiet: bool = False) -> Predictions:
    """The texts of a bundle for the subtasks of its manifest.

    The words are the runtime's own (first template, with the row's wording and category), not the
    row's; letters, directions and named points are chosen among the admissible ones, coordinates read as such;
    and every image comes with its K. A question that the runtime refuses stays unanswered.

    Args:
        images: folder that the rows' image paths start from.

    Raises:
        SpatialError: the bundle does not load.
        BenchmarkProblem: an image that does not open, or a bundle that serves none of the subtasks.
    """
    model = SpatialModel.load(bundle)
    served = frozenset(model.manifest.tasks)
    # neighbours in this order share frames, which the runtime reads only once
    asked = sorted((r for r in rows if r.question_type in served), key=lambda r: (r.image, r.id))
    if not asked:
        raise BenchmarkProblem(f"the bundle {model.name} serves none of the subtasks in this data set")
    frames = _Frames(images)
    texts: dict[str, str] = {}
    faults: Counter[str] = Counter()
    for row in tqdm(asked, unit="question", disable=quiet):
        request = AskRequest(
            "",
            tuple(frames.get(row, i) for i in range(len(row.image))),
            question=served_question(row),
            choices=served_choices(row),
            wants_coordinate=tasks.get(row.question_type).kind == "coordinate",
        )
        try:
            texts[row.id] = model.ask(request).text
        except SpatialError as fault:
            faults[f"{fault.code.name}: {fault.sentence}"] += 1
    notes = tuple(f"{n} questions were refused by the runtime, {fault}." for fault, n in faults.most_common())
    return Predictions(model.name, texts, served, notes)


class _Frames:
    """The last frames by path: the runtime knows a frame again by its image and stamp."""

    def __init__(self, images: Path) -> None:
        self._images = images
        self._kept: OrderedDict[str, Frame] = OrderedDict()
        self._count = 0

    def get(self, row: Row, index: int) -> Frame:
        path = row.image[index]
        if path not in self._kept:
            self._count += 1
            self._kept[path] = self._read(row, index)
            if len(self._kept) > _FRAMES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(path)
        return self._kept[path]

    def _read(self, row: Row, index: int) -> Frame:
        file = self._images / row.image[index]
        image = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if image is None:
            raise BenchmarkProblem(f"row '{row.id}': the image {file} does not open")
        spatial = row.spatial
        width, height = spatial.size[index]
        if image.shape[:2] != (height, width):
            found = f"{image.shape[1]}x{image.shape[0]}"
            raise BenchmarkProblem(
                f"row '{row.id}': the image {file} is {found} px, its camera is {width}x{height} px"
            )
        camera = CameraModel.from_k(
            spatial.k[index],
            width,
            height,
            d=spatial.d[index],
            distortion_model=spatial.distortion[index] or "plumb_bob",
            frame_id="optical",
        )
        rgb = np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        return Frame(self._count, "optical", rgb, camera)
