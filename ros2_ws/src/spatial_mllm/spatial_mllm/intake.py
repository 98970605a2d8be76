"""FrameIntake: the camera's subscriptions; pairs image and CameraInfo and hands them to the worker.

Pixels are not decoded here: that happens on the inference thread, and only for images whose turn
comes. The intake also knows, in words, which input is missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from spatial_mllm.conversions import to_ns
from spatial_mllm.parameters import parameter
from spatial_mllm.qos import SubscriptionEventCallbacks, image_input, incompatible_in_words
from spatial_mllm_core.frames import Frame, ImageInfoPairer, Pair, build_frame
from spatial_mllm_core.images import decode_any

FLUSH_AFTER_S = 0.5


@dataclass(frozen=True)
class IntakeParameters:
    """Where the images come from."""

    image_topic: str = parameter("image", "topic of the images (without /compressed)")
    camera_info_topic: str = parameter(
        "", "topic of their calibration; empty = camera_info beside the image topic"
    )
    image_transport: str = parameter(
        "raw",
        "raw (sensor_msgs/Image) or compressed (CompressedImage on <image_topic>/compressed)",
        choices=("raw", "compressed"),
    )
    image_qos: str = parameter(
        "sensor_data",
        "sensor_data (best effort, fits every camera) or reliable (loses nothing; for replays)",
        choices=("sensor_data", "reliable"),
    )
    image_queue_depth: int = parameter(5, "messages kept while the node is busy", bounds=(1, 1000))
    rectified: str = parameter(
        "auto",
        "whether images are rectified, so that P applies instead of K and D; auto = by the name image_rect",
        choices=("auto", "true", "false"),
    )
    info_window_s: float = parameter(
        0.0, "largest difference of stamps of image and CameraInfo, s; 0 = equal stamps", bounds=(0.0, 10.0)
    )


def camera_info_beside(image_topic: str) -> str:
    """The camera_info topic that lies beside an image topic."""
    parent, slash, _ = image_topic.rpartition("/")
    return f"{parent}{slash}camera_info"


class FrameIntake:
    """Subscriptions from `open` to `close`; callbacks run on the executor and never wait.

    Args:
        node: owns the subscriptions.
        parameters: where the images come from.
        offer: takes a function that builds the frame, for `InferenceWorker.offer_frame`.
    """

    def __init__(
        self, node: Node, parameters: IntakeParameters, offer: Callable[[Callable[[], Frame]], None]
    ) -> None:
        self._node = node
        self._offer = offer
        self._is_compressed = parameters.image_transport == "compressed"
        base = parameters.image_topic
        self._wanted_image = base + ("/compressed" if self._is_compressed else "")
        self._wanted_info = parameters.camera_info_topic or camera_info_beside(base)
        self._rectified = {"true": True, "false": False, "auto": "image_rect" in base}[parameters.rectified]
        self._qos = image_input(parameters.image_qos, parameters.image_queue_depth)
        self._window_ns = round(parameters.info_window_s * 1e9)
        self._pairer: ImageInfoPairer[Any] = ImageInfoPairer(self._window_ns)
        self._subscriptions: list[Any] = []
        self._opened_s = self._image_s = self._info_s = 0.0
        self._incompatible = ""
        self.lost = 0  # messages the middleware says it lost

    @property
    def image_topic(self) -> str:
        """Full name of the image topic, remappings applied."""
        return str(self._node.resolve_topic_name(self._wanted_image))

    @property
    def info_topic(self) -> str:
        return str(self._node.resolve_topic_name(self._wanted_info))

    @property
    def is_open(self) -> bool:
        return bool(self._subscriptions)

    @property
    def counters(self) -> dict[str, int]:
        """Totals for diagnostics."""
        c = self._pairer.counters
        return {
            "images": c.images,
            "camera_infos": c.infos,
            "paired by equal stamp": c.exact,
            "paired by nearest stamp": c.nearest,
            "paired with the latest camera_info": c.static,
            "without camera_info": c.without_info,
            "dropped before pairing": c.dropped,
            "stamps went back": c.jumps,
            "conflicting camera_infos": c.info_conflicts,
            "lost by the middleware": self.lost,
        }

    def open(self) -> None:
        """Subscribe; nothing of an earlier session is paired with what comes now."""
        self._pairer.reset()
        self._opened_s = self._image_s = self._info_s = time.monotonic()
        self._incompatible = ""
        kind = CompressedImage if self._is_compressed else Image
        for topic, message, callback in (
            (self._wanted_info, CameraInfo, self._on_info),
            (self._wanted_image, kind, self._on_image),
        ):
            events = SubscriptionEventCallbacks(
                incompatible_qos=partial(self._on_incompatible, topic), message_lost=self._on_lost
            )
            self._subscriptions.append(
                self._node.create_subscription(message, topic, callback, self._qos, event_callbacks=events)
            )

    def close(self) -> None:
        """Stop listening and forget what waits."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self._pairer.reset()

    def flush_stale(self) -> None:
        """Give out images that waited too long for a CameraInfo; called by a timer."""
        if self.is_open and self._pairer.waiting and time.monotonic() - self._image_s > FLUSH_AFTER_S:
            self._hand_over(self._pairer.flush())

    def missing(self, limit_s: float) -> str:
        """In words, the input that has not come for `limit_s`, or "" when all is there."""
        if not self.is_open:
            return ""
        if self._incompatible:
            return self._incompatible
        now, missing = time.monotonic(), []
        for what, topic, last_s in (
            ("image", self.image_topic, self._image_s),
            ("camera_info", self.info_topic, self._info_s),
        ):
            if now - last_s > limit_s:
                publishers = self._node.count_publishers(topic)
                why = "nobody publishes it" if publishers == 0 else f"{publishers} publisher(s), no message"
                missing.append(f"no {what} on {topic} for {now - last_s:.0f} s ({why})")
        if missing:
            return "; ".join(missing)
        counters = self._pairer.counters
        return self._pairer.describe() if counters.images and counters.infos else ""

    # -- callbacks --------------------------------------------------------------------------------

    def _on_image(self, msg: Any) -> None:
        self._image_s = time.monotonic()
        self._hand_over(self._pairer.offer_image(to_ns(msg.header.stamp), msg.header.frame_id, msg))

    def _on_info(self, msg: CameraInfo) -> None:
        self._info_s = time.monotonic()
        self._hand_over(self._pairer.offer_info(to_ns(msg.header.stamp), msg))

    def _on_incompatible(self, topic: str, event: Any) -> None:
        full = self._node.resolve_topic_name(topic)
        self._incompatible = incompatible_in_words(full, event.last_policy_kind)
        self._node.get_logger().warning(self._incompatible)

    def _on_lost(self, event: Any) -> None:
        self.lost += int(event.total_count_change)

    def _hand_over(self, pairs: tuple[Pair[Any], ...]) -> None:
        for pair in pairs:
            self._offer(partial(self._build, pair))

    def _build(self, pair: Pair[Any]) -> Frame:
        image_rgb = decode_any(pair.payload)
        return build_frame(pair.stamp_ns, pair.frame_id, image_rgb, pair.info, rectified=self._rectified)
