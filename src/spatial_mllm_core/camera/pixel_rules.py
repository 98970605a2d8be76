"""The two rules by which intrinsics follow a change of pixels; knows neither lenses nor messages.

Integer coordinates are pixel centres (ROS, OpenCV), so an image of width w covers the interval
[-0.5, w - 0.5]. Two rules exist and they differ by up to half a pixel in the principal point:

* `resize_axis`: the exact rule of a resampled image, used for every resize inside the library.
* `bin_axis`: the rule of CameraInfo (REP-104, image_geometry), used only where a CameraInfo with
  binning and region of interest comes in, so that our K is the K every other ROS node sees.
"""

from __future__ import annotations


def resize_axis(focal_px: float, centre_px: float, scale: float) -> tuple[float, float]:
    """Return (focal, centre) of one axis after resampling it to `scale` times its pixel count.

    The image edge at -0.5 stays at -0.5: f' = s f, c' = s (c + 0.5) - 0.5.
    """
    return focal_px * scale, (centre_px + 0.5) * scale - 0.5


def bin_axis(focal_px: float, centre_px: float, offset_px: float, binning: float) -> tuple[float, float]:
    """Return (focal, centre) of one axis after cutting at `offset_px` and then binning.

    As image_geometry's PinholeCameraModel: f' = f / bin, c' = (c - offset) / bin; the offset
    counts unbinned pixels of the full-resolution image.
    """
    return focal_px / binning, (centre_px - offset_px) / binning
