"""The reward annotator node: a reward task in, a reward for every image out."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from spatial_mllm_msgs.msg import Reward, SpatialAnswer
from spatial_mllm_msgs.srv import SetRewardTask
from std_msgs.msg import Float64
from std_srvs.srv import Trigger

from spatial_mllm import conversions as convert
from spatial_mllm.inference_worker import InferenceWorker
from spatial_mllm.node import SpatialNode
from spatial_mllm.qos import OUTPUT
from spatial_mllm_core.errors import SpatialError

if TYPE_CHECKING:
    from spatial_mllm_core.frames import Frame
    from spatial_mllm_core.pipeline import FrameResult, SpatialPipeline


class RewardAnnotator(SpatialNode):
    """Publishes reward, reward/value and the answers behind them; serves set_reward_task, reset_reference."""

    def __init__(
        self, name: str = "reward_annotator", *, worker: InferenceWorker | None = None, **node_options: Any
    ) -> None:
        super().__init__(name, worker=worker, **node_options)
        self._outputs: dict[str, Any] = {}
        for kind, service, callback in (
            (SetRewardTask, "set_reward_task", self._on_set_reward_task),
            (Trigger, "reset_reference", self._on_reset_reference),
        ):
            self.create_service(kind, service, callback, callback_group=self.awaiting_group)

    def make_outputs(self) -> None:
        for name, kind in (("reward", Reward), ("reward/value", Float64), ("answers", SpatialAnswer)):
            self._outputs[name] = self.create_lifecycle_publisher(kind, name, OUTPUT)

    def drop_outputs(self) -> None:
        outputs, self._outputs = self._outputs, {}
        for publisher in outputs.values():
            self.destroy_lifecycle_publisher(publisher)

    def wants_reward(self) -> bool:
        return self.is_active

    def on_frame(self, frame: Frame, result: FrameResult) -> None:
        reward = result.reward
        if reward is None:
            return
        if reward.error_code and not (
            frame.camera_fault is not None and reward.error_code == int(frame.camera_fault.code)
        ):
            self.faults.add(convert.fault_from(reward.error_code, reward.error_sentence))
        self._publish("reward", convert.reward_to_msg(reward))
        self._publish("reward/value", Float64(data=reward.reward))
        for answer in result.answers:
            self._publish("answers", convert.answer_to_msg(answer))

    def _publish(self, name: str, msg: Any) -> None:
        publisher = self._outputs.get(name)
        if publisher is not None and self.is_active:
            publisher.publish(msg)

    async def _on_set_reward_task(self, request: Any, response: Any) -> Any:
        def run(pipeline: SpatialPipeline) -> Any:
            if request.clear:
                pipeline.clear_reward_task()
                return None
            return pipeline.set_reward_task(convert.task_from_msg(request.task))

        task, fault = await self.submit(run)
        if fault is not None:
            self.faults.add(fault)
            response.error_code, response.error_msg = int(fault.code), fault.sentence
            return response
        response.success = True
        if task is not None:
            response.task = convert.task_to_msg(task)
            self.get_logger().info(
                f"reward task '{task.task_id}': {task.goal.value} from {task.reference_stamp_ns} ns"
            )
        return response

    async def _on_reset_reference(self, _request: Any, response: Any) -> Any:
        task, fault = await self.submit(lambda pipeline: pipeline.reset_reference())
        response.success = fault is None
        if isinstance(fault, SpatialError):
            self.faults.add(fault)
            response.message = str(fault)
        else:
            response.message = f"the reference image is now the one at {task.reference_stamp_ns} ns"
        return response


def main(args: list[str] | None = None) -> int:
    """Entry point of `ros2 run spatial_mllm reward_annotator`."""
    from spatial_mllm.running import run

    return run(lambda: [RewardAnnotator()], args)


if __name__ == "__main__":
    sys.exit(main())
