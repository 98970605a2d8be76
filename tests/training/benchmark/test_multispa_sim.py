"""What defines MultiSPA-Sim: held-out seeds, enough rows, nothing of it in the training part."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.benchmark import multispa_sim as sim
from spatial_mllm_training.benchmark.data import Predictions, load_rows
from spatial_mllm_training.benchmark.scoring import score
from spatial_mllm_training.make_scenes import parse_arguments
from spatial_mllm_training.multispa.split import split_of
from spatial_mllm_training.scenes.render import choose_gl
from spatial_mllm_training.scenes.split import FIRST_HELD_OUT_SEED, FIRST_TEST_SEED
from spatial_mllm_training.sources import SceneRef


def test_it_is_26_times_300_rows_and_the_mini_26_times_20():
    assert len(tasks.names()) == 26
    assert (sim.FULL.rows, sim.MINI.rows) == (300, 20)
    assert sim.FULL.rows * len(tasks.names()) == 7800


def test_its_scenes_are_test_scenes_and_those_of_the_blind_baseline_are_not():
    for recipe in (sim.FULL, sim.MINI, sim.FULL_TRAINING, sim.MINI_TRAINING):
        refs = [SceneRef(f"scene_{s:08d}", "simulated", open, (), seed=s) for s in recipe.seeds]
        assert {split_of(ref) for ref in refs} == {recipe.split}
    assert min(sim.FULL.seeds) == min(sim.MINI.seeds) == FIRST_TEST_SEED
    assert max(sim.FULL_TRAINING.seeds) < FIRST_HELD_OUT_SEED


def test_scenes_have_held_out_cameras_only_in_the_benchmark(tmp_path):
    for recipe, cameras in ((sim.MINI, "held-out"), (sim.MINI_TRAINING, "training"), (sim.FULL, "held-out")):
        arguments = parse_arguments(sim.scene_arguments(recipe, tmp_path, 2))
        assert arguments.cameras == cameras
        assert arguments.seeds == recipe.seeds
        assert (arguments.size, arguments.views) == (recipe.size, recipe.views)
        assert (arguments.steps, arguments.workers) == (recipe.steps, 2)
        assert arguments.domain == "broad"
    mats = parse_arguments(sim.scene_arguments(replace(sim.MINI, domain="mat"), tmp_path, 2))
    assert (mats.domain, mats.seeds) == ("mat", sim.MINI.seeds)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Rows made as the benchmark is, of three small scenes."""
    pytest.importorskip("mujoco", reason="MuJoCo is not installed: scenes cannot be drawn")
    try:
        choose_gl()
    except SpatialError as error:
        pytest.skip(error.sentence)
    folder = tmp_path_factory.mktemp("sim")
    seeds = range(FIRST_TEST_SEED, FIRST_TEST_SEED + 3)
    recipe = sim.Recipe("benchmark", seeds, rows=3, views=6, steps=3, size=(160, 120))
    summary = sim.make_rows(recipe, folder / "scenes", folder / "small", workers=0)
    assert summary.failures == []
    return load_rows(folder / "small")


def test_simulation_gives_all_26_and_its_truths_score_100(small):
    assert Counter(row.question_type for row in small) == dict.fromkeys(tasks.names(), 3)
    assert {row.spatial.split for row in small} == {"benchmark"}
    result = score(small, Predictions("truth", {r.id: r.answer for r in small}), None, data="small")
    assert result.group_mean.robust.percent == pytest.approx(100)
    assert result.group_mean.strict.percent == pytest.approx(100)
    assert sum(s.zero_truth for s in result.subtasks) == 0


def test_the_camera_moves_in_adt_rows_and_not_in_pstudio_rows(small):
    for row in small:
        if row.question_type.startswith("tapvid3d"):
            first, second = (np.reshape(pose, (4, 4)) for pose in row.spatial.world_from_camera)
            assert np.allclose(first, second, atol=1e-6) == row.question_type.endswith("pstudio")


def test_nothing_is_asked_about_movements_below_the_margins(small):
    least = {"m": 0.02, "deg": 2.0}
    moved = [
        row
        for row in small
        if row.question_type.startswith("tapvid3d")
        or row.question_type in ("total_distance", "displacement_vector", "yaw_angle", "pitch_angle")
    ]
    assert len(moved) == 3 * 12
    for row in moved:
        assert np.linalg.norm(row.spatial.truth) >= least[row.spatial.unit] - 1e-9, row.id


def test_a_finished_benchmark_or_a_file_is_refused_before_anything_is_drawn(tmp_path):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "dataset.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for name, sentence in (("done", "finished data set"), ("file", "is a file")):
        with pytest.raises(SpatialError, match=sentence):
            sim.make_benchmark(tmp_path / name, mini=True, workers=0)
        assert not (tmp_path / f"{name}.work").exists()
