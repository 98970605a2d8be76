"""A prepared scene samples depth where a camera looks, and says which frames it had to leave out."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa import prepare as prepare_module
from spatial_mllm_training.multispa.config import MultispaConfig, VisibilityConfig
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.sources.base import SceneObject, SceneProblem

CONFIG = MultispaConfig()


def prepared(scene, config=CONFIG, seed=0):
    return prepare(scene, config, np.random.default_rng(seed))


def test_fused_points_are_seen_by_the_frames_that_measured_them(box_room):
    room = prepared(box_room(8))
    visible = room.states[0]
    assert visible.frames == tuple(range(8)) and room.skipped == []
    assert all(visible.count(frame) > 500 for frame in visible.frames)
    seen = np.unique(np.concatenate([visible.ids(frame) for frame in visible.frames]))
    assert len(seen) > 0.995 * len(visible.points_m)


def test_the_same_scene_is_prepared_the_same(box_room):
    one, two = prepared(box_room()), prepared(box_room(), seed=5)
    np.testing.assert_array_equal(one.states[0].points_m, two.states[0].points_m)
    np.testing.assert_array_equal(one.states[0].overlap_percent(), two.states[0].overlap_percent())


def test_states_are_kept_apart(box_room):
    room = prepared(box_room(6, states=[0, 3, 0, 3, 0, 3]))
    assert {state: visible.frames for state, visible in room.states.items()} == {0: (0, 2, 4), 3: (1, 3, 5)}
    assert room.state_of(5) == 3


def test_many_states_share_a_bounded_number_of_points(box_room):
    config = MultispaConfig(visibility=VisibilityConfig(max_points=2000))
    room = prepared(box_room(8, states=range(8)), config)
    assert all(len(v.points_m) == 1000 for v in room.states.values())
    assert len(prepared(box_room(8), config).states[0].points_m) == 2000


def test_a_scene_of_one_frame_overlaps_with_itself(box_room):
    room = prepared(box_room(1))
    np.testing.assert_array_equal(room.states[0].overlap_percent(), [[100.0]])


def test_a_scene_without_depth_has_no_states_and_reads_none(box_room):
    scene = box_room(has_depth=False)
    assert prepared(scene).states == {} and scene.reads == []


BAD_DEPTHS = {
    "unreadable": (SceneProblem("box_room", "002.png", "it is cut off"), "002.png: it is cut off"),
    "of another size": (np.ones((36, 48), np.float32), "48x36 px but its camera is for 96x72 px"),
    "not an image": (np.ones(7, np.float32), "7 px but its camera is for 96x72 px"),
    "zero": (np.zeros((72, 96), np.float32), "holds no depth between 0 and 20 m"),
    "NaN": (np.full((72, 96), np.nan, np.float32), "holds no depth between 0 and 20 m"),
    "far": (np.full((72, 96), 30, np.float32), "holds no depth between 0 and 20 m"),
}


@pytest.mark.parametrize("fault", BAD_DEPTHS)
@pytest.mark.parametrize("own_points", [False, True])
def test_a_frame_with_bad_depth_is_left_out_with_a_sentence(box_room, fault, own_points):
    depth, words = BAD_DEPTHS[fault]
    points = prepared(box_room(4)).states[0].points_m if own_points else None
    scene = box_room(4, depths={2: depth}, points=points)
    scene.skipped = ["earlier trouble"]
    room = prepared(scene)
    assert room.states[0].frames == (0, 1, 3)
    assert room.skipped[0] == "earlier trouble" and len(room.skipped) == 2
    assert "scene 'box_room'" in room.skipped[1] and "002" in room.skipped[1] and words in room.skipped[1]
    assert scene.skipped == ["earlier trouble"]


def test_the_other_frames_of_a_bad_one_are_as_without_it(box_room):
    bad = prepared(box_room(5, depths={4: np.zeros((72, 96), np.float32)})).states[0]
    scene = box_room(5)
    del scene.frames[4]
    np.testing.assert_array_equal(bad.points_m, prepared(scene).states[0].points_m)


def test_a_state_without_a_good_frame_is_left_out(box_room):
    nothing = np.zeros((72, 96), np.float32)
    room = prepared(box_room(3, states=[0, 1, 1], depths={0: nothing}))
    assert list(room.states) == [1] and "000" in room.skipped[0]


def test_a_scene_without_a_good_frame_is_a_problem(box_room):
    nothing = np.zeros((72, 96), np.float32)
    with pytest.raises(SceneProblem, match=r"scene 'box_room', frame 000: .* no depth"):
        prepared(box_room(2, depths={0: nothing, 1: nothing}))
    with pytest.raises(SceneProblem, match="scene 'box_room', its frames: there is not one frame"):
        prepared(box_room(0))


def test_own_points_are_thinned_only_where_no_object_needs_them(box_room):
    points = prepared(box_room(4)).states[0].points_m
    config = MultispaConfig(visibility=VisibilityConfig(max_points=1000))
    thing = SceneObject("thing", "box", np.eye(4), np.ones(3), np.arange(10))

    def seen(scene):
        visible = prepared(scene, config).states[0]
        assert visible.points_m is points
        return {i for frame in visible.frames for i in visible.ids(frame).tolist()}

    thinned, whole = seen(box_room(4, points=points)), seen(box_room(4, points=points, objects=[thing]))
    assert 900 < len(thinned) <= 1000 < len(whole)
    assert thinned < whole


DEPTH_CAMERA = CameraModel.from_k([[99, 0, 73.3], [0, 104, 58.9], [0, 0, 1]], 150, 120)


def test_depth_samples_are_the_nearest_pixels(box_room):
    room = prepared(box_room(3))
    depth_m = room.scene.depth_m(1)
    uv = np.random.default_rng(0).uniform([-3, -3], [99, 75], (500, 2))
    expected = [
        depth_m[round(v), round(u)] if -0.5 < u < 95.5 and -0.5 < v < 71.5 else 0 for u, v in uv.tolist()
    ]
    np.testing.assert_array_equal(room.sample_depth_m(1, uv), np.array(expected, np.float32))


@pytest.mark.parametrize("d", [(), (-0.2, 0.05, 0.001, 0.0, 0.0)])
def test_depth_of_another_size_is_sampled_along_the_same_ray(box_room, d):
    camera = CameraModel.from_k([[160, 0, 94], [0, 160, 70], [0, 0, 1]], 192, 144, d=d)
    room = prepared(box_room(3, camera=camera, depth_camera=DEPTH_CAMERA))
    exact = box_room(3, camera=camera).depth_m(1)
    edges = room.edge_mask(1)
    assert edges.shape == (144, 192) and 0.02 < edges.mean() < 0.3
    v, u = np.nonzero(~edges)
    sampled = room.sample_depth_m(1, np.column_stack([u, v]))
    assert (sampled > 0).all()
    # away from edges the nearest sample lies within half a depth pixel of the ray
    assert np.abs(sampled / exact[v, u] - 1).max() < 0.06
    assert abs(np.median(sampled / exact[v, u]) - 1) < 0.002


def test_the_edge_mask_covers_edges_and_holes_of_the_colour_image(box_room):
    scene = box_room(2)
    depth_m = scene.depth_m(0).copy()
    depth_m[30:33, 40:44] = np.nan
    room = prepared(box_room(2, depths={0: depth_m}))
    mask = room.edge_mask(0)
    assert mask[29:34, 39:45].all()
    clean = np.where(np.isfinite(depth_m), depth_m, 0)
    for row, column in np.ndindex(mask.shape):
        around = clean[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
        low, high = around.min(), around.max()
        assert mask[row, column] == (low == 0 or high - low > max(0.05, 0.04 * low))


def test_depth_finer_than_colour_still_shows_its_edges(box_room):
    coarse = CameraModel.from_fov(32, 24, 1.2)
    fine = CameraModel.from_fov(96, 72, 1.2)
    room = prepared(box_room(2, camera=coarse, depth_camera=fine))
    depth_m = room.scene.depth_m(0)
    mask = room.edge_mask(0)
    for row, column in zip(*np.nonzero(~mask), strict=True):
        around = depth_m[max(0, 3 * row - 2) : 3 * row + 5, max(0, 3 * column - 2) : 3 * column + 5]
        assert around.max() - around.min() <= max(0.05, 0.04 * around.min()) + 1e-6
    assert (~mask).sum() > 100


def test_depth_is_read_once_while_it_fits_and_again_when_it_does_not(box_room, monkeypatch):
    scene = box_room(6)
    room = prepared(scene)
    scene.reads.clear()
    for _ in range(3):
        room.sample_depth_m(2, [[5, 5]])
        room.edge_mask(2)
    assert scene.reads == [2]
    monkeypatch.setattr(prepare_module, "CACHE_MIB", 0)  # room for the newest only
    room = prepared(scene)
    scene.reads.clear()
    for frame in (0, 1, 0):
        room.sample_depth_m(frame, [[5, 5]])
    assert scene.reads == [0, 1, 0]


def test_what_is_kept_cannot_be_changed(box_room):
    room = prepared(box_room(2))
    with pytest.raises(ValueError, match="read-only"):
        room.edge_mask(0)[0, 0] = True
