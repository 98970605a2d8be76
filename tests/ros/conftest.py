"""A rig for tests on real DDS: bringup in a process of its own, a camera and a client in this one."""

from __future__ import annotations

import itertools
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is not installed (make test installs it)")
pytest.importorskip("spatial_mllm_msgs", reason="spatial_mllm_msgs is not built")

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from lifecycle_msgs.srv import ChangeState, GetState  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from spatial_mllm_msgs.action import Ask  # noqa: E402

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUNDLE = REPOSITORY / "models" / "spatial-mllm-mini"
NAMESPACE = "/spatial_mllm"
FRAME = "camera_optical_frame"
WIDTH, HEIGHT = 64, 48
STEP_NS = 100_000_000
_numbers = itertools.count(1)
RELIABLE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)


def stamp(msg: Any, stamp_ns: int, frame_id: str = FRAME) -> Any:
    """Put stamp and frame into a message's header."""
    msg.header.stamp.sec, msg.header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    msg.header.frame_id = frame_id
    return msg


def stamp_ns(msg: Any) -> int:
    return msg.header.stamp.sec * 1_000_000_000 + msg.header.stamp.nanosec


def make_image(at_ns: int, *, width: int = WIDTH, height: int = HEIGHT, frame_id: str = FRAME) -> Image:
    """A good rgb8 image, another one for every stamp."""
    pixels = np.full((height, width, 3), (at_ns // STEP_NS) % 251, np.uint8)
    pixels[:, : width // 2] = (200, 60, 20)
    msg = Image(width=width, height=height, encoding="rgb8", step=3 * width, data=pixels.tobytes())
    return stamp(msg, at_ns, frame_id)


def make_info(at_ns: int, *, width: int = WIDTH, height: int = HEIGHT, frame_id: str = FRAME) -> CameraInfo:
    """Its calibration, without distortion."""
    f, cx, cy = 0.9 * width, (width - 1) / 2, (height - 1) / 2
    msg = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5)
    msg.k = [f, 0.0, cx, 0.0, f, cy, 0.0, 0.0, 1.0]
    msg.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    msg.p = [f, 0.0, cx, 0.0, 0.0, f, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return stamp(msg, at_ns, frame_id)


class Bringup:
    """A process of bringup or of one node alone.

    Args:
        parameters: ROS parameters, by name.
        double: run the model double instead of the bundle in models/.
        executable: bringup, perception or reward_annotator.
    """

    def __init__(
        self,
        *,
        double: bool,
        parameters: dict[str, Any],
        remap: tuple[str, ...] = (),
        executable: str = "bringup",
    ) -> None:
        script = [str(HERE / "bringup_with_double.py")] if double else ["-m", f"spatial_mllm.{executable}"]
        arguments = ["--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            arguments += ["-p", f"{name}:={text}"]
        for rule in remap:
            arguments += ["-r", rule]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "RCUTILS_COLORIZED_OUTPUT": "0"}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (a pipe that nobody reads would block it)
        self.process = subprocess.Popen(
            [sys.executable, *script, *arguments],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=REPOSITORY,
        )

    @property
    def output(self) -> str:
        """What it said so far."""
        self._log.seek(0)
        return self._log.read()

    def wait(self, timeout_s: float = 20.0) -> tuple[int, str]:
        """Exit status and output of a process that ends by itself or was told to."""
        try:
            return self.process.wait(timeout_s), self.output
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"bringup did not end within {timeout_s} s; it said:\n{self.output}")

    def stop(self, number: int = signal.SIGINT) -> tuple[int, str, float]:
        """Signal it; returns exit status, output and the seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status, output = self.wait()
        return status, output, time.monotonic() - began


class Rig:
    """A camera and a client beside a bringup; everything waits by spinning, with hard limits."""

    def __init__(
        self, bringup: Bringup, *, image: str, camera_info: str, namespace: str, kind: Any = Image
    ) -> None:
        self.bringup = bringup
        self.namespace = namespace
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node(
            "rig", namespace=namespace.removesuffix(NAMESPACE), context=self.context
        )
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.images = self.node.create_publisher(kind, image, RELIABLE)
        self.infos = self.node.create_publisher(CameraInfo, camera_info, RELIABLE)
        self.asker = ActionClient(self.node, Ask, f"{namespace}/ask")
        self.statuses: dict[str, Any] = {}
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, RELIABLE)
        self.now_ns = 1_700_000_000 * 1_000_000_000

    def close(self) -> None:
        self.executor.remove_node(self.node)
        self.node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)

    # -- waiting ----------------------------------------------------------------------------------

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)

    def wait(self, what: str, condition: Callable[[], Any], limit_s: float = 15.0) -> Any:
        """Spin until the condition holds and return its value; fail with words after the limit."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            value = condition()
            if value:
                return value
            if self.bringup.process.poll() is not None:
                pytest.fail(f"bringup ended while waiting for {what}:\n{self.bringup.output}")
            self.executor.spin_once(timeout_sec=0.02)
        pytest.fail(f"waited {limit_s} s for {what}; faults: {self.fault_counts()}\n{self.bringup.output}")

    def call(
        self, kind: Any, name: str, request: Any, limit_s: float = 15.0, again_s: float = math.inf
    ) -> Any:
        """Response of a service, by its full name.

        Args:
            again_s: ask again after this time without an answer; for requests that change nothing. On
                a loaded machine the middleware may drop a response whose reader it has not matched yet.
        """
        client = self.node.create_client(kind, name)
        try:
            self.wait(f"service {name}", client.service_is_ready, limit_s)
            future, asked = client.call_async(request), time.monotonic()

            def answered() -> bool:
                nonlocal future, asked
                if not future.done() and time.monotonic() - asked > again_s:
                    future, asked = client.call_async(request), time.monotonic()
                return bool(future.done())

            self.wait(f"answer of {name}", answered, limit_s)
            return future.result()
        finally:
            self.node.destroy_client(client)

    # -- life cycle -------------------------------------------------------------------------------

    def state(self, node: str = "perception") -> str:
        name = f"{self.namespace}/{node}/get_state"
        return self.call(GetState, name, GetState.Request(), again_s=4.0).current_state.label

    def change(self, transition: int, node: str = "perception") -> bool:
        request = ChangeState.Request()
        request.transition.id = transition
        return self.call(ChangeState, f"{self.namespace}/{node}/change_state", request).success

    def wait_active(self) -> None:
        self.wait("active nodes", lambda: self.state() == self.state("reward_annotator") == "active", 30.0)
        self.wait("the camera subscriptions", self._is_matched)
        self.wait("the ask action", self.asker.server_is_ready)

    def _is_matched(self) -> bool:
        return self.images.get_subscription_count() > 0 and self.infos.get_subscription_count() > 0

    # -- camera -----------------------------------------------------------------------------------

    def tick(self) -> int:
        self.now_ns += STEP_NS
        return self.now_ns

    def publish(self, *messages: Any) -> None:
        for msg in messages:
            (self.images if isinstance(msg, Image) else self.infos).publish(msg)

    def publish_good(self, at_ns: int | None = None) -> int:
        """A good image with its calibration; returns its stamp."""
        at_ns = self.tick() if at_ns is None else at_ns
        self.publish(make_info(at_ns), make_image(at_ns))
        return at_ns

    def collect(self, kind: Any, name: str) -> list[Any]:
        """Messages of an output from now on; returns once the publisher is matched."""
        messages: list[Any] = []
        subscription = self.node.create_subscription(
            kind, f"{self.namespace}/{name}", messages.append, RELIABLE
        )
        full = subscription.topic_name
        self.wait(f"a publisher of {full}", lambda: self.node.count_publishers(full) > 0)
        self.spin(0.3)  # the other side must see this subscription, too
        return messages

    # -- questions --------------------------------------------------------------------------------

    def send_goal(self, goal: Any, feedback: list[Any] | None = None) -> Any:
        """Handle of an accepted goal."""
        on_feedback = None if feedback is None else (lambda f: feedback.append(f.feedback))
        future = self.asker.send_goal_async(goal, feedback_callback=on_feedback)
        self.wait("acceptance of the goal", future.done)
        assert future.result().accepted
        return future.result()

    def result(self, handle: Any, limit_s: float = 20.0) -> Any:
        """The wrapped result (status and result) of a goal."""
        future = handle.get_result_async()
        self.wait("the result of the goal", future.done, limit_s)
        return future.result()

    def ask(self, goal: Any, feedback: list[Any] | None = None) -> Any:
        return self.result(self.send_goal(goal, feedback))

    # -- diagnostics ------------------------------------------------------------------------------

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        for status in array.status:
            self.statuses[status.name] = status

    def status(self, name: str) -> Any:
        """The last status with this name, for example "perception: input", or None."""
        return self.statuses.get(f"{self.namespace.lstrip('/')}/{name}")

    def values(self, name: str) -> dict[str, str]:
        status = self.status(name)
        return {} if status is None else {v.key: v.value for v in status.values}

    def fault_counts(self, node: str = "perception") -> dict[int, int]:
        """Faults on /diagnostics by number."""
        values = self.values(f"{node}: inference")
        return {int(k[1:4]): int(v) for k, v in values.items() if k[:1] == "E" and k[1:4].isdigit()}


@pytest.fixture
def start() -> Iterator[Callable[..., Rig]]:
    """Start a bringup with a rig: `start(double=True, image_topic="/camera/image")`."""
    rigs: list[Rig] = []

    def _start(
        *, double: bool = False, wait: bool = True, executable: str = "bringup", **parameters: Any
    ) -> Rig:
        rigs.append(make_rig(double=double, parameters=parameters, executable=executable))
        if wait:
            rigs[-1].wait_active()
        return rigs[-1]

    yield _start
    _end(rigs)


def _end(rigs: list[Rig]) -> None:
    for rig in rigs:
        rig.close()
        if rig.bringup.process.poll() is None:
            rig.bringup.stop()


def make_rig(*, double: bool, parameters: dict[str, Any], executable: str = "bringup") -> Rig:
    """A rig in a namespace of its own, whose camera publishes where its bringup listens."""
    parameters = {name.replace("__", "."): value for name, value in parameters.items()}
    place = f"/rig{next(_numbers)}"
    parameters.setdefault("image_qos", "reliable")
    parameters.setdefault("image_queue_depth", 50)
    image = parameters.setdefault("image_topic", f"{place}/camera/image")
    remap = (f"__ns:={place}{NAMESPACE}",)
    bringup = Bringup(double=double, parameters=parameters, remap=remap, executable=executable)
    info = parameters.get("camera_info_topic", image.rpartition("/")[0] + "/camera_info")
    is_compressed = parameters.get("image_transport") == "compressed"
    return Rig(
        bringup,
        image=image + ("/compressed" if is_compressed else ""),
        camera_info=info,
        namespace=f"{place}{NAMESPACE}",
        kind=CompressedImage if is_compressed else Image,
    )


@pytest.fixture(scope="module")
def start_once() -> Iterator[Callable[..., Rig]]:
    """As `start`, for one bringup that all tests of a module share."""
    rigs: list[Rig] = []

    def _start(*, double: bool = False, **parameters: Any) -> Rig:
        rigs.append(make_rig(double=double, parameters=parameters))
        rigs[-1].wait_active()
        return rigs[-1]

    yield _start
    _end(rigs)


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The shipped model."""
    assert (BUNDLE / "manifest.json").is_file(), f"the shipped model {BUNDLE} is missing"
    return BUNDLE


@pytest.fixture(scope="session")
def rig_messages() -> Any:
    """`make_image`, `make_info` and `stamp_ns`."""
    return SimpleNamespace(make_image=make_image, make_info=make_info, stamp_ns=stamp_ns)
