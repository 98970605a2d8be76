"""Object size: minimal sets by brute force on a wall of things, ambiguity, spread, equal horizontal sides."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.multispa.config import MultispaConfig, ObjectSizeConfig
from spatial_mllm_training.multispa.object_size import SUBTASKS, drafts, missing
from spatial_mllm_training.multispa.prepare import prepare
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneObject

HEIGHT, LENGTH, WIDTH = SUBTASKS
CAMERA = CameraModel.from_k([[800, 0, 159.5], [0, 800, 119.5], [0, 0, 1]], 320, 240)
DISTANCE_M = 2.0
SEEN_M = (0.8, 0.6)  # of the wall, in one image


class Wall(Scene):
    """Flat things on a wall 2 m ahead of cameras that look at it squarely; every point can be seen."""

    name, source, world_up, skipped = "wall", "test", np.array([0.0, 0.0, 1.0]), []

    def __init__(self, things, views, *, yaw_deg=0.0, frames_of_state=None):
        """`things`: (category, (x, z), (dx, dy, dz)) for each state; `views`: (x, z) that cameras aim at."""
        turn = np.eye(4)
        turn[:3, :3] = Rotation.from_euler("z", yaw_deg, degrees=True).as_matrix()
        self._states = [self._build(state, turn) for state in things]
        self.frames = []
        for state in range(len(things)):
            for number, (x, z) in enumerate(views):
                pose = np.eye(4)
                pose[:3, :3] = [[1, 0, 0], [0, 0, 1], [0, -1, 0]]  # right, down, ahead = x, -z, y
                pose[:3, 3] = x, -DISTANCE_M, z
                self.frames.append(SceneFrame(f"s{state}v{number}", CAMERA, turn @ pose, state=state))

    @staticmethod
    def _build(things, turn):
        objects, points = [], [np.zeros((0, 3))]
        for number, (category, (x, z), size) in enumerate(things):
            # Every corner is there, so that the points reach as far as the box.
            grid = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in (41, 3, 21)), indexing="ij"), -1)
            body = np.eye(4)
            body[:3, 3] = x, 0, z
            pose, start = turn @ body, sum(map(len, points))
            points.append((grid.reshape(-1, 3) * size) @ pose[:3, :3].T + pose[:3, 3])
            ids = np.arange(start, start + len(points[-1]))
            objects.append(SceneObject(f"{category}-{number}", category, pose, np.array(size, float), ids))
        return objects, np.concatenate(points).astype(np.float32)

    def image(self, index):
        raise AssertionError("a generator of drafts does not read pictures")

    def depth_m(self, index):
        return np.full((CAMERA.height, CAMERA.width), DISTANCE_M, np.float32)

    def points_m(self, state):
        return self._states[state][1]

    def objects(self, state):
        return self._states[state][0]


def ask(scene, subtask, wanted=10_000, config=ObjectSizeConfig(), seed=0):  # noqa: B008 - frozen
    rng = np.random.default_rng(seed)
    return drafts(prepare(scene, MultispaConfig(object_size=config), rng), subtask, wanted, rng)


def row_of_views(count, step=0.2):
    return [(step * (i - (count - 1) / 2), 0.0) for i in range(count)]


TABLE = ("table", (0.0, 0.0), (1.6, 0.04, 0.5))


def brute_force(scene, subtask, config=ObjectSizeConfig()):  # noqa: B008 - frozen
    """All (category, frames) by testing every set of frames."""
    found = set()
    for state in sorted({f.state for f in scene.frames}):
        frames = [i for i, f in enumerate(scene.frames) if f.state == state]
        objects, spans = scene.objects(state), {}
        for frame in frames:
            to_camera = np.linalg.inv(scene.frames[frame].world_from_camera)
            for thing in objects:
                points = scene.points_m(state)[thing.point_ids]
                x, y, z = to_camera[:3, :3] @ points.T + to_camera[:3, 3:]
                inside = (np.abs(800 * x / z) < 160) & (np.abs(800 * y / z) < 120)
                local = (np.linalg.inv(thing.world_from_box) @ np.c_[points, np.ones(len(points))].T)[:3]
                spans[frame, thing.name] = local[:, inside]
        for thing in objects:
            rivals = [o.name for o in objects if o.category == thing.category and o.name != thing.name]
            horizontal = thing.size_m[:2]
            axis = {HEIGHT: 2, LENGTH: horizontal.argmax(), WIDTH: horizontal.argmin()}[subtask]
            good = [
                f
                for f in frames
                if spans[f, thing.name].shape[1] >= max(20, 0.05 * len(thing.point_ids))
                and not any(spans[f, rival].shape[1] for rival in rivals)
            ]
            covering = []
            for count in range(1, config.max_images + 1):
                for some in combinations(good, count):
                    total, end = 0.0, -np.inf
                    ends = [
                        (spans[f, thing.name][axis].min(), spans[f, thing.name][axis].max()) for f in some
                    ]
                    for low, high in sorted(ends):
                        total, end = total + max(0.0, high - max(low, end)), max(end, high)
                    if abs(total - thing.size_m[axis]) <= 0.1 * thing.size_m[axis]:
                        if not any(c < set(some) for c in covering):
                            found.add((thing.category, some))
                        covering.append(set(some))
    return found


def several(yaw_deg=0.0):
    things = [TABLE, ("cup", (-0.7, 0.27), (0.1, 0.05, 0.06)), ("lamp", (0.1, -0.1), (0.3, 0.06, 0.7))]
    moved = [("table", (0.3, 0.1), (1.6, 0.04, 0.5)), things[2]]
    views = [(x, z) for x in (-0.5, -0.15, 0.2, 0.55) for z in (-0.12, 0.12)]
    return Wall([things, moved], views, yaw_deg=yaw_deg)


@pytest.mark.parametrize("subtask", SUBTASKS)
@pytest.mark.parametrize("yaw_deg", [0.0, 37.0, 120.0])
def test_all_sets_are_those_of_brute_force(subtask, yaw_deg):
    scene = several(yaw_deg)
    found = ask(scene, subtask)
    expected = brute_force(scene, subtask)
    assert {(d.category, d.frames) for d in found} == expected
    assert len(found) == len(expected) > 10
    sizes = {"table": (1.6, 0.04, 0.5), "cup": (0.1, 0.05, 0.06), "lamp": (0.3, 0.06, 0.7)}
    for draft in found:
        assert draft.truth.values == (sizes[draft.category][{HEIGHT: 2, LENGTH: 0, WIDTH: 1}[subtask]],)
        assert draft.group == f"images {len(draft.frames)}"
        assert draft.points == ()
        assert len({scene.frames[f].state for f in draft.frames}) == 1


def test_known_minimal_sets():
    """A table of 1.6 m, of which an image shows 0.8 m: two images end to end, or three that overlap."""
    scene = Wall([[TABLE]], [(-0.4, 0), (0, 0), (0.4, 0)])
    assert {d.frames for d in ask(scene, LENGTH)} == {(0, 2)}
    scene = Wall([[TABLE]], [(-0.5, 0), (0, 0), (0.5, 0)])
    assert {d.frames for d in ask(scene, LENGTH)} == {(0, 1, 2)}
    assert {d.frames for d in ask(scene, HEIGHT)} == {(0,), (1,), (2,)}
    assert ask(scene, LENGTH, config=ObjectSizeConfig(max_images=2)) == []


def test_numbers_of_images_are_spread():
    """Long and short tables, so that one to five images are needed."""
    things = [(f"table {n}", (0.0, 0.0), (0.62 * n, 0.04, 0.5)) for n in range(1, 6)]
    scene = Wall([things], [(0.31 * i, 0) for i in range(-4, 5)])
    few = ask(scene, LENGTH, 25)
    assert len(few) == 25
    assert set(Counter(d.group for d in few)) == {f"images {n}" for n in (1, 2, 3, 4, 5)}
    assert max(Counter(d.group for d in few).values()) <= 9
    assert len({d.category for d in few}) == 5
    singles = Counter(d.group for seed in range(60) for d in ask(scene, LENGTH, 1, seed=seed))
    assert len(singles) == 5  # scenes of one question each use every number of images


def test_objects_are_spread():
    things = [("big", (0, 0), (0.3, 0.04, 0.3)), ("small", (1.2, 0), (0.3, 0.04, 0.3))]
    scene = Wall([things], [*((0.02 * i, 0) for i in range(15)), (1.2, 0), (1.21, 0)])
    assert Counter(d.category for d in ask(scene, HEIGHT, 4)) == {"big": 2, "small": 2}


def test_another_thing_of_the_category_in_sight_makes_it_ambiguous():
    left, right = ("Chair", (-0.5, 0), (0.2, 0.04, 0.3)), ("chair ", (0.5, 0), (0.25, 0.04, 0.35))
    views = [(-0.5, 0), (0.0, 0), (0.5, 0)]
    # the middle image shows the inner 0.4 m of both sides, hence a part of each chair
    scene = Wall([[left, right]], [(-0.5, 0), (-0.3, 0), (0.0, 0), (0.5, 0)])
    assert {(d.frames, d.truth.values) for d in ask(scene, HEIGHT)} == {
        ((0,), (0.3,)),
        ((1,), (0.3,)),
        ((3,), (0.35,)),
    }
    near = Wall([[left, ("chair", (-0.3, 0), (0.1, 0.04, 0.2))]], views)
    assert ask(near, HEIGHT) == []
    other = Wall([[left, ("stool", (-0.3, 0), (0.1, 0.04, 0.2))]], views)
    assert {d.category for d in ask(other, HEIGHT)} == {"Chair", "stool"}


def test_equal_sides_are_told_apart():
    """dx == dy: an image that cuts the thing along x covers its width (y), not its length (x)."""
    scene = Wall([[("box", (0.4, 0), (0.08, 0.08, 0.3))]], [(0.0, 0)])
    assert [d.truth.values for d in ask(scene, WIDTH)] == [(0.08,)]
    assert ask(scene, LENGTH) == []


def test_what_is_hardly_seen_or_excluded_is_not_asked_about():
    assert ask(Wall([[("wall", (0, 0), (0.3, 0.04, 0.3))]], [(0, 0)]), HEIGHT) == []
    assert ask(Wall([[("  ", (0, 0), (0.3, 0.04, 0.3))]], [(0, 0)]), HEIGHT) == []
    scene = Wall([[("pole", (0, 0), (0.3, 0.04, 0.3))]], [(0, 0)])
    assert len(ask(scene, HEIGHT)) == 1
    assert ask(scene, HEIGHT, config=ObjectSizeConfig(min_points=10_000)) == []
    # an image that shows the last 3 % of a thing from top to bottom does not count
    edge = Wall([[("pole", (0, 0), (0.3, 0.04, 0.3))]], [(0.545, 0)])
    assert ask(edge, HEIGHT) == []
    assert len(ask(edge, HEIGHT, config=ObjectSizeConfig(visible_share=0.01))) == 1


def test_a_box_without_size_gives_nothing():
    scene = Wall([[("plate", (0, 0), (0.3, 0.04, 0.3))]], [(0, 0)])
    objects, points = scene._states[0]
    for size in ((0.3, 0.04, 0.0), (0.3, 0.04, np.nan), (0.3, 0.04, np.inf)):
        scene._states[0] = ([replace(objects[0], size_m=np.array(size))], points)
        assert ask(scene, HEIGHT) == []
    scene._states[0] = ([replace(objects[0], point_ids=np.zeros(0, np.int64))], points)
    assert ask(scene, HEIGHT) == []


def test_many_images_are_drawn_by_chance_but_deterministically():
    scene = Wall([[TABLE]], row_of_views(40, 0.05))
    found = ask(scene, LENGTH, 60)
    assert found == ask(scene, LENGTH, 60)
    assert found != ask(scene, LENGTH, 60, seed=1)
    assert len({d.frames for d in found}) == len(found) == 60
    assert len({f for d in ask(scene, LENGTH) for f in d.frames}) <= 25


def test_what_a_scene_lacks_is_said():
    assert missing(several(), MultispaConfig()) == {}
    empty = Wall([[]], [(0, 0)])
    assert set(missing(empty, MultispaConfig())) == set(SUBTASKS)
    assert ask(several(), HEIGHT, 0) == []

    class Blind(Wall):
        has_depth = False

    assert "depth" in missing(Blind([[TABLE]], [(0, 0)]), MultispaConfig())[LENGTH]
    assert ask(Blind([[TABLE]], [(0, 0)]), LENGTH) == []
