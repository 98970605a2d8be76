"""Images at the size of a model's input."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def resized(image_rgb: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """(height, width, 3) of an (H, W, 3) image: areas where it shrinks, else linear; itself at its own size."""
    if image_rgb.shape[:2] == (height, width):
        return image_rgb
    shrinks = image_rgb.shape[1] >= width and image_rgb.shape[0] >= height
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image_rgb, (width, height), interpolation=method), np.uint8)
