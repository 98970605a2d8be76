"""Draws rooms, tables and furniture at random, and what moves in them; knows nothing about cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_training.scenes import articulated, catalogue, furniture
from spatial_mllm_training.scenes.blueprint import (
    Blueprint,
    Body,
    Matrix,
    Vector,
    pose,
    rotation_about,
)
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.motion import Footprint, Path, PushScript, draw_path, draw_progress
from spatial_mllm_training.scenes.robot import Mover, make_arm, make_gantry
from spatial_mllm_training.scenes.room import empty_room, hang_lights

Rng = np.random.Generator


@dataclass
class Scenario:
    """A blueprint and where its bodies are at each of T steps.

    Attributes:
        world_from_body: (T, B, 4, 4), index 0 is the world.
        moved: body ids that were pushed.
        focus_m: (3,) a place worth looking at.
    """

    blueprint: Blueprint
    world_from_body: Matrix
    moved: list[int]
    focus_m: Vector


class _Stage:
    """Bodies and their poses while a scene is being built."""

    def __init__(self, blueprint: Blueprint, steps: int) -> None:
        self.blueprint, self.steps = blueprint, steps
        self.poses: list[Matrix] = [np.tile(np.eye(4), (steps, 1, 1))]

    def add(self, body: Body, world_from_body: Matrix) -> int:
        """Add a body at one pose (4, 4) or one a step (T, 4, 4); return its id."""
        self.blueprint.bodies.append(body)
        self.poses.append(np.broadcast_to(world_from_body, (self.steps, 4, 4)).copy())
        return len(self.poses) - 1

    def stacked(self) -> Matrix:
        """Return world_from_body (T, B, 4, 4)."""
        return np.stack(self.poses, axis=1)


def upright(xy: Vector, height_m: float, yaw_rad: float) -> Matrix:
    """Return the pose of a body whose centre is `height_m` over (x, y)."""
    return pose(rotation_about((0, 0, 1), yaw_rad), np.array([xy[0], xy[1], height_m]))


def tabletop(rng: Rng, steps: int, script: PushScript | None = None) -> Scenario:
    """Return a table with 3..8 things of which a mover pushes none, one or two.

    With a script an arm pushes one thing as told; when the table has no place for that way
    `moved` is empty.
    """
    blueprint, paint = empty_room(rng, "tabletop", rng.uniform(3.0, 6.0, 2))
    stage = _Stage(blueprint, steps)
    desk = furniture.table(rng, paint)
    yaw = float(rng.uniform(0, np.pi)) if rng.random() < 0.3 else 0.0
    stage.add(desk, upright(np.zeros(2), desk.size_m[2] / 2, yaw))
    plane_m = desk.size_m[2]
    half = np.array(desk.size_m[:2]) / 2
    if yaw:  # keep to the circle that every turn of the table covers
        half = np.full(2, half.min() * (0.72 if half.min() < 0.9 * half.max() else 1.0))
    if _is_round(desk):
        half = half * 0.7  # the square inside the circle
    half = np.minimum(half, 0.65)
    wanted = int(rng.integers(3, 9))
    moving = int(rng.choice(3, p=[0.1, 0.6, 0.3])) if script is None else 1
    taken: list[Footprint] = []
    things: list[tuple[Body, Path | Footprint]] = []
    for index in range(wanted):
        makers = catalogue.PUSHABLE if index < moving else catalogue.TABLE_THINGS
        body = makers[int(rng.integers(len(makers)))](rng, paint)
        path = None
        if index < moving:
            path = draw_path(
                rng,
                body.radius_m,
                taken,
                half,
                0.6,
                lifts=script is None,
                exactly_m=script.travel_m if script else None,
            )
        spot = None if path else _free_spot(rng, body.radius_m, half, taken)
        if path is not None:
            things.append((body, path))
            taken += path.sweep(body.radius_m)
        elif spot is not None:
            things.append((body, spot))
            taken.append(spot)
    moved: list[int] = []
    progress: list[Vector] = []
    for body, way in things:
        rest = plane_m + body.size_m[2] / 2
        if isinstance(way, Footprint):
            stage.add(body, upright(way.centre_m, rest, float(rng.uniform(0, 2 * np.pi))))
            continue
        parts = draw_progress(rng, steps) if script is None else script.progress
        progress.append(parts)
        moved.append(stage.add(body, np.stack([way.place(float(p), rest) for p in parts])))
    paths = [way for _, way in things if isinstance(way, Path)]
    mover = _table_mover(rng, paint, half, plane_m, only_arm=script is not None)
    if mover is not None:
        tips = (
            _scripted_tips(script, mover, paths, moved, stage, plane_m)
            if script and moved
            else _tips(rng, steps, plane_m, half, mover, paths, progress, moved, stage)
        )
        reached = np.array([mover.reach(tip) for tip in tips])
        for link, body in enumerate(mover.bodies):
            stage.add(body, reached[:, link])
    _clutter(rng, paint, stage, max(half) + 0.5)
    hang_lights(rng, blueprint)
    if moved:
        at = np.mean([stage.poses[i][:, :3, 3].mean(axis=0) for i in moved], axis=0)
    else:
        at = np.array([*rng.uniform(-0.5, 0.5, 2) * half, plane_m])
    return Scenario(blueprint, stage.stacked(), moved, np.asarray(at))


def _is_round(body: Body) -> bool:
    return body.shapes[0].kind == "cylinder"


def _table_mover(rng: Rng, paint: Paint, half_m: Vector, plane_m: float, *, only_arm: bool) -> Mover | None:
    chance = 1.0 if only_arm else rng.random()
    if chance < 0.1:
        return None
    if chance < 0.28:
        return make_gantry(
            rng,
            paint,
            np.array([0, 0, plane_m]),
            float(max(half_m)) + 0.15,
            plane_m + float(rng.uniform(0.35, 0.8)),
        )
    side = int(rng.integers(4))
    base = np.zeros(2)
    base[side % 2] = (1 if side < 2 else -1) * (half_m[side % 2] + 0.03)
    base[1 - side % 2] = rng.uniform(-0.4, 0.4) * half_m[1 - side % 2]
    farthest = float(np.hypot(*(np.abs(base) + half_m)))
    return make_arm(rng, paint, np.array([*base, plane_m]), max(0.45, 0.95 * min(farthest, 1.1)))


def _tips(
    rng: Rng,
    steps: int,
    plane_m: float,
    half_m: Vector,
    mover: Mover,
    paths: list[Path],
    progress: list[Vector],
    moved: list[int],
    stage: _Stage,
) -> list[Vector]:
    """Return the mover's tip at each step: behind what it pushed last, on top of what it lifts, or aside."""
    tips = []
    for step in range(steps):
        busy = [i for i in range(len(paths)) if step == 0 or progress[i][step] != progress[i][step - 1]]
        if not busy or rng.random() < 0.12:
            xy = rng.uniform(-0.9, 0.9, 2) * half_m
            tips.append(np.array([*xy, plane_m + rng.uniform(0.12, 0.4)]))
            continue
        which = busy[int(rng.integers(len(busy)))]
        body = stage.blueprint.bodies[moved[which] - 1]
        at = stage.poses[moved[which]][step]
        if paths[which].lift_m > 0:
            tips.append(at[:3, 3] + np.array([0, 0, body.size_m[2] / 2]))
            continue
        tips.append(push_tip(mover, body, at, paths[which].heading(float(progress[which][step])), plane_m))
    return tips


