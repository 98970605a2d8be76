"""Episodes in which one thing is moved before a still camera: drawn here, or any scene with tracks.

Knows no model. Drawn pushes go back as well as on, so that a clock cannot follow them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.frames import Frame
from spatial_mllm_core.tasks import object_motion
from spatial_mllm_training.scenes.cameras import DOMAINS, random_pinhole
from spatial_mllm_training.scenes.motion import PushScript
from spatial_mllm_training.scenes.record import is_thing
from spatial_mllm_training.scenes.split import scene_path
from spatial_mllm_training.sources import Scene, SceneRef
from spatial_mllm_training.sources.simulated import SimulatedScene, find_scenes

FIRST_SEED = 200_100
"""Pushes of seeds that neither training, validation, tests nor the sample bag use."""
SIZE = (320, 240)
RATE_HZ = 2.0
LEAST_FRAMES = 4


@dataclass(frozen=True, eq=False)
class Episode:
    """A reference frame and what came after, with the true movement of one surface point.

    Attributes:
        frames: (F) at least `LEAST_FRAMES`; the first is the reference.
        point_px: the point in the reference frame.
        moved_m: (F, 3) movement since the reference, in its optical axes; NaN where unknown.
    """

    name: str
    frames: tuple[Frame, ...]
    point_px: tuple[float, float]
    moved_m: NDArray[np.float64]

    @property
    def distance_m(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.norm(self.moved_m, axis=1))


def make_pushes(folder: Path, count: int, *, domain: str = "workspace") -> list[SceneRef]:
    """Draw the pushes that are not there yet (2 s each) and return all; seeds without a good view are passed over.

    Args:
        folder: keeps each domain in a folder of its own, since files are named by seed alone.

    Raises:
        SpatialError: nothing can be drawn here. SceneProblem: a broken file.
    """
    # MuJoCo is needed only here
    from spatial_mllm_training.scenes.push import make_push
    from spatial_mllm_training.scenes.render import choose_gl
    from spatial_mllm_training.scenes.views import NoViewError

    folder = folder / domain
    folder.mkdir(parents=True, exist_ok=True)
    made: list[SceneRef] = []
    for seed in range(FIRST_SEED, FIRST_SEED + 3 * count):
        if len(made) == count:
            break
        path = scene_path(folder, seed)
        if not path.exists():
            choose_gl()
            rng = np.random.default_rng([11, seed])
            place = DOMAINS[domain]
            k = random_pinhole(rng, *SIZE, place)
            try:
                make_push(seed, _script(rng), k, *SIZE, mats=place.mats)[0].save(path)
            except NoViewError:
                continue
        made += find_scenes(path)
    return made


def _script(rng: np.random.Generator) -> PushScript:
    """Down, then forth and back between stations drawn at random, with a rest at each."""
    from spatial_mllm_training.scenes.push import script_push

    travel_m = float(rng.uniform(0.15, 0.35))
    shares = [rng.uniform(0.6, 1.0), rng.uniform(0.1, 0.4), rng.uniform(0.6, 1.0), rng.uniform(0.0, 0.4)]
    if rng.random() < 0.5:  # half of them end far from where they began
        shares = shares[:3]
    legs = [(2.4, 0.0)]
    for share in shares:
        at_m = float(share) * travel_m
        legs += [(float(rng.uniform(2.0, 4.0)), at_m), (1.0, at_m)]
    return script_push(RATE_HZ, travel_m, legs)


def read(scene: Scene) -> Episode | None:
    """The longest part of a scene's tracks that a still camera sees; None where nothing is followed.

    Of the body that goes farthest, the point that is seen in most frames, near the body's middle.
    """
    tracks = scene.tracks
    if tracks is None or not scene.frames:
        return None
    pose = scene.frames[0].world_from_camera
    indices = [i for i, f in enumerate(scene.frames) if np.allclose(f.world_from_camera, pose)]
    candidates = np.ones(tracks.visible.shape[1], bool)
    if isinstance(scene, SimulatedScene) and tracks.body is not None:
        things = [is_thing(str(c)) for c in scene.record.body_category]
        candidates = np.asarray(things)[tracks.body]
    seen = tracks.visible[indices] & candidates
    if not seen.any():
        return None
    states = [scene.frames[i].state for i in indices]
    points_m = tracks.points_in_world_m[states]  # (F, N, 3)
    start = int(np.flatnonzero(seen.any(axis=1))[0])
    usable = seen[start]
    moved_m = points_m[start:] - points_m[start]
    with np.errstate(invalid="ignore"):
        far = np.where(usable, np.nanmax(np.linalg.norm(moved_m, axis=2), axis=0, initial=0.0), -1.0)
    bodies = tracks.body if tracks.body is not None else np.arange(len(far))
    mine = usable & (bodies == bodies[int(np.argmax(far))])
    middle = np.nanmean(points_m[start, mine], axis=0)
    away = np.linalg.norm(points_m[start] - middle, axis=1)
    order = np.lexsort((np.where(mine, away, np.inf), -seen[start:].sum(axis=0), ~mine))
    point = int(order[0])
    rest = indices[start:]
    if len(rest) < LEAST_FRAMES:
        return None
    camera = scene.frames[rest[0]].camera
    in_camera = (points_m[start, point] - pose[:3, 3]) @ pose[:3, :3]
    u, v = camera.project(in_camera[None])[0]
    frames = tuple(
        Frame(n + 1, "optical", np.ascontiguousarray(scene.image(i)), scene.frames[i].camera)
        for n, i in enumerate(rest)
    )
    moved = object_motion.displacement_m(points_m[start, point], points_m[start:, point], pose)
    return Episode(scene.name, frames, (float(u), float(v)), moved)


def each(refs: Sequence[SceneRef]) -> Iterator[Episode]:
    """The episodes of scenes, one at a time; scenes without one are passed over. Raises SceneProblem."""
    for ref in refs:
        scene = ref.open(*ref.arguments)
        try:
            episode = read(scene)
        finally:
            scene.close()
        if episode is not None:
            yield episode
