"""A room of boxes whose depth is exact: a scene that needs no file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.sources.base import Scene, SceneFrame, SceneProblem

BOXES = [  # the first is the room, seen from inside
    ([-2.5, -2.0, 0.0], [2.5, 2.0, 2.4]),
    ([0.8, -0.6, 0.0], [1.6, 0.6, 0.8]),
    ([-1.9, 0.7, 0.0], [-1.2, 1.6, 1.3]),
    ([-0.6, -1.9, 0.0], [0.5, -1.4, 0.5]),
]


def ray_cast(camera, world_from_camera):
    """(H, W) float32 exact z-depth; 0 where the lens has no ray."""
    v, u = np.mgrid[: camera.height, : camera.width]
    rays = camera.rays(np.stack([u, v], axis=-1).reshape(-1, 2)) @ world_from_camera[:3, :3].T
    inverse = 1.0 / np.where(rays == 0, 1e-12, rays)
    depth = np.full(len(rays), np.inf)
    for number, (low, high) in enumerate(BOXES):
        a = (np.array(low) - world_from_camera[:3, 3]) * inverse
        b = (np.array(high) - world_from_camera[:3, 3]) * inverse
        enter, leave = np.minimum(a, b).max(axis=1), np.maximum(a, b).min(axis=1)
        hit = leave if number == 0 else np.where((enter > 0) & (enter < leave), enter, np.inf)
        depth = np.fmin(depth, hit)
    depth[~np.isfinite(depth)] = 0
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def walk(count):
    """World from camera at `count` places of a turn around the room, looking outward and a little down."""
    poses = []
    for at in np.linspace(0, 2 * np.pi, count, endpoint=False):
        pose = np.eye(4)
        yaw = Rotation.from_euler("z", at)
        level = np.array(
            [[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]
        )  # optical axes, looking along x
        pose[:3, :3] = yaw.as_matrix() @ level @ Rotation.from_euler("x", -0.2).as_matrix()
        pose[:3, 3] = yaw.apply([-0.4, 0.1, 0.0]) + [0.0, 0.0, 1.4]
        poses.append(pose)
    return poses


class BoxRoom(Scene):
    """The room of `BOXES`; `depths` replaces the depth of frames (an error is raised)."""

    source, world_up = "made", np.array([0.0, 0.0, 1.0])

    def __init__(self, frames, *, depths=None, points=None, objects=(), has_depth=True):
        self.name, self.skipped, self.frames = "box_room", [], frames
        self._depths, self._points, self._objects, self._has_depth = depths or {}, points, objects, has_depth
        self.reads: list[int] = []

    def image(self, index):
        raise SceneProblem(self.name, self.frames[index].name, "the room has no pictures")

    def depth_m(self, index):
        self.reads.append(index)
        frame = self.frames[index]
        depth = self._depths.get(index)
        if isinstance(depth, Exception):
            raise depth
        if depth is not None:
            return depth
        return ray_cast(frame.depth_camera or frame.camera, frame.world_from_camera)

    @property
    def has_depth(self):
        return self._has_depth

    def points_m(self, state):
        return self._points

    def objects(self, state):
        return list(self._objects)


CAMERA = CameraModel.from_fov(96, 72, 1.2)


@pytest.fixture
def box_room():
    """A function (count=8, camera=, depth_camera=None, states=None, **more) that makes a BoxRoom."""

    def make(count=8, *, camera=CAMERA, depth_camera=None, states=None, **more):
        frames = [
            SceneFrame(f"{number:03d}", camera, pose, depth_camera=depth_camera)
            for number, pose in enumerate(walk(count))
        ]
        if states is not None:
            frames = [replace(frame, state=state) for frame, state in zip(frames, states, strict=True)]
        return BoxRoom(frames, **more)

    return make
