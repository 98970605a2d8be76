"""From a seed to a scene record: layout, cameras that see something, pictures."""

from __future__ import annotations

import numpy as np

from spatial_mllm_training.scenes import cameras, layouts
from spatial_mllm_training.scenes.blueprint import Matrix
from spatial_mllm_training.scenes.layouts import Scenario
from spatial_mllm_training.scenes.mat import lay_mats
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.render import SceneRenderer
from spatial_mllm_training.scenes.split import FIRST_TEST_SEED
from spatial_mllm_training.scenes.views import NoViewError, find_views

Rng = np.random.Generator
_GENERATOR = 5  # raise it when the same seed shall give another scene


def make_scene(
    seed: int,
    *,
    width: int = 256,
    height: int = 192,
    steps: int = 4,
    views: int = 4,
    supersample: int = 2,
    domain: str = "broad",
    camera_set: str = "training",
) -> SceneRecord:
    """Return the scene of `seed`: `steps` time steps, each seen by `views` cameras of a domain.

    Args:
        camera_set: "training", or "held-out" for fields of view that training never sees.

    Raises:
        ValueError: held-out cameras for a seed that is not a test's, or for a domain without any.
        NoViewError: no acceptable camera was found in several layouts.
        SpatialError: BACKEND_UNAVAILABLE without MuJoCo or OpenGL.
    """
    if camera_set == "held-out" and seed < FIRST_TEST_SEED:
        raise ValueError(f"held-out cameras are for seeds from {FIRST_TEST_SEED} on, found seed {seed}")
    reason = ""
    place = cameras.DOMAINS[domain]
    for attempt in range(4):
        rng = np.random.default_rng([_GENERATOR, seed, attempt])
        scenario = (layouts.tabletop if rng.random() < place.tabletop_share else layouts.indoor)(rng, steps)
        if place.mats:
            lay_mats(scenario.blueprint)
        k = cameras.random_pinhole(rng, width, height, place, camera_set)
        with SceneRenderer(scenario.blueprint, k, width, height, supersample=supersample) as renderer:
            try:
                poses = find_views(rng, renderer, scenario, views, place)
            except NoViewError as error:
                reason = str(error)
                continue
            return record_scene(renderer, scenario, k, poses, seed)
    raise NoViewError(f"seed {seed}: {reason}")


def record_scene(
    renderer: SceneRenderer, scenario: Scenario, k: Matrix, world_from_camera: list[Matrix], seed: int
) -> SceneRecord:
    """Draw every step of `scenario` through every camera."""
    steps, views = len(scenario.world_from_body), len(world_from_camera)
    shape = (steps, views, renderer.height, renderer.width)
    rgb = np.empty((*shape, 3), np.uint8)
    depth_mm = np.empty(shape, np.uint16)
    body_id = np.empty(shape, np.uint8)
    for step in range(steps):
        renderer.place(scenario.world_from_body[step])
        for view, camera in enumerate(world_from_camera):
            rgb[step, view] = renderer.colour(camera)
            depth_m, body_id[step, view] = renderer.geometry(camera)
            depth_mm[step, view] = np.round(1000.0 * depth_m.astype(np.float64))
    bodies = scenario.blueprint.bodies
    return SceneRecord(
        rgb,
        depth_mm,
        body_id,
        k,
        np.stack(world_from_camera),
        scenario.world_from_body,
        np.array([(0.0, 0.0, 0.0), *(b.size_m for b in bodies)], float),
        np.array(["world", *(b.category for b in bodies)]),
        scenario.blueprint.kind,
        seed,
    )
