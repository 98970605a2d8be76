"""Questions about how far a followed point moved between two images; knows neither words nor pictures.

As published (Multi-SpatialMLLM section 3.3, appendix G), points are spread over rigid bodies and
pairs of images over equal-width bins of displacement, and a point is asked about only where both
images show it. What differs:

- The bins are those of the scene, and what moves less than `static_m` is one bin beside them that
  never gets more than its equal share, so that "did not move" is learned without outweighing the rest.
- Where tracks are measured, a displacement below `static_m` cannot be told from noise. Points that
  stay within it over the whole scene are asked about with a truth of exactly 0; of other points such
  pairs are left out (published: all of them are called 0). Rendered tracks keep their exact truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.tasks.object_motion import displacement_m, distance_truth, vector_truth
from spatial_mllm_training.multispa.config import MultispaConfig, ObjectMotionConfig
from spatial_mllm_training.multispa.draft import Draft, DraftPoint
from spatial_mllm_training.multispa.pair_sampling import allocate, choose_evenly
from spatial_mllm_training.multispa.prepare import PreparedScene
from spatial_mllm_training.multispa.rigid_bodies import rigid_bodies
from spatial_mllm_training.sources.base import PointTracks, Scene

SUBTASKS = tuple(
    f"tapvid3d_{answer}_{reference}_{camera}"
    for answer in ("total_distance", "displacement_vector")
    for reference in ("coord", "dot")
    for camera in ("adt", "pstudio")
)

_MAX_FRAMES = 1000
_MAX_CANDIDATES = 1_000_000
"""Points times pairs of frames looked at; about 100 bytes each."""


def missing(scene: Scene, config: MultispaConfig) -> dict[str, str]:
    """Subtasks that this scene cannot give, each with the reason."""
    if scene.tracks is None:
        return dict.fromkeys(SUBTASKS, "the scene has no points that are followed through time")
    if len({frame.state for frame in scene.frames}) < 2:
        return dict.fromkeys(SUBTASKS, "the scene has fewer than two time steps")
    limits = config.object_motion
    frames = np.linspace(0, len(scene.frames) - 1, min(len(scene.frames), _MAX_FRAMES)).astype(np.int64)
    if not (_span_m(scene.tracks.points_in_world_m) >= limits.static_m).any():
        reason = f"no point that is followed moves by {1000 * limits.static_m:g} mm or more"
        return dict.fromkeys(SUBTASKS, reason)
    reasons = {}
    for camera, words in (("adt", "moves"), ("pstudio", "keeps still")):
        if not len(_frame_pairs(scene, frames, limits, moving=camera == "adt")):
            reason = f"the scene has no two images of different times between which the camera {words}"
            reasons.update({name: reason for name in SUBTASKS if name.endswith(camera)})
    return reasons


def drafts(prepared: PreparedScene, subtask: str, wanted: int, rng: np.random.Generator) -> list[Draft]:
    """At most `wanted` questions, even over bins of displacement and, within a bin, over bodies.

    Any first part of the list is as even as the whole.
    """
    scene, config = prepared.scene, prepared.config.object_motion
    if scene.tracks is None:
        return []
    frames = np.arange(len(scene.frames))
    if len(frames) > _MAX_FRAMES:
        frames = np.sort(rng.choice(frames, _MAX_FRAMES, replace=False))
    pairs = _frame_pairs(scene, frames, config, moving=subtask.endswith("adt"))
    if not len(pairs):
        return []
    points = _choose_points(scene, scene.tracks, np.unique(pairs), config, rng)
    most = max(1, _MAX_CANDIDATES // max(1, len(points.ids)))
    if len(pairs) > most:
        pairs = pairs[np.sort(rng.choice(len(pairs), most, replace=False))]
    border_px = prepared.config.points.border_px
    views = _project(scene, scene.tracks, points, np.unique(pairs), border_px)
    candidates = _candidates(scene, points, pairs, views, config)
    chosen = _choose(candidates, points, wanted, config, rng)
    swapped = rng.random(len(chosen)) < config.swap_probability
    return [
        _draft(scene, subtask, candidates, int(i), bool(swap), points, views)
        for i, swap in zip(chosen, swapped, strict=True)
    ]


def _frame_pairs(
    scene: Scene, frames: NDArray[np.int64], config: ObjectMotionConfig, *, moving: bool
) -> NDArray[np.int64]:
    """(K, 2) of `frames`, first < second, of different states, with a moving or a still camera."""
    states = np.array([scene.frames[f].state for f in frames])
    poses = np.array([scene.frames[f].world_from_camera for f in frames])
    found = [np.zeros((0, 2), np.int64)]
    for first in range(len(frames) - 1):
        later = poses[first + 1 :]
        shift_m = np.linalg.norm(later[:, :3, 3] - poses[first, :3, 3], axis=1)
        # The norm of the difference keeps small angles that the trace of a float32 pose would lose.
        chord = np.linalg.norm(later[:, :3, :3] - poses[first, :3, :3], axis=(1, 2)) / np.sqrt(8)
        turn_deg = np.rad2deg(2 * np.arcsin(np.minimum(chord, 1)))
        still = (shift_m <= config.still_camera_m) & (turn_deg <= config.still_camera_deg)
        seconds = first + 1 + np.flatnonzero((still != moving) & (states[first + 1 :] != states[first]))
        found.append(np.column_stack([np.full(len(seconds), frames[first]), frames[seconds]]))
    return np.concatenate(found)


@dataclass(frozen=True)
class _Points:
    """The followed points that may be asked about.

    Attributes:
        ids: (P,) into the tracks.  position_m: (T, P, 3) world.
        group: (P,) body, split into points that ever move and points that never do: the published
            segmentation joins a slow body with what stands still, since single steps under 1 cm
            count as noise.
        moves: (P,) bool.
    """

    ids: NDArray[np.int64]
    position_m: NDArray[np.float64]
    group: NDArray[np.int64]
    moves: NDArray[np.bool_]


def _choose_points(
    scene: Scene,
    tracks: PointTracks,
    frames: NDArray[np.int64],
    config: ObjectMotionConfig,
    rng: np.random.Generator,
) -> _Points:
    """At most `points_per_group` points of each body, of those that two of the frames show."""
    body = rigid_bodies(tracks.points_in_world_m, config, rng) if tracks.body is None else tracks.body
    known = np.isfinite(tracks.points_in_world_m).all(axis=2)
    states = [scene.frames[f].state for f in frames]
    seen = (tracks.visible[frames] & known[states]).sum(axis=0)
    ids = rng.permutation(np.flatnonzero((seen >= 2) & (body >= 0)))
    position_m = tracks.points_in_world_m[:, ids]
    moves = _span_m(position_m) >= config.static_m
    group = 2 * body[ids] + moves
    keep = np.flatnonzero(_rank(group) < config.points_per_group)
    if len(keep) > config.max_points:
        keep = keep[choose_evenly(group[keep], config.max_points, rng)]
    return _Points(ids[keep], position_m[:, keep], group[keep], moves[keep])


def _span_m(position_m: NDArray[np.float64]) -> NDArray[np.float64]:
    """(P,) diagonal of the box that holds all known positions (T, P, 3) of a point; -inf for none."""
    known = np.isfinite(position_m)
    high = np.where(known, position_m, -np.inf).max(axis=0, initial=-np.inf)
    low = np.where(known, position_m, np.inf).min(axis=0, initial=np.inf)
    return np.where(known.any(axis=(0, 2)), np.linalg.norm(high - low, axis=1), -np.inf)


@dataclass(frozen=True)
class _Views:
    """How V frames show the P chosen points.

    Attributes:
        frames: (V,) ascending.  states: (V,).
        pixel: (V, P, 2) raw.  depth_m: (V, P).  usable: (V, P) seen, and away from the image border.
    """

    frames: NDArray[np.int64]
    states: NDArray[np.int64]
    pixel: NDArray[np.float64]
    depth_m: NDArray[np.float64]
    usable: NDArray[np.bool_]


def _project(
    scene: Scene, tracks: PointTracks, points: _Points, frames: NDArray[np.int64], border_px: int
) -> _Views:
    shape = (len(frames), len(points.ids))
    pixel, depth_m, usable = np.empty((*shape, 2)), np.empty(shape), np.empty(shape, bool)
    states = np.array([scene.frames[f].state for f in frames])
    for row, number in enumerate(frames.tolist()):
        camera, pose = scene.frames[number].camera, scene.frames[number].world_from_camera
        in_camera_m = (points.position_m[states[row]] - pose[:3, 3]) @ pose[:3, :3]
        pixel[row], depth_m[row] = camera.project(in_camera_m), in_camera_m[:, 2]
        furthest = np.array([camera.width, camera.height]) - 1 - border_px
        inside = ((pixel[row] >= border_px) & (pixel[row] <= furthest)).all(axis=1)  # False for NaN
        usable[row] = inside & tracks.visible[number, points.ids]
    return _Views(frames, states, pixel, depth_m, usable)


@dataclass(frozen=True)
class _Candidates:
    """Points in pairs of frames, and the bins of their displacements; 0 is the bin of what stays.

    Attributes:
        pair: (n, 2) rows of _Views.  point: (n,) into _Points.  distance_m: (n,).
        number: (n,) bin.  edges_m: of the bins 1, 2, ...
    """

    pair: NDArray[np.int64]
    point: NDArray[np.int64]
    distance_m: NDArray[np.float64]
    number: NDArray[np.int64]
    edges_m: NDArray[np.float64]


def _candidates(
    scene: Scene,
    points: _Points,
    pairs: NDArray[np.int64],
    views: _Views,
    config: ObjectMotionConfig,
) -> _Candidates:
    rows = np.searchsorted(views.frames, pairs)
    index, point = np.nonzero(views.usable[rows[:, 0]] & views.usable[rows[:, 1]])
    pair = rows[index]
    before, after = views.states[pair].T
    distance_m = np.linalg.norm(points.position_m[after, point] - points.position_m[before, point], axis=1)
    keep = np.ones(len(pair), bool)
    if scene.depth_is_noisy:
        distance_m[~points.moves[point]] = 0.0
        keep = ~points.moves[point] | (distance_m >= config.static_m)
    keep &= distance_m >= config.min_displacement_m
    pair, point, distance_m = pair[keep], point[keep], distance_m[keep]

    moved = distance_m >= config.static_m
    edges_m = np.zeros(1)
    number = np.zeros(len(pair), np.int64)
    if moved.any():
        edges_m = np.linspace(distance_m[moved].min(), distance_m[moved].max(), config.bins + 1)
        number[moved] = np.clip(np.searchsorted(edges_m, distance_m[moved], side="right"), 1, config.bins)
    return _Candidates(pair, point, distance_m, number, edges_m)


def _choose(
    candidates: _Candidates,
    points: _Points,
    wanted: int,
    config: ObjectMotionConfig,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Candidates, one of each bin in turn, at most `pairs_per_bin` of a point in a bin."""
    order = rng.permutation(len(candidates.point))
    key = candidates.point[order] * (config.bins + 1) + candidates.number[order]
    order = order[_rank(key) < config.pairs_per_bin]
    numbers, sizes = np.unique(candidates.number[order], return_counts=True)
    quotas = _quotas(dict(zip(numbers.tolist(), sizes.tolist(), strict=True)), wanted, rng)
    chosen = [np.zeros(0, np.int64)]
    for number, quota in quotas.items():
        members = order[candidates.number[order] == number]
        chosen.append(members[choose_evenly(points.group[candidates.point[members]], quota, rng)])
    mixed = rng.permutation(np.concatenate(chosen))
    return mixed[np.argsort(_rank(candidates.number[mixed]), kind="stable")]


