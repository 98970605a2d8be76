"""What several verbs share: options for the model and the topics, calibration from a file, progress."""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from spatial_mllm_core.camera import CameraModel
from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from spatial_mllm_core.evaluation.source import Source
    from spatial_mllm_core.frames import Frame
    from spatial_mllm_core.model.spatial_model import SpatialModel


# -- model ------------------------------------------------------------------------------------------


def add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--model", default="", metavar="BUNDLE", help="bundle folder or name (default: the shipped one)"
    )
    group.add_argument("--backend", default="cpu", choices=("cpu", "cuda", "tensorrt"), help="where it runs")
    group.add_argument("--threads", type=positive, default=None, help="CPU threads (default: as the nodes)")


def load_model(options: argparse.Namespace) -> SpatialModel:
    """The model of the options.

    Raises:
        SpatialError: a 5xx code, BACKEND_UNAVAILABLE.
    """
    from spatial_mllm_core.model.spatial_model import SpatialModel

    return SpatialModel.load(options.model, backend=options.backend, threads=options.threads)


# -- bags -------------------------------------------------------------------------------------------


def add_bag_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bag", type=Path, help="bag folder, .mcap, .db3 (ROS 2) or .bag (ROS 1)")
    group = parser.add_argument_group("topics (found by type and name when not given)")
    group.add_argument("--image-topic", metavar="TOPIC", help="sensor_msgs/Image or CompressedImage")
    group.add_argument("--camera-info-topic", metavar="TOPIC", help="sensor_msgs/CameraInfo")
    group.add_argument("--depth-topic", metavar="TOPIC", help="depth registered to the image; the truth")
    group.add_argument("--limit", type=positive, metavar="N", help="only the first N images")


def open_source(options: argparse.Namespace) -> Source:
    """The bag of the options, looked around in once.

    Raises:
        SpatialError: a 6xx code.
    """
    from spatial_mllm_core.evaluation.source import look_around

    return look_around(
        options.bag,
        image=options.image_topic,
        camera_info=options.camera_info_topic,
        depth=options.depth_topic,
    )


# -- images and calibration -------------------------------------------------------------------------


def add_camera_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("calibration (one of; needed for metres)")
    one = group.add_mutually_exclusive_group()
    one.add_argument("--k", metavar="FX,FY,CX,CY", help="pinhole intrinsics, pixels")
    one.add_argument("--camera-info", type=Path, metavar="YAML", help="file of ROS camera_calibration")
    one.add_argument("--hfov", type=float, metavar="DEGREES", help="horizontal field of view, square pixels")


def camera_of(options: argparse.Namespace, width: int, height: int) -> CameraModel | None:
    """The camera of the options for an image of this size; None when nothing was given.

    Raises:
        SpatialError: BAD_NUMBER or a 2xx code.
    """
    if options.k is not None:
        numbers = parse_numbers(options.k, 4, "--k takes four numbers FX,FY,CX,CY")
        fx, fy, cx, cy = numbers
        return CameraModel.from_k(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]), width, height)
    if options.hfov is not None:
        if not (math.isfinite(options.hfov) and 0 < options.hfov < 180):
            raise SpatialError(
                ErrorCode.BAD_NUMBER, f"--hfov must lie between 0 and 180 degrees, got {options.hfov}"
            )
        return CameraModel.from_fov(width, height, hfov_rad=math.radians(options.hfov))
    if options.camera_info is not None:
        return CameraModel.from_camera_info(read_camera_info(options.camera_info), image_size=(width, height))
    return None


class _Info:
    """A CameraInfo read from a file, shaped like the message."""

    def __init__(self, plain: dict[str, Any]) -> None:
        self.width = int(plain["image_width"])
        self.height = int(plain["image_height"])
        self.distortion_model = str(plain.get("distortion_model", plain.get("camera_model", "plumb_bob")))
        self.k = _matrix(plain, "camera_matrix", 9)
        self.d = np.array(plain["distortion_coefficients"]["data"], np.float64)
        self.r = (
            _matrix(plain, "rectification_matrix", 9)
            if "rectification_matrix" in plain
            else np.eye(3).ravel()
        )
        padded = np.hstack([self.k.reshape(3, 3), np.zeros((3, 1))]).ravel()
        self.p = _matrix(plain, "projection_matrix", 12) if "projection_matrix" in plain else padded
        self.binning_x = self.binning_y = 0
        self.roi = None