def _scripted_tips(
    script: PushScript, mover: Mover, paths: list[Path], moved: list[int], stage: _Stage, plane_m: float
) -> list[Vector]:
    """Return the tip at each step: at the contact behind the thing, or as far from it as the script says."""
    body = stage.blueprint.bodies[moved[0] - 1]
    tips = []
    for step, part in enumerate(script.progress):
        heading = paths[0].heading(float(part))
        contact = push_tip(mover, body, stage.poses[moved[0]][step], heading, plane_m)
        tips.append(contact + np.array([*(-script.away_m[step] * heading), script.above_m[step]]))
    return tips


def push_tip(mover: Mover, body: Body, world_from_body: Matrix, heading: Vector, plane_m: float) -> Vector:
    """Return where the tip stands when it touches `body` from behind to push it along `heading` (2,)."""
    local = world_from_body[:2, :2].T @ heading
    half = np.array(body.size_m[:2]) / 2
    reach = float(min(half[i] / max(abs(local[i]), 1e-6) for i in range(2)))
    gap = mover.half_width_m(world_from_body[:3, 3], heading) + 0.002
    xy = world_from_body[:2, 3] - (reach + gap) * heading
    return np.array([*xy, plane_m + min(0.5 * body.size_m[2], 0.06)])


def indoor(rng: Rng, steps: int) -> Scenario:
    """Return a furnished room of 3..7 m in which something opens or changes place."""
    size = rng.uniform(3.0, 7.0, 2)
    blueprint, paint = empty_room(rng, "indoor", size)
    blueprint.ambient += 0.1  # light from above leaves the walls dark, which rooms show much of
    stage = _Stage(blueprint, steps)
    taken: list[Footprint] = []
    moving = int(rng.choice(3, p=[0.25, 0.5, 0.25]))
    opening = int(rng.choice(3, p=[0.4, 0.45, 0.15])) if moving else 1
    moved = [part for part in (_open_at_wall(rng, paint, stage, size, taken) for _ in range(opening)) if part]
    for _ in range(int(rng.integers(4, 10))):
        body = furniture.AT_WALL[int(rng.integers(len(furniture.AT_WALL)))](rng, paint)
        spot = _along_wall(rng, body, size, taken)
        if spot is not None:
            xy, yaw = spot
            stage.add(body, upright(xy, body.size_m[2] / 2, yaw))
            taken.append(Footprint(xy, _wall_radius_m(body)))
            if body.category in ("table", "cabinet"):
                _things_on(rng, paint, stage, body, xy)
    for index in range(int(rng.integers(3, 9)) + moving):
        makers = furniture.MOVABLE_FURNITURE if index < moving else furniture.IN_ROOM
        body = makers[int(rng.integers(len(makers)))](rng, paint)
        rest = body.size_m[2] / 2
        path = draw_path(rng, body.radius_m, taken, size / 2, 1.0, lifts=False) if index < moving else None
        if path is not None:
            moved.append(
                stage.add(body, np.stack([path.place(float(p), rest) for p in draw_progress(rng, steps)]))
            )
            taken += path.sweep(body.radius_m)
            continue
        home = _free_spot(rng, body.radius_m, size / 2, taken)
        if home is None:
            continue
        yaw = float(rng.integers(4)) * np.pi / 2 + float(rng.normal(0, 0.25))
        stage.add(body, upright(home.centre_m, rest, yaw))
        taken.append(home)
        if body.category == "table":
            _things_on(rng, paint, stage, body, home.centre_m)
    hang_lights(rng, blueprint)
    if moved and rng.random() < 0.8:
        focus = stage.poses[moved[int(rng.integers(len(moved)))]][:, :3, 3].mean(axis=0)
    else:
        focus = stage.poses[int(rng.integers(1, len(stage.poses)))][0, :3, 3]
    return Scenario(blueprint, stage.stacked(), moved, np.asarray(focus))


