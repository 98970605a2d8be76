"""SpatialNode: what the nodes have in common: life cycle, the worker, the intake, diagnostics.

Life cycle: configure waits for the model, activate opens the intake and enables the publishers,
deactivate stops intake and ends waiting questions, cleanup lets go of the model. Services and
actions exist all the time and answer NOT_READY while the node is not active.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future as RosFuture

from spatial_mllm import diagnostics
from spatial_mllm.faults import FaultLog
from spatial_mllm.inference_worker import InferenceWorker
from spatial_mllm.intake import FrameIntake, IntakeParameters
from spatial_mllm.parameters import declare, parameter
from spatial_mllm.qos import OUTPUT
from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from spatial_mllm_core.frames import Frame
    from spatial_mllm_core.pipeline import FrameResult, SpatialPipeline

T = TypeVar("T")

DEFAULT_NAMESPACE = "spatial_mllm"
DIAGNOSTICS_PERIOD_S = 1.0


@dataclass(frozen=True)
class ModelParameters:
    """Which model, and what waits for it."""

    model: str = parameter("", "model bundle: a folder or a name; empty = the shipped one")
    backend: str = parameter("cpu", "where the model runs: cpu, cuda or tensorrt")
    threads: int = parameter(0, "CPU threads of the model; 0 = as many as cores", bounds=(0, 256))
    frame_queue: int = parameter(
        1,
        "images that may wait for the model; 1 = the newest wins, more = first in, first out",
        bounds=(1, 1000),
    )
    question_queue: int = parameter(
        8, "questions that may wait; more are refused with BUSY", bounds=(1, 1000)
    )
    memory_frames: int = parameter(32, "images kept for questions by stamp", bounds=(2, 10_000))
    memory_mb: int = parameter(128, "bound on their pixels, MB", bounds=(1, 65_536))


@dataclass(frozen=True)
class NodeParameters:
    """How the node lives."""

    autostart: bool = parameter(True, "configure and activate by itself; false = wait for transitions")
    watchdog_s: float = parameter(
        2.0, "an input missing for this long is told on /diagnostics and in the log, s", bounds=(0.1, 3600.0)
    )


def make_worker(node: LifecycleNode, p: ModelParameters) -> InferenceWorker:
    """The worker that loads the model of these parameters."""

    def load() -> SpatialPipeline:
        from spatial_mllm_core.model.spatial_model import SpatialModel
        from spatial_mllm_core.pipeline import SpatialPipeline

        model = SpatialModel.load(p.model, backend=p.backend, threads=p.threads or None)
        return SpatialPipeline(model, memory_capacity=p.memory_frames, memory_bytes=p.memory_mb << 20)

    return InferenceWorker(
        load,
        frame_capacity=p.frame_queue,
        job_capacity=p.question_queue,
        log_crash=lambda text: node.get_logger().error(text),
    )


class SpatialNode(LifecycleNode):
    """Base of the nodes.

    Args:
        name: node name.
        worker: a shared worker whose frames another node feeds; None = the node makes its own
            and subscribes to the camera itself.
        autostart: overrides the parameter when not None.

    Raises:
        ParameterFault: a parameter cannot be used.
    """

    def __init__(self, name: str, *, worker: InferenceWorker | None = None, **node_options: Any) -> None:
        node_options.setdefault("namespace", DEFAULT_NAMESPACE)
        super().__init__(name, **node_options)
        self.life = declare(self, NodeParameters)
        self.faults = FaultLog(lambda text: self.get_logger().warning(text))
        self._intake: FrameIntake | None = None
        self._owns_worker = worker is None
        if worker is None:
            self._model_settings = declare(self, ModelParameters)
            worker = make_worker(self, self._model_settings)
            self._intake = FrameIntake(self, declare(self, IntakeParameters), worker.offer_frame)
        self.worker = worker
        self._is_active = False
        self.is_finalized = False
        self._model_name = ""
        self._complaint = ""
        self._posted: deque[Callable[[], None]] = deque()
        # a callback that awaits keeps its group busy: what it waits for, and everything else,
        # must run in another one
        self.awaiting_group = ReentrantCallbackGroup()
        self._guard = self.create_guard_condition(self._run_posted, ReentrantCallbackGroup())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", OUTPUT)
        # a steady clock: the watchdog must bark when simulated time stands still, too
        self._steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._on_diagnostics_timer, clock=self._steady)

    # -- for subclasses ---------------------------------------------------------------------------

    def make_outputs(self) -> None:
        """Create the publishers (on configure)."""

    def drop_outputs(self) -> None:
        """Destroy them (on cleanup)."""

    def wants_depth(self) -> bool:
        return False

    def wants_reward(self) -> bool:
        return False

    def on_frame(self, frame: Frame, result: FrameResult) -> None:
        """Publish what a frame gave; called on the inference thread."""

    # -- life cycle -------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        return self._is_active

    def start_loading(self) -> Future[str]:
        """Begin to load the model without waiting for it."""
        return self.worker.start()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        if self._owns_worker:
            loaded = self.worker.start()
        elif not self.worker.is_ready:
            self.get_logger().error("the node that owns the model must be configured first")
            return TransitionCallbackReturn.FAILURE
        else:
            loaded = self.worker.start()
        try:
            self._model_name = loaded.result()
        except SpatialError as fault:
            self.worker.stop()
            self.get_logger().error(str(fault))
            return TransitionCallbackReturn.FAILURE
        self.make_outputs()
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        outcome = super().on_activate(state)
        self.worker.add_listener(self)
        self._is_active = True
        if self._intake is not None:
            self._intake.open()
            self.get_logger().info(
                f"{self._model_name} looks at {self._intake.image_topic} and {self._intake.info_topic}"
            )
        return outcome

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._let_go()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._halt("the node is shutting down")
        self._let_go()
        self.is_finalized = True
        return super().on_shutdown(state)

    def _halt(self, why: str) -> None:
        self._is_active = False
        self.worker.remove_listener(self)
        if self._intake is not None:
            self._intake.close()
        if self._owns_worker:
            self.worker.cancel_all(why)

    def _let_go(self) -> None:
        if self._owns_worker:
            self.worker.stop()
        self.drop_outputs()

    # -- between the threads ----------------------------------------------------------------------

    def post(self, run: Callable[[], None]) -> None:
        """Run something on the executor, from any thread."""
        self._posted.append(run)
        try:
            self._guard.trigger()
        except Exception:
            if rclpy.ok(context=self.context):
                raise

    def _run_posted(self) -> None:
        while self._posted:
            self._posted.popleft()()

    def submit(self, run: Callable[[SpatialPipeline], T], *, wait_s: float = 0.0) -> RosFuture:
        """Run something on the inference thread; the future can be awaited in a callback.

        Its result is (value, None) or (None, SpatialError).
        """
        waiter = RosFuture(executor=self.executor)
        if not self._is_active:
            fault = SpatialError(ErrorCode.NOT_READY, f"{self.get_name()} is not active; activate it first")
            waiter.set_result((None, fault))
            return waiter

        def finish(done: Future[T]) -> None:
            error = done.exception()
            outcome = (None, error) if error is not None else (done.result(), None)
            self.post(lambda: waiter.set_result(outcome))

        self.worker.submit(run, wait_s=wait_s).add_done_callback(finish)
        return waiter

    def on_fault(self, fault: SpatialError) -> None:
        """A fault of a frame; counted by the node that feeds the frames."""
        if self._intake is not None:
            self.faults.add(fault)

    # -- diagnostics ------------------------------------------------------------------------------

    def _on_diagnostics_timer(self) -> None:
        if self._intake is not None:
            self._intake.flush_stale()
        array = DiagnosticArray(status=self.diagnose())
        array.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(array)

    def diagnose(self) -> list[Any]:
        """The statuses of this node."""
        name = self.get_fully_qualified_name().lstrip("/")
        statuses = []
        if self._intake is not None:
            complaint = self._intake.missing(self.life.watchdog_s)
            self._tell_once(complaint)
            level = diagnostics.WARN if complaint else diagnostics.OK
            words = complaint or ("images and camera_infos arrive" if self._intake.is_open else "not active")
            statuses.append(
                diagnostics.status(
                    f"{name}: input",
                    level,
                    words,
                    self._intake.counters,
                    hardware_id=self._intake.image_topic,
                )
            )
        statuses.append(self._diagnose_inference(name))
        return statuses

    def _diagnose_inference(self, name: str) -> Any:
        counters = self.worker.counters()
        recent = self.faults.recent()
        if recent:
            level, words = diagnostics.WARN, recent
        elif not self._is_active:
            level, words = diagnostics.OK, "not active"
        elif not self.worker.is_ready:
            level, words = diagnostics.ERROR, "the model is not loaded"
        else:
            level, words = diagnostics.OK, f"{self._model_name} serves"
        values = {
            "model": self._model_name,
            "images received": counters.received,
            "images served": counters.served,
            "images dropped for newer ones": counters.dropped,
            "images faulty": counters.faulty,
            "images waiting": counters.waiting,
            "requests": counters.questions,
            "requests refused as busy": counters.busy,
            "last inference s": counters.last_s,
            "mean inference s": counters.mean_s,
            "last image to result s": counters.last_age_s,
            "threads of the process": threading.active_count(),
            **self.faults.counts(),
        }
        return diagnostics.status(f"{name}: inference", level, words, values)

    def _tell_once(self, complaint: str) -> None:
        """Log a complaint when it begins and when it ends; its seconds may change meanwhile."""
        kind = "".join(c for c in complaint if not c.isdigit())
        if kind == self._complaint:
            return
        if complaint:
            self.get_logger().warning(complaint)
        else:
            self.get_logger().info("all inputs arrive")
        self._complaint = kind