def _matrix(plain: dict[str, Any], name: str, count: int) -> NDArray[np.float64]:
    values = np.array(plain[name]["data"], np.float64)
    if values.size != count:
        raise ValueError(f"{name} has {values.size} numbers, {count} expected")
    return values


def read_camera_info(path: Path) -> _Info:
    """Read the YAML that ROS camera_calibration writes (image_width, camera_matrix, ...).

    Raises:
        SpatialError: BAD_INTRINSICS naming what is missing.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        plain = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise ValueError("it is not a mapping")
        return _Info(plain)
    except KeyError as error:
        words = f"{error.args[0]} is missing"
    except (OSError, UnicodeDecodeError, YAMLError, TypeError, ValueError) as error:
        words = getattr(error, "strerror", None) or str(error)
    raise SpatialError(
        ErrorCode.BAD_INTRINSICS, f"'{path}' is not a calibration file of ROS camera_calibration: {words}"
    )


def read_image(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image file, as stored (an EXIF rotation is not applied: K would not fit).

    Raises:
        SpatialError: UNDECODABLE_IMAGE, IMAGE_TOO_LARGE.
    """
    from types import SimpleNamespace

    from spatial_mllm_core.images import decode_compressed

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise SpatialError(
            ErrorCode.UNDECODABLE_IMAGE, f"'{path}' cannot be read ({error.strerror or error})"
        ) from error
    try:
        return decode_compressed(SimpleNamespace(format=path.suffix.lstrip(".").lower(), data=data))
    except SpatialError as fault:
        raise SpatialError(fault.code, f"'{path}': {fault.sentence}") from fault


def frame_of(options: argparse.Namespace, path: Path, stamp_ns: int) -> Frame:
    """A frame of an image file; without calibration it says so when metres are wanted."""
    from spatial_mllm_core.frames import Frame

    image_rgb = read_image(path)
    height, width = image_rgb.shape[:2]
    camera = camera_of(options, width, height)
    fault = None
    if camera is None:
        fault = SpatialError(
            ErrorCode.NO_CALIBRATION,
            f"metres need the calibration of the camera that took '{path}': give --k, --camera-info or --hfov",
        )
    return Frame(stamp_ns, path.name, image_rgb, camera, fault)


def parse_numbers(text: str, count: int, words: str) -> tuple[float, ...]:
    """Comma-separated finite numbers.

    Raises:
        SpatialError: BAD_NUMBER.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != count or not all(math.isfinite(n) for n in numbers):
        raise SpatialError(ErrorCode.BAD_NUMBER, f"{words}, got '{text}'")
    return numbers


def positive(text: str) -> int:
    """argparse type: an integer of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


# -- progress ---------------------------------------------------------------------------------------


class Progress:
    """A bar on a terminal, a line now and then elsewhere; writes to stderr, never to stdout."""

    _WIDTH = 30

    def __init__(self, words: str, stream: TextIO | None = None) -> None:
        self._words = words
        self._stream = stream or sys.stderr
        self._began_s = self._told_s = time.monotonic()
        self._is_terminal = self._stream.isatty()
        self._is_open = False

    def __call__(self, done: int, total: int) -> None:
        now_s = time.monotonic()
        pause_s = 0.1 if self._is_terminal else 10.0
        if now_s - self._told_s < pause_s and not (self._is_terminal and done >= total):
            return
        self._told_s = now_s
        share = done / total if total else 1.0
        left_s = (now_s - self._began_s) * (1 - share) / share if share > 0 else 0.0
        text = f"{self._words} {done}/{total}, {left_s:.0f} s left"
        if self._is_terminal:
            bar = "#" * round(share * self._WIDTH)
            self._stream.write(f"\r\x1b[K[{bar:<{self._WIDTH}}] {text}")
            self._is_open = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def close(self) -> None:
        """Leave the terminal on a new line."""
        if self._is_open:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._is_open = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
