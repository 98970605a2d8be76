"""What every source of posed RGB-D looks like to the data engine, and how a fault in it is named.

Poses are `target_from_source` 4x4 float64 matrices; optical axes x right, y down, z forward
(REP-103); lengths in metres; integer pixel coordinates are pixel centres; depth is z-depth,
NaN or 0 = none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import one_line


class SceneProblem(ValueError):
    """A scene that cannot be used, or not all of it: one sentence that names scene and file."""

    def __init__(self, scene: str, file: str, sentence: str) -> None:
        self.scene, self.file, self.sentence = scene, file, one_line(sentence)
        super().__init__(f"scene '{scene}', {file}: {self.sentence}")

    def __reduce__(self) -> tuple[type[SceneProblem], tuple[str, str, str]]:
        return (SceneProblem, (self.scene, self.file, self.sentence))


@dataclass(frozen=True)
class SceneFrame:
    """One posed image.

    Attributes:
        name: unique within the scene, safe as a part of a file name.
        camera: intrinsics of the colour image.
        world_from_camera: (4, 4) float64.
        state: frames of equal state show the same unmoved world; static questions pair only such.
        time_s: when it was taken, on the source's clock; NaN where the source has none.
        depth_camera: intrinsics of the depth image when its size differs from the colour image's;
            same optical frame. None: depth is registered pixel by pixel.
    """

    name: str
    camera: CameraModel
    world_from_camera: NDArray[np.float64]
    state: int = 0
    time_s: float = float("nan")
    depth_camera: CameraModel | None = None


@dataclass(frozen=True)
class SceneObject:
    """An upright box around a thing of a named category.

    Attributes:
        world_from_box: (4, 4) pose of the box's centre; its z axis is parallel to world up.
        size_m: (3,) full extents along the box's axes; height is the third.
        point_ids: indices into `Scene.points_m(state)` of the points on the object.
    """

    name: str
    category: str
    world_from_box: NDArray[np.float64]
    size_m: NDArray[np.float64]
    point_ids: NDArray[np.int64]


@dataclass(frozen=True)
class PointTracks:
    """The same surface points followed through time.

    Attributes:
        points_in_world_m: (T, N, 3) float64, NaN where unknown; row t belongs to state t.
        visible: (F, N) bool, whether the point is seen in each of the scene's F frames.
        body: (N,) int, true rigid body of each point, or None where only a segmentation can tell.
    """

    points_in_world_m: NDArray[np.float64]
    visible: NDArray[np.bool_]
    body: NDArray[np.int64] | None = None


class Scene(ABC):
    """A place seen by posed cameras. Frames are known at once; pictures are read when asked for.

    Attributes:
        name: unique in a run, safe as a folder name.
        source: kind of reader, such as "scannet".
        frames: all usable frames, in order.
        world_up: (3,) unit vector against gravity in world axes, or None where it is not known
            (yaw and pitch questions need it).
        moving: whether anything in the scene moves between states.
        depth_is_noisy: True for sensors, False for rendered truth (a hint for tolerances).
        skipped: sentences about frames that were left out, with their files.
    """

    name: str
    source: str
    frames: list[SceneFrame]
    world_up: NDArray[np.float64] | None
    moving: bool = False
    depth_is_noisy: bool = True
    skipped: list[str]

    @abstractmethod
    def image(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB of frame `index`; raises SceneProblem when it does not open."""

    @abstractmethod
    def depth_m(self, index: int) -> NDArray[np.float32]:
        """(h, w) z-depth of frame `index`, 0 = none; raises SceneProblem. Sources without depth
        (tracks only) raise SceneProblem and have `has_depth` False."""

    @property
    def has_depth(self) -> bool:
        return True

    def points_m(self, state: int) -> NDArray[np.float32] | None:
        """(P, 3) mesh or laser points in the world as they stand in `state`, or None: fuse them from depth."""
        return None

    def objects(self, state: int) -> list[SceneObject]:
        """Boxed objects as they stand in `state`, [] where the source has none.

        A source with objects also has `points_m`, which their `point_ids` index.
        """
        return []

    @cached_property
    def tracks(self) -> PointTracks | None:
        """Followed points, None where the source has none."""
        return None

    def close(self) -> None:  # noqa: B027 - most sources keep nothing open
        """Release files; the scene is not used afterwards."""


@dataclass(frozen=True)
class SceneRef:
    """A scene that can be opened later, in another process: small and picklable.

    Attributes:
        open: a module-level function (picklable) called as open(*arguments) -> Scene; raises SceneProblem.
        seed: the simulation's seed where there is one; decides the split of simulated scenes.
        place: where it was recorded; scenes of one place (two scans of a room) belong to one split. "" = name.
    """

    name: str
    source: str
    open: Callable[..., Scene]
    arguments: tuple[object, ...] = field(default=())
    seed: int | None = None
    place: str = ""
