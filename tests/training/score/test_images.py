"""Scenes go to the set of their seed and camera; images are spread evenly, and the same each time."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from spatial_mllm_core.errors import SpatialError
from spatial_mllm_training.score import images
from spatial_mllm_training.sources import SceneProblem


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_scene):
    folder = tmp_path_factory.mktemp("score") / "scenes"
    folder.mkdir()
    for seed in (1, 2, 100_000, 100_100, 100_101):
        path = folder / f"scene_{seed:08d}.npz"
        write_scene(path, seed)
        with np.load(path) as file:
            arrays = dict(file)
        half_deg = 31 if seed == 100_101 else 35  # 62 degrees are held out
        arrays["k"] = np.array([[128 / np.tan(np.radians(half_deg)), 0, 100.0], [0, 210, 92], [0, 0, 1]])
        arrays |= {"kind": np.str_("tabletop"), "seed": np.int64(seed)}
        arrays |= {"body_size_m": np.ones((3, 3)), "body_category": np.array(["world", "cup", "box"])}
        np.savez(path, **arrays)
    return folder


def test_sets_by_seed_and_camera(folder):
    sets = images.scene_sets([folder], range(100_100, 200_000))
    assert [r.seed for r in sets.training] == [1, 2]
    assert [r.seed for r in sets.known_cameras] == [100_100]
    assert [r.seed for r in sets.other_cameras] == [100_101]
    # training scenes are never tested on, whatever is asked for
    assert [r.seed for r in images.scene_sets([folder], range(200_000)).known_cameras] == [100_000, 100_100]


def test_without_test_scenes_a_sentence_says_so(folder, tmp_path):
    with pytest.raises(SpatialError, match="need training scenes and test scenes") as fault:
        images.scene_sets([folder], range(100_200, 100_300))
    assert "found 2 and 0" in fault.value.sentence
    with pytest.raises(SceneProblem, match="make_scenes"):
        images.scene_sets([tmp_path], range(9))


def test_images_are_spread_over_scenes_and_the_same_each_time(folder):
    refs = images.find_scenes(folder)
    picked = images.draw(refs, 12, seed=3)
    names = [(p.scene, p.frame) for _, places in picked for p in places]
    assert len(set(names)) == len(names) == 15, "at least 12, equally many of each of five scenes"
    assert set(Counter(scene for scene, _ in names).values()) == {3}
    assert [p for _, p in images.draw(refs, 12, seed=3)] == [p for _, p in picked]
    assert [p for _, p in images.draw(refs, 12, seed=4)] != [p for _, p in picked]
    assert len(images.draw(refs, 2, seed=0)) == 2
    assert sum(len(p) for _, p in images.draw(refs, 1000, seed=0)) == 30, "no more than there are"
    assert images.draw(refs, 0, seed=0) == []
    turns = [p.scene for _, places in images.in_turn(picked) for p in places]
    assert len(turns) == 15 and len(set(turns[:5])) == 5 and turns[:5] == turns[5:10]
    notes: list[str] = []
    read = list(images.posed(picked, notes))
    assert [(i.place.scene, i.place.frame) for i in read] == names and not notes
    assert read[0].true_m.shape == (192, 256)
