"""A robot arm of three links and a gantry pusher, posed by closed-form kinematics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spatial_mllm_training.scenes.blueprint import Body, Matrix, Shape, Vector, make_body, pose
from spatial_mllm_training.scenes.catalogue import Paint
from spatial_mllm_training.scenes.textures import colour

Rng = np.random.Generator


class Mover(Protocol):
    """Something whose tip can be put at a point and whose bodies follow."""

    bodies: tuple[Body, ...]

    def reach(self, tip_m: Vector) -> list[Matrix]:
        """Return world_from_body (4, 4) of every body with the tip at `tip_m`, or as near as it gets."""
        ...

    def half_width_m(self, at_m: Vector, heading: Vector) -> float:
        """Return how far the tip's own parts stick out along `heading` (2,) when it is near `at_m`."""
        ...


@dataclass(frozen=True)
class Arm:
    """A pedestal, two links and a tool that hangs down; the tip is the tool's end."""

    bodies: tuple[Body, ...]
    base_m: Vector
    shoulder_height_m: float
    upper_m: float
    fore_m: float
    tool_m: float
    lean_rad: float
    finger_m: tuple[float, float]

    def half_width_m(self, at_m: Vector, heading: Vector) -> float:
        """The fingers stand side by side in the arm's plane."""
        radial = at_m[:2] - self.base_m[:2]
        along = float(abs(radial @ heading) / max(float(np.linalg.norm(radial)), 1e-9))
        return along * self.finger_m[0] + float(np.sqrt(max(0.0, 1 - along**2))) * self.finger_m[1]

    def reach(self, tip_m: Vector) -> list[Matrix]:
        """Solve the planar two-link problem in the vertical plane through base and tip."""
        offset = tip_m[:2] - self.base_m[:2]
        yaw = np.arctan2(offset[1], offset[0])
        # (along, up) from the shoulder; the tool leans outward.
        tool = np.array([np.sin(self.lean_rad), -np.cos(self.lean_rad)])
        tip = np.array([np.hypot(*offset), tip_m[2] - self.base_m[2] - self.shoulder_height_m])
        wrist = tip - self.tool_m * tool
        distance = np.linalg.norm(wrist)
        longest, shortest = (
            0.999 * (self.upper_m + self.fore_m),
            1.02 * abs(self.upper_m - self.fore_m) + 1e-3,
        )
        wrist = wrist * np.clip(distance, shortest, longest) / max(float(distance), 1e-9)
        distance = float(np.clip(distance, shortest, longest))
        bend = np.arccos(
            np.clip((self.upper_m**2 + distance**2 - self.fore_m**2) / (2 * self.upper_m * distance), -1, 1)
        )
        rise = np.arctan2(wrist[1], wrist[0]) + bend
        elbow = self.upper_m * np.array([np.cos(rise), np.sin(rise)])
        shoulder = np.zeros(2)
        links = [(shoulder, elbow), (elbow, wrist), (wrist, wrist + self.tool_m * tool)]
        c, s = np.cos(yaw), np.sin(yaw)
        around = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        origin = self.base_m + np.array([0, 0, self.shoulder_height_m])
        poses = [pose(around, self.base_m + np.array([0, 0, self.bodies[0].size_m[2] / 2]))]
        for start, end in links:
            axis = (end - start) / np.linalg.norm(end - start)
            z = np.array([axis[0], 0, axis[1]])
            y = np.array([0, 1.0, 0])
            rotation = around @ np.stack([np.cross(y, z), y, z], axis=1)
            middle = (start + end) / 2
            poses.append(pose(rotation, origin + around @ np.array([middle[0], 0, middle[1]])))
        return poses


