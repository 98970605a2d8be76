"""Which topics of a bag are the image, its CameraInfo and its depth; decides by names and types only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from spatial_mllm_core.errors import ErrorCode, SpatialError

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO_TYPE = "sensor_msgs/msg/CameraInfo"
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "ffmpeg")
_DEPTH = re.compile(r"depth|disparity|range", re.IGNORECASE)
_OTHER = re.compile(
    r"mask|label|segment|seg\b|infra|(^|[_/])ir([_/\d]|$)|confidence|debug|overlay", re.IGNORECASE
)
_COLOUR = re.compile(r"colou?r|rgb", re.IGNORECASE)


@dataclass(frozen=True)
class Topic:
    """One topic of a bag: `count` messages of `type_name`."""

    name: str
    type_name: str
    count: int


@dataclass(frozen=True)
class CameraTopics:
    """The topics of one camera; None where the bag has none."""

    image: str
    camera_info: str | None
    depth: str | None


def base_name(topic: str) -> str:
    """`topic` without its transport: /camera/image_raw/compressed -> /camera/image_raw."""
    head, _, tail = topic.rpartition("/")
    return head if tail in _TRANSPORTS else topic


def sibling_camera_info(topic: str) -> str:
    """The CameraInfo name that image_transport expects beside an image topic."""
    return base_name(topic).rpartition("/")[0] + "/camera_info"


def is_depth(topic: Topic) -> bool:
    """Whether the topic's name says that it carries depth."""
    return topic.type_name in IMAGE_TYPES and _DEPTH.search(topic.name) is not None


def image_topics(topics: Sequence[Topic]) -> list[Topic]:
    """Image topics that are not depth, the likeliest main camera first."""
    names = {t.name for t in topics}

    def rank(topic: Topic) -> tuple[bool, bool, bool, bool, int, str]:
        return (
            topic.count == 0,
            _OTHER.search(topic.name) is not None,
            sibling_camera_info(topic.name) not in names,
            _COLOUR.search(topic.name) is None,
            # raw before compressed: the same pixels without a lossy step
            IMAGE_TYPES.index(topic.type_name),
            topic.name,
        )

    return sorted((t for t in topics if t.type_name in IMAGE_TYPES and not is_depth(t)), key=rank)


def choose(
    topics: Sequence[Topic],
    *,
    image: str | None = None,
    camera_info: str | None = None,
    depth: str | None = None,
) -> CameraTopics:
    """Choose the topics of one camera; a name that is given must be in the bag.

    Raises:
        SpatialError: BAG_WITHOUT_IMAGES, with the topics found; also for a given name of no topic.
    """
    by_name = {t.name: t for t in topics}
    for given, wanted in ((image, IMAGE_TYPES), (camera_info, (CAMERA_INFO_TYPE,)), (depth, IMAGE_TYPES)):
        if given is not None and (given not in by_name or by_name[given].type_name not in wanted):
            raise SpatialError(
                ErrorCode.BAG_WITHOUT_IMAGES,
                f"the bag has no topic '{given}' of type {' or '.join(wanted)}; it has {listing(topics)}",
            )
    candidates = image_topics(topics)
    if image is None and (not candidates or candidates[0].count == 0):
        raise SpatialError(
            ErrorCode.BAG_WITHOUT_IMAGES,
            f"no message of sensor_msgs/Image or CompressedImage is in the bag; it has {listing(topics)}",
        )
    chosen = image or candidates[0].name
    infos = [
        t.name for t in topics if t.type_name == CAMERA_INFO_TYPE and t.count and not _DEPTH.search(t.name)
    ]
    if camera_info is None:
        sibling = sibling_camera_info(chosen)
        camera_info = sibling if sibling in by_name else _nearest(chosen, infos)
    depths = [t.name for t in topics if is_depth(t) and t.count]
    if depth is None and depths:
        aligned = [name for name in depths if re.search(r"align|regist", name, re.IGNORECASE)]
        depth = _nearest(chosen, aligned or depths, least_shared=0)
    return CameraTopics(chosen, camera_info, depth)


def listing(topics: Sequence[Topic], limit: int = 8) -> str:
    """A short list of topics for a sentence."""
    if not topics:
        return "no topics"
    shown = ", ".join(f"{t.name} ({t.type_name.rpartition('/')[2]}, {t.count})" for t in topics[:limit])
    return shown + (f" and {len(topics) - limit} more" if len(topics) > limit else "")


def _nearest(topic: str, names: Sequence[str], least_shared: int = 1) -> str | None:
    """The name that shares most leading parts with `topic`; None when fewer than `least_shared`."""

    def shared(name: str) -> int:
        ours, theirs = topic.strip("/").split("/"), name.strip("/").split("/")
        length = 0
        while length < min(len(ours), len(theirs)) and ours[length] == theirs[length]:
            length += 1
        return length

    best = max(names, key=lambda name: (shared(name), name), default=None)
    return best if best is not None and shared(best) >= least_shared else None
