"""A bag looked at once before a run: its camera's topics, its stamps, its first usable frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spatial_mllm_core.bags import CameraTopics, FrameStream, choose, open_bag
from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame


@dataclass(frozen=True)
class Source:
    """A bag with its camera, opened once to look around.

    Attributes:
        stamps_ns: stamps of its images, in the order of recording.
        depth_stamps_ns: stamps of its recorded depth.
        first: its first usable frame.
    """

    path: Path
    topics: CameraTopics
    stamps_ns: tuple[int, ...]
    depth_stamps_ns: tuple[int, ...]
    first: Frame


def look_around(
    path: Path | str, *, image: str | None = None, camera_info: str | None = None, depth: str | None = None
) -> Source:
    """Choose the topics of a bag and list its images.

    Raises:
        SpatialError: a 6xx code, or the fault of the images when not one can be used.
    """
    with open_bag(path) as bag:
        topics = choose(bag.topics(), image=image, camera_info=camera_info, depth=depth)
        stamps: dict[str, list[int]] = {topics.image: [], topics.depth or "": []}
        for message in bag.messages([name for name in (topics.image, topics.depth) if name]):
            stamps[message.topic].append(stamp_ns_of(message.message))
    with open_bag(path) as bag:
        stream = FrameStream(bag, topics)
        first = next(iter(stream), None)
        if first is None:
            raise stream.last_fault or SpatialError(
                ErrorCode.BAG_WITHOUT_IMAGES, f"no image of {topics.image} in '{path}' can be used"
            )
    return Source(Path(path), topics, tuple(stamps[topics.image]), tuple(stamps[topics.depth or ""]), first)
