"""What a recording holds for one camera, found in one pass: where its pictures lie, K and transforms.

Pictures are left in the bag; only their places are kept. Knows nothing of scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spatial_mllm_core.bags import BagReader, Topic, choose, image_topics
from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.bags.topics import CAMERA_INFO_TYPE, IMAGE_TYPES, sibling_camera_info
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_training.sources.tf_tree import TransformTree

POSE_TYPES = (
    "geometry_msgs/msg/PoseStamped",
    "geometry_msgs/msg/PoseWithCovarianceStamped",
    "nav_msgs/msg/Odometry",
)
_TRANSFORM_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_DEPTH_ENCODINGS = ("16UC1", "32FC1")
NO_DEPTH = "none"
#: What reading a message raises whose definition, kept in the bag, is damaged.
FIELD_ERRORS = (AttributeError, TypeError, ValueError, OverflowError)


@dataclass(frozen=True)
class BagOptions:
    """How a bag becomes a scene; None means found automatically.

    Attributes:
        image, camera_info, depth, depth_camera_info: topics; depth "none" reads colour only.
        pose: topic of the camera's pose (PoseStamped) or of a body's (Odometry, whose child frame tf
            must connect with the camera); None = transforms alone.
        fixed_frame: world of the scene. None = map, odom or world, whichever is above the camera
            first in this order, else the root of the camera's tree. A camera that only static transforms
            connect with such a root is refused: on a robot it moves, and nobody recorded how.
        every: use each n-th image.
        min_baseline_m: leave out images nearer than this to the last one kept, and turned less than 5 deg.
        moving: things move meanwhile: each image is a state of its own. False: the world is still.
        max_gap_s: transforms are not interpolated between samples farther apart.
    """

    image: str | None = None
    camera_info: str | None = None
    depth: str | None = None
    depth_camera_info: str | None = None
    pose: str | None = None
    fixed_frame: str | None = None
    every: int = 1
    min_baseline_m: float = 0.0
    moving: bool = False
    max_gap_s: float = 1.0


@dataclass(frozen=True)
class BagTopics:
    """Names of the topics that are read; None where the bag has none."""

    image: str
    camera_info: str | None
    depth: str | None
    depth_camera_info: str | None
    pose: str | None
    transforms: tuple[str, ...]


#: Parent, child ("" = the camera), stamp in ns, position in m, quaternion x y z w.
_Pose = tuple[str, str, int, tuple[float, float, float], tuple[float, float, float, float]]


@dataclass
class Series:
    """Where the messages of a topic lie: stamp -> time of recording; of equal stamps the first."""

    frame_id: str = ""
    times_ns: dict[int, int] = field(default_factory=dict)
    other_frames: int = 0

    def add(self, message: Any, log_time_ns: int) -> None:
        frame_id = str(message.header.frame_id).lstrip("/")
        if not self.times_ns:
            self.frame_id = frame_id
        if frame_id != self.frame_id:
            self.other_frames += 1
        else:
            self.times_ns.setdefault(stamp_ns_of(message), log_time_ns)


@dataclass
class Calibrations:
    """The CameraInfos of a topic: those that differ from the one before, with their stamps."""

    changes: list[tuple[int, Any]] = field(default_factory=list)
    _last: tuple[object, ...] = ()

    def add(self, info: Any) -> None:
        spelled = [n for n in ("k", "d", "p", "K", "D", "P") if hasattr(info, n)]  # ROS 1 has capitals
        numbers = tuple(np.asarray(getattr(info, name)).tobytes() for name in spelled)
        key = (*numbers, info.width, info.height, str(info.distortion_model), str(info.header.frame_id))
        if key != self._last:
            self._last = key
            self.changes.append((stamp_ns_of(info), info))

    def at(self, stamp_ns: int) -> Any | None:
        """The one in force at a time: the latest not after it, else the first."""
        before = [info for stamp, info in self.changes if stamp <= stamp_ns]
        return before[-1] if before else self.changes[0][1] if self.changes else None


@dataclass
class BagIndex:
    """One pass over a bag."""

    topics: BagTopics
    images: Series
    depths: Series
    infos: Calibrations
    depth_infos: Calibrations
    transforms: TransformTree


def choose_topics(bag: BagReader, options: BagOptions) -> BagTopics:
    """Choose by names first, then by what the first message of a topic really is.

    Raises:
        SpatialError: BAG_WITHOUT_IMAGES; also for a given name of no topic.
    """
    depth, depth_camera_info, pose = options.depth, options.depth_camera_info, options.pose
    topics = bag.topics()
    by_name = {topic.name: topic for topic in topics}
    for given, wanted in ((depth_camera_info, (CAMERA_INFO_TYPE,)), (pose, POSE_TYPES)):
        if given is not None and (given not in by_name or by_name[given].type_name not in wanted):
            raise SpatialError(
                ErrorCode.BAG_WITHOUT_IMAGES, f"the bag has no topic '{given}' of type {' or '.join(wanted)}"
            )
    pictures = [t for t in topics if t.type_name in IMAGE_TYPES and t.count]
    depth_names = [t.name for t in pictures if _is_depth(bag, t)]
    colours = [t for t in topics if t.name not in depth_names]
    if options.image is None and not image_topics(colours) and pictures:
        raise SpatialError(
            ErrorCode.BAG_WITHOUT_IMAGES,
            f"the bag has only depth images ({', '.join(depth_names)}), no colour",
        )
    chosen = choose(
        colours if options.image is None else topics, image=options.image, camera_info=options.camera_info
    )
    depth_topic = None
    if depth is None and depth_names:
        depth_topic = choose(topics, image=chosen.image).depth
        if depth_topic not in depth_names:
            depth_topic = depth_names[0]
    elif depth not in (None, NO_DEPTH):
        depth_topic = choose(topics, image=chosen.image, depth=depth).depth
    if depth_camera_info is None and depth_topic is not None:
        sibling = sibling_camera_info(depth_topic)
        depth_camera_info = sibling if sibling in by_name else None
    return BagTopics(
        chosen.image,
        chosen.camera_info,
        depth_topic,
        depth_camera_info,
        pose,
        tuple(
            t.name
            for t in topics
            if t.type_name in _TRANSFORM_TYPES and t.name.rpartition("/")[2] in ("tf", "tf_static")
        ),
    )


def pose_topics(topics: Sequence[Topic]) -> list[str]:
    """Names of topics that may carry the camera's or the robot's pose."""
    return [t.name for t in topics if t.type_name in POSE_TYPES and t.count]


def index_bag(bag: BagReader, topics: BagTopics, *, max_gap_s: float) -> BagIndex:
    """Read the bag once from start to end; memory grows with its transforms (64 bytes each), not its images.

    A pose topic takes the place of what tf says about the frame it is the pose of: the child frame of
    an Odometry, else the camera.
    """
    index = BagIndex(topics, Series(), Series(), Calibrations(), Calibrations(), TransformTree(max_gap_s))
    poses: list[_Pose] = []
    wanted = {topics.image, *topics.transforms}
    wanted |= {t for t in (topics.camera_info, topics.depth, topics.depth_camera_info, topics.pose) if t}
    for stored in bag.messages(wanted):
        try:
            _add(index, poses, stored.topic, stored.message, stored.log_time_ns)
        except FIELD_ERRORS as error:
            bag.verdict.add(f"a message of {stored.topic} is not what its type says ({error})")
    for child in {child or index.images.frame_id for _, child, *_ in poses}:
        index.transforms.forget(child)
    for parent, child, stamp_ns, position_m, quaternion_xyzw in poses:
        index.transforms.add(
            parent, child or index.images.frame_id, stamp_ns, position_m, quaternion_xyzw, is_static=False
        )
    return index


def _add(
    index: BagIndex,
    poses: list[_Pose],
    topic: str,
    message: Any,
    log_time_ns: int,
) -> None:
    topics = index.topics
    if topic == topics.image:
        index.images.add(message, log_time_ns)
    elif topic == topics.depth:
        index.depths.add(message, log_time_ns)
    elif topic == topics.pose:
        pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
        child = str(getattr(message, "child_frame_id", ""))
        p, q = pose.position, pose.orientation
        numbers = ((p.x, p.y, p.z), (q.x, q.y, q.z, q.w))
        poses.append((str(message.header.frame_id), child, stamp_ns_of(message), *numbers))
    elif topic in topics.transforms:
        _add_transforms(index.transforms, message, is_static=topic.endswith("tf_static"))
    if topic == topics.camera_info:
        index.infos.add(message)
    if topic == topics.depth_camera_info:
        index.depth_infos.add(message)


def _add_transforms(tree: TransformTree, message: Any, *, is_static: bool) -> None:
    for stamped in message.transforms:
        t, q = stamped.transform.translation, stamped.transform.rotation
        tree.add(
            str(stamped.header.frame_id),
            str(stamped.child_frame_id),
            stamp_ns_of(stamped),
            (t.x, t.y, t.z),
            (q.x, q.y, q.z, q.w),
            is_static=is_static,
        )


def _is_depth(bag: BagReader, topic: Topic) -> bool:
    """Whether the first message of an image topic is depth: 16UC1, 32FC1 or compressedDepth."""
    first = next(bag.messages([topic.name]), None)
    if first is None:
        return False
    encoding = getattr(first.message, "encoding", None)
    if encoding is not None:
        return encoding in _DEPTH_ENCODINGS
    text = str(getattr(first.message, "format", ""))
    return "compressedDepth" in text or text.split(";", 1)[0].strip() in _DEPTH_ENCODINGS
