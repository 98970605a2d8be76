"""A small bag with everything true in it, and a model whose answers are known arithmetic.

The model is a test double for the trained bundle only; pipeline, reward, tasks, bags are the real ones.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from spatial_mllm_core import tasks
from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.bags import BagWriter, messages
from spatial_mllm_core.bags.message_types import make_header, make_message
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame
from spatial_mllm_core.model.spatial_model import Perception
from spatial_mllm_core.tasks import TaskValue

FIRST_NS = 1_700_000_000 * 10**9
PERIOD_NS = 200_000_000
WIDTH, HEIGHT = 64, 48
FRAME_COUNT = 6
STEP_M = 0.05
DEPTH_M = 2.0
POINT_PX = (20.0, 30.0)


def stamp(i: int) -> int:
    return FIRST_NS + i * PERIOD_NS


def write_push_bag(
    path: Path, *, count: int = FRAME_COUNT, with_depth: bool = True, with_info: bool = True
) -> Path:
    """A wall 2 m away; an object on it moves `STEP_M` along the world's x each frame; the camera stands still."""
    k = np.array([[50.0, 0, 31.5], [0, 50.0, 23.5], [0, 0, 1]])
    world_from_camera = np.eye(4)
    # optical z looks along world -x, optical x along world y, optical y along world -z
    world_from_camera[:3, :3] = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]])
    world_from_camera[:3, 3] = (3, 0, 1)
    rng = np.random.default_rng(0)
    with BagWriter(path) as bag:
        for name, type_name in (
            ("/camera/image_raw/compressed", "sensor_msgs/msg/CompressedImage"),
            ("/camera/camera_info", "sensor_msgs/msg/CameraInfo"),
            ("/camera/depth/image_raw/compressedDepth", "sensor_msgs/msg/CompressedImage"),
            ("/tf_static", "tf2_msgs/msg/TFMessage"),
            ("/object/pose", "geometry_msgs/msg/PoseStamped"),
        ):
            bag.add_topic(name, type_name)
        bag.write("/tf_static", messages.transform(stamp(0), "world", "cam", world_from_camera), stamp(0))
        for i in range(count):
            image = rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
            png = cv2.imencode(".png", image)[1].tobytes()
            if with_info:
                info = messages.camera_info(
                    stamp(i), "cam", width=WIDTH, height=HEIGHT, distortion_model="plumb_bob", d=np.zeros(5), k=k,
                    r=np.eye(3), p=np.hstack([k, np.zeros((3, 1))]),
                )  # fmt: skip
                bag.write("/camera/camera_info", info, stamp(i))
            bag.write(
                "/camera/image_raw/compressed",
                messages.compressed_image(stamp(i), "cam", png, "png"),
                stamp(i),
            )
            pose = make_message(
                "geometry_msgs/msg/PoseStamped",
                header=make_header(stamp(i), "world"),
                pose=make_message(
                    "geometry_msgs/msg/Pose",
                    position=make_message("geometry_msgs/msg/Point", x=1.0 + STEP_M * i, y=0.0, z=0.0),
                    orientation=make_message("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0),
                ),
            )
            bag.write("/object/pose", pose, stamp(i))
            if with_depth and i % 2 == 0:
                depth = messages.compressed_depth(stamp(i), "cam", np.full((HEIGHT, WIDTH), DEPTH_M))
                bag.write("/camera/depth/image_raw/compressedDepth", depth, stamp(i))
    return path


def write_truth(path: Path, *, count: int = FRAME_COUNT) -> None:
    distance = "tapvid3d_total_distance_coord_pstudio"
    truth = {
        "object": {"point_px": list(POINT_PX)},
        "reference_stamp_ns": stamp(0),
        "reward_task": {
            "task_id": "push", "goal": "move_distance", "distance_m": STEP_M * (count - 1), "tolerance_m": 0.03,
            "description": "",
        },
        "questions": [
            {"task": "depth_estimation_coor", "stamps_ns": [stamp(0)], "points_px": [list(POINT_PX)]},
            {"task": "depth_comparison_coordinate", "stamps_ns": [stamp(0)], "points_px": [list(POINT_PX), [40, 40]]},
            {"task": distance, "stamps_ns": [stamp(0), stamp(count - 1)], "points_px": [list(POINT_PX)]},
        ],
    }  # fmt: skip
    (path / "truth.json").write_text(json.dumps(truth))


@pytest.fixture
def push_bag(tmp_path: Path) -> Path:
    path = write_push_bag(tmp_path / "push")
    write_truth(path)
    return path


class ArithmeticModel:
    """Depth and answers from arithmetic on the pixels: deterministic, and different for every frame.

    Args:
        depth_offset_m: added to every depth, to make two models differ.
        growth: predicted displacement per true one.
    """

    def __init__(self, depth_offset_m: float = 0.0, growth: float = 0.9) -> None:
        self.name = "arithmetic/1"
        self.depth_offset_m = depth_offset_m
        self.growth = growth
        self.asked: list[AskRequest] = []

    def perceive(self, frame: Frame) -> Perception:
        frame.require_camera()
        grey = frame.image_rgb.mean(axis=2).astype(np.float32) / 255
        depth_m = (DEPTH_M * 1.1 + 0.01 * grey + self.depth_offset_m).astype(np.float32)
        return Perception(depth_m, grey)

    def ask(self, request: AskRequest, on_text: object = None, should_stop: object = None) -> Answer:
        self.asked.append(request)
        for frame in request.frames:
            frame.require_camera()
        task = tasks.get(request.task)
        last = request.frames[-1]
        moved_m = self.growth * STEP_M * (last.stamp_ns - stamp(0)) / PERIOD_NS
        if task.kind == "scalar":
            value = TaskValue((DEPTH_M * 1.05 if len(request.frames) == 1 else moved_m,))
        elif task.kind == "vector":
            value = TaskValue((0.0, 0.0, -moved_m))
        else:
            raise SpatialError(
                ErrorCode.UNPARSABLE_ANSWER, "expected a coordinate in the model's answer, found 'x'"
            )
        text = task.answer_text(value)
        seed = hashlib.sha256(last.image_rgb.tobytes()).digest()[0]
        return Answer(
            task=request.task,
            question=f"{request.task} {request.points_px}",
            text=text,
            kind=task.kind,
            values=task.parse(text).values,
            unit=task.unit,
            label="",
            frame_id=request.frames[0].frame_id,
            stamps_ns=tuple(f.stamp_ns for f in request.frames),
            confidence=seed / 255,
            latency_s=0.001,
            model=self.name,
        )


@pytest.fixture
def arithmetic_model() -> ArithmeticModel:
    return ArithmeticModel()
