"""One long push over a table before a camera that stands still: the scene of the sample bag."""

from __future__ import annotations

import numpy as np

from spatial_mllm_training.scenes import cameras, layouts
from spatial_mllm_training.scenes.blueprint import Matrix
from spatial_mllm_training.scenes.generate import record_scene
from spatial_mllm_training.scenes.layouts import Scenario
from spatial_mllm_training.scenes.mat import lay_mats
from spatial_mllm_training.scenes.motion import PushScript
from spatial_mllm_training.scenes.record import SceneRecord
from spatial_mllm_training.scenes.render import SceneRenderer
from spatial_mllm_training.scenes.views import NoViewError, expose, stands_free

_OUT_OF_SIGHT_M = 60.0


def script_push(rate_hz: float, travel_m: float, legs: list[tuple[float, float]]) -> PushScript:
    """Return a push made of legs.

    Args:
        legs: (seconds, metres on the way at the leg's end); each leg is a minimum-jerk move. In the
            first leg the tip comes down to the thing, which must not move in it.
    """
    stations = np.cumsum([0.0, *(seconds for seconds, _ in legs)])
    at_m = np.array([0.0, *(metres for _, metres in legs)])
    times = np.arange(0.0, stations[-1] + 1e-9, 1.0 / rate_hz)
    leg = np.clip(np.searchsorted(stations, times, side="right") - 1, 0, len(legs) - 1)
    s = _smooth((times - stations[leg]) / np.diff(stations)[leg])
    progress = (at_m[leg] + s * (at_m[leg + 1] - at_m[leg])) / travel_m
    coming = _smooth(np.clip(times / (0.9 * stations[1]), 0, 1))
    return PushScript(travel_m, progress, 0.08 * (1 - coming), 0.16 * (1 - coming))


def _smooth(x: np.ndarray) -> np.ndarray:
    """Minimum-jerk profile (Flash and Hogan 1985)."""
    return x**3 * (10 - 15 * x + 6 * x**2)


def make_push(
    seed: int,
    script: PushScript,
    k: Matrix,
    width: int,
    height: int,
    *,
    distance_m: tuple[float, float] = (0.75, 1.3),
    mats: bool = False,
) -> tuple[SceneRecord, int]:
    """Return the recorded push (T steps, one camera) and the pushed body's id.

    The camera is drawn among those that see the whole thing, little covered by the arm, all along.

    Args:
        mats: floor and table carry squares of known size.

    Raises:
        NoViewError: none was found.
    """
    for attempt in range(20):
        rng = np.random.default_rng([7, seed, attempt])
        scenario = layouts.tabletop(rng, len(script.progress), script)
        if not scenario.moved:
            continue
        if mats:
            lay_mats(scenario.blueprint)
        with SceneRenderer(scenario.blueprint, k, width, height, supersample=2, shadow_px=2048) as renderer:
            for _ in range(12):
                azimuth, elevation = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(25, 50))
                away = rng.uniform(*distance_m) * np.array(
                    [
                        np.cos(elevation) * np.cos(azimuth),
                        np.cos(elevation) * np.sin(azimuth),
                        np.sin(elevation),
                    ]
                )
                camera = cameras.look_at(scenario.focus_m + away, scenario.focus_m + rng.normal(0, 0.04, 3))
                if stands_free(scenario, camera[:3, 3]) and _sees_all(renderer, scenario, camera):
                    expose(renderer, scenario, camera, 105.0)
                    return record_scene(renderer, scenario, k, [camera], seed), scenario.moved[0]
    raise NoViewError(f"seed {seed}: no camera sees the whole push")


def _sees_all(renderer: SceneRenderer, scenario: Scenario, camera: Matrix) -> bool:
    body = scenario.moved[0]
    steps = np.unique(np.linspace(0, len(scenario.world_from_body) - 1, 12).astype(int))
    for step in steps:
        poses = scenario.world_from_body[step].copy()
        renderer.place(poses)
        seen = renderer.geometry(camera)[1] == body
        for other in range(1, len(poses)):
            if other != body:
                poses[other, 2, 3] += _OUT_OF_SIGHT_M
        renderer.place(poses)
        alone = renderer.geometry(camera)[1] == body
        border = alone[0].any() or alone[-1].any() or alone[:, 0].any() or alone[:, -1].any()
        if border or seen.sum() < 0.7 * alone.sum() or seen.sum() < 0.01 * seen.size:
            return False
    return True
