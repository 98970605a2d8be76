"""Rows of all 26 subtasks from simulated scenes, with their pictures and depth."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_training.multispa.rows import Row, RowPoint, Spatial, read_rows
from spatial_mllm_training.multispa.run import make_dataset
from spatial_mllm_training.sources.simulated import find_scenes

FIXTURES = Path(__file__).parents[2] / "fixtures" / "simulated"


class Example(NamedTuple):
    row: Row
    images: list[np.ndarray]
    depths_m: list[np.ndarray]


@pytest.fixture(scope="session")
def examples(tmp_path_factory) -> list[Example]:
    out = tmp_path_factory.mktemp("augment") / "data"
    refs = find_scenes(FIXTURES)
    make_dataset(refs, out, dict.fromkeys(tasks.names(), 4), split=None, quiet=True)
    scenes = {ref.name: ref.open(*ref.arguments) for ref in refs}
    found = []
    for row in read_rows(out):
        scene = scenes[row.spatial.scene]
        numbers = {frame.name: i for i, frame in enumerate(scene.frames)}
        images = [
            cv2.imread(str(out / "images" / path))[..., ::-1].copy() for path in row.spatial.source_image
        ]
        found.append(Example(row, images, [scene.depth_m(numbers[name]) for name in row.spatial.frames]))
    assert {e.row.question_type for e in found} == set(tasks.names())
    return found


@pytest.fixture(scope="session")
def depth_row():
    """A function (camera, pixel, depth_m) that makes a one-image row about the depth of a pixel."""

    def make(camera, pixel, depth_m=2.0):
        u, v = pixel
        where = (camera.unproject([[u, v]], [depth_m]))[0]
        point = RowPoint(0, u, v, depth_m, tuple(where.tolist()), "asked", "", False, 0, (0, 0, 0))
        spatial = Spatial(
            scene="made",
            source="made",
            split="train",
            frames=("0",),
            source_image=("made/0.jpg",),
            k=(tuple(camera.k.ravel().tolist()),),
            size=((camera.width, camera.height),),
            distortion=(camera.distortion_model,),
            d=(tuple(camera.d.tolist()),),
            world_from_camera=(tuple(np.eye(4).ravel().tolist()),),
            world_up=(),
            points=(point,),
            truth=(depth_m,),
            unit="m",
            label="",
        )
        return Row("made-0", "depth_estimation_coor", ("made/0.jpg",), "", "", 0, spatial)

    return make
