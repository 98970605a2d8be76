"""Pinhole matrices and camera poses drawn at random; the optical frame is x right, y down, z forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_training.scenes.blueprint import Matrix, Vector, pose, rotation_about

Rng = np.random.Generator


HELD_OUT_HFOV_DEG = ((60.0, 66.0), (100.0, 110.0))
"""Fields of view that no scene is made with unless held-out cameras are asked for."""

CAMERA_SETS = ("training", "held-out")


@dataclass(frozen=True)
class Domain:
    """From where scenes are seen; a narrow domain needs fewer pictures to be learned.

    Attributes:
        tabletop_share: share of table-top scenes, the rest are rooms.
        hfov_deg: horizontal field of view, log-uniform.
        table_distance_m: camera to the table's focus, log-uniform.
        table_elevation_deg: angle above the table.
        wide_share: share of further views that are wide (`wide_view`); the others are near (`moved_view`).
        mats: floor and table tops carry squares of known size (`mat.lay_mats`).
    """

    tabletop_share: float = 0.6
    hfov_deg: tuple[float, float] = (40.0, 110.0)
    table_distance_m: tuple[float, float] = (0.35, 2.0)
    table_elevation_deg: tuple[float, float] = (10.0, 75.0)
    wide_share: float = 0.6
    mats: bool = False


DOMAINS = {
    "broad": Domain(),
    "workspace": Domain(1.0, (50.0, 85.0), (0.65, 1.4), (25.0, 60.0), 0.0),
    "mat": Domain(1.0, (40.0, 110.0), (0.5, 1.8), (25.0, 65.0), 0.3, mats=True),
}


def pinhole(
    width: int,
    height: int,
    hfov_deg: float,
    *,
    aspect: float = 1.0,
    centre_shift: tuple[float, float] = (0.0, 0.0),
) -> Matrix:
    """Return K (3, 3) of an image; integer pixel coordinates are pixel centres.

    Args:
        aspect: fy / fx.
        centre_shift: principal point's distance from the image centre as part of width and height.
    """
    fx = width / 2 / np.tan(np.radians(hfov_deg) / 2)
    cx = (width - 1) / 2 + centre_shift[0] * width
    cy = (height - 1) / 2 + centre_shift[1] * height
    return np.array([[fx, 0, cx], [0, aspect * fx, cy], [0, 0, 1.0]])


def hfov_intervals_deg(domain: Domain, cameras: str = "training") -> list[tuple[float, float]]:
    """Return the fields of view that a set of cameras is drawn from, in order.

    Args:
        cameras: "training" for the domain without the held-out bands, "held-out" for these bands.

    Raises:
        ValueError: for another word, and when the domain has no held-out fields of view.
    """
    if cameras not in CAMERA_SETS:
        raise ValueError(f"expected cameras of {CAMERA_SETS}, found '{cameras}'")
    low, high = domain.hfov_deg
    held_out = [(max(low, a), min(high, b)) for a, b in HELD_OUT_HFOV_DEG if min(high, b) > max(low, a)]
    if cameras == "held-out":
        if not held_out:
            raise ValueError(f"fields of view of {low:g} to {high:g} degrees hold no held-out band")
        return held_out
    starts = [low, *(b for _, b in held_out)]
    ends = [*(a for a, _ in held_out), high]
    return [(a, b) for a, b in zip(starts, ends, strict=True) if b > a]


def hfov_deg_of(k: Matrix, width: int) -> float:
    """Return the horizontal field of view of K (3, 3) as `pinhole` takes it: of a centred image."""
    return float(2 * np.degrees(np.arctan(width / 2 / k[0, 0])))


def random_pinhole(
    rng: Rng,
    width: int,
    height: int,
    domain: Domain = DOMAINS["broad"],
    cameras: str = "training",
) -> Matrix:
    """Return a K of the domain's field of view, centre up to 8 % off, fy/fx 0.9..1.1."""
    intervals = np.log(hfov_intervals_deg(domain, cameras))
    lengths = intervals[:, 1] - intervals[:, 0]
    at = rng.uniform(0, lengths.sum())
    index = int(np.searchsorted(np.cumsum(lengths)[:-1], at, side="right"))
    hfov_deg = float(np.exp(intervals[index, 0] + at - lengths[:index].sum()))
    shift = rng.uniform(-0.08, 0.08, 2)
    return pinhole(
        width,
        height,
        hfov_deg,
        aspect=float(rng.uniform(0.9, 1.1)),
        centre_shift=(float(shift[0]), float(shift[1])),
    )


def look_at(eye_m: Vector, target_m: Vector, roll_rad: float = 0.0) -> Matrix:
    """Return world_from_camera (4, 4) of a camera at `eye_m` that looks at `target_m`; world z is up."""
    forward = target_m - eye_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    if np.linalg.norm(right) < 1e-6:  # straight up or down: any direction is right
        right = np.array([1.0, 0.0, 0.0])
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    rotation = np.stack([right, down, forward], axis=1)
    return pose(rotation @ rotation_about((0, 0, 1), roll_rad), eye_m)


