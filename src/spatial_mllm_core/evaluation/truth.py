"""What is true in a bag: recorded depth, camera poses, the pose of a moved object, and truth.json.

All lengths are metres. A displacement is given in the optical axes of the camera at the first stamp,
which is how the tasks and the reward say it. Knows no model.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.bags import CameraTopics, DepthTruth, messages, open_bag
from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation.run import Question
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.reward.task import RewardGoal, RewardTask

TF_TOPICS = ("/tf", "/tf_static")
OBJECT_POSE = "/object/pose"
POSE_TOLERANCE_NS = 50_000_000

Matrix = NDArray[np.float64]


@dataclass
class PoseTrack:
    """Poses of one thing over time, (4, 4) parent_from_thing, looked up by nearest stamp."""

    stamps_ns: list[int] = field(default_factory=list)
    poses: list[Matrix] = field(default_factory=list)

    def add(self, stamp_ns: int, pose: Matrix) -> None:
        at = bisect_left(self.stamps_ns, stamp_ns)
        self.stamps_ns.insert(at, stamp_ns)
        self.poses.insert(at, pose)

    def at(self, stamp_ns: int, tolerance_ns: int = POSE_TOLERANCE_NS) -> Matrix | None:
        """Pose at a stamp: between its neighbours when both are near, else the nearest; None when none is."""
        at = bisect_left(self.stamps_ns, stamp_ns)
        if at < len(self.stamps_ns) and self.stamps_ns[at] == stamp_ns:
            return self.poses[at]
        before = at - 1 if at > 0 and stamp_ns - self.stamps_ns[at - 1] <= tolerance_ns else None
        after = at if at < len(self.stamps_ns) and self.stamps_ns[at] - stamp_ns <= tolerance_ns else None
        if before is not None and after is not None:
            share = (stamp_ns - self.stamps_ns[before]) / (self.stamps_ns[after] - self.stamps_ns[before])
            return interpolate(self.poses[before], self.poses[after], share)
        near = before if before is not None else after
        return None if near is None else self.poses[near]


def interpolate(one: Matrix, other: Matrix, share: float) -> Matrix:
    """Rigid motion `share` of the way from one to the other (straight line, shortest turn)."""
    q0, q1 = (
        np.array(messages.quaternion_xyzw(one[:3, :3])),
        np.array(messages.quaternion_xyzw(other[:3, :3])),
    )
    if q0 @ q1 < 0:
        q1 = -q1
    q = (1 - share) * q0 + share * q1
    pose = np.eye(4)
    pose[:3, :3] = messages.rotation_of(*(float(v) for v in q))
    pose[:3, 3] = (1 - share) * one[:3, 3] + share * other[:3, 3]
    return pose


class TransformTree:
    """The transforms of a bag; answers where a frame is in the root of its tree."""

    def __init__(self) -> None:
        self._moving: dict[str, tuple[str, PoseTrack]] = {}
        self._fixed: dict[str, tuple[str, Matrix]] = {}

    def add(self, transforms: Iterable[Any], *, is_static: bool) -> None:
        """Take in geometry_msgs/TransformStamped messages."""
        for t in transforms:
            parent, child = t.header.frame_id.lstrip("/"), t.child_frame_id.lstrip("/")
            pose = messages.matrix_of(t.transform)
            if is_static:
                self._fixed[child] = (parent, pose)
                continue
            if child not in self._moving or self._moving[child][0] != parent:
                self._moving[child] = (parent, PoseTrack())
            self._moving[child][1].add(stamp_ns_of(t), pose)

    def root_from(self, frame_id: str, stamp_ns: int) -> tuple[str, Matrix] | None:
        """(root frame, (4, 4) root_from_frame) at a stamp; None when a link is missing at that time."""
        name, pose = frame_id.lstrip("/"), np.eye(4)
        for _ in range(100):  # a loop of frames must not hang
            if name in self._moving:
                name, track = self._moving[name]
                link = track.at(stamp_ns)
                if link is None:
                    return None
            elif name in self._fixed:
                name, link = self._fixed[name]
            else:
                return name, pose
            pose = link @ pose
        return None

    def __contains__(self, frame_id: str) -> bool:
        return frame_id.lstrip("/") in self._moving or frame_id.lstrip("/") in self._fixed


@dataclass(frozen=True)
class TruthFile:
    """truth.json beside a simulated bag: which point lies on the moved object, and what to ask.

    Attributes:
        point_px: raw pixel on the moved object in the reference frame.
        reward_task: the task of the episode, its reference stamp set.
        questions: what the bag's maker would ask.
    """

    point_px: tuple[float, float]
    reward_task: RewardTask
    questions: tuple[Question, ...]


class BagTruth:
    """Everything true that a bag carries; a context manager, because depth is read while walking along.

    Poses are held in memory (a hundred bytes each), depth is not.
    """

    def __init__(self, path: Path | str, topics: CameraTopics) -> None:
        self.path = Path(path)
        self._depth = None if topics.depth is None else DepthTruth(path, topics.depth)
        self._tree = TransformTree()
        self._object = PoseTrack()
        self._object_frame = ""
        self._read_poses()
        self.file = read_truth_file(self.path)

    def __enter__(self) -> BagTruth:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._depth is not None:
            self._depth.__exit__(kind, error, trace)

    def _read_poses(self) -> None:
        with open_bag(self.path) as bag:
            types = {t.name: t.type_name for t in bag.topics()}
            wanted = [n for n in TF_TOPICS if types.get(n) == "tf2_msgs/msg/TFMessage"]
            if types.get(OBJECT_POSE) == "geometry_msgs/msg/PoseStamped":
                wanted.append(OBJECT_POSE)
            if not wanted:
                return
            for item in bag.messages(wanted):
                if item.topic == OBJECT_POSE:
                    self._object_frame = item.message.header.frame_id.lstrip("/")
                    self._object.add(stamp_ns_of(item.message), _pose_matrix(item.message.pose))
                else:
                    self._tree.add(item.message.transforms, is_static=item.topic == "/tf_static")

    @property
    def has_depth(self) -> bool:
        return self._depth is not None

    @property
    def has_object(self) -> bool:
        return bool(self._object.stamps_ns)

    def depth_m(self, frame: Frame) -> NDArray[np.float32] | None:
        """True depth of a frame, (H, W) metres, NaN for none; ask with rising stamps.

        None when there is none near the stamp, or when it is not registered to the image (other size).
        """
        found = None if self._depth is None else self._depth.at(frame.stamp_ns)
        if found is None or found[0].shape != (frame.height, frame.width):
            return None
        return found[0]

    def root_from_camera(self, frame_id: str, stamp_ns: int) -> Matrix | None:
        """(4, 4) pose of the camera's optical frame in the root of the tf tree; None when unknown."""
        if frame_id not in self._tree:
            return None
        found = self._tree.root_from(frame_id, stamp_ns)
        return None if found is None else found[1]

    def camera_displacement_m(
        self, frame_id: str, first_ns: int, second_ns: int
    ) -> NDArray[np.float64] | None:
        """(3,) movement of the camera between two stamps, in the optical axes at the first."""
        first, second = self.root_from_camera(frame_id, first_ns), self.root_from_camera(frame_id, second_ns)
        if first is None or second is None:
            return None
        return np.asarray((np.linalg.inv(first) @ second)[:3, 3], np.float64)

    def camera_moves(self, frame_id: str, first_ns: int, second_ns: int, least_m: float = 0.01) -> bool:
        """Whether the bag knows that the camera moved or turned between two stamps."""
        first, second = self.root_from_camera(frame_id, first_ns), self.root_from_camera(frame_id, second_ns)
        if first is None or second is None:
            return False
        motion = np.linalg.inv(first) @ second
        turned = float(np.linalg.norm(motion[:3, :3] - np.eye(3)))
        return float(np.linalg.norm(motion[:3, 3])) > least_m or turned > least_m

    def object_displacement_m(
        self, frame_id: str, first_ns: int, second_ns: int, point_in_camera_m: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """(3,) movement of a surface point of the object between two stamps.

        Args:
            point_in_camera_m: (3,) the point at the first stamp, optical frame of the camera.

        Returns:
            In the optical axes of the camera at the first stamp; None when a pose is missing.
        """
        root_from_camera = self.root_from_camera(frame_id, first_ns)
        placed = self._tree.root_from(self._object_frame, first_ns)
        first, second = self._object.at(first_ns), self._object.at(second_ns)
        if root_from_camera is None or placed is None or first is None or second is None:
            return None
        camera_from_base = np.linalg.inv(root_from_camera) @ placed[1]
        motion = camera_from_base @ second @ np.linalg.inv(first) @ np.linalg.inv(camera_from_base)
        point = np.append(np.asarray(point_in_camera_m, np.float64), 1.0)
        return np.asarray((motion @ point)[:3] - point[:3], np.float64)


def surface_point_m(
    camera: CameraModel, depth_m: NDArray[np.floating], point_px: tuple[float, float]
) -> NDArray[np.float64] | None:
    """(3,) surface point under a raw pixel, optical frame, metres; None where there is no depth."""
    depth = depth_at(depth_m, point_px)
    if depth is None:
        return None
    return np.asarray(
        camera.unproject(np.array([point_px], np.float64), np.array([depth])), np.float64
    ).reshape(3)


def depth_at(depth_m: NDArray[np.floating], point_px: tuple[float, float]) -> float | None:
    """Depth of the pixel that holds a point; None outside of the image and where there is none."""
    column, row = round(point_px[0]), round(point_px[1])
    height, width = depth_m.shape
    if not (0 <= column < width and 0 <= row < height):
        return None
    value = float(depth_m[row, column])
    return value if np.isfinite(value) and value > 0 else None


def read_truth_file(bag: Path) -> TruthFile | None:
    """truth.json of a bag folder; None when there is none.

    Raises:
        SpatialError: BAG_UNREADABLE when the file says something else than expected.
    """
    file = (bag if bag.is_dir() else bag.parent) / "truth.json"
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        reference_ns = int(plain["reference_stamp_ns"])
        point_px = _point(plain["object"]["point_px"])
        task = plain["reward_task"]
        reward_task = RewardTask(
            task_id=str(task["task_id"]),
            point_px=point_px,
            goal=RewardGoal(task["goal"]),
            distance_m=float(task["distance_m"]),
            tolerance_m=float(task["tolerance_m"]),
            reference_stamp_ns=reference_ns,
            description=str(task["description"]),
        )
        questions = tuple(
            Question(
                task=str(q["task"]),
                stamps_ns=tuple(int(s) for s in q["stamps_ns"]),
                points_px=tuple(_point(p) for p in q["points_px"]),
            )
            for q in plain["questions"]
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE, f"'{file}' cannot be read ({error.strerror or error})"
        ) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"'{file}' is not the truth of a simulated bag ({type(error).__name__}: {error}); remove or repair it",
        ) from error
    return TruthFile(point_px, reward_task, questions)


def _point(values: Any) -> tuple[float, float]:
    u, v = values
    return float(u), float(v)


def _pose_matrix(pose: Any) -> Matrix:
    matrix = np.eye(4)
    q, p = pose.orientation, pose.position
    matrix[:3, :3] = messages.rotation_of(q.x, q.y, q.z, q.w)
    matrix[:3, 3] = (p.x, p.y, p.z)
    return matrix
