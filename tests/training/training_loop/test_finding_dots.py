"""The finder of dots: what it is shown, that it learns, its graph, and a bundle that asks about dots with it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import onnxruntime as ort
import pytest
import torch

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import AskRequest
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.model.bundle import DOTS
from spatial_mllm_core.tasks.dots import LABELS
from spatial_mllm_training.data import drawn_dots
from spatial_mllm_training.data.drawn_dots import DrawnDotsSource
from spatial_mllm_training.export.onnx_files import export_dots
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.dot_finder import (
    COLUMNS,
    HEIGHT,
    NOWHERE,
    ROWS,
    WIDTH,
    DotFinder,
    finding_loss,
    found_cells,
)
from spatial_mllm_training.multispa.dots import Dot, draw
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.train_dots import main
from spatial_mllm_training.training_loop.finding_dots import measured
from spatial_mllm_training.training_loop.setup import build_learner

SCENES = Path(__file__).parents[2] / "fixtures" / "simulated"
SHIPPED = Path(__file__).parents[3] / "models" / "spatial-mllm-mini"


@pytest.fixture
def scenes(tmp_path) -> Path:
    """One scene of a training seed, one of a validation seed, and one that only tests may show."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    first, second = sorted(SCENES.glob("scene_*.npz"))
    for seed, file in ((3, first), (100_003, second), (100_122, first)):
        (folder / f"scene_{seed:08d}.npz").symlink_to(file)
    return folder


@pytest.fixture
def source(scenes) -> DrawnDotsSource:
    return DrawnDotsSource(scenes, 0, validation=True)


def test_neither_training_nor_validation_looks_at_test_scenes(scenes, source):
    assert [file.name for file in source.files] == ["scene_00100003.npz"]
    training = DrawnDotsSource(scenes, 0, validation=False)
    assert [file.name for file in training.files] == ["scene_00000003.npz"]


def test_the_cell_of_a_dot_is_where_the_image_changed(source, monkeypatch):
    """Without other light, the image with dots differs from the one without around their cells alone."""
    monkeypatch.setattr(drawn_dots, "_in_other_light", lambda image, rng: image)
    shown = []
    monkeypatch.setattr(
        drawn_dots, "draw", lambda image, dots, rng: shown.append(image) or draw(image, dots, rng)
    )
    counts = set()
    for number in range(40):
        image, cells = source.sample(number)
        plain = drawn_dots.resized(shown[-1], WIDTH, HEIGHT)
        changed = np.abs(image.astype(int) - plain).sum(2)
        there = cells[cells < NOWHERE]
        counts.add(tuple(np.flatnonzero(cells < NOWHERE)))
        assert (changed.max() > 0) == bool(len(there))
        for cell in there:
            row, column = divmod(int(cell), COLUMNS)
            assert changed[4 * row : 4 * row + 4, 4 * column : 4 * column + 4].max() > 60
    assert counts == {(), (0,), (1, 2), (1, 2, 3, 4)}


def test_a_sample_is_the_same_whenever_it_is_drawn(scenes, source):
    again = DrawnDotsSource(scenes, 0, validation=True)
    for number in (0, 7):
        one, other = source.sample(number), again.sample(number)
        assert np.array_equal(one.image, other.image) and np.array_equal(one.cells, other.cells)
    assert source.digest() == again.digest() != DrawnDotsSource(scenes, 1, validation=True).digest()


def test_the_loss_is_that_of_a_softmax_over_cells_and_nowhere():
    torch.manual_seed(0)
    scores = torch.randn(2, 5, ROWS, COLUMNS, dtype=torch.float64)
    cells = torch.randint(0, NOWHERE + 1, (2, 5))
    cells[0, 0] = NOWHERE
    total = 0.0
    for image in range(2):
        for label in range(5):
            odds = np.append(np.exp(scores[image, label].numpy().ravel()), 1.0)
            total -= np.log(odds[cells[image, label]] / odds.sum())
    assert float(finding_loss(scores, cells)) == pytest.approx(total / 10)
    scores[1, 3] = -1.0
    scores[1, 4, 5, 6] = 9.0
    assert found_cells(scores)[1, 3:].tolist() == [NOWHERE, 5 * COLUMNS + 6]


