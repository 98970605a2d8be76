"""Recordings: open, iterate, write; ROS 2 bags of any storage and ROS 1 bags, never loaded whole."""

from spatial_mllm_core.bags.framing import DepthTruth, FrameStream
from spatial_mllm_core.bags.reader import BagMessage, BagReader, BagVerdict, open_bag
from spatial_mllm_core.bags.topics import CameraTopics, Topic, choose, image_topics
from spatial_mllm_core.bags.writer import BagWriter

__all__ = [
    "BagMessage",
    "BagReader",
    "BagVerdict",
    "BagWriter",
    "CameraTopics",
    "DepthTruth",
    "FrameStream",
    "Topic",
    "choose",
    "image_topics",
    "open_bag",
]
