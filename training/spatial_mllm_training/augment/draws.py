"""Draws how one image is changed, and makes the warp of it for a camera; knows neither rows nor labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_training.augment.colour import Colour
from spatial_mllm_training.augment.config import AugmentConfig, Range
from spatial_mllm_training.augment.warp import CameraWarp, is_pinhole
from spatial_mllm_training.scenes.cameras import hfov_deg_of


@dataclass(frozen=True)
class ViewDraw:
    """What happens to an image, in numbers that fit an image of any size.

    Attributes:
        turn_deg: pitch, yaw and roll of the camera (about its x, y and z axis; yaw
            first, roll last).
        crop: sides of the window over those of the image.
        zoom: the window's sides shrink by this and are enlarged again.
        place: of the window, 0 is left or top and 1 right or bottom.
        scale: new pixels per pixel of the window before the zoom, along x and y.
        colour: change of colours, or None.
    """

    turn_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    crop: tuple[float, float] = (1.0, 1.0)
    zoom: float = 1.0
    place: tuple[float, float] = (0.5, 0.5)
    scale: tuple[float, float] = (1.0, 1.0)
    colour: Colour | None = None

    def only_resized(self) -> ViewDraw:
        """The same draw without what could cut something off."""
        return replace(self, turn_deg=(0.0, 0.0, 0.0), crop=(1.0, 1.0), zoom=1.0)

    def warp(self, camera: CameraModel, output_size: tuple[int, int] | None = None) -> CameraWarp:
        """The warp of a pinhole camera, its new image of `output_size` where given.

        Raises:
            SpatialError: BAD_ROI when a turn leaves no image.
        """
        turned = (
            CameraWarp.rotated(camera, self.rotation()) if any(self.turn_deg) else CameraWarp.identity(camera)
        )
        whole = turned.target
        width = max(1, round(whole.width * self.crop[0] / self.zoom))
        height = max(1, round(whole.height * self.crop[1] / self.zoom))
        x, y = round(self.place[0] * (whole.width - width)), round(self.place[1] * (whole.height - height))
        size = output_size or (
            max(1, round(width * self.zoom * self.scale[0])),
            max(1, round(height * self.zoom * self.scale[1])),
        )
        target = whole.cropped(x, y, width, height).resized(*size)
        return CameraWarp(camera, target, turned.rotation)

    def rotation(self) -> NDArray[np.float64]:
        """(3, 3) target_from_source of the turn."""
        about_x, about_y, about_z = (cv2.Rodrigues(v)[0] for v in np.diag(np.radians(self.turn_deg)))
        source_from_target = about_y @ about_x @ about_z
        return np.asarray(source_from_target.T)


def draw_view(rng: np.random.Generator, config: AugmentConfig, strength: float = 1.0) -> ViewDraw:
    """A random change of an image.

    Args:
        strength: 1 uses the whole ranges of the geometry, 0 leaves it unchanged.
    """
    width, height = 1.0, 1.0
    turn, zoom, scale, stretch = (0.0, 0.0, 0.0), 1.0, 1.0, 1.0
    if rng.random() < config.turn_chance:
        pitch, yaw, roll = (strength * float(rng.uniform(-a, a)) for a in config.turn_deg)
        turn = (pitch, yaw, roll)
    if rng.random() < config.crop_chance:
        width, height = (1 - strength * (1 - float(s)) for s in rng.uniform(*config.crop, 2))
    if rng.random() < config.zoom_chance:
        zoom = _log_uniform(rng, config.zoom) ** strength
    if rng.random() < config.scale_chance:
        scale = _log_uniform(rng, config.scale) ** strength
        stretch = _log_uniform(rng, (1 / config.stretch, config.stretch)) ** (strength / 2)
    place = (float(rng.random()), float(rng.random()))
    colour = None
    if rng.random() < config.colour_chance:
        red, green, blue = (rng.uniform(*config.gain) * rng.uniform(*config.gain, 3)).tolist()
        colour = Colour((red, green, blue), _log_uniform(rng, config.gamma), config.noise)
    return ViewDraw(turn, (width, height), zoom, place, (scale * stretch, scale / stretch), colour)


def is_held_out(camera: CameraModel, intervals_deg: tuple[Range, ...]) -> bool:
    """Whether the horizontal field of view lies in one of the intervals.

    By both meanings it may have for an image whose principal point is not in the middle: the angle
    between its edges, and the one that `scenes.cameras` draws, of a centred image with this f.
    """
    angles = [float(np.degrees(camera.hfov_rad))]
    if is_pinhole(camera):
        angles.append(hfov_deg_of(camera.k, camera.width))
    return any(low <= angle <= high for low, high in intervals_deg for angle in angles)


def _log_uniform(rng: np.random.Generator, limits: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(limits))))