def look_along(eye_m: Vector, yaw_rad: float, pitch_rad: float, roll_rad: float) -> Matrix:
    """Return world_from_camera of a camera turned to `yaw_rad` about world z, pitch positive upward."""
    forward = np.array(
        [np.cos(pitch_rad) * np.cos(yaw_rad), np.cos(pitch_rad) * np.sin(yaw_rad), np.sin(pitch_rad)]
    )
    return look_at(eye_m, eye_m + forward, roll_rad)


def table_view(rng: Rng, target_m: Vector, domain: Domain) -> Matrix:
    """Return a camera at the domain's distance and angle above `target_m`, from any side."""
    near, far = domain.table_distance_m
    distance_m = float(np.exp(rng.uniform(np.log(near), np.log(far))))
    azimuth = rng.uniform(0, 2 * np.pi)
    elevation = np.radians(rng.uniform(*domain.table_elevation_deg))
    offset = distance_m * np.array(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    )
    aim = target_m + rng.normal(0, 0.06, 3)
    return look_at(target_m + offset, aim, _roll_rad(rng))


def room_view(rng: Rng, eye_m: Vector, towards_m: Vector) -> Matrix:
    """Return a camera at `eye_m` roughly towards a place in the room, pitch -60..+20 degrees."""
    yaw = np.arctan2(towards_m[1] - eye_m[1], towards_m[0] - eye_m[0]) + rng.normal(0, 0.35)
    pitch = np.radians(np.clip(rng.normal(-14, 16), -60, 20))
    return look_along(eye_m, float(yaw), float(pitch), _roll_rad(rng))


def _roll_rad(rng: Rng) -> float:
    """Most cameras are nearly level, one in four is tilted by up to 20 degrees."""
    return float(np.radians(rng.uniform(-20, 20) if rng.random() < 0.25 else rng.normal(0, 3)))


def moved_view(rng: Rng, base: Matrix, target_m: Vector, distance_m: float) -> Matrix:
    """Return a view near `base` that shares much of its picture: 0.03..0.6 m and up to 20 degrees off.

    Half of the views turn back to `target_m` (an orbit), the others turn freely.
    """
    reach = min(0.6, 0.6 * distance_m)
    length = float(np.exp(rng.uniform(np.log(0.03), np.log(max(reach, 0.031)))))
    direction = rng.normal(size=3) * np.array([1, 1, 0.6])
    eye = base[:3, 3] + length * direction / np.linalg.norm(direction)
    axis = rng.normal(size=3) * np.array([1, 1.2, 0.5])
    if rng.random() < 0.5:
        centre = base[:3, :3].T @ (target_m - base[:3, 3])
        aimed = pose(base[:3, :3], eye)
        now = aimed[:3, :3].T @ (target_m - eye)
        turn = np.cross(centre, now)
        angle = np.arctan2(np.linalg.norm(turn), centre @ now)
        rotation = base[:3, :3]
        if angle > 1e-6:
            rotation = rotation @ rotation_about(turn, min(float(angle), np.radians(20)))
        return pose(rotation @ rotation_about(axis, np.radians(rng.uniform(0, 5))), eye)
    return pose(base[:3, :3] @ rotation_about(axis, np.radians(20 * rng.beta(1.5, 1.5))), eye)


def wide_view(rng: Rng, base: Matrix, target_m: Vector, hfov_deg: float) -> Matrix:
    """Return a view that shares only a part of its picture with `base`.

    Two in five go around `target_m` by up to 90 degrees (and at most 2.2 m far), two in five take a step
    of 0.1..1.5 m and turn, the others turn almost on the spot. Turns go up to four fifths of the field of
    view, and so beyond 60 degrees where that is wide. Roll is drawn anew.
    """
    eye, forward = base[:3, 3], base[:3, 2]
    yaw, pitch = np.arctan2(forward[1], forward[0]), np.arcsin(np.clip(forward[2], -1, 1))
    kind = rng.random()
    if kind < 0.4:
        offset = eye - target_m
        away = float(np.hypot(offset[0], offset[1]))
        farthest = 2 * np.arcsin(min(1.1 / max(away, 1e-6), np.sin(np.pi / 4)))
        angle = rng.choice([-1, 1]) * rng.uniform(np.radians(8), max(farthest, np.radians(10)))
        turned = rotation_about((0, 0, 1), angle) @ offset
        turned = turned * np.exp(rng.uniform(np.log(0.55), np.log(1.4)))
        turned[2] += rng.normal(0, 0.15) * np.linalg.norm(offset)
        spread = 0.15 * np.linalg.norm(turned) * np.tan(np.radians(hfov_deg) / 2)
        aim = target_m + rng.normal(0, 1, 3) * spread
        return look_at(target_m + turned, aim, _roll_rad(rng))
    near, far = (0.1, 1.5) if kind < 0.8 else (0.02, 0.2)
    length = np.exp(rng.uniform(np.log(near), np.log(far)))
    direction = rng.normal(size=3) * np.array([1, 1, 0.5])
    turn = np.radians(hfov_deg) * np.array([rng.uniform(-0.8, 0.8), rng.uniform(-0.35, 0.35)])
    return look_along(
        eye + length * direction / np.linalg.norm(direction),
        float(yaw + turn[0]),
        float(np.clip(pitch + turn[1], np.radians(-80), np.radians(25))),
        _roll_rad(rng),
    )
