"""Which pixels of a source image each visual token shows, and their rays; knows no model and no pixels.

Integer pixel coordinates are pixel centres, so that an image of width w covers [-0.5, w - 0.5].
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError


@dataclass(frozen=True)
class Framing:
    """A processor's way of one image: pad (source px), resample, crop, cut into tokens.

    Attributes:
        source_width, source_height: the image as it comes, px.
        resized_width, resized_height: the padded image after resampling, px.
        input_width, input_height: what the vision tower gets, px.
        grid_width, grid_height: visual tokens in raster order.
        pitch_px: side of the square of the input that one token shows; the grid starts at the input's
            top-left corner and may leave a rest at the right and at the bottom.
        pad_left, pad_top, padded_width, padded_height: frame around the source, px of the source;
            padded size 0 means that nothing is added.
        crop_left, crop_top: what is cut from the resampled image, px.
        trailing_tokens: tokens after the raster that show no pixel (a newline).
    """

    source_width: int
    source_height: int
    resized_width: int
    resized_height: int
    input_width: int
    input_height: int
    grid_width: int
    grid_height: int
    pitch_px: int
    pad_left: int = 0
    pad_top: int = 0
    padded_width: int = 0
    padded_height: int = 0
    crop_left: int = 0
    crop_top: int = 0
    trailing_tokens: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padded_width", self.padded_width or self.source_width)
        object.__setattr__(self, "padded_height", self.padded_height or self.source_height)

    @property
    def token_count(self) -> int:
        """Tokens of this image in the prompt, trailing ones included."""
        return self.grid_width * self.grid_height + self.trailing_tokens

    @property
    def scale_x(self) -> float:
        """Resampled pixels per source pixel along x."""
        return self.resized_width / self.padded_width

    @property
    def scale_y(self) -> float:
        """Resampled pixels per source pixel along y; need not equal `scale_x`."""
        return self.resized_height / self.padded_height

    def token_centres_px(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(u of the columns (grid_width,), v of the rows (grid_height,)), px of the source image.

        A centre may lie outside the source image where the processor pads.
        """
        u = self.pitch_px * (np.arange(self.grid_width) + 0.5) + self.crop_left
        v = self.pitch_px * (np.arange(self.grid_height) + 0.5) + self.crop_top
        return u / self.scale_x - 0.5 - self.pad_left, v / self.scale_y - 0.5 - self.pad_top

    def seen_rectangle(self) -> tuple[slice, slice]:
        """(rows, columns) of the tokens whose centre lies in the source image; never empty."""
        u, v = self.token_centres_px()
        return _inside(v, self.source_height), _inside(u, self.source_width)


@dataclass(frozen=True)
class TokenRays:
    """Camera conditioning of one image, one row per token in prompt order.

    Attributes:
        rays_N4: float32 [x/z, y/z, log fx', log fy'] at token centres, f' in token pitches; 0 where
            there is nothing to say.
        sees_pixel_N: False for newline tokens and for tokens centred in padding: they get no embedding.
        has_camera: False where K is missing: tokens that see pixels get the null embedding.
    """

    rays_N4: NDArray[np.float32]
    sees_pixel_N: NDArray[np.bool_]
    has_camera: bool


def token_rays(framing: Framing, camera: CameraModel | None) -> TokenRays:
    """Rays of the pixels of the ORIGINAL image at the token centres (DESIGN 3.1, papers' facts 1.7).

    Args:
        framing: what the processor does to the image.
        camera: the camera of the source image, lens distortion included; None where K is missing.

    Raises:
        SpatialError: SIZE_MISMATCH when the camera belongs to an image of another size; BAD_DISTORTION
            when the lens model cannot be undone at a token centre.
    """
    rows, columns = framing.seen_rectangle()
    sees = np.zeros((framing.grid_height, framing.grid_width), bool)
    sees[rows, columns] = True
    rays = np.zeros((framing.token_count, 4), np.float32)
    if camera is not None:
        grid = np.zeros((framing.grid_height, framing.grid_width, 4), np.float32)
        grid[rows, columns] = _seen_rays(framing, camera, rows, columns)
        rays[: grid.shape[0] * grid.shape[1]] = grid.reshape(-1, 4)
    sees_pixel = np.concatenate([sees.reshape(-1), np.zeros(framing.trailing_tokens, bool)])
    return TokenRays(rays, sees_pixel, camera is not None)


def _seen_rays(framing: Framing, camera: CameraModel, rows: slice, columns: slice) -> NDArray[np.float32]:
    if (camera.width, camera.height) != (framing.source_width, framing.source_height):
        raise SpatialError(
            ErrorCode.SIZE_MISMATCH,
            f"the image is {framing.source_width}x{framing.source_height} px but K belongs to one of "
            f"{camera.width}x{camera.height} px; give the K of this very image",
        )
    # The camera whose pixels are the tokens: resampling, cropping and padding change K only, the lens
    # coefficients live on the z = 1 plane.
    k = camera.k.copy()
    for axis, scale, pad, crop in (
        (0, framing.scale_x, framing.pad_left, framing.crop_left),
        (1, framing.scale_y, framing.pad_top, framing.crop_top),
    ):
        k[axis, axis] *= scale / framing.pitch_px
        k[axis, 2] = (scale * (k[axis, 2] + 0.5 + pad) - crop) / framing.pitch_px - 0.5
    token_camera = replace(camera, width=framing.grid_width, height=framing.grid_height, k=k, p=None)
    width, height = columns.stop - columns.start, rows.stop - rows.start
    try:
        return token_camera.cropped(columns.start, rows.start, width, height).token_rays(width, height)
    except SpatialError as error:
        if error.code != ErrorCode.BAD_DISTORTION:
            raise
        raise SpatialError(
            ErrorCode.BAD_DISTORTION,
            f"the lens model of '{camera.frame_id}' cannot be undone at every token centre of its image of "
            f"{camera.width}x{camera.height} px; calibrate again with points near the corners, or feed the "
            "rectified image",
        ) from None


def _inside(centres_px: NDArray[np.float64], size_px: int) -> slice:
    inside = np.flatnonzero((centres_px >= -0.5) & (centres_px <= size_px - 0.5))
    if not inside.size:  # an image thinner than a token: the nearest one shows it
        inside = np.abs(centres_px - 0.5 * (size_px - 1)).argmin(keepdims=True)
    return slice(int(inside[0]), int(inside[-1]) + 1)
