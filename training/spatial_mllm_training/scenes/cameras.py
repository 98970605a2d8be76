"""Pinhole matrices and camera poses drawn at random; the optical frame is x right, y down, z forward."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spatial_mllm_training.scenes.blueprint import Matrix, Vector, pose, rotation_about

Rng = np.random.Generator


@dataclass(frozen=True)
class Domain:
    """From where scenes are seen; a narrow domain needs fewer pictures to be learned.

    Attributes:
        tabletop_share: share of table-top scenes, the rest are rooms.
        hfov_deg: horizontal field of view, log-uniform.
        table_distance_m: camera to the table's focus, log-uniform.
        table_elevation_deg: angle above the table.
    """

    tabletop_share: float = 0.6
    hfov_deg: tuple[float, float] = (40.0, 110.0)
    table_distance_m: tuple[float, float] = (0.35, 2.0)
    table_elevation_deg: tuple[float, float] = (10.0, 75.0)


DOMAINS = {
    "broad": Domain(),
    "workspace": Domain(1.0, (50.0, 85.0), (0.65, 1.4), (25.0, 60.0)),
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


def random_pinhole(rng: Rng, width: int, height: int, domain: Domain = DOMAINS["broad"]) -> Matrix:
    """Return a K of the domain's field of view, centre up to 8 % off, fy/fx 0.95..1.05."""
    low, high = domain.hfov_deg
    hfov_deg = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    shift = rng.uniform(-0.08, 0.08, 2)
    return pinhole(
        width,
        height,
        hfov_deg,
        aspect=float(rng.uniform(0.95, 1.05)),
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
    return look_at(target_m + offset, aim, float(np.radians(rng.normal(0, 4))))


def room_view(rng: Rng, eye_m: Vector, towards_m: Vector) -> Matrix:
    """Return a camera at `eye_m` roughly towards a place in the room, pitch -45..+10 degrees."""
    yaw = np.arctan2(towards_m[1] - eye_m[1], towards_m[0] - eye_m[0]) + rng.normal(0, 0.35)
    pitch = np.radians(np.clip(rng.normal(-14, 14), -45, 10))
    return look_along(eye_m, float(yaw), float(pitch), float(np.radians(rng.normal(0, 3))))


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
