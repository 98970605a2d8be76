"""What two images are told of each other, judged: a perfect matcher is always right, and the command says so."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model import SpatialModel
from spatial_mllm_core.model.told import COUNT, of_camera
from spatial_mllm_core.two_view.view_pair import CameraMovement
from spatial_mllm_training.export.write_bundle import write_bundle
from spatial_mllm_training.model.matcher import MatcherSize
from spatial_mllm_training.probe import two_views
from spatial_mllm_training.probe.__main__ import main
from spatial_mllm_training.recipes import RECIPES
from spatial_mllm_training.training_loop.setup import build_learner

SCENES = Path(__file__).parents[2] / "fixtures" / "simulated"
FILES = sorted(SCENES.glob("scene_*.npz"))
ROWS, COLUMNS = 24, 32


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, tokenizer):
    """A bundle with a matcher that has learnt nothing."""
    smoke = RECIPES["smoke"]()
    torch.manual_seed(0)
    matcher = MatcherSize(stem=8, channels=16, dilations=(1,), features=16)
    model = dataclasses.replace(smoke.model, clips=True, pointers=True, deep_pointers=True, matcher=matcher)
    learner = build_learner(dataclasses.replace(smoke, model=model), tokenizer=tokenizer)
    folder = tmp_path_factory.mktemp("bundle") / "mini"
    folder.mkdir()
    write_bundle(
        learner.model.eval().float(), smoke, tokenizer, folder,
        name="mini", version="0", subtasks=("total_distance",), progress={}, metrics={},
    )  # fmt: skip
    return folder


class Perfect:
    """Knows where every cell went and how the camera moved, from the scene file."""

    manifest = SimpleNamespace(width=128, height=96)

    def __init__(self, monkeypatch, *, says_nothing=False):
        self.says_nothing = says_nothing
        drawn = two_views.ViewPairs.draw

        def draw(pairs, rng):
            self.views, cameras = drawn(pairs, rng)
            return self.views, cameras

        monkeypatch.setattr(two_views.ViewPairs, "draw", draw)

    def compare(self, first, later):
        places = two_views.match_map(*self.views, ROWS, COLUMNS).reshape(-1, 3)[:, :2]
        poses = [np.array(view.world_from_camera) for view in self.views]
        relative = np.linalg.inv(poses[0]) @ poses[1]
        turn = two_views.camera_motion.camera_turn_deg(*poses, np.array([0.0, 0.0, 1.0]))
        return SimpleNamespace(
            first=SimpleNamespace(features=np.zeros((ROWS, COLUMNS, 1))),
            found=SimpleNamespace(places=places + 0.03),
            movement=None if self.says_nothing else CameraMovement(relative[:3, 3], turn, 1.0),
        )


def test_who_knows_all_is_always_right(monkeypatch):
    score = two_views.judge(Perfect(monkeypatch), FILES, pairs=12)
    assert score.pairs == 12 and score.without_pose == 0
    assert max(score.offset_errors_m) < 1e-9
    figures = {name: (right, blind) for name, right, _, blind in score.rows()}
    assert len(figures) == 11
    for name, (right, blind) in figures.items():
        assert right == 100.0 or (name == two_views.MOVED and right is None)  # where nothing moved
        assert (blind is None) == (name in (two_views.MATCHES, two_views.MOVED))
    assert 50.0 <= figures["x_movement"][1] <= 100.0
    assert figures["displacement_vector"][1] < 60.0


def test_who_says_nothing_is_never_right(monkeypatch):
    score = two_views.judge(Perfect(monkeypatch, says_nothing=True), FILES, pairs=6)
    figures = {name: right for name, right, *_ in score.rows()}
    assert score.without_pose == 6 and not score.offset_errors_m
    assert figures["total_distance"] == figures["yaw_movement"] == 0.0
    assert "6 without a pose" in two_views.table(score)


def test_the_command_prints_a_table_and_writes_figures(bundle, tmp_path, capsys):
    out = tmp_path / "matches.json"
    arguments = ["matches", "--bundle", str(bundle), "--scenes", str(SCENES), "--test", "--pairs", "3"]
    assert main([*arguments, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "total_distance" in told and "3 pairs" in told
    found = json.loads(out.read_text())
    assert found["model"] == "mini/0" and found["pairs"] == 3
    assert set(found["figures"]["x_movement"]) == {"right_percent", "standard_error", "one_answer_percent"}


def test_far_pairs_can_be_asked_for(monkeypatch, bundle):
    drawn = []
    known = two_views.ViewPairs
    monkeypatch.setattr(two_views, "ViewPairs", lambda *a, **k: drawn.append(a[1]) or known(*a, **k))
    arguments = ["matches", "--bundle", str(bundle), "--scenes", str(SCENES), "--test", "--pairs", "1"]
    assert main([*arguments, "--far"]) == main(arguments) == 0
    assert [config.far for config in drawn] == [1.0, 0.0]


def test_faults_are_one_sentence(bundle, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["matches", "--bundle", str(bundle), "--scenes", str(tmp_path / "empty")]) == 2
    assert "no validation scene" in capsys.readouterr().err


def frame(stamp, seed, camera):
    image = np.random.default_rng(seed).integers(0, 255, (96, 128, 3), dtype=np.uint8)
    return Frame(stamp, "optical", image, camera)


def test_two_frames_are_compared_by_the_runtime(bundle):
    model = SpatialModel.load(bundle)
    camera = CameraModel.from_fov(128, 96, hfov_rad=1.2)
    one, two = frame(1, 0, camera), frame(2, 1, camera)
    pair = model.compare(one, two)
    rows, columns = model.manifest.height // 4, model.manifest.width // 4
    assert pair.first.features.shape == (rows, columns, 16)
    assert len(of_camera(pair.movement).shares) == COUNT
    assert model.compare(one, two) is pair  # kept with its prefix
    with pytest.raises(SpatialError) as fault:
        model.compare(one, one)
    assert fault.value.code is ErrorCode.SAME_FRAME_TWICE
    with pytest.raises(SpatialError) as fault:
        model.compare(one, frame(3, 2, None))
    assert fault.value.code is ErrorCode.NO_CALIBRATION
