"""The peer: a plain rclpy node that does nothing with an image, the least that Python and DDS cost.

With --image alone it views the pixels. With --echo it has the topics of bringup, in and out:
image and camera_info in; two float images of equal size and a camera_info out, made beforehand.
"""

from __future__ import annotations

import argparse
from array import array
from pathlib import Path

import numpy as np
import rclpy
from meter import Meter
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from spatial_mllm.qos import OUTPUT, image_input

QUEUE_DEPTH = 5  # as bringup


class BareNode(Node):
    """Subscribes as bringup does."""

    def __init__(self, base: str, meter: Meter, *, echoes: bool) -> None:
        super().__init__("bare", namespace=base)
        self._meter = meter
        self._echoes = echoes
        self._outputs: list[Image] = []
        qos = image_input("sensor_data", QUEUE_DEPTH)
        self.create_subscription(Image, "image", self._on_image, qos)
        if echoes:
            self.create_subscription(CameraInfo, "camera_info", lambda _: None, qos)
            self._publishers_of_images = [
                self.create_publisher(Image, f"depth/{name}", OUTPUT) for name in ("image", "confidence")
            ]
            self._publisher_of_info = self.create_publisher(CameraInfo, "depth/camera_info", OUTPUT)
            self._info = CameraInfo(d=[0.0] * 5)

    def _on_image(self, msg: Image) -> None:
        pixels = np.frombuffer(msg.data, np.uint8).reshape(msg.height, msg.width, 3)
        if self._echoes:
            self._echo(msg, pixels.shape[0], pixels.shape[1])
        self._meter.add(frames=1)

    def _echo(self, msg: Image, height: int, width: int) -> None:
        if not self._outputs:
            zeros = array("B", bytes(4 * height * width))
            self._outputs = [
                Image(height=height, width=width, encoding="32FC1", step=4 * width, data=zeros)
                for _ in self._publishers_of_images
            ]
        for publisher, output in zip(self._publishers_of_images, self._outputs, strict=True):
            output.header = msg.header
            publisher.publish(output)
        self._info.header = msg.header
        self._publisher_of_info.publish(self._info)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="namespace of its topics")
    parser.add_argument("--meter", type=Path, required=True)
    parser.add_argument("--echo", action="store_true")
    options = parser.parse_args()
    rclpy.init()
    try:
        rclpy.spin(BareNode(options.base, Meter(options.meter), echoes=options.echo))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
