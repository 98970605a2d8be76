"""The raw encodings of sensor_msgs/Image that we read, and how many bytes each takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spatial_mllm_core.errors import ErrorCode, SpatialError

Kind = Literal["rgb", "bgr", "rgba", "bgra", "mono", "bayer", "yuv422", "yuv420", "depth"]

#: More pixels than any camera we know of; a header that claims more is refused unread.
MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class Encoding:
    """One encoding.

    Attributes:
        name: as in sensor_msgs/image_encodings.
        kind: family of the conversion.
        bytes_per_pixel: of the first (or only) plane.
        dtype: numpy type code of one sample, without byte order.
        cv_conversion: suffix of OpenCV's COLOR_ constant that leads to RGB, "" when none is needed.
    """

    name: str
    kind: Kind
    bytes_per_pixel: int
    dtype: str = "u1"
    cv_conversion: str = ""


_TABLE = (
    Encoding("rgb8", "rgb", 3),
    Encoding("bgr8", "bgr", 3, cv_conversion="BGR2RGB"),
    Encoding("rgba8", "rgba", 4, cv_conversion="RGBA2RGB"),
    Encoding("bgra8", "bgra", 4, cv_conversion="BGRA2RGB"),
    Encoding("mono8", "mono", 1, cv_conversion="GRAY2RGB"),
    Encoding("mono16", "mono", 2, dtype="u2", cv_conversion="GRAY2RGB"),
    Encoding("8UC1", "mono", 1, cv_conversion="GRAY2RGB"),
    # 8UC3 names no colours; OpenCV programs, which publish it, mean BGR.
    Encoding("8UC3", "bgr", 3, cv_conversion="BGR2RGB"),
    # OpenCV names a Bayer pattern by its second row, ROS by its first.
    Encoding("bayer_rggb8", "bayer", 1, cv_conversion="BayerBG2RGB"),
    Encoding("bayer_bggr8", "bayer", 1, cv_conversion="BayerRG2RGB"),
    Encoding("bayer_gbrg8", "bayer", 1, cv_conversion="BayerGR2RGB"),
    Encoding("bayer_grbg8", "bayer", 1, cv_conversion="BayerGB2RGB"),
    Encoding("yuv422", "yuv422", 2, cv_conversion="YUV2RGB_UYVY"),
    Encoding("uyvy", "yuv422", 2, cv_conversion="YUV2RGB_UYVY"),
    Encoding("yuv422_yuy2", "yuv422", 2, cv_conversion="YUV2RGB_YUY2"),
    Encoding("yuyv", "yuv422", 2, cv_conversion="YUV2RGB_YUY2"),
    Encoding("nv12", "yuv420", 1, cv_conversion="YUV2RGB_NV12"),
    Encoding("nv21", "yuv420", 1, cv_conversion="YUV2RGB_NV21"),
)
_DEPTH_TABLE = (
    Encoding("32FC1", "depth", 4, dtype="f4"),
    Encoding("16UC1", "depth", 2, dtype="u2"),
    Encoding("mono16", "depth", 2, dtype="u2"),
)

COLOR_ENCODINGS: dict[str, Encoding] = {e.name: e for e in _TABLE}
DEPTH_ENCODINGS: dict[str, Encoding] = {e.name: e for e in _DEPTH_TABLE}


def color_encoding(name: object) -> Encoding:
    """Return the colour encoding called `name`, or raise UNSUPPORTED_ENCODING with the list."""
    found = COLOR_ENCODINGS.get(name) if isinstance(name, str) else None
    if found is not None:
        return found
    if isinstance(name, str) and name in DEPTH_ENCODINGS:
        raise SpatialError(
            ErrorCode.UNSUPPORTED_ENCODING,
            f"'{name}' is a depth image; expected a colour image on this topic",
        )
    raise _unsupported(name, COLOR_ENCODINGS)


def depth_encoding(name: object) -> Encoding:
    """Return the depth encoding called `name`, or raise UNSUPPORTED_ENCODING with the list."""
    found = DEPTH_ENCODINGS.get(name) if isinstance(name, str) else None
    if found is None:
        raise _unsupported(name, DEPTH_ENCODINGS)
    return found


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise EMPTY_IMAGE or IMAGE_TOO_LARGE; called before anything of that size is touched."""
    if width <= 0 or height <= 0:
        raise SpatialError(ErrorCode.EMPTY_IMAGE, f"the image is {width}x{height} px")
    if width * height > max_pixels:
        raise SpatialError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"the header claims {width}x{height} px, more than the limit of {max_pixels} px",
        )


def _unsupported(name: object, table: dict[str, Encoding]) -> SpatialError:
    shown = name if isinstance(name, str) else type(name).__name__
    shown = shown if len(shown) <= 40 else shown[:40] + "…"
    return SpatialError(
        ErrorCode.UNSUPPORTED_ENCODING,
        f"encoding '{shown}' is not supported; expected one of {', '.join(table)}",
    )
