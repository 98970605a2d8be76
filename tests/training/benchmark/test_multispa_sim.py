"""What defines MultiSPA-Sim: held-out seeds, enough rows, nothing of it in the training part."""

from __future__ import annotations

from spatial_mllm_core import tasks
from spatial_mllm_training.benchmark import multispa_sim as sim
from spatial_mllm_training.make_scenes import parse_arguments
from spatial_mllm_training.multispa.split import split_of
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
