"""Finds cameras that see something of a scene and share some of it; knows nothing about files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_training.scenes import cameras
from spatial_mllm_training.scenes.blueprint import Matrix, Vector
from spatial_mllm_training.scenes.layouts import Scenario
from spatial_mllm_training.scenes.render import SceneRenderer

Rng = np.random.Generator
_LEAST_IN_COMMON = 0.05  # of two views' surfaces together; below it nothing can be asked about both
_CELL_M = 0.1
_TRIES = 25


class NoViewError(RuntimeError):
    """No camera that sees the scene was found."""


def find_views(
    rng: Rng, renderer: SceneRenderer, scenario: Scenario, views: int, domain: cameras.Domain
) -> list[Matrix]:
    """Return a base view, near views around it and wide ones, in random order after the base.

    Each view passes `_refusal`; a wide one leaves some view before it, chosen at random, and has
    surfaces in common with at least one.

    Raises:
        NoViewError: with the last refusal.
    """
    reason = "no camera fits into the room"
    brightness = float(rng.uniform(70, 120))
    for _ in range(_TRIES):
        base = _base_view(rng, scenario, domain)
        if base is None:
            continue
        expose(renderer, scenario, base, brightness)
        cells, refused = _look(renderer, scenario, base, wants_movement=True)
        if refused:
            reason = refused
            continue
        poses, seen = [base], [cells]
        while len(poses) < views:
            wide = bool(rng.random() < domain.wide_share)
            found = _further_view(rng, renderer, scenario, poses, seen, wide)
            if isinstance(found, str) and wide:
                found = _further_view(rng, renderer, scenario, poses, seen, False)
            if isinstance(found, str):
                reason = found
                break
            poses.append(found[0])
            seen.append(found[1])
        if len(poses) == views:
            return poses
    raise NoViewError(f"no view is good enough: {reason}")


def _further_view(
    rng: Rng,
    renderer: SceneRenderer,
    scenario: Scenario,
    poses: list[Matrix],
    seen: list[NDArray[np.int64]],
    wide: bool,
) -> tuple[Matrix, NDArray[np.int64]] | str:
    """Return another view and the cells it sees, or why none was found."""
    reason = "no camera fits beside the first"
    hfov_deg = cameras.hfov_deg_of(renderer.k, renderer.width)
    distance_m = float(np.linalg.norm(scenario.focus_m - poses[0][:3, 3]))
    for _ in range(_TRIES):
        if wide:
            start = poses[int(rng.integers(len(poses)))]
            view = cameras.wide_view(rng, start, scenario.focus_m, hfov_deg)
        else:
            view = cameras.moved_view(rng, poses[0], scenario.focus_m, distance_m)
        if not stands_free(scenario, view[:3, 3]):
            continue
        # Half of the wide views may lose what moves: things seen in part and rooms matter as well.
        cells, refused = _look(renderer, scenario, view, wants_movement=not wide or bool(rng.random() < 0.5))
        if not refused and wide and max(_in_common(cells, other) for other in seen) < _LEAST_IN_COMMON:
            refused = "views have nothing in common"
        if not refused:
            return view, cells
        reason = refused
    return reason


def _in_common(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Return the intersection over union of two sorted sets of cells."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(len(one) + len(other) - shared, 1)


def _cells(depth_m: NDArray[np.float32], k: Matrix, world_from_camera: Matrix) -> NDArray[np.int64]:
    """Return the numbers of the 10 cm cells of the world that a z-depth image (H, W) sees, sorted."""
    height, width = depth_m.shape
    stride = max(1, width // 128)
    v, u = np.mgrid[0:height:stride, 0:width:stride].reshape(2, -1)
    z = depth_m[v, u].astype(float)
    rays = np.stack([(u - k[0, 2]) / k[0, 0], (v - k[1, 2]) / k[1, 1], np.ones(len(u))], axis=1)
    points = (rays * z[:, None])[z > 0] @ world_from_camera[:3, :3].T + world_from_camera[:3, 3]
    cells = np.floor(points / _CELL_M).astype(np.int64) + 1024
    return np.unique(cells @ np.array([1, 2048, 2048 * 2048]))


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


def _look(
    renderer: SceneRenderer, scenario: Scenario, camera: Matrix, *, wants_movement: bool
) -> tuple[NDArray[np.int64], str]:
    """Return the cells a view sees at the first step, and why it teaches nothing (or an empty string)."""
    cells = np.zeros(0, np.int64)
    for step in (0, len(scenario.world_from_body) - 1):
        renderer.place(scenario.world_from_body[step])
        depth_m, ids = renderer.geometry(camera)
        refused = _geometry_refusal(depth_m, ids, scenario, wants_movement)
        if refused:
            return cells, refused
        if step == 0:
            cells = _cells(depth_m, renderer.k, camera)
    image = renderer.colour(camera)
    if float(image.std(axis=(0, 1)).max()) < 12:
        return cells, "the picture has too little contrast"
    if float(image.mean()) < 35:
        return cells, "the picture is too dark"
    return cells, ""


def _geometry_refusal(
    depth_m: NDArray[np.float32], ids: NDArray[np.uint8], scenario: Scenario, wants_movement: bool
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
    if wants_movement and scenario.moved and not any(counts[i] > 0.0012 * ids.size for i in scenario.moved):
        return "nothing that moves is seen"
    return ""
