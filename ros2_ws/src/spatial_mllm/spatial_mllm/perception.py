"""The perception node: depth, its calibration and confidence of every image, and answers on request."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from spatial_mllm_msgs.action import Ask
from spatial_mllm_msgs.msg import SpatialAnswer

from spatial_mllm import conversions as convert
from spatial_mllm.inference_worker import InferenceWorker
from spatial_mllm.node import SpatialNode
from spatial_mllm.parameters import Live, declare, parameter
from spatial_mllm.qos import OUTPUT
from spatial_mllm_core.answers import Answer, AskRequest
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame, build_frame
from spatial_mllm_core.images import decode_any, encode_depth_16uc1, encode_depth_32fc1

if TYPE_CHECKING:
    from spatial_mllm_core.pipeline import FrameResult, SpatialPipeline

MAX_IMAGES_IN_GOAL = 16
RESULT_KEPT_S = 60
_QUIET = (ErrorCode.CANCELED, ErrorCode.BUSY, ErrorCode.NOT_READY)  # said to the asker alone


@dataclass(frozen=True)
class PerceptionParameters:
    """What the node publishes."""

    depth_enabled: bool = parameter(True, "publish depth", name="depth.enabled", live=True)
    depth_always: bool = parameter(
        False, "compute depth also while nobody subscribes to it", name="depth.always", live=True
    )
    depth_encoding: str = parameter(
        "32FC1",
        "32FC1 (metres, NaN = none) or 16UC1 (millimetres, 0 = none)",
        name="depth.encoding",
        choices=("32FC1", "16UC1"),
        live=True,
    )
    points_enabled: bool = parameter(
        False, "publish the coloured point cloud", name="points.enabled", live=True
    )
    ask_deadline_s: float = parameter(
        30.0, "bound on a question that names none, s", name="ask.deadline_s", bounds=(0.1, 3600.0)
    )


class Perception(SpatialNode):
    """Publishes depth/image, depth/camera_info, depth/confidence, points, answers; serves ask."""

    def __init__(
        self, name: str = "perception", *, worker: InferenceWorker | None = None, **node_options: Any
    ) -> None:
        super().__init__(name, worker=worker, **node_options)
        self._settings = declare(self, PerceptionParameters)
        self._live = Live(self, PerceptionParameters)
        self._outputs: dict[str, Any] = {}
        self._ask = ActionServer(
            self,
            Ask,
            "ask",
            execute_callback=self._on_ask,
            goal_callback=lambda _: GoalResponse.ACCEPT,  # a refusal with a number travels in the result
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            result_timeout=RESULT_KEPT_S,
        )

    def make_outputs(self) -> None:
        for name, kind in (
            ("depth/image", Image),
            ("depth/camera_info", CameraInfo),
            ("depth/confidence", Image),
            ("points", PointCloud2),
            ("answers", SpatialAnswer),
        ):
            self._outputs[name] = self.create_lifecycle_publisher(kind, name, OUTPUT)

    def drop_outputs(self) -> None:
        outputs, self._outputs = self._outputs, {}
        for publisher in outputs.values():
            self.destroy_lifecycle_publisher(publisher)

    # -- every frame, on the inference thread -----------------------------------------------------

    def wants_depth(self) -> bool:
        live = self._live
        if live.points_enabled and self._listened("points"):
            return True
        return live.depth_enabled and (
            live.depth_always
            or any(self._listened(f"depth/{n}") for n in ("image", "camera_info", "confidence"))
        )

    def on_frame(self, frame: Frame, result: FrameResult) -> None:
        if result.depth_error is not None:
            if result.depth_error is not frame.camera_fault:
                self.faults.add(result.depth_error)
            return
        if result.depth_m is None or result.confidence is None or result.camera is None:
            return
        header = convert.to_header(result.stamp_ns, result.frame_id)
        if self._live.depth_enabled:
            encode = encode_depth_16uc1 if self._live.depth_encoding == "16UC1" else encode_depth_32fc1
            self._publish("depth/image", convert.image_to_msg(encode(result.depth_m), header))
            self._publish(
                "depth/confidence", convert.image_to_msg(encode_depth_32fc1(result.confidence), header)
            )
            info = result.camera.camera_info_fields()
            self._publish("depth/camera_info", convert.camera_info_to_msg(info, header))
        if self._live.points_enabled and self._listened("points"):
            points_m = result.camera.point_map(result.depth_m)
            self._publish("points", convert.cloud_to_msg(points_m, frame.image_rgb, header))

    def _listened(self, name: str) -> bool:
        publisher = self._outputs.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def _publish(self, name: str, msg: Any) -> None:
        publisher = self._outputs.get(name)
        if publisher is not None and self.is_active:
            publisher.publish(msg)

    # -- questions --------------------------------------------------------------------------------

    async def _on_ask(self, goal_handle: Any) -> Any:
        """Answer one goal; awaits the inference thread, so the executor stays free."""
        goal = goal_handle.request
        question = _Question(
            goal, accepted_s=time.monotonic(), default_deadline_s=self._settings.ask_deadline_s
        )
        feedback = Ask.Feedback()

        def on_text(text: str) -> None:
            feedback.text, feedback.tokens = text, feedback.tokens + 1
            goal_handle.publish_feedback(feedback)

        def should_stop() -> bool:
            return bool(goal_handle.is_cancel_requested) or self.worker.is_stopping or not self.is_active

        def run(pipeline: SpatialPipeline) -> Answer:
            if should_stop():
                raise SpatialError(ErrorCode.CANCELED, "canceled before its turn came")
            return pipeline.ask(question.request(pipeline), on_text, should_stop)

        try:
            wait_s = question.check()
            answer, fault = await self.submit(run, wait_s=wait_s)
        except SpatialError as refused:
            answer, fault = None, refused
        result = Ask.Result()
        if answer is not None:
            result.answer = convert.answer_to_msg(answer)
            self._publish("answers", result.answer)
            goal_handle.succeed()
            return result
        result.answer = convert.failed_answer_to_msg(
            fault,
            task=goal.task,
            question=goal.question,
            stamps_ns=question.stamps_ns,
            model=self._model_name,
        )
        result.error_code, result.error_msg = int(fault.code), fault.sentence
        if fault.code not in _QUIET:
            self._publish("answers", result.answer)
        self.faults.add(fault)
        if fault.code is ErrorCode.CANCELED and goal_handle.is_cancel_requested:
            goal_handle.canceled()
        else:
            goal_handle.abort()
        return result


class _Question:
    """A goal on its way to an AskRequest; frames are looked up when its turn has come."""

    def __init__(self, goal: Any, *, accepted_s: float, default_deadline_s: float) -> None:
        self._goal = goal
        self._accepted_s = accepted_s
        self._deadline_s = goal.deadline_s if goal.deadline_s != 0 else default_deadline_s
        self.stamps_ns = tuple(convert.to_ns(s) for s in goal.stamps)

    def check(self) -> float:
        """Refuse what no frame can make right; return how long to wait for a frame to come, s.

        Raises:
            SpatialError: BAD_NUMBER, EMPTY_QUESTION or WRONG_FRAME_COUNT.
        """
        goal = self._goal
        if not (math.isfinite(self._deadline_s) and 0 < self._deadline_s <= 86_400):
            raise SpatialError(
                ErrorCode.BAD_NUMBER, f"deadline_s must lie in 0 to 86400 s, got {goal.deadline_s}"
            )
        convert.seconds_to_ns(goal.stamp_tolerance_s, "stamp_tolerance_s")
        if not goal.task and not goal.question.strip():
            raise SpatialError(ErrorCode.EMPTY_QUESTION, "the goal names no task and asks no question")
        images = len(goal.images) + len(goal.compressed_images)
        if goal.images and goal.compressed_images:
            raise SpatialError(
                ErrorCode.WRONG_FRAME_COUNT,
                "give images or compressed_images, not both: their order is unknown",
            )
        if images and goal.stamps:
            raise SpatialError(ErrorCode.WRONG_FRAME_COUNT, "give stamps or images, not both")
        if max(images, len(goal.stamps)) > MAX_IMAGES_IN_GOAL:
            raise SpatialError(
                ErrorCode.WRONG_FRAME_COUNT,
                f"a question speaks of at most {MAX_IMAGES_IN_GOAL} images, got {max(images, len(goal.stamps))}",
            )
        if len(goal.camera_infos) not in (0, 1, images):
            raise SpatialError(
                ErrorCode.WRONG_FRAME_COUNT,
                f"{images} images came with {len(goal.camera_infos)} camera_infos; give one for each or one for all",
            )
        return float(self._deadline_s)

    def request(self, pipeline: SpatialPipeline) -> AskRequest:
        """The request with its frames.

        Raises:
            SpatialError: 1xx of an image in the goal, 3xx of a stamp, DEADLINE_EXCEEDED.
        """
        goal = self._goal
        left_s = self._accepted_s + self._deadline_s - time.monotonic()
        if left_s <= 0:
            raise SpatialError(
                ErrorCode.DEADLINE_EXCEEDED, f"the question waited its {self._deadline_s:g} s without a turn"
            )
        frames = self._frames(pipeline)
        self.stamps_ns = tuple(f.stamp_ns for f in frames)
        return AskRequest(
            task=goal.task,
            frames=frames,
            points_px=tuple((p.u, p.v) for p in goal.points_px),
            question=goal.question,
            category=goal.category,
            variant=goal.variant,
            max_new_tokens=goal.max_new_tokens,
            deadline_s=left_s,
        )

    def _frames(self, pipeline: SpatialPipeline) -> tuple[Frame, ...]:
        goal = self._goal
        images = [*goal.images, *goal.compressed_images]
        if images:
            infos = list(goal.camera_infos)
            infos = infos * len(images) if len(infos) == 1 else infos or [None] * len(images)
            return tuple(
                build_frame(
                    convert.to_ns(image.header.stamp),
                    image.header.frame_id,
                    decode_any(image),
                    info,
                    f"goal-{i}",
                )
                for i, (image, info) in enumerate(zip(images, infos, strict=True))
            )
        tolerance_ns = convert.seconds_to_ns(goal.stamp_tolerance_s, "stamp_tolerance_s")
        if goal.stamps:
            return tuple(pipeline.memory.at(s, tolerance_ns=tolerance_ns) for s in self.stamps_ns)
        newest = pipeline.frame_at(0)
        if _frame_count(goal.task) == 2 and pipeline.reward_task is not None:
            return (pipeline.frame_at(pipeline.reward_task.reference_stamp_ns), newest)
        return (newest,)


def _frame_count(task: str) -> int:
    from spatial_mllm_core import tasks

    return tasks.get(task).frame_count if task else 1


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run spatial_mllm perception`."""
    from spatial_mllm.running import run

    return run(lambda: [Perception()], args)


if __name__ == "__main__":
    sys.exit(main())
