"""The numbers of the augmentation. The papers name its kinds but give no ranges: these are ours."""

from __future__ import annotations

from dataclasses import dataclass

from spatial_mllm_training.scenes.cameras import HELD_OUT_HFOV_DEG

Range = tuple[float, float]


@dataclass(frozen=True)
class AugmentConfig:
    """How far an image may be changed. CA-MLLM (facts 1.2) tests focal lengths at 0.8 and 1.2 of the trained ones.

    Each kind of change is drawn with its own chance, each image of a row for itself.

    Attributes:
        scale: size of the new image over its window of the source, log-uniform; f follows.
        stretch: width and height are scaled apart by up to this factor; fx / fy follows.
        crop: side of the window over the source's, uniform; its place is uniform, too.
        zoom: focal zoom, log-uniform: the window shrinks and is enlarged by as much. From 1 up, since
            less would need pixels that were never taken.
        turn_deg: largest pitch, yaw and roll of the camera about its centre, uniform to both sides.
        scale_chance, crop_chance, zoom_chance, turn_chance, colour_chance: of each change.
        gain: of each colour channel and of all together, uniform.
        gamma: log-uniform.
        noise: standard deviation, parts of full scale.
        same: all images of a row get the same draw, as from one camera.
        output_size: (width, height) px of every new image, for models of one input size; None: native.
        held_out_hfov_deg: no new image has a horizontal field of view in these intervals.
        border_px: points keep this distance from the border of the new image.
        least_kept: part of the image area that is kept where the row has no points that say what must be seen
            (camera movement: the images must go on overlapping).
        min_depth_ratio: farther depth over nearer depth in a comparison, after a turn.
        min_shift_m, min_turn_deg: smallest movement of the camera that a new direction or angle may rest on, as
            in multispa.config.PairConfig; 0 is as published.
        tries: draws before the row is left as it is; each is milder than the one before.
    """

    scale: Range = (0.7, 1.4)
    stretch: float = 1.1
    crop: Range = (0.7, 1.0)
    zoom: Range = (1.0, 1.5)
    turn_deg: tuple[float, float, float] = (6.0, 8.0, 10.0)
    scale_chance: float = 0.7
    crop_chance: float = 0.6
    zoom_chance: float = 0.4
    turn_chance: float = 0.5
    colour_chance: float = 0.8
    gain: Range = (0.75, 1.25)
    gamma: Range = (0.7, 1.4)
    noise: float = 0.012
    same: bool = False
    output_size: tuple[int, int] | None = None
    held_out_hfov_deg: tuple[Range, ...] = HELD_OUT_HFOV_DEG
    border_px: float = 3.0
    least_kept: float = 0.8
    min_depth_ratio: float = 1.05
    min_shift_m: float = 0.0
    min_turn_deg: float = 0.0
    tries: int = 8

    def __post_init__(self) -> None:
        for name in ("scale", "crop", "zoom", "gain", "gamma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be a range of positive numbers, found {low:g} to {high:g}")
        if self.zoom[0] < 1:
            raise ValueError(f"a zoom of {self.zoom[0]:g} needs pixels outside the image; it starts at 1")
        if self.crop[1] > 1:
            raise ValueError(f"a crop of {self.crop[1]:g} is larger than the image; it ends at 1")
        if self.stretch < 1:
            raise ValueError(f"stretch is a factor to both sides and so at least 1, found {self.stretch:g}")
        if min(self.turn_deg) < 0 or max(self.turn_deg) >= 45:
            raise ValueError(f"turns lie between 0 and 45 degrees, found {self.turn_deg}")
        if self.tries < 0:
            raise ValueError(f"tries cannot be {self.tries}")
