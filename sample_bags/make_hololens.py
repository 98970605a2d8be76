"""Makes a bag of the frames of a HoloLens recording (sample scene of DeepVideoMVS, MIT licence).

    python sample_bags/make_hololens.py tests/fixtures/hololens sample_bags/hololens

The source folder holds K.txt, poses.txt (camera-to-world, one 4x4 per line), images/ (JPEG or PNG), depth/, LICENSE and
ORIGIN.txt. It has no times and no distortion: stamps here are a fixed 5 Hz clock by the frames' numbers, not the
recording's, and the images are undistorted already (D is zero). The source's world has y up; the bag's `world` is
turned to REP 103 (z up, x forward, y left), camera axes stay optical. JPEGs and depths are stored as they are. Equal
input, equal bytes.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np

from spatial_mllm_core.bags import messages
from spatial_mllm_core.bags.writer import BagWriter
from spatial_mllm_core.errors import ErrorCode, SpatialError

FIRST_STAMP_NS = 1_600_000_000 * 10**9
PERIOD_NS = 200_000_000
JPEG_QUALITY = 92
CAMERA_FRAME = "camera_optical_frame"
WORLD_FRAME = "world"
# rows: x (forward) = -z, y (left) = -x, z (up) = y of the source's world
WORLD_FROM_SOURCE = np.array([[0.0, 0, -1, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])

IMAGE, INFO = "/camera/image_raw/compressed", "/camera/camera_info"
DEPTH, TF = "/camera/depth/image_raw/compressedDepth", "/tf"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="folder with K.txt, poses.txt, images, depth and LICENSE")
    parser.add_argument("output", type=Path, help="bag folder to make; must not exist")
    options = parser.parse_args(arguments)
    try:
        count = make(options.source, options.output)
    except SpatialError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.output}: {count} frames")
    return 0


def make(source: Path, output: Path) -> int:
    """Write the bag and copy the licence beside it; return the number of frames."""
    for name in ("K.txt", "poses.txt", "images", "depth", "LICENSE", "ORIGIN.txt"):
        if not (source / name).exists():
            raise SpatialError(
                ErrorCode.BAG_MISSING, f"'{source}' has no {name}; it is not the HoloLens sample"
            )
    k = np.loadtxt(source / "K.txt").reshape(3, 3)
    source_from_camera = np.loadtxt(source / "poses.txt").reshape(-1, 4, 4)
    images = sorted(f for f in (source / "images").iterdir() if f.suffix in (".png", ".jpg"))
    depths = sorted((source / "depth").glob("*.png"))
    if not len(images) == len(depths) == len(source_from_camera):
        raise SpatialError(
            ErrorCode.BAG_UNREADABLE,
            f"{len(images)} images, {len(depths)} depth images and {len(source_from_camera)} poses do not match",
        )
    p = np.hstack([k, np.zeros((3, 1))])
    with BagWriter(output) as bag:
        bag.add_topic(IMAGE, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(INFO, "sensor_msgs/msg/CameraInfo")
        bag.add_topic(DEPTH, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(TF, "tf2_msgs/msg/TFMessage")
        for i, (image_file, depth_file) in enumerate(zip(images, depths, strict=True)):
            stamp_ns = FIRST_STAMP_NS + (int(image_file.stem) - int(images[0].stem)) * PERIOD_NS
            image = cv2.imread(str(image_file), cv2.IMREAD_COLOR)
            depth_mm = cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
            if image is None or depth_mm is None or depth_mm.dtype != np.uint16:
                raise SpatialError(
                    ErrorCode.UNDECODABLE_IMAGE, f"'{image_file.name}' or its depth cannot be read"
                )
            jpeg = image_file.read_bytes()
            if image_file.suffix != ".jpg":
                jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
            height, width = image.shape[:2]
            info = messages.camera_info(
                stamp_ns, CAMERA_FRAME, width=width, height=height, distortion_model="plumb_bob",
                d=np.zeros(5), k=k, r=np.eye(3), p=p,
            )  # fmt: skip
            world_from_camera = WORLD_FROM_SOURCE @ source_from_camera[i]
            bag.write(
                TF, messages.transform(stamp_ns, WORLD_FRAME, CAMERA_FRAME, world_from_camera), stamp_ns
            )
            bag.write(INFO, info, stamp_ns)
            bag.write(IMAGE, messages.compressed_image(stamp_ns, CAMERA_FRAME, jpeg, "jpeg"), stamp_ns)
            bag.write(DEPTH, messages.compressed_depth(stamp_ns, CAMERA_FRAME, depth_mm / 1000.0), stamp_ns)
    shutil.copyfile(source / "LICENSE", output / "LICENSE")
    shutil.copyfile(source / "ORIGIN.txt", output / "ORIGIN.txt")
    return len(images)


if __name__ == "__main__":
    sys.exit(main())
