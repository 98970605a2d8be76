"""Messages shaped like sensor_msgs/Image and CompressedImage for the codec's tests."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def image():
    """Build a raw image message from the exact bytes of its rows."""

    def build(pixels, encoding, *, width=None, height=None, step=None, big=0, padding=0, data=None):
        rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
        if padding:
            junk = np.full((len(rows), padding), 0xA5, np.uint8)
            rows = np.concatenate([rows, junk], axis=1)
        return SimpleNamespace(
            height=pixels.shape[0] if height is None else height,
            width=pixels.shape[1] if width is None else width,
            encoding=encoding,
            is_bigendian=big,
            step=rows.shape[1] if step is None else step,
            data=rows.tobytes() if data is None else data,
        )

    return build


@pytest.fixture
def compressed():
    """Build a compressed image message."""

    def build(data, text="jpeg"):
        return SimpleNamespace(format=text, data=data)

    return build


@pytest.fixture
def picture():
    """(24, 32, 3) uint8 RGB: smooth, and different in every channel and direction."""
    v, u = np.mgrid[:24, :32]
    return np.stack([u * 8, v * 10, 255 - u * 4 - v * 4], axis=-1).astype(np.uint8)
