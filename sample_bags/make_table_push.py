"""Makes sample_bags/table_push: a simulated arm pushes a box 0.35 m over a table; everything is known.

    python sample_bags/make_table_push.py sample_bags/table_push

The scene comes from the generator of the training scenes (domain "mat": floor and table carry squares of
0.2 m), with a seed that no training or test scene uses. The arm comes down, pushes 0.20 m, rests, pulls
0.06 m back, pushes on to 0.35 m and rests, so that the way is not a clock. Beside the bag stands truth.json:
the tracked pixel, its true displacement in every frame, and three questions with their answers. Equal
machine and MuJoCo, equal bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from spatial_mllm_core import tasks
from spatial_mllm_core.bags import messages
from spatial_mllm_core.bags.message_types import make_header, make_message
from spatial_mllm_core.bags.writer import BagWriter, refuse_existing
from spatial_mllm_core.errors import SpatialError
from spatial_mllm_core.images import encode_jpeg
from spatial_mllm_core.tasks import object_motion
from spatial_mllm_training.scenes.cameras import pinhole
from spatial_mllm_training.scenes.generate import NoViewError
from spatial_mllm_training.scenes.push import make_push, script_push
from spatial_mllm_training.scenes.record import SceneRecord

SEED = 200_033  # training uses 0..99999, validation and tests 100000..199999
WIDTH, HEIGHT, HFOV_DEG = 640, 480, 69.0
RATE_HZ, PERIOD_NS, FIRST_STAMP_NS = 5.0, 200_000_000, 1_700_000_000 * 10**9
TRAVEL_M = 0.35
LEGS = [(2.4, 0.0), (5.6, 0.20), (3.0, 0.20), (2.6, 0.14), (6.4, 0.35), (2.2, 0.35)]
FRAME_EVERY, DEPTH_EVERY = 2, 16  # of the drawn ones: images at 2.5 Hz and depth at 0.3 Hz keep the bag small
JPEG_QUALITY = 90
CAMERA_FRAME, WORLD_FRAME, OBJECT_FRAME = "camera_color_optical_frame", "world", "object"
IMAGE, INFO = "/camera/image_raw/compressed", "/camera/camera_info"
DEPTH, POSE = "/camera/depth/image_raw/compressedDepth", "/object/pose"
NOT_THINGS = ("world", "table", "robot", "gantry")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="bag folder to make; must not exist")
    options = parser.parse_args(arguments)
    try:
        refuse_existing(options.output)
        count = make(options.output)
    except (SpatialError, NoViewError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{options.output}: {count} frames")
    return 0


def make(output: Path, *, rate_hz: float = RATE_HZ, seed: int = SEED) -> int:
    """Draw the push, write the bag and truth.json; return the number of frames."""
    script = script_push(rate_hz, TRAVEL_M, LEGS)
    scene, body = make_push(seed, script, pinhole(WIDTH, HEIGHT, HFOV_DEG), WIDTH, HEIGHT, mats=True)
    period_ns = round(PERIOD_NS * RATE_HZ / rate_hz)
    stamps_ns = {i: FIRST_STAMP_NS + i * period_ns for i in range(0, len(scene.rgb), FRAME_EVERY)}
    truth = truth_of(scene, body, stamps_ns)
    write_bag(output, scene, body, stamps_ns)
    (output / "truth.json").write_text(json.dumps(truth, indent=1) + "\n")
    return len(stamps_ns)


def write_bag(output: Path, scene: SceneRecord, body: int, stamps_ns: dict[int, int]) -> None:
    """Write images, calibration, depth, poses and transforms; a message's log time is its stamp.

    Args:
        stamps_ns: of the drawn frames that are written, by their number.
    """
    k = scene.k
    with BagWriter(output) as bag:
        bag.add_topic("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        bag.add_topic("/tf", "tf2_msgs/msg/TFMessage")
        bag.add_topic(INFO, "sensor_msgs/msg/CameraInfo")
        bag.add_topic(IMAGE, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(DEPTH, "sensor_msgs/msg/CompressedImage")
        bag.add_topic(POSE, "geometry_msgs/msg/PoseStamped")
        first = stamps_ns[0]
        world_from_camera = scene.world_from_camera[0]
        bag.write(
            "/tf_static", messages.transform(first, WORLD_FRAME, CAMERA_FRAME, world_from_camera), first
        )
        for i, stamp_ns in stamps_ns.items():
            world_from_object = scene.world_from_body[i, body]
            bag.write(
                "/tf", messages.transform(stamp_ns, WORLD_FRAME, OBJECT_FRAME, world_from_object), stamp_ns
            )
            bag.write(POSE, _pose(stamp_ns, world_from_object), stamp_ns)
            info = messages.camera_info(
                stamp_ns, CAMERA_FRAME, width=WIDTH, height=HEIGHT, distortion_model="plumb_bob",
                d=np.zeros(5), k=k, r=np.eye(3), p=np.hstack([k, np.zeros((3, 1))]),
            )  # fmt: skip
            bag.write(INFO, info, stamp_ns)
            jpeg = bytes(encode_jpeg(scene.rgb[i, 0], quality=JPEG_QUALITY).data)
            bag.write(IMAGE, messages.compressed_image(stamp_ns, CAMERA_FRAME, jpeg, "jpeg"), stamp_ns)
            if i % DEPTH_EVERY == 0:
                depth_m = scene.depth_mm[i, 0] / 1000.0
                bag.write(DEPTH, messages.compressed_depth(stamp_ns, CAMERA_FRAME, depth_m), stamp_ns)


def _pose(stamp_ns: int, world_from_object: np.ndarray) -> Any:
    """geometry_msgs/PoseStamped of the pushed body; its origin is the centre of its box."""
    x, y, z, w = messages.quaternion_xyzw(world_from_object[:3, :3])
    px, py, pz = (float(v) for v in world_from_object[:3, 3])
    return make_message(
        "geometry_msgs/msg/PoseStamped",
        header=make_header(stamp_ns, WORLD_FRAME),
        pose=make_message(
            "geometry_msgs/msg/Pose",
            position=make_message("geometry_msgs/msg/Point", x=px, y=py, z=pz),
            orientation=make_message("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w),
        ),
    )


def truth_of(scene: SceneRecord, body: int, stamps_ns: dict[int, int]) -> dict[str, Any]:
    """Return the episode's facts; lengths in metres, vectors in the camera's optical axes.

    Args:
        stamps_ns: as of `write_bag`.
    """
    point = _inner_pixel(scene.body_id[0, 0] == body)
    world_from_camera = scene.world_from_camera[0]
    in_camera = _unproject(scene, 0, point)
    in_world = world_from_camera[:3, :3] @ in_camera + world_from_camera[:3, 3]
    in_body = np.linalg.inv(scene.world_from_body[0, body]) @ np.array([*in_world, 1.0])
    frames = []
    for i, stamp_ns in stamps_ns.items():
        after = (scene.world_from_body[i, body] @ in_body)[:3]
        displacement = object_motion.displacement_m(in_world, after, world_from_camera)
        rows, columns = np.nonzero(scene.body_id[i, 0] == body)
        frames.append({
            "stamp_ns": stamp_ns,
            "displacement_m": [round(float(v), 6) for v in displacement],
            "distance_m": round(float(np.linalg.norm(displacement)), 6),
            "object_box_px": [int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())],
            "has_depth": i % DEPTH_EVERY == 0,
        })  # fmt: skip
    total = frames[-1]["distance_m"]
    return {
        "about": "a simulated arm pushes one thing over a table; made by sample_bags/make_table_push.py",
        "seed": scene.seed,
        "image_topic": IMAGE, "camera_info_topic": INFO, "depth_topic": DEPTH, "pose_topic": POSE,
        "camera_frame": CAMERA_FRAME,
        "object": {
            "category": str(scene.body_category[body]),
            "size_m": [round(float(v), 4) for v in scene.body_size_m[body]],
            "point_px": list(point),
            "point_in_camera_m": [round(float(v), 4) for v in in_camera],
        },
        "reference_stamp_ns": stamps_ns[0],  # the first frame's
        "reward_task": {
            "task_id": "push", "goal": "move_distance", "distance_m": round(total, 3), "tolerance_m": 0.03,
            "description": f"push the {scene.body_category[body]} {total:.2f} m along the table",
        },
        "questions": _questions(scene, body, point, list(stamps_ns.values()), total),
        "frames": frames,
    }  # fmt: skip


def _questions(
    scene: SceneRecord, body: int, point: tuple[int, int], stamps_ns: list[int], total_m: float
) -> list[dict[str, Any]]:
    """Three questions as the ask action takes them, with true `values` as its answer holds them."""
    other = _inner_pixel(scene.body_id[0, 0] == _other_thing(scene, body))
    depths_m = [float(_unproject(scene, 0, p)[2]) for p in (point, other)]
    nearer = (point, other)[int(depths_m[1] < depths_m[0])]
    moved = object_motion.OBJECT_DISTANCE[False].name
    return [
        _question(
            tasks.depth.DEPTH_VALUE.name, stamps_ns[:1], [point], "scalar", "m", [round(depths_m[0], 4)]
        ),
        _question(
            tasks.depth.DEPTH_COMPARISON.name, stamps_ns[:1], [point, other], "pixel", "px", list(nearer)
        ),
        _question(moved, [stamps_ns[0], stamps_ns[-1]], [point], "scalar", "m", [total_m]),
    ]


def _question(
    task: str, stamps_ns: list[int], points: list[tuple[int, int]], kind: str, unit: str, values: list[float]
) -> dict[str, Any]:
    return {
        "task": task, "stamps_ns": stamps_ns, "points_px": [list(p) for p in points],
        "kind": kind, "unit": unit, "values": values,
    }  # fmt: skip


def _other_thing(scene: SceneRecord, body: int) -> int:
    """Return the thing best seen in the first frame whose depth differs by a tenth or more."""
    own_mm = np.median(scene.depth_mm[0, 0][scene.body_id[0, 0] == body])
    areas = np.bincount(scene.body_id[0, 0].ravel(), minlength=len(scene.body_category))
    for candidate in np.argsort(-areas):
        mask = scene.body_id[0, 0] == candidate
        if candidate == body or str(scene.body_category[candidate]).startswith(NOT_THINGS) or not mask.any():
            continue
        if abs(np.median(scene.depth_mm[0, 0][mask]) / own_mm - 1) > 0.1:
            return int(candidate)
    raise NoViewError("the first frame shows nothing to compare the pushed thing with")


def _inner_pixel(mask: np.ndarray) -> tuple[int, int]:
    """Return the pixel (u, v) of a mask that is farthest from the mask's edge."""
    padded = np.pad(mask.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    v, u = np.unravel_index(int(np.argmax(depth)), mask.shape)
    return int(u), int(v)


def _unproject(scene: SceneRecord, step: int, pixel: tuple[int, int]) -> np.ndarray:
    """Return the surface point (3,) at a pixel in the camera's optical frame."""
    z = scene.depth_mm[step, 0, pixel[1], pixel[0]] / 1000.0
    return z * np.linalg.solve(scene.k, [*pixel, 1.0])


if __name__ == "__main__":
    sys.exit(main())
