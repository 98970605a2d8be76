"""Which images are picked, what of them is left out and why, and depth at the pixels of the colour image."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.probe.picking import pick
from spatial_mllm_training.probe.problems import ProbeProblem
from spatial_mllm_training.sources import SceneFrame
from spatial_mllm_training.sources.posed_images import depth_in_colour, read


def test_frames_are_spread_evenly_over_the_scenes_of_the_splits(slope_ref):
    refs = [slope_ref("a", 9, seed=1), slope_ref("b", 2, seed=2), slope_ref("c", 5, seed=100_200)]
    picked, skipped = pick(refs, per_scene=3, splits=("train",))
    assert [[p.position for p in places] for _, places in picked] == [[0, 4, 8], [0, 1]]
    assert {p.split for _, places in picked for p in places} == {"train"}
    assert skipped == []
    held_out, _ = pick(refs, per_scene=3, splits=("benchmark",))
    assert [(p.scene, p.frame) for p in held_out[0][1]] == [("c", "f00"), ("c", "f02"), ("c", "f04")]


def test_exactly_the_wanted_frames_are_picked(slope_ref):
    refs = [slope_ref("a", 9), slope_ref("b", 9)]
    picked, _ = pick(refs, per_scene=1, splits=("train",), wanted={"b": {"f03", "f07", "nowhere"}})
    assert [(p.scene, p.frame) for _, places in picked for p in places] == [("b", "f03"), ("b", "f07")]


def test_scenes_without_depth_are_named_and_none_at_all_is_a_fault(slope_ref):
    refs = [slope_ref("a", 2), slope_ref("flat", 2, has_depth=False)]
    _, skipped = pick(refs, per_scene=3, splits=("train",))
    assert skipped == ["scene 'flat': has no depth images to compare with"]
    with pytest.raises(ProbeProblem, match=r"split train; scene 'flat': has no depth images"):
        pick(refs[1:], per_scene=3, splits=("train",))
    with pytest.raises(ProbeProblem, match=r"none of 2 scenes .* split benchmark"):
        pick(refs, per_scene=3, splits=("benchmark",))


def test_an_image_that_does_not_open_is_named_and_the_others_are_read(slope_ref):
    picked, _ = pick([slope_ref("a", 3, broken=(1,))], per_scene=3, splits=("train",))
    problems: list[str] = []
    found = list(read(picked, problems))
    assert [image is None for _, image in found] == [False, True, False]
    assert problems == ["scene 'a', 1.png: does not open"]
    last = found[2][1]
    assert last.world_from_camera[0, 3] == 2
    assert (last.true_m[:4] == 0).all()  # NaN
    assert last.true_m[10, 0] == pytest.approx(4 - 3 * 10 / 47 + 0.2, abs=1e-5)


def test_depth_of_another_camera_is_sampled_where_the_colour_pixel_looks():
    colour = CameraModel.from_k([50, 0, 30, 0, 52, 22, 0, 0, 1], 64, 48)
    depth_camera = CameraModel.from_k([20, 0, 14, 0, 20, 11, 0, 0, 1], 32, 24)
    rng = np.random.default_rng(0)
    depth = rng.uniform(1, 2, (24, 32)).astype(np.float32)
    depth[5, 5] = np.nan
    found = depth_in_colour(SceneFrame("f", colour, np.eye(4), depth_camera=depth_camera), depth)
    for v in range(48):
        for u in range(64):
            x, y = (u - 30) / 50, (v - 22) / 52
            column, row = int(np.floor(20 * x + 14 + 0.5)), int(np.floor(20 * y + 11 + 0.5))
            inside = 0 <= column < 32 and 0 <= row < 24
            expected = depth[row, column] if inside and (row, column) != (5, 5) else 0
            assert found[v, u] == expected
    assert (found > 0).mean() > 0.5


def test_registered_depth_of_half_the_size_is_spread_over_the_image():
    camera = CameraModel.from_fov(8, 6, hfov_rad=1.0)
    depth = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    found = depth_in_colour(SceneFrame("f", camera, np.eye(4)), depth)
    assert np.array_equal(found, np.repeat(np.repeat(depth, 2, axis=0), 2, axis=1))
