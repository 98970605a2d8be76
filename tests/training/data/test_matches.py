"""Where cells of one view lie in another, again by OpenCV's projection and SciPy's rotations."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.data.matches import match_map
from spatial_mllm_training.data.packing import LeftOutError
from spatial_mllm_training.data.pair_config import PairConfig
from spatial_mllm_training.data.pairs import PairBuilder
from spatial_mllm_training.data.view_pairs import ViewPairs

RENDERED = sorted((Path(__file__).parents[2] / "fixtures" / "simulated").glob("scene_*.npz"))
ROWS, COLUMNS = 24, 32


def drawn(seeds, **changes):
    """Pairs of views of real renderings, with the cameras of their windows."""
    pairs = ViewPairs(RENDERED, PairConfig(width=128, height=96, **changes), augment=True)
    for seed in seeds:
        try:
            yield pairs.draw(np.random.default_rng(seed))
        except LeftOutError:
            continue  # the fixtures' cameras are held out


def test_a_cell_lies_where_opencv_projects_what_it_shows():
    """Of scenes that move, under cameras that move; a cell's own point is known to a source pixel."""
    off_px, moved = [], 0
    for (first, second), cameras in drawn(range(40), still_camera=0.3, own_crops=1.0):
        found = match_map(first, second, ROWS, COLUMNS)
        depth = first.cells(first.depth_mm, ROWS, COLUMNS) / 1e3
        body = first.cells(first.body_id, ROWS, COLUMNS)
        seen = np.isfinite(found).all(-1)
        v, u = np.mgrid[:ROWS, :COLUMNS] * 4.0 + 1.5
        rays = cv2.undistortPoints(np.stack([u, v], -1).reshape(-1, 1, 2), cameras[0].k, None)[:, 0]
        points = np.concatenate([rays, np.ones((len(rays), 1))], 1) * depth.reshape(-1, 1)
        one, two = (np.array(view.world_from_camera) for view in (first, second))
        points = Rotation.from_matrix(one[:3, :3]).apply(points) + one[:3, 3]
        later = np.empty_like(points)
        for b in np.unique(body):
            of_body = body.ravel() == b
            before, after = (np.array(view.world_from_body[b]) for view in (first, second))
            local = Rotation.from_matrix(before[:3, :3]).inv().apply(points[of_body] - before[:3, 3])
            later[of_body] = Rotation.from_matrix(after[:3, :3]).apply(local) + after[:3, 3]
        turn = Rotation.from_matrix(two[:3, :3]).inv()
        at = cv2.projectPoints(later, turn.as_rotvec(), -turn.apply(two[:3, 3]), cameras[1].k, None)[
            0
        ].reshape(ROWS, COLUMNS, 2)
        off_px.append(np.abs(found[..., :2] * (128, 96) - 0.5 - at)[seen].max(-1))
        has_moved = np.linalg.norm(later - points, axis=1).reshape(ROWS, COLUMNS)
        clear = np.abs(has_moved - 0.01) > 0.005
        np.testing.assert_array_equal(found[..., 2][clear & seen], has_moved[clear & seen] > 0.01)
        moved += int((has_moved > 0.02).sum())
    off_px = np.concatenate(off_px)
    assert len(off_px) > 2000 and moved > 100
    assert np.median(off_px) < 0.8 and np.percentile(off_px, 90) < 3.0


def test_what_is_hidden_or_outside_has_no_place():
    """A cell that has a place shows as much depth there as it has to the other camera."""
    shares = []
    for (first, second), _ in drawn(range(20), still_camera=0.0, same_time=1.0):
        found = match_map(first, second, ROWS, COLUMNS)
        seen = np.isfinite(found).all(-1)
        shares.append(seen.mean())
        assert (found[..., :2][seen] >= 0).all() and (found[..., :2][seen] <= 1).all()
        assert not found[..., 2][seen].any()  # at one time nothing has moved
    assert 0.1 < np.mean(shares) < 0.95


def test_a_view_lies_in_itself_cell_by_cell():
    ((first, _), _), *_ = drawn(range(10), still_camera=1.0)
    found = match_map(first, first, ROWS, COLUMNS)
    seen = np.isfinite(found).all(-1)
    assert seen.mean() > 0.9
    x, y = np.meshgrid((np.arange(COLUMNS) + 0.5) / COLUMNS, (np.arange(ROWS) + 0.5) / ROWS)
    assert np.abs(found[..., :2] - np.stack([x, y], -1))[seen].max() < 0.02


@pytest.mark.parametrize("grid", [None, (24, 32)])
def test_samples_have_the_map_where_it_is_asked_for(tokenizer, grid):
    config = PairConfig(width=128, height=96)
    sample = PairBuilder(RENDERED, tokenizer, config, augment=False, match_grid=grid).sample(
        np.random.default_rng(1)
    )
    first, second = sample.targets
    assert first.matches is None
    assert (second.matches is None) == (grid is None)
    if grid:
        assert second.matches.shape == (1, *grid, 3)


def test_far_pairs_see_as_little_of_each_other_as_those_of_multispa():
    """Where the scene has such cameras; other pairs stay, and what is still stays still."""
    shares = {far: [] for far in (0.0, 1.0)}
    for far, found in shares.items():
        for (first, second), _ in drawn(range(60), still_camera=0.3, far=far):
            if first.camera != second.camera:
                found.append(np.isfinite(match_map(first, second, 9, 12)[..., 0]).mean())
    inside = {far: np.mean([0.1 <= s <= 0.52 for s in found]) for far, found in shares.items()}
    assert len(shares[0.0]) == len(shares[1.0]) > 20
    assert inside[1.0] > inside[0.0] + 0.1
