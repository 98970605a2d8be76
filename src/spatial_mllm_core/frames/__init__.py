"""Frames in order: the frame itself, its memory, and the pairing with CameraInfo."""

from spatial_mllm_core.frames.build import build_frame
from spatial_mllm_core.frames.frame import Frame
from spatial_mllm_core.frames.memory import Added, FrameMemory, MemoryCounters
from spatial_mllm_core.frames.pairing import (
    ImageInfoPairer,
    Pair,
    PairingCounters,
    PairReason,
)

__all__ = [
    "Added",
    "Frame",
    "FrameMemory",
    "ImageInfoPairer",
    "MemoryCounters",
    "Pair",
    "PairReason",
    "PairingCounters",
    "build_frame",
]
