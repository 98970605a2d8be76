"""The renderer is the pinhole camera it claims to be: pixels, depth, ids, to sub-pixel accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from spatial_mllm_core.errors import SpatialError

pytest.importorskip("mujoco", reason="MuJoCo is not installed: scenes cannot be drawn")

from spatial_mllm_training.scenes.blueprint import (
    Blueprint,
    Light,
    Material,
    Shape,
    make_body,
    pose,
    rotation_about,
)
from spatial_mllm_training.scenes.cameras import look_at, random_pinhole
from spatial_mllm_training.scenes.render import SceneRenderer, choose_gl

try:
    choose_gl()
except SpatialError as error:
    pytest.skip(error.sentence, allow_module_level=True)

WIDTH, HEIGHT = 256, 192


def _scene(*bodies):
    blueprint = Blueprint("tabletop", (-3, -3, 3, 3, 3))
    blueprint.add_material(Material("red", (1, 0, 0)))
    blueprint.add_material(Material("grey", (0.5, 0.5, 0.5)))
    blueprint.static_shapes.append(Shape("plane", (3, 3), "grey"))
    blueprint.lights.append(Light((0, 0, 2.5), (0.1, 0, -1), (0.6, 0.6, 0.6), True, True))
    blueprint.bodies.extend(bodies)
    return blueprint


@pytest.mark.parametrize("seed", range(12))
def test_a_boxs_corners_bound_its_mask_to_a_third_of_a_pixel(seed):
    """The extreme projected corners are where the mask ends, so a half-pixel error of the centre would show."""
    rng = np.random.default_rng(seed)
    k = random_pinhole(rng, WIDTH, HEIGHT)
    box = make_body("box", [Shape("box", (0.2, 0.13, 0.1), "red")])
    eye = np.array([*rng.uniform(-1.2, 1.2, 2), rng.uniform(0.9, 1.8)])
    world_from_camera = look_at(eye, rng.normal(0, 0.05, 3) + [0, 0, 0.3], rng.normal(0, 0.1))
    world_from_box = pose(rotation_about(rng.normal(size=3), rng.uniform(0, 3)), [0, 0, 0.4])
    with SceneRenderer(_scene(box), k, WIDTH, HEIGHT) as renderer:
        renderer.place(np.stack([np.eye(4), world_from_box]))
        _, ids = renderer.geometry(world_from_camera)
    signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1]), -1).reshape(-1, 3)
    corners = signs * [0.2, 0.13, 0.1] @ world_from_box[:3, :3].T + world_from_box[:3, 3]
    in_camera = (corners - world_from_camera[:3, 3]) @ world_from_camera[:3, :3]
    pixels = (in_camera @ k.T)[:, :2] / in_camera[:, 2:]
    area = int((ids == 1).sum())
    # A pixel belongs to the mask when its centre, an integer, lies inside the silhouette.
    inside = ~_outside_hull(pixels)
    difference = inside ^ (ids == 1)
    assert area > 300
    assert difference.sum() <= 0.004 * area, difference.sum()
    for shift in ([0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5]):  # the test would see half a pixel
        assert (~_outside_hull(pixels + shift) ^ (ids == 1)).sum() > 3 * difference.sum() + 5


def _outside_hull(points):
    import cv2

    hull = cv2.convexHull(points.astype(np.float32)).reshape(-1, 2).astype(np.float64)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    outside = np.zeros((HEIGHT, WIDTH), bool)
    centre = hull.mean(axis=0)
    for a, b in zip(hull, np.roll(hull, -1, axis=0), strict=True):
        normal = np.array([b[1] - a[1], a[0] - b[0]])
        side = np.sign((centre - a) @ normal)
        outside |= side * ((u - a[0]) * normal[0] + (v - a[1]) * normal[1]) < 0
    return outside


@pytest.mark.parametrize("seed", range(6))
def test_depth_of_the_floor_is_the_rays_to_a_thousandth(seed):
    rng = np.random.default_rng(100 + seed)
    k = random_pinhole(rng, WIDTH, HEIGHT)
    eye = np.array([0.3, -0.2, rng.uniform(0.3, 2.0)])
    world_from_camera = look_at(eye, np.array([*rng.uniform(-1, 1, 2), 0.0]), rng.normal(0, 0.1))
    with SceneRenderer(_scene(), k, WIDTH, HEIGHT) as renderer:
        renderer.place(np.eye(4)[None])
        depth, ids = renderer.geometry(world_from_camera)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH]
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones_like(u, float)], -1)
    world = rays @ world_from_camera[:3, :3].T
    with np.errstate(divide="ignore"):
        truth = -eye[2] / world[..., 2]
    hit = eye + truth[..., None] * world
    on_floor = (truth > 0) & (np.abs(hit[..., :2]) < 2.9).all(-1) & (ids == 0)
    assert on_floor.sum() > 5000
    assert np.abs(depth[on_floor] / truth[on_floor] - 1).max() < 1e-3
    assert (depth[(truth < 0)] == 0).all()


def test_colour_and_mask_agree_whatever_the_supersampling():
    ball = make_body("ball", [Shape("sphere", (0.15,), "red")])
    k = random_pinhole(np.random.default_rng(5), WIDTH, HEIGHT)
    world_from_camera = look_at(np.array([0.9, 0.4, 0.8]), np.array([0.05, 0, 0.3]))
    centres = []
    for factor in (1, 2):
        with SceneRenderer(_scene(ball), k, WIDTH, HEIGHT, supersample=factor) as renderer:
            renderer.place(np.stack([np.eye(4), pose(np.eye(3), [0, 0, 0.3])]))
            image = renderer.colour(world_from_camera).astype(int)
            _, ids = renderer.geometry(world_from_camera)
        red = np.clip((image[..., 0] - image[..., 1]) / image[..., 0].clip(1), 0, 1) > 0.5
        centres.append(np.argwhere(red).mean(axis=0))
        assert (red ^ (ids == 1)).sum() < 0.03 * (ids == 1).sum()
    assert np.abs(centres[0] - centres[1]).max() < 0.2  # a shifted picture would give 0.25 or more
