"""Bag messages to Frames, by the same pairing and building as the live nodes; knows no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.bags.message_types import stamp_ns_of
from spatial_mllm_core.bags.reader import BagReader, open_bag
from spatial_mllm_core.bags.topics import CameraTopics, base_name
from spatial_mllm_core.errors import SpatialError

if TYPE_CHECKING:
    from spatial_mllm_core.frames import Frame, Pair

DEPTH_TOLERANCE_NS = 5_000_000


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its images are rectified (image_rect, image_rect_color)."""
    return "image_rect" in base_name(image_topic)


@dataclass
class FrameStream:
    """The frames of one camera of an opened bag, in the order of recording.

    Attributes:
        bag, topics: where they come from.
        camera_name: key of the frames in a frame memory.
        images: images met so far, usable or not.
        faults: how often which error number made an image unusable.
        last_fault: the latest of them.
    """

    bag: BagReader
    topics: CameraTopics
    camera_name: str = "camera"
    images: int = 0
    faults: Counter[int] = field(default_factory=Counter)
    last_fault: SpatialError | None = None

    def __iter__(self) -> Iterator[Frame]:
        from spatial_mllm_core.frames import ImageInfoPairer

        self.images = 0
        self.faults.clear()
        pairer: ImageInfoPairer[Any] = ImageInfoPairer()
        wanted = [name for name in (self.topics.image, self.topics.camera_info) if name is not None]
        for message in self.bag.messages(wanted):
            stamp_ns = stamp_ns_of(message.message)
            if message.topic == self.topics.image:
                self.images += 1
                frame_id = str(message.message.header.frame_id)
                pairs = pairer.offer_image(stamp_ns, frame_id, message.message)
            else:
                pairs = pairer.offer_info(stamp_ns, message.message)
            for pair in pairs:
                yield from self._frame(pair)
        for pair in pairer.flush():
            yield from self._frame(pair)

    def _frame(self, pair: Pair[Any]) -> Iterator[Frame]:
        from spatial_mllm_core.frames import build_frame
        from spatial_mllm_core.images import decode_any

        try:
            image_rgb = decode_any(pair.payload)
        except SpatialError as fault:
            self.faults[int(fault.code)] += 1
            self.last_fault = fault
            return
        yield build_frame(
            pair.stamp_ns,
            pair.frame_id,
            image_rgb,
            pair.info,
            self.camera_name,
            rectified=is_rectified(self.topics.image),
        )


class DepthTruth:
    """Recorded depth beside the images: opens the bag a second time and walks along with the stamps.

    Use it as a context manager and ask with rising stamps; what lies behind is forgotten.

    Args:
        is_depth: False for another plane of floats, a confidence: its numbers are taken as they are.
    """

    _KEPT = 8

    def __init__(self, path: Path | str, topic: str, *, is_depth: bool = True) -> None:
        self._is_depth = is_depth
        self._bag = open_bag(path)
        self._topic = topic
        self._messages = self._bag.messages([topic])
        self._near: dict[int, Any] = {}
        self._ahead = True

    def __enter__(self) -> DepthTruth:
        return self

    def __exit__(self, *_: object) -> None:
        self._bag.close()

    def at(
        self, stamp_ns: int, tolerance_ns: int = DEPTH_TOLERANCE_NS
    ) -> tuple[NDArray[np.float32], str] | None:
        """Depth nearest to a stamp: (H, W) metres, NaN for none, and its frame_id; None when there is none near."""
        from spatial_mllm_core.images import decode_depth, decode_float

        decode = decode_depth if self._is_depth else decode_float
        while self._ahead and max(self._near, default=-1) <= stamp_ns + tolerance_ns:
            message = next(self._messages, None)
            if message is None:
                self._ahead = False
                break
            self._near[stamp_ns_of(message.message)] = message.message
            while len(self._near) > self._KEPT:
                del self._near[min(self._near)]
        nearest = min(self._near, key=lambda stamp: abs(stamp - stamp_ns), default=None)
        if nearest is None or abs(nearest - stamp_ns) > tolerance_ns:
            return None
        try:
            return decode(self._near[nearest]), str(self._near[nearest].header.frame_id)
        except SpatialError:
            return None