def _open_at_wall(rng: Rng, paint: Paint, stage: _Stage, size: Vector, taken: list[Footprint]) -> int | None:
    """Put something that opens at a wall, keep the floor before it free, return its part's id or None."""
    thing = articulated.OPENING[int(rng.integers(len(articulated.OPENING)))](rng, paint)
    spot = _along_wall(rng, thing.fixed, size, taken)
    if spot is None or any(thing.front(*spot).meets(other) for other in taken):
        return None
    xy, yaw = spot
    world_from_fixed = upright(xy, thing.fixed.size_m[2] / 2, yaw)
    stage.add(thing.fixed, world_from_fixed)
    taken += [Footprint(xy, _wall_radius_m(thing.fixed)), thing.front(xy, yaw)]
    part = stage.add(
        thing.part,
        np.stack([thing.part_pose(world_from_fixed, float(p)) for p in draw_progress(rng, stage.steps)]),
    )
    if thing.fixed.category == "cabinet":
        _things_on(rng, paint, stage, thing.fixed, xy)
    return part


def _wall_radius_m(body: Body) -> float:
    return 0.45 * (body.size_m[0] + body.size_m[1]) / 1.6


def _things_on(rng: Rng, paint: Paint, stage: _Stage, below: Body, xy: Vector) -> None:
    makers = (*catalogue.TABLE_THINGS, furniture.screen)
    spots: list[Footprint] = []
    half = min(below.size_m[:2]) / 2 * (0.65 if _is_round(below) else 0.8)
    for _ in range(int(rng.integers(0, 4))):
        body = makers[int(rng.integers(len(makers)))](rng, paint)
        spot = _free_spot(rng, body.radius_m, np.full(2, half), spots)
        if spot is not None:
            spots.append(spot)
            stage.add(
                body,
                upright(
                    xy + spot.centre_m,
                    below.size_m[2] + body.size_m[2] / 2,
                    float(rng.uniform(0, 2 * np.pi)),
                ),
            )


def _free_spot(rng: Rng, radius_m: float, half_m: Vector, taken: list[Footprint]) -> Footprint | None:
    spread = half_m - radius_m
    if (spread <= 0).any():
        return None
    for _ in range(25):
        centre = rng.uniform(-1, 1, 2) * spread
        if all(np.linalg.norm(centre - o.centre_m) > radius_m + o.radius_m for o in taken):
            return Footprint(centre, radius_m)
    return None


def _along_wall(rng: Rng, body: Body, size: Vector, taken: list[Footprint]) -> tuple[Vector, float] | None:
    """Return (x, y) and yaw of a body with its back (+y) at a wall."""
    for _ in range(15):
        wall = int(rng.integers(4))
        yaw = wall * np.pi / 2
        out = np.array([-np.sin(yaw), np.cos(yaw)])
        side = np.array([np.cos(yaw), np.sin(yaw)])
        room = float(abs(out) @ size) / 2 - body.size_m[1] / 2 - 0.02
        spread = float(abs(side) @ size) / 2 - body.size_m[0] / 2
        if spread <= 0 or room <= 0:
            continue
        xy = out * room + side * rng.uniform(-1, 1) * spread
        radius = _wall_radius_m(body)
        if all(np.linalg.norm(xy - o.centre_m) > radius + o.radius_m for o in taken):
            return xy, yaw
    return None


def _clutter(rng: Rng, paint: Paint, stage: _Stage, keep_off_m: float) -> None:
    """Put furniture around the table, at the walls."""
    room = stage.blueprint.room_m
    size = np.array([room[2] - room[0], room[3] - room[1]])
    taken = [Footprint(np.zeros(2), keep_off_m)]
    for _ in range(int(rng.integers(1, 6))):
        body = furniture.AT_WALL[int(rng.integers(len(furniture.AT_WALL)))](rng, paint)
        spot = _along_wall(rng, body, size, taken)
        if spot is not None:
            stage.add(body, upright(spot[0], body.size_m[2] / 2, spot[1]))
            taken.append(Footprint(spot[0], _wall_radius_m(body)))
