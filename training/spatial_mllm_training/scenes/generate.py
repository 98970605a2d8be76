"""From a seed to a scene record: layout, cameras that see something, pictures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.scenes import cameras, layouts
from spatial_mllm_training.scenes.blueprint import Matrix, Vector
from spatial_mllm_training.scenes.layouts import Scenario
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.render import SceneRenderer

Rng = np.random.Generator
_GENERATOR = 4  # raise it when the same seed shall give another scene


class NoViewError(RuntimeError):
    """No camera that sees the scene was found."""


def make_scene(
    seed: int,
    *,
    width: int = 256,
    height: int = 192,
    steps: int = 4,
    views: int = 4,
    supersample: int = 2,
    domain: str = "broad",
) -> SceneRecord:
    """Return the scene of `seed`: `steps` time steps, each seen by `views` cameras of a domain.

    Raises:
        NoViewError: no acceptable camera was found in several layouts.
        SpatialError: BACKEND_UNAVAILABLE without MuJoCo or OpenGL.
    """
    reason = ""
    place = cameras.DOMAINS[domain]
    for attempt in range(4):
        rng = np.random.default_rng([_GENERATOR, seed, attempt])
        scenario = (layouts.tabletop if rng.random() < place.tabletop_share else layouts.indoor)(rng, steps)
        k = cameras.random_pinhole(rng, width, height, place)
        with SceneRenderer(scenario.blueprint, k, width, height, supersample=supersample) as renderer:
            try:
                poses = _find_views(rng, renderer, scenario, views, place)
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


def _find_views(
    rng: Rng, renderer: SceneRenderer, scenario: Scenario, views: int, domain: cameras.Domain
) -> list[Matrix]:
    """Return a base view and moved ones that all pass `_refusal`.

    Raises:
        NoViewError: with the last refusal.
    """
    reason = "no camera fits into the room"
    brightness = float(rng.uniform(70, 120))
    for _ in range(25):
        base = _base_view(rng, scenario, domain)
        if base is None:
            continue
        expose(renderer, scenario, base, brightness)
        refused = _refusal(renderer, scenario, base)
        if refused:
            reason = refused
            continue
        poses = [base]
        distance = float(np.linalg.norm(scenario.focus_m - base[:3, 3]))
        for _ in range(10 * views):
            if len(poses) == views:
                return poses
            moved = cameras.moved_view(rng, base, scenario.focus_m, distance)
            if not stands_free(scenario, moved[:3, 3]):
                continue
            refused = _refusal(renderer, scenario, moved)
            if refused:
                reason = refused
                continue
            poses.append(moved)
        if len(poses) == views:
            return poses
    raise NoViewError(f"no view is good enough: {reason}")


def expose(renderer: SceneRenderer, scenario: Scenario, camera: Matrix, brightness: float) -> None:
    """Scale the light until the first picture's mean grey level is near `brightness`."""
    renderer.place(scenario.world_from_body[0])
    for _ in range(2):  # twice, since bright parts clip
        renderer.scale_light(float(np.clip(brightness / max(renderer.colour(camera).mean(), 1.0), 0.3, 2.2)))


def _base_view(rng: Rng, scenario: Scenario, domain: cameras.Domain) -> Matrix | None:
    x0, y0, x1, y1, _ = scenario.blueprint.room_m
    for _ in range(30):
        if scenario.blueprint.kind == "tabletop":
            view = cameras.table_view(rng, scenario.focus_m, domain)
        else:
            eye = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), rng.uniform(1.0, 1.9)])
            view = cameras.room_view(rng, eye, scenario.focus_m)
        if stands_free(scenario, view[:3, 3]):
            return view
    return None


def stands_free(scenario: Scenario, eye_m: Vector) -> bool:
    """Tell whether a camera may stand there: in the room and not within a body's box grown by 8 cm."""
    x0, y0, x1, y1, top = scenario.blueprint.room_m
    lower, upper = np.array([x0, y0, 0]) + 0.12, np.array([x1, y1, top]) - 0.12
    if (eye_m < lower).any() or (eye_m > upper).any():
        return False
    homogeneous = np.array([*eye_m, 1.0])
    half = np.array([b.size_m for b in scenario.blueprint.bodies]) / 2 + 0.08
    local = np.linalg.inv(scenario.world_from_body[:, 1:]) @ homogeneous
    return not (np.abs(local[..., :3]) < half).all(axis=-1).any()


def _refusal(renderer: SceneRenderer, scenario: Scenario, camera: Matrix) -> str:
    """Return why a view teaches nothing, or an empty string."""
    last = len(scenario.world_from_body) - 1
    for step in (0, last):
        renderer.place(scenario.world_from_body[step])
        depth_m, ids = renderer.geometry(camera)
        refused = _geometry_refusal(depth_m, ids, scenario, step)
        if refused:
            return refused
    image = renderer.colour(camera)
    if float(image.std(axis=(0, 1)).max()) < 12:
        return "the picture has too little contrast"
    if float(image.mean()) < 30:
        return "the picture is too dark"
    return ""


def _geometry_refusal(
    depth_m: NDArray[np.float32], ids: NDArray[np.uint8], scenario: Scenario, step: int
) -> str:
    seen = depth_m[depth_m > 0]
    if seen.size < 0.7 * depth_m.size:
        return "most of the picture has no depth"
    if float(np.median(seen)) < 0.2 or float(np.quantile(seen, 0.02)) < 0.1:
        return "the camera stands too close"
    if float(np.quantile(seen, 0.95) / np.quantile(seen, 0.05)) < 1.08:
        return "all depths are alike"
    counts = np.bincount(ids.ravel(), minlength=len(scenario.blueprint.bodies) + 1)
    if int((counts[1:] > 0.001 * ids.size).sum()) < 2:
        return "fewer than two bodies are seen"
    if float(counts.max()) > 0.93 * ids.size:
        return "one body fills the picture"
    if scenario.moved and not any(counts[i] > 0.0012 * ids.size for i in scenario.moved):
        return "nothing that moves is seen"
    return ""
