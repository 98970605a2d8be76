"""A bundle answers a benchmark as it answers live: same words, same frames, same text."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_training.benchmark import serving
from spatial_mllm_training.benchmark.__main__ import main
from spatial_mllm_training.benchmark.data import BenchmarkProblem

BUNDLE = Path(__file__).parents[3] / "models" / "spatial-mllm-mini"
SIZE = (256, 192)
pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="needs the shipped model")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two blurred noise pictures of one scene."""
    folder = tmp_path_factory.mktemp("sim") / "images"
    (folder / "room").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(2):
        noise = rng.integers(0, 255, (*SIZE[::-1], 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "room" / f"{i}.jpg"), cv2.GaussianBlur(noise, (0, 0), 6) * 2)
    return folder


@pytest.fixture
def rows(make_row):
    return [make_row(name, size=SIZE) for name in tasks.names()]


def test_answers_are_those_of_the_live_runtime(images, rows):
    predictions = serving.ask_bundle(BUNDLE, rows, images, quiet=True)
    model = SpatialModel.load(BUNDLE)
    assert predictions.served == set(model.manifest.tasks)
    assert predictions.model == model.name
    assert predictions.notes == ()
    served = [r for r in rows if r.question_type in predictions.served]
    assert set(predictions.texts) == {r.id for r in served}
    for row in served:
        frames = []
        for i, path in enumerate(row.image):
            image = np.ascontiguousarray(cv2.imread(str(images / path))[:, :, ::-1])
            frames.append(Frame(100 + i, "optical", image, CameraModel.from_k(row.spatial.k[i], *SIZE)))
        asked = [p for p in row.spatial.points if p.role == "asked"]
        points = tuple((p.u_px, p.v_px) for p in asked[: tasks.get(row.question_type).point_count])
        request = AskRequest(
            row.question_type,
            tuple(frames),
            points,
            category=row.spatial.category,
            variant=row.spatial.variant,
        )
        said = [""]
        try:  # a text that cannot be parsed is refused live; what was said is compared all the same
            model.ask(request, on_text=lambda text, said=said: said.append(text))
        except SpatialError:
            pass
        assert predictions.texts[row.id] == said[-1].strip()


def test_faults_name_the_row_and_the_image(tmp_path, images, make_row):
    with pytest.raises(
        BenchmarkProblem, match=r"row 'x_movement-room-000000': the image .*0\.jpg does not open"
    ):
        serving.ask_bundle(BUNDLE, [make_row("x_movement", size=SIZE)], tmp_path, quiet=True)
    with pytest.raises(BenchmarkProblem, match="is 256x192 px, its camera is 640x480 px"):
        serving.ask_bundle(BUNDLE, [make_row("x_movement")], images, quiet=True)


@pytest.fixture
def few(tmp_path):
    """The bundle, said to be trained for three subtasks."""
    shutil.copytree(BUNDLE, tmp_path / "few")
    manifest = json.loads((tmp_path / "few" / "manifest.json").read_text())
    manifest["tasks"] = ["depth_estimation_coor", "x_movement", "total_distance"]
    (tmp_path / "few" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path / "few"


def test_what_a_bundle_does_not_serve_is_said(few, images, rows, make_row, write_rows, capsys):
    with pytest.raises(BenchmarkProblem, match="serves none of the subtasks"):
        serving.ask_bundle(few, [make_row("depth_estimation_dot", size=SIZE)], images, quiet=True)
    data = write_rows(images.parent, rows)
    assert main(["score", "--data", str(data), "--bundle", str(few)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"  yaw_angle .* not served", printed)
    assert "mean of the 3 subtasks that are served" in printed