def _quotas(sizes: dict[int, int], wanted: int, rng: np.random.Generator) -> dict[int, int]:
    """How many to take of each bin; bin 0, of what stays, gets no more than the mean of the others.

    Which bins get one more than others is left to chance, so that many scenes of few questions each
    fill all bins.
    """
    shuffled = {number: sizes[number] for number in rng.permutation(list(sizes)).tolist()}
    still = allocate(shuffled, wanted).get(0, 0)
    shuffled.pop(0, None)
    if not shuffled:
        return {}
    moved = sum(allocate(shuffled, wanted).values())
    still = min(still, -(-moved // len(shuffled)))
    return {**allocate(shuffled, wanted - still), 0: still}


def _draft(
    scene: Scene,
    subtask: str,
    candidates: _Candidates,
    index: int,
    swap: bool,
    points: _Points,
    views: _Views,
) -> Draft:
    rows = candidates.pair[index].tolist()
    if swap:
        rows.reverse()
    frames = tuple(int(views.frames[row]) for row in rows)
    point, number = int(candidates.point[index]), int(candidates.number[index])
    before_m, after_m = (points.position_m[views.states[row], point] for row in rows)
    shown = tuple(
        DraftPoint(image, *views.pixel[row, point].tolist(), float(views.depth_m[row, point]), xyz, role)
        for image, (row, xyz, role) in enumerate(
            zip(rows, (tuple(before_m.tolist()), tuple(after_m.tolist())), ("asked", "answer"), strict=True)
        )
    )
    moved_m = np.zeros(3)
    if candidates.distance_m[index] > 0:
        moved_m = displacement_m(before_m, after_m, scene.frames[frames[0]].world_from_camera)
    group = "displacement none or too small to bin"
    if number:
        low, high = candidates.edges_m[number - 1 : number + 1]
        group = f"displacement {low:.3f}-{high:.3f} m"
    truth = distance_truth(moved_m) if "total_distance" in subtask else vector_truth(moved_m)
    return Draft(subtask, frames, shown, truth, group=group)


def _rank(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) how many earlier elements have the same key."""
    order = np.argsort(keys, kind="stable")
    _, start, counts = np.unique(keys[order], return_index=True, return_counts=True)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys)) - np.repeat(start, counts)
    return rank
