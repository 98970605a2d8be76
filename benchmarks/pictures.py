"""The images of the benchmark: those of the sample bag, at any size, with their cameras."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_core.bags import FrameStream, choose, open_bag
from spatial_mllm_core.frames import Frame

SAMPLE_BAG = Path(__file__).resolve().parents[1] / "sample_bags/table_push"
POINT = (0.617, 0.474)  # on the pushed object, as fractions of width and height


def load(count: int, width: int, height: int) -> list[Frame]:
    """The first images of the sample bag."""
    with open_bag(SAMPLE_BAG) as bag:
        frames = list(islice(FrameStream(bag, choose(bag.topics())), count))
    return [_resized(frame, width, height) for frame in frames]


def _resized(frame: Frame, width: int, height: int) -> Frame:
    if (frame.width, frame.height) == (width, height):
        return frame
    image_rgb = np.asarray(cv2.resize(frame.image_rgb, (width, height)), np.uint8)
    return replace(frame, image_rgb=image_rgb, camera=frame.require_camera().resized(width, height))


def dataset_hash() -> str:
    """SHA-256 of the bag's data, so that figures can be compared."""
    return hashlib.sha256((SAMPLE_BAG / "table_push.mcap").read_bytes()).hexdigest()
