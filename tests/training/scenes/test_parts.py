"""The parts of scenes that need no OpenGL: shapes, paths, kinematics, pictures for surfaces."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_training.scenes import articulated, catalogue, furniture, layouts, textures
from spatial_mllm_training.scenes.blueprint import (
    Blueprint,
    Shape,
    quaternion_from_rotation,
    rotation_about,
    rotation_from_quaternion,
)
from spatial_mllm_training.scenes.cameras import (
    DOMAINS,
    HELD_OUT_HFOV_DEG,
    hfov_deg_of,
    hfov_intervals_deg,
    look_along,
    look_at,
    random_pinhole,
    room_view,
    table_view,
    wide_view,
)
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.motion import Footprint, draw_path
from spatial_mllm_training.scenes.push import script_push
from spatial_mllm_training.scenes.robot import make_arm, make_gantry

MAKERS = {
    *catalogue.TABLE_THINGS,
    *catalogue.PUSHABLE,
    *furniture.AT_WALL,
    *furniture.IN_ROOM,
    furniture.screen,
}


def paint(seed=0):
    rng = np.random.default_rng(seed)
    return rng, Paint(Blueprint("indoor", (-1, -1, 1, 1, 2)), rng)


@pytest.mark.parametrize("seed", range(20))
def test_rotations_agree_with_opencv(seed):
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    angle = rng.uniform(0, 2 * np.pi)
    mine = rotation_about(axis, angle)
    oracle, _ = cv2.Rodrigues(angle * axis / np.linalg.norm(axis))
    assert np.allclose(mine, oracle, atol=1e-12)
    quaternion = quaternion_from_rotation(mine)
    assert quaternion[0] >= 0 and np.allclose(rotation_from_quaternion(quaternion), mine, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("box", (0.3, 0.2, 0.1)),
        ("cylinder", (0.2, 0.4)),
        ("capsule", (0.1, 0.3)),
        ("ellipsoid", (0.3, 0.1, 0.2)),
    ],
)
def test_extents_are_those_of_sampled_surfaces(kind, size):
    rng = np.random.default_rng(1)
    unit = rng.normal(size=(400_000, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    if kind == "box":
        points = np.sign(unit) * size
    elif kind == "ellipsoid":
        points = unit * size
    elif kind == "cylinder":
        ring = unit[:, :2] / np.linalg.norm(unit[:, :2], axis=1, keepdims=True)
        points = np.column_stack([ring * size[0], np.sign(unit[:, 2]) * size[1]])
    else:
        points = unit * size[0] + np.sign(unit[:, 2:]) * [0, 0, size[1]]
    rotation = rotation_about((1, 2, 3), 0.9)
    shape = Shape(kind, size, "", quaternion=tuple(quaternion_from_rotation(rotation)))
    assert shape.half_extent_m() == pytest.approx(np.abs(points @ rotation.T).max(axis=0), rel=3e-3)


@pytest.mark.parametrize("maker", sorted(MAKERS, key=lambda m: m.__name__))
def test_every_thing_is_centred_and_of_a_size_that_such_things_have(maker):
    for seed in range(12):
        body = maker(*paint(seed))
        lower = np.min([np.array(s.position_m) - s.half_extent_m() for s in body.shapes], axis=0)
        upper = np.max([np.array(s.position_m) + s.half_extent_m() for s in body.shapes], axis=0)
        assert np.allclose(lower, -upper, atol=1e-9) and np.allclose(upper - lower, body.size_m)
        assert min(body.size_m) > 0.005 and max(body.size_m) < 2.6
        if maker in catalogue.TABLE_THINGS:
            assert max(body.size_m) < 0.4


@pytest.mark.parametrize("seed", range(15))
def test_the_arms_links_hang_together_and_its_tip_is_where_it_shall_be(seed):
    rng, brush = paint(seed)
    arm = make_arm(rng, brush, np.array([0.1, -0.4, 0.7]), 0.9)
    tip = np.array([*rng.uniform(-0.3, 0.3, 2), 0.7 + rng.uniform(0.02, 0.3)])
    base, upper, fore, hand = arm.reach(tip)
    lengths = (arm.upper_m, arm.fore_m, arm.tool_m)
    ends = [
        (pose[:3, 3] - length / 2 * pose[:3, 2], pose[:3, 3] + length / 2 * pose[:3, 2])
        for pose, length in zip((upper, fore, hand), lengths, strict=True)
    ]
    assert np.allclose(ends[0][0], arm.base_m + [0, 0, arm.shoulder_height_m])
    assert np.allclose(ends[0][1], ends[1][0]) and np.allclose(ends[1][1], ends[2][0])
    if np.linalg.norm(tip - arm.base_m) < 0.6:
        assert np.allclose(ends[2][1], tip, atol=1e-9)
    for pose in (base, upper, fore, hand):
        assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3)) and np.linalg.det(pose[:3, :3]) > 0


def test_the_gantrys_rod_ends_at_the_tip():
    rng, brush = paint(3)
    gantry = make_gantry(rng, brush, np.array([0, 0, 0.7]), 0.6, 1.3)
    tip = np.array([0.2, -0.1, 0.75])
    beam, carriage, rod = gantry.reach(tip)
    assert rod[2, 3] - gantry.bodies[2].size_m[2] / 2 == pytest.approx(tip[2])
    assert carriage[:2, 3] == pytest.approx(tip[:2]) and beam[2, 3] == gantry.beam_height_m


def test_paths_keep_to_the_plane_and_off_others_and_long_ones_are_as_likely():
    rng = np.random.default_rng(0)
    half = np.array([0.5, 0.35])
    others = [Footprint(np.array([0.3, 0.2]), 0.06)]
    travels = []
    for _ in range(400):
        path = draw_path(rng, 0.05, others, half, 0.6, lifts=False)
        assert path is not None
        travels.append(np.linalg.norm(path.travel_m))
        for disc in path.sweep(0.05):
            assert (np.abs(disc.centre_m) + 0.05 <= half + 1e-9).all() and not disc.meets(others[0])
    assert np.mean(np.array(travels) < 0.03) == pytest.approx(0.15, abs=0.06)
    assert np.mean(np.array(travels) > 0.3) > 0.3
    exact = draw_path(rng, 0.05, others, half, 0.6, lifts=False, exactly_m=0.35)
    assert exact is not None and np.linalg.norm(exact.travel_m) == pytest.approx(0.35)


def test_a_scripted_push_rests_and_pulls_back_as_told():
    script = script_push(
        5.0, 0.35, [(2.4, 0.0), (5.6, 0.2), (3.0, 0.2), (2.6, 0.14), (6.4, 0.35), (2.2, 0.35)]
    )
    way = 0.35 * script.progress
    assert len(way) == 112 and way[12] < 1e-9 and way[-1] == pytest.approx(0.35)
    assert way[40] == pytest.approx(0.2) and way[68] == pytest.approx(0.14, abs=1e-3)
    assert np.abs(np.diff(way)).max() < 0.016  # smooth: no step over 8 cm/s
    assert script.above_m[0] == pytest.approx(0.16) and script.above_m[12] < 1e-9


def test_cameras_look_where_they_are_told():
    pose = look_at(np.array([1.0, 2.0, 1.5]), np.array([0.0, 0.5, 0.7]), 0.0)
    aim = np.array([0.0, 0.5, 0.7]) - [1.0, 2.0, 1.5]
    assert np.allclose(pose[:3, 2], aim / np.linalg.norm(aim))
    assert pose[2, 0] == pytest.approx(0) and pose[2, 1] < 0  # x is level, y points down
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    up = look_along(np.zeros(3), 0.3, np.radians(10), 0.0)
    assert np.degrees(np.arcsin(up[2, 2])) == pytest.approx(10)


@pytest.mark.parametrize("name", sorted(DOMAINS))
def test_training_never_draws_a_held_out_field_of_view_and_held_out_cameras_nothing_else(name):
    rng, low, high = np.random.default_rng(3), *DOMAINS[name].hfov_deg
    drawn = {}
    for cameras in ("training", "held-out"):
        ks = [random_pinhole(rng, 640, 480, DOMAINS[name], cameras) for _ in range(4000)]
        drawn[cameras] = np.array([2 * np.degrees(np.arctan(320 / k[0, 0])) for k in ks])
        assert np.allclose(drawn[cameras], [hfov_deg_of(k, 640) for k in ks])
        assert (drawn[cameras] > low - 1e-9).all() and (drawn[cameras] < high + 1e-9).all()
        aspects = np.array([k[1, 1] / k[0, 0] for k in ks])
        assert aspects.min() < 0.91 and aspects.max() > 1.09 and np.abs(aspects - 1).max() <= 0.1
        shifts = np.array([[(k[0, 2] - 319.5) / 640, (k[1, 2] - 239.5) / 480] for k in ks])
        assert 0.07 < np.abs(shifts).max() <= 0.08
    held_out = {
        c: np.any([(a < h) & (h < b) for a, b in HELD_OUT_HFOV_DEG], axis=0) for c, h in drawn.items()
    }
    assert not held_out["training"].any() and held_out["held-out"].mean() > 0.999
    # Log-uniform over what is left: each part gets its share of draws.
    for cameras, hfov_deg in drawn.items():
        parts = np.log(hfov_intervals_deg(DOMAINS[name], cameras))
        shares = (parts[:, 1] - parts[:, 0]) / (parts[:, 1] - parts[:, 0]).sum()
        for (a, b), share in zip(np.exp(parts), shares, strict=True):
            assert np.mean((hfov_deg >= a) & (hfov_deg <= b)) == pytest.approx(share, abs=0.03)


def test_a_domain_without_held_out_bands_says_so():
    with pytest.raises(ValueError, match="hold no held-out band"):
        hfov_intervals_deg(replace(DOMAINS["broad"], hfov_deg=(70.0, 90.0)), "held-out")
    with pytest.raises(ValueError, match="expected cameras of"):
        hfov_intervals_deg(DOMAINS["broad"], "some")


def test_first_views_vary_in_height_pitch_and_roll():
    rng = np.random.default_rng(0)
    views = [table_view(rng, np.zeros(3), DOMAINS["broad"]) for _ in range(800)]
    views += [room_view(rng, np.array([1.0, 0.5, 1.4]), np.array([0.0, 0.0, 0.8])) for _ in range(800)]
    # Of a level camera y leans by the pitch alone; roll is the rest of x's slope.
    forward = np.array([v[:3, 2] for v in views])
    level = np.cross(forward, [0, 0, 1.0])
    level /= np.linalg.norm(level, axis=1, keepdims=True)
    roll_deg = np.degrees(
        np.arccos(np.clip([v[:3, 0] @ n for v, n in zip(views, level, strict=True)], -1, 1))
    )
    pitch_deg = np.degrees(np.arcsin(forward[:, 2]))
    assert roll_deg.max() <= 20.1 and np.mean(roll_deg > 10) > 0.08 and np.median(roll_deg) < 6
    assert pitch_deg[:800].min() < -65 and pitch_deg[800:].max() > 10 and pitch_deg[800:].min() < -40


def test_wide_views_reach_far_turn_far_and_some_go_around():
    rng = np.random.default_rng(1)
    base, target = look_at(np.array([0.0, -1.5, 1.2]), np.array([0.0, 0.0, 0.8])), np.array([0.0, 0.0, 0.8])
    views = np.array([wide_view(rng, base, target, 80.0) for _ in range(2000)])
    shift = np.linalg.norm(views[:, :3, 3] - base[:3, 3], axis=1)
    turn = Rotation.from_matrix(views[:, :3, :3] @ base[:3, :3].T).magnitude() * 180 / np.pi
    assert np.mean(shift < 0.1) > 0.1 and np.mean(shift > 1.0) > 0.15 and shift.max() < 3
    assert np.mean(turn > 60) > 0.08 and np.mean(turn < 20) > 0.1
    aim = target - views[:, :3, 3]
    aimed = np.einsum("ni,ni->n", aim / np.linalg.norm(aim, axis=1, keepdims=True), views[:, :3, 2])
    around = np.degrees(np.abs(np.arctan2(views[:, 0, 3], -views[:, 1, 3])))[aimed > 0.97]
    assert around.max() > 60


@pytest.mark.parametrize("maker", articulated.OPENING)
@pytest.mark.parametrize("seed", range(8))
def test_a_part_closes_flush_and_moves_about_its_joint_alone(maker, seed):
    thing = maker(*paint(seed))
    world_from_fixed = layouts.upright(np.array([0.4, -0.3]), thing.fixed.size_m[2] / 2, 0.7)
    fixed_from_part = [
        np.linalg.inv(world_from_fixed) @ thing.part_pose(world_from_fixed, part) for part in (0.0, 0.5, 1.0)
    ]
    assert np.allclose(fixed_from_part[0], thing.fixed_from_part)
    for part, pose in zip((0.0, 0.5, 1.0), fixed_from_part, strict=True):
        motion = pose @ np.linalg.inv(thing.fixed_from_part)
        if thing.slides:
            assert np.allclose(motion[:3, :3], np.eye(3))
            assert np.allclose(motion[:3, 3], [0, -part * thing.travel, 0])
        else:
            oracle, _ = cv2.Rodrigues(part * thing.travel * np.array(thing.axis))
            assert np.allclose(motion[:3, :3], oracle)
            assert np.allclose(motion[:3, :3] @ thing.joint_m + motion[:3, 3], thing.joint_m)
    # Opened, the part's centre is in front of where it was, or above it.
    way = fixed_from_part[2][:3, 3] - fixed_from_part[0][:3, 3]
    assert way[1] < -0.05 or way[2] > 0.05
    if thing.fixed.category == "cabinet":  # closed, its front lies on the case's front, not within the case
        reach = fixed_from_part[0][1, 3] - thing.part.size_m[1] / 2
        assert reach <= -thing.fixed.size_m[1] / 2 + 1e-9
    else:  # a lid lies on its chest
        bottom = fixed_from_part[0][2, 3] - thing.part.size_m[2] / 2
        assert bottom == pytest.approx(thing.fixed.size_m[2] / 2, abs=0.006)


def test_what_opens_in_a_room_has_the_floor_before_it_for_itself():
    opening = 0
    for seed in range(40):
        scenario = layouts.indoor(np.random.default_rng(seed), 5)
        bodies, poses = scenario.blueprint.bodies, scenario.world_from_body
        assert scenario.moved
        for part in scenario.moved:
            name = bodies[part - 1].category
            if name not in ("cabinet door", "drawer"):
                continue
            opening += 1
            standing = [
                i
                for i in range(1, len(bodies) + 1)
                if i not in (part, part - 1) and poses[0, i, 2, 3] - bodies[i - 1].size_m[2] / 2 < 0.05
            ]
            for pose in poses[:, part]:
                for other in standing:
                    local = np.linalg.inv(poses[:, other]) @ pose[:, 3]
                    assert (
                        not (np.abs(local[:, :3]) < np.array(bodies[other - 1].size_m) / 2).all(axis=1).any()
                    )
    assert opening > 8


@pytest.mark.parametrize(
    "styles", [textures.OBJECT_STYLES, textures.FLOOR_STYLES, textures.WALL_STYLES, textures.TABLE_STYLES]
)
def test_pictures_are_square_rgb_and_not_flat(styles):
    for index, style in enumerate(styles):
        image = style(np.random.default_rng(index), 64)
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        assert np.array_equal(image, style(np.random.default_rng(index), 64))
    assert textures.speckle(np.random.default_rng(0), 64).std() > 2


@pytest.mark.parametrize("kind", [layouts.tabletop, layouts.indoor])
def test_layouts_keep_things_apart_and_in_the_room(kind):
    for seed in range(12):
        scenario = kind(np.random.default_rng(seed), 4)
        bodies = scenario.blueprint.bodies
        assert scenario.world_from_body.shape == (4, len(bodies) + 1, 4, 4) and len(bodies) < 255
        x0, y0, x1, y1, _ = scenario.blueprint.room_m
        at = scenario.world_from_body[:, 1:, :3, 3]
        robots = np.array([b.category.startswith(("robot", "gantry")) for b in bodies])
        assert (at[:, ~robots, 0] > x0).all() and (at[:, ~robots, 0] < x1).all()
        assert (at[:, ~robots, 1] > y0).all() and (at[:, ~robots, 1] < y1).all()
        if kind is layouts.tabletop:
            plane = bodies[0].size_m[2]
            assert bodies[0].category == "table"
            for index in scenario.moved:
                lowest = at[:, index - 1, 2] - bodies[index - 1].size_m[2] / 2
                assert (lowest > plane - 1e-9).all()
            half = np.array(bodies[0].size_m[:2]) / 2
            on_table = ~robots & (np.abs(at[0, :, 2] - plane) < 0.5) & (np.arange(len(bodies)) > 0)
            on_table &= np.array([max(b.size_m) < 0.45 for b in bodies])
            xy = at[:, on_table, :2] @ scenario.world_from_body[0, 1, :2, :2]  # in the table's axes
            if bodies[0].shapes[0].kind == "cylinder":
                assert (np.linalg.norm(xy, axis=-1) < half[0]).all()
            else:
                assert (np.abs(xy) < half).all()