def test_it_learns_and_its_graph_says_the_same(source, tmp_path):
    """Four images by heart; the graph's five bits move no score far."""
    torch.manual_seed(0)
    model = DotFinder().train()
    samples = [source.sample(number) for number in range(4)]
    images = torch.from_numpy(np.stack([s.image for s in samples]))
    cells = torch.from_numpy(np.stack([s.cells for s in samples]))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(60):
        loss = finding_loss(model(images), cells)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = (found_cells(model.eval()(images)) == cells).float().mean()
    assert right > 0.85
    export_dots(model, tmp_path / DOTS)
    session = ort.InferenceSession(str(tmp_path / DOTS), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": samples[0].image[None]})
    with torch.no_grad():
        wanted = model(images[:1]).numpy()
    assert np.abs(scores - wanted).mean() < 0.1 * np.abs(wanted).mean()
    assert (tmp_path / DOTS).stat().st_size < 250_000


def test_the_command_writes_a_graph_and_what_was_measured(scenes, tmp_path, capsys):
    """On scenes of test seeds alone nothing is trained: the sentence names what lacks."""
    assert main(["--scenes", str(SCENES), "--out", str(tmp_path / "dots"), "--steps", "2"]) == 2
    assert "holds no scene of training seeds" in capsys.readouterr().err
    assert main(["--scenes", str(scenes), "--out", str(tmp_path / "dots"), "--steps", "2"]) == 0
    assert "plain found" in capsys.readouterr().out
    record = json.loads((tmp_path / "dots" / "dots.json").read_text())
    assert record["steps"] == 2 and set(record["held_out"]) == {"plain_found", "lettered_found", "invented"}
    assert (tmp_path / "dots" / DOTS).is_file()


class Perfect(torch.nn.Module):
    """Knows the cells of what it is shown."""

    def __init__(self, source: DrawnDotsSource, batch: int) -> None:
        super().__init__()
        self.cells = (source.sample(number).cells for number in range(16 * batch))

    def forward(self, images):
        scores = torch.full((len(images), 5, NOWHERE), -1.0)
        for image in range(len(images)):
            for label, cell in enumerate(next(self.cells)):
                if cell < NOWHERE:
                    scores[image, label, cell] = 1.0
        return scores.unflatten(2, (ROWS, COLUMNS))


def test_who_knows_all_finds_all_and_invents_none(source):
    figures = measured(Perfect(source, 2), source, 2)
    assert figures == {"plain_found": 1.0, "lettered_found": 1.0, "invented": 0.0}


# -- a bundle with a finder ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory, tokenizer):
    """A bundle that has learnt nothing but to find dots, with the shipped finder."""
    folder = tmp_path_factory.mktemp("dotted")
    smoke = RECIPES["smoke"]()
    torch.manual_seed(0)
    model = dataclasses.replace(smoke.model, clips=True, pointers=True, deep_pointers=True)
    learner = build_learner(dataclasses.replace(smoke, model=model), tokenizer=tokenizer)
    (folder / "mini").mkdir()
    write_bundle(
        learner.model.eval().float(), smoke, tokenizer, folder / "mini",
        name="mini", version="0", subtasks=tasks.names(), progress={}, metrics={}, dots=SHIPPED / DOTS,
    )  # fmt: skip
    return SpatialModel.load(folder / "mini")


def dotted(stamp_ns: int, *dots: Dot) -> Frame:
    grey = np.full((192, 256, 3), 90, np.uint8)
    grey[::2] += 20
    image, _ = draw(cv2.GaussianBlur(grey, (9, 9), 3), dots, np.random.default_rng(stamp_ns))
    return Frame(stamp_ns, "optical", image, CameraModel.from_fov(256, 192, hfov_rad=1.1))


def test_a_question_about_a_dot_is_asked_by_its_coordinate(served):
    frame = dotted(1, Dot(64.0, 100.0))
    assert np.hypot(*(np.subtract(served.find_dots(frame)[""], (250, 520)))) < 40
    answer = served.ask(AskRequest("depth_estimation_dot", (frame,)))
    x, y = served.find_dots(frame)[""]
    assert answer.question == f"How deep is [ {x} , {y} ] in mm?"
    sister = served.ask(AskRequest("depth_estimation_coor", (frame,), ((x * 0.256, y * 0.192),)))
    assert (answer.text, answer.values, answer.kind, answer.unit) == (
        sister.text, sister.values, "scalar", "m"
    )  # fmt: skip
    free = served.ask(AskRequest("", (frame,), question="How deep is the annotated point in mm?"))
    assert free.question == answer.question and free.text == answer.text


def test_a_choice_is_the_letter_nearest_to_the_coordinate(served, monkeypatch):
    first, later = dotted(2, Dot(64.0, 100.0)), dotted(3)
    letters = {"A": (100, 100), "B": (900, 100), "C": (100, 900), "D": (900, 900)}
    monkeypatch.setattr(served, "find_dots", lambda frame, _: {"": (250, 520)} if frame is first else letters)
    sister = served.ask(AskRequest("visual_correspondence_coor_2_coor", (first, later), ((64.0, 99.84),)))
    said = []
    answer = served.ask(
        AskRequest("visual_correspondence_multiple_choice", (first, later)), on_text=said.append
    )
    u, v = sister.values
    apart = {label: np.hypot(x * 0.256 - u, y * 0.192 - v) for label, (x, y) in letters.items()}
    assert answer.label == min(apart, key=apart.get) and answer.kind == "label"
    assert said == [f"`{answer.label}`"]


def test_where_no_dot_is_found_the_words_stay(served, monkeypatch):
    monkeypatch.setattr(served, "find_dots", lambda frame, _: {})
    answer = served.ask(AskRequest("depth_estimation_dot", (dotted(4),)))
    assert answer.question == "How deep is the annotated point in mm?"


def test_a_bundle_without_a_finder_says_so(served, monkeypatch):
    monkeypatch.setattr(served, "manifest", dataclasses.replace(served.manifest, dots_w=0, dots_h=0))
    with pytest.raises(SpatialError) as fault:
        served.find_dots(dotted(5))
    assert fault.value.code is ErrorCode.UNKNOWN_TASK and DOTS in fault.value.sentence
    answer = served.ask(AskRequest("depth_estimation_dot", (dotted(5),)))
    assert answer.question == "How deep is the annotated point in mm?"


def test_a_graph_that_is_not_there_is_named(tmp_path, tokenizer):
    smoke = RECIPES["smoke"]()
    learner = build_learner(smoke, tokenizer=tokenizer)
    with pytest.raises(SpatialError) as fault:
        write_bundle(
            learner.model.eval().float(), smoke, tokenizer, tmp_path,
            name="mini", version="0", subtasks=(), progress={}, metrics={}, dots=tmp_path / "none" / DOTS,
        )  # fmt: skip
    assert fault.value.code is ErrorCode.MODEL_MISSING and "train_dots" in fault.value.sentence


def test_labels_are_those_of_the_published_choice():
    assert LABELS == ("", "A", "B", "C", "D")
