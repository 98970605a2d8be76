"""What a scene is made of, as plain data; knows neither MuJoCo nor random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
IDENTITY_QUATERNION = (1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Texture:
    """A square image.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        cube: True repeats the image on the six sides of a solid, False lays it on a plane.
    """

    name: str
    image: NDArray[np.uint8]
    cube: bool


@dataclass(frozen=True)
class Material:
    """Surface of a shape; `repeat` counts texture periods in two metres when the texture lies on a plane."""

    name: str
    rgb: tuple[float, float, float]
    texture: str | None = None
    repeat: float = 1.0
    specular: float = 0.2
    shininess: float = 0.3
    emission: float = 0.0


@dataclass(frozen=True)
class Shape:
    """One primitive in its body's frame.

    Attributes:
        kind: box, sphere, cylinder, capsule, ellipsoid or plane (z is the axis or the normal).
        size_m: half extents; (radius,) for a sphere; (radius, half length) for cylinder and capsule.
        position_m: centre.
        quaternion: (w, x, y, z).
    """

    kind: str
    size_m: tuple[float, ...]
    material: str
    position_m: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quaternion: tuple[float, float, float, float] = IDENTITY_QUATERNION
    casts_shadow: bool = True

    def half_extent_m(self) -> Vector:
        """Return the half size (3,) of the axis-aligned box around the shape, in its body's axes."""
        rotation = rotation_from_quaternion(self.quaternion)
        size = self.size_m
        if self.kind == "box":
            return np.asarray(np.abs(rotation) @ np.array(size[:3]))
        if self.kind == "sphere":
            return np.full(3, size[0])
        if self.kind == "ellipsoid":
            return np.asarray(np.sqrt(((rotation * np.array(size[:3])) ** 2).sum(axis=1)))
        axis = rotation[:, 2]
        if self.kind == "cylinder":
            return np.asarray(size[1] * np.abs(axis) + size[0] * np.sqrt(np.maximum(0, 1 - axis**2)))
        if self.kind == "capsule":
            return np.asarray(size[1] * np.abs(axis) + size[0])
        raise ValueError(f"a shape of kind {self.kind} has no extent")


@dataclass(frozen=True)
class Body:
    """A rigid thing with a name of its kind; its origin is the centre of its box."""

    category: str
    shapes: tuple[Shape, ...]
    size_m: tuple[float, float, float]

    @property
    def radius_m(self) -> float:
        """Radius of the upright cylinder around the body."""
        return float(np.hypot(self.size_m[0], self.size_m[1]) / 2)


@dataclass(frozen=True)
class Light:
    """A lamp; `directional` lamps are the sun, others stand at `position_m`."""

    position_m: tuple[float, float, float]
    direction: tuple[float, float, float]
    diffuse: tuple[float, float, float]
    directional: bool
    casts_shadow: bool


@dataclass
class Blueprint:
    """All that does not move, and every body that may.

    Attributes:
        bodies: bodies[i] has id i + 1 in the pictures; id 0 is the static world.
        ambient, headlight: grey levels of the light that is everywhere and of the camera's own.
        room_m: (xmin, ymin, xmax, ymax, height) of the free space.
    """

    kind: str
    room_m: tuple[float, float, float, float, float]
    static_shapes: list[Shape] = field(default_factory=list)
    bodies: list[Body] = field(default_factory=list)
    textures: dict[str, Texture] = field(default_factory=dict)
    materials: dict[str, Material] = field(default_factory=dict)
    lights: list[Light] = field(default_factory=list)
    ambient: float = 0.3
    headlight: float = 0.15
    sky: tuple[tuple[float, float, float], tuple[float, float, float]] = ((0.6, 0.7, 0.9), (0.9, 0.9, 0.95))

    def add_material(self, material: Material) -> str:
        """Keep `material` and return its name."""
        self.materials[material.name] = material
        return material.name

    def add_texture(self, texture: Texture) -> str:
        """Keep `texture` and return its name."""
        self.textures[texture.name] = texture
        return texture.name


def make_body(category: str, shapes: Sequence[Shape]) -> Body:
    """Return a body whose origin is the centre of the box around `shapes`."""
    lower = np.min([np.array(s.position_m) - s.half_extent_m() for s in shapes], axis=0)
    upper = np.max([np.array(s.position_m) + s.half_extent_m() for s in shapes], axis=0)
    centre = (lower + upper) / 2
    moved = tuple(replace(s, position_m=_triple(np.array(s.position_m) - centre)) for s in shapes)
    return Body(category, moved, _triple(upper - lower))


def _triple(values: Vector) -> tuple[float, float, float]:
    return (float(values[0]), float(values[1]), float(values[2]))


def rotation_from_quaternion(quaternion: Sequence[float]) -> Matrix:
    """Return the (3, 3) rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_from_rotation(rotation: Matrix) -> Vector:
    """Return the unit quaternion (w, x, y, z), w >= 0, of a (3, 3) rotation."""
    m = np.asarray(rotation, float)
    # Bar-Itzhack (2000): the eigenvector of the largest eigenvalue needs no case by case.
    q = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[1, 0] + m[0, 1], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[2, 0] + m[0, 2], m[2, 1] + m[1, 2], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], m[0, 0] + m[1, 1] + m[2, 2]],
        ]
    )
    _, vectors = np.linalg.eigh(q)
    x, y, z, w = vectors[:, -1]
    quaternion = np.array([w, x, y, z])
    return quaternion if w >= 0 else -quaternion


def rotation_about(axis: Sequence[float], angle_rad: float) -> Matrix:
    """Return the (3, 3) rotation by `angle_rad` about `axis`."""
    unit = np.asarray(axis, float)
    unit = unit / np.linalg.norm(unit)
    return rotation_from_quaternion((np.cos(angle_rad / 2), *(np.sin(angle_rad / 2) * unit)))


def pose(rotation: Matrix, position_m: Sequence[float] | Vector) -> Matrix:
    """Return the (4, 4) pose of a rotation and a position."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    matrix[:3, 3] = position_m
    return matrix