def make_arm(rng: Rng, paint: Paint, base_m: Vector, reach_m: float) -> Arm:
    """Return an arm on `base_m` whose tip gets `reach_m` far."""
    thick = float(rng.uniform(0.02, 0.045))
    height = float(rng.uniform(0.15, 0.35))
    upper = reach_m * float(rng.uniform(0.5, 0.62))
    fore = reach_m * float(rng.uniform(0.45, 0.58))
    tool = float(rng.uniform(0.1, 0.2))
    style = colour(rng, vivid=float(rng.choice([0.1, 0.1, 1.0])))
    skin, joint, tip = paint.plain(style), paint.grey(), paint.grey()
    kind = "capsule" if rng.random() < 0.6 else "box"

    def link(name: str, length: float, r: float) -> Body:
        bar = (
            Shape("capsule", (r, length / 2), skin)
            if kind == "capsule"
            else Shape("box", (r, r, length / 2 + r), skin)
        )
        ends = [
            Shape(
                "cylinder",
                (1.3 * r, 1.25 * r),
                joint,
                (0, 0, s * length / 2),
                (np.sqrt(0.5), np.sqrt(0.5), 0, 0),
            )
            for s in (-1, 1)
        ]
        return make_body(name, [bar, *ends])

    base = make_body(
        "robot base",
        [
            Shape("cylinder", (2.2 * thick, 0.012), joint, (0, 0, 0.012)),
            Shape("cylinder", (1.6 * thick, height / 2 - 0.012), skin, (0, 0, height / 2 + 0.012)),
        ],
    )
    # Symmetric about the middle of its axis, so that the box's centre is the middle of the link.
    finger = float(rng.uniform(0.006, 0.012))
    hand = make_body(
        "robot hand",
        [
            Shape("cylinder", (0.9 * thick, 0.2 * tool), joint, (0, 0, -0.3 * tool)),
            Shape("box", (1.1 * thick, 0.6 * thick, 0.02), skin, (0, 0, -0.05 * tool)),
            Shape("box", (finger, finger, 0.27 * tool), tip, (0.8 * thick, 0, 0.23 * tool)),
            Shape("box", (finger, finger, 0.27 * tool), tip, (-0.8 * thick, 0, 0.23 * tool)),
        ],
    )
    return Arm(
        (base, link("robot arm", upper, thick), link("robot arm", fore, 0.85 * thick), hand),
        base_m,
        height,
        upper,
        fore,
        tool,
        float(rng.uniform(0.0, 0.5)),
        (0.8 * thick + finger, finger),
    )


@dataclass(frozen=True)
class Gantry:
    """A beam across the table that carries a rod; the tip is the rod's lower end."""

    bodies: tuple[Body, ...]
    along_x: bool
    beam_height_m: float
    middle_m: Vector
    pad_m: float

    def half_width_m(self, at_m: Vector, heading: Vector) -> float:
        """The pad is a square along the axes."""
        return float(self.pad_m / np.abs(heading).max())

    def reach(self, tip_m: Vector) -> list[Matrix]:
        """Put the beam above the tip and the rod on it."""
        beam = np.array([self.middle_m[0], tip_m[1], self.beam_height_m])
        if not self.along_x:
            beam[:2] = tip_m[0], self.middle_m[1]
        carriage = np.array([tip_m[0], tip_m[1], self.beam_height_m])
        rod = np.array([tip_m[0], tip_m[1], tip_m[2] + self.bodies[2].size_m[2] / 2])
        return [pose(np.eye(3), beam), pose(np.eye(3), carriage), pose(np.eye(3), rod)]


def make_gantry(rng: Rng, paint: Paint, middle_m: Vector, half_m: float, beam_height_m: float) -> Gantry:
    """Return a gantry over the table's middle; its rod is long enough to reach the table."""
    along_x = bool(rng.random() < 0.5)
    w = float(rng.uniform(0.012, 0.03))
    long = (half_m, w, w) if along_x else (w, half_m, w)
    reach = (beam_height_m - middle_m[2]) / 2 + 0.05
    skin = paint.plain(colour(rng, vivid=0.5))
    pad = float(rng.uniform(0.012, 0.03))
    rod = make_body(
        "robot hand",
        [
            Shape("cylinder", (0.4 * w + 0.004, reach), paint.grey()),
            Shape("box", (pad, pad, 0.02), paint.plain(), (0, 0, -reach + 0.02)),
        ],
    )
    return Gantry(
        (
            make_body("gantry beam", [Shape("box", long, skin)]),
            make_body("gantry carriage", [Shape("box", (2.2 * w, 2.2 * w, 1.8 * w), paint.grey())]),
            rod,
        ),
        along_x,
        beam_height_m,
        middle_m,
        pad,
    )
