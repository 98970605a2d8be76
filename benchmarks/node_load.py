"""What the nodes cost on real DDS: CPU time per image beside a bare rclpy node, and peak memory.

    python node_load.py --frames 30 --repeats 5

Prints one line of JSON. One publisher, this process, sends the same images with the same QoS and the
same shared-memory profile to each subject in turn:

    bare    a node that views the pixels
    echo    a node with the topics of bringup in and out, its outputs made beforehand
    intake  bringup while nobody subscribes to anything: images are paired, decoded and kept
    depth   bringup with depth subscribed; the model's own CPU time is metered in that process
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import meter
import numpy as np
import pictures
from processes import HERE, BenchmarkError, Child
from samples import summary

REPOSITORY = HERE.parent
PROFILE = REPOSITORY / "ros2_ws/src/spatial_mllm/config/fastdds_shm.xml"
SIZES = ((640, 480), (1280, 720))
RATE_HZ = 10.0  # slow enough that the model ends before the next image comes
PICTURES = 8  # different images, sent in turn
WARM_UP = 3
IDLE_S = 1.0  # one round of bringup's diagnostics
START_LIMIT_S = 60.0
ANSWER_LIMIT_S = 30.0
SERVING_FRAMES = 45  # more than bringup keeps
QUESTIONS = 6

os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
if os.environ.get("ROS_DISTRO") == "humble":
    os.environ["ROS_LOCALHOST_ONLY"] = "1"  # its name for the same
for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
    os.environ[variable] = str(PROFILE)

import rclpy  # noqa: E402  (reads the environment set above)
from rclpy.action import ActionClient  # noqa: E402
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.signals import SignalHandlerOptions  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from spatial_mllm_msgs.action import Ask  # noqa: E402
from spatial_mllm_msgs.msg import Pixel, Reward  # noqa: E402
from spatial_mllm_msgs.srv import SetRewardTask  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from spatial_mllm import conversions as convert  # noqa: E402
from spatial_mllm.qos import OUTPUT, image_input  # noqa: E402
from spatial_mllm_core.images import encode_rgb8  # noqa: E402
from spatial_mllm_core.reward.task import RewardGoal, RewardTask  # noqa: E402
from spatial_mllm_core.tasks.depth import DEPTH_VALUE  # noqa: E402
from spatial_mllm_core.tasks.object_motion import OBJECT_DISTANCE  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=30, help="images per measurement")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    # so that an end from outside takes the nodes down, too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Station() as station:
            result: dict[str, Any] = {"rmw": rclpy.get_rmw_implementation_identifier(), "rate_hz": RATE_HZ}
            for width, height in SIZES:
                result[f"{width}x{height}"] = _overhead(
                    station, width, height, options.frames, options.repeats
                )
            result["serving"] = _serve_everything(station, *SIZES[0])
    except BenchmarkError as fault:
        sys.exit(str(fault))
    print(json.dumps(result))


# -- the publisher ----------------------------------------------------------------------------------


class Station:
    """This process's node; its executor has a thread of its own."""

    def __enter__(self) -> Station:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        self.node = Node("benchmark")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="spin", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.executor.shutdown(timeout_sec=2.0)
        self._thread.join(5.0)
        self.node.destroy_node()
        rclpy.try_shutdown()

    def _spin(self) -> None:
        try:
            self.executor.spin()
        except ExternalShutdownException:
            pass

    def run(self, task: Callable[[], Any]) -> Any:
        """Run something on the executor's thread and return what it gave."""
        done = threading.Event()
        box: list[Any] = []

        def run() -> None:
            try:
                box.append(task())
            finally:
                done.set()

        self.executor.create_task(run)
        if not done.wait(ANSWER_LIMIT_S) or not box:
            raise BenchmarkError("the executor of the benchmark does not answer")
        return box[0]

    def result(self, send: Callable[[], Any], what: str, child: Child) -> Any:
        """Send a request from the executor's thread, where a fast answer cannot overtake it, and wait."""
        future = self.run(send)
        wait_until(future.done, ANSWER_LIMIT_S, what, child)
        return future.result()

    @contextmanager
    def listening(
        self, kind: Any, topic: str, on_message: Callable[[Any], None], *, raw: bool
    ) -> Iterator[None]:
        """A subscription for the time of the block."""
        subscription = self.run(
            lambda: self.node.create_subscription(kind, topic, on_message, OUTPUT, raw=raw)
        )
        try:
            yield
        finally:
            self.run(lambda: self.node.destroy_subscription(subscription))


class Camera:
    """Publishes the images of one size to one subject."""

    def __init__(self, station: Station, base: str, width: int, height: int) -> None:
        qos = image_input("sensor_data", 5)
        self._node = station.node
        self._image = station.run(lambda: station.node.create_publisher(Image, f"{base}/image", qos))
        self._info = station.run(
            lambda: station.node.create_publisher(CameraInfo, f"{base}/camera_info", qos)
        )
        self._messages = []
        for frame in pictures.load(PICTURES, width, height):
            image = convert.image_to_msg(encode_rgb8(frame.image_rgb), Header())
            info = convert.camera_info_to_msg(frame.require_camera().camera_info_fields(), Header())
            self._messages.append((info, image))
        self._sent = 0

    def is_seen(self, *, with_info: bool = True) -> bool:
        seen = [self._image.get_subscription_count()]
        if with_info:
            seen.append(self._info.get_subscription_count())
        return min(seen) > 0

    def send(self) -> int:
        """The next image, stamped with the time; returns the stamp."""
        info, image = self._messages[self._sent % len(self._messages)]
        self._sent += 1
        header = convert.to_header(time.time_ns(), "camera_optical_frame")
        info.header = image.header = header
        self._info.publish(info)
        self._image.publish(image)
        return convert.to_ns(header.stamp)

    def play(self, frames: int, on_sent: Callable[[int, int], None] = lambda i, stamp_ns: None) -> list[int]:
        """Images at `RATE_HZ`; returns their stamps."""
        began_s, stamps_ns = time.monotonic(), []
        for i in range(frames):
            time.sleep(max(0.0, began_s + i / RATE_HZ - time.monotonic()))
            stamps_ns.append(self.send())
            on_sent(i, stamps_ns[-1])
        return stamps_ns


def wait_until(is_done: Callable[[], Any], limit_s: float, what: str, child: Child) -> None:
    """Until something holds.

    Raises:
        BenchmarkError: it does not within the limit, or the child has ended.
    """
    until_s = time.monotonic() + limit_s
    while not is_done():
        child.check()
        if time.monotonic() > until_s:
            raise BenchmarkError(f"waited {limit_s:.0f} s for {what}")
        time.sleep(0.02)


# -- CPU time per image -----------------------------------------------------------------------------


@dataclass
class Subject:
    """A process under measurement, its meter and its camera."""

    child: Child
    meter: Path
    camera: Camera


@dataclass
class Window:
    """What happened while some images were sent.

    Attributes:
        frames: images that arrived.
        cpu_s, model_cpu_s: of the subject.
        sent_ns: stamps.
        received_ns: when the depth of a stamp came.
    """

    frames: int
    model_calls: int
    cpu_s: float
    model_cpu_s: float
    sent_ns: list[int]
    received_ns: dict[int, int]

    @property
    def ms_per_frame(self) -> float:
        return 1e3 * self.cpu_s / self.frames

    @property
    def model_ms_per_frame(self) -> float:
        return 1e3 * self.model_cpu_s / self.frames


def _overhead(station: Station, width: int, height: int, frames: int, repeats: int) -> dict[str, Any]:
    windows: dict[str, list[Window]] = {"bare": [], "echo": [], "intake": [], "depth": []}
    limit_s = 2 * START_LIMIT_S + repeats * len(windows) * (frames / RATE_HZ + 20)
    base = f"/benchmark_{width}x{height}"
    idle: dict[str, list[float]] = {"bare": [], "bringup": []}
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def start(name: str, script: str, *arguments: str, meter_first: bool = False) -> Subject:
            path = Path(folder, name)
            meter_arguments = [str(path)] if meter_first else ["--meter", str(path)]
            camera = Camera(station, f"{base}/{name}", width, height)
            child = Child([HERE / script, *meter_arguments, *arguments], limit_s=limit_s)
            return Subject(stack.enter_context(child), path, camera)

        bare = start("bare", "bare_node.py", "--base", f"{base}/bare")
        echo = start("echo", "bare_node.py", "--base", f"{base}/echo", "--echo")
        bringup = start(
            "bringup", "metered_bringup.py", "--ros-args",
            "-p", f"image_topic:={base}/bringup/image", "-r", f"__ns:={base}/bringup",
            meter_first=True,
        )  # fmt: skip
        for subject in (bare, echo, bringup):
            with_info = subject is not bare
            wait_until(
                lambda s=subject, i=with_info: s.camera.is_seen(with_info=i),
                START_LIMIT_S, "a node to subscribe", subject.child,
            )  # fmt: skip
        for _ in range(repeats):
            for name, subject in (("bare", bare), ("bringup", bringup)):
                idle[name].append(_idle_ms_per_s(subject))
            windows["bare"].append(_window(bare, frames))
            windows["intake"].append(_window(bringup, frames))
            windows["echo"].append(_window_with_depth(station, echo, f"{base}/echo/depth/image", frames))
            windows["depth"].append(
                _window_with_depth(station, bringup, f"{base}/bringup/depth/image", frames)
            )
    if any(w.model_calls for w in windows["intake"]) or not all(w.model_calls for w in windows["depth"]):
        raise BenchmarkError("the model ran while nobody wanted depth, or did not while somebody did")
    return {
        **_compared(windows),
        "bare_idle_ms_per_s": summary(idle["bare"]),
        "bringup_idle_ms_per_s": summary(idle["bringup"]),
    }


def _idle_ms_per_s(subject: Subject) -> float:
    """CPU time per second while no image comes; a part of it is in every figure per image, too."""
    began_s, began_cpu_s = time.monotonic(), subject.child.cpu_s()
    time.sleep(IDLE_S)
    return 1e3 * (subject.child.cpu_s() - began_cpu_s) / (time.monotonic() - began_s)


def _window(subject: Subject, frames: int, received_ns: dict[int, int] | None = None) -> Window:
    """Send images to a subject and see what it took."""
    wants_depth = received_ns is not None
    received_ns = {} if received_ns is None else received_ns
    before = meter.read(subject.meter).frames
    for _ in range(5 * WARM_UP):
        subject.camera.play(WARM_UP)
        time.sleep(0.3)
        if meter.read(subject.meter).frames > before and (received_ns or not wants_depth):
            break
    else:
        raise BenchmarkError("no image arrives at a node that has subscribed")
    _settle(subject)
    received_ns.clear()
    began, began_cpu_s = meter.read(subject.meter), subject.child.cpu_s()
    sent_ns = subject.camera.play(frames)
    _settle(subject)
    ended, cpu_s = meter.read(subject.meter), subject.child.cpu_s() - began_cpu_s
    arrived = ended.frames - began.frames
    if arrived < frames / 2:
        raise BenchmarkError(f"of {frames} images only {arrived} arrived; the machine is too busy to measure")
    return Window(
        frames=arrived,
        model_calls=ended.model_calls - began.model_calls,
        cpu_s=cpu_s,
        model_cpu_s=ended.model_cpu_s - began.model_cpu_s,
        sent_ns=sent_ns,
        received_ns={s: r for s, r in received_ns.items() if s in set(sent_ns)},
    )


def _settle(subject: Subject) -> None:
    """Until the subject has nothing left to do."""
    last = meter.read(subject.meter)
    for _ in range(50):
        time.sleep(0.15)
        now = meter.read(subject.meter)
        if now == last:
            return
        last = now


def _window_with_depth(station: Station, subject: Subject, topic: str, frames: int) -> Window:
    received_ns: dict[int, int] = {}

    def on_depth(raw: bytes) -> None:
        received_ns.setdefault(_stamp_ns(raw), time.time_ns())

    with station.listening(Image, topic, on_depth, raw=True):
        window = _window(subject, frames, received_ns)
    time.sleep(0.5)  # until the other side knows that nobody listens any more
    return window


def _stamp_ns(raw: bytes) -> int:
    """Of a serialised message: four bytes of encapsulation, then header.stamp (int32 sec, uint32 nanosec)."""
    sec, nanosec = np.frombuffer(raw, np.uint32, 2, 4)
    return int(sec) * 10**9 + int(nanosec)


def _compared(windows: dict[str, list[Window]]) -> dict[str, Any]:
    """Milliseconds of CPU time per image, and each part against the bare node of the same repeat."""
    bare = [w.ms_per_frame for w in windows["bare"]]
    echo = [w.ms_per_frame for w in windows["echo"]]
    intake = [w.ms_per_frame for w in windows["intake"]]
    whole = [w.ms_per_frame for w in windows["depth"]]
    model = [w.model_ms_per_frame for w in windows["depth"]]
    node = [w - m for w, m in zip(whole, model, strict=True)]
    return {
        "bare_ms": summary(bare),
        "echo_ms": summary(echo),
        "intake_ms": summary(intake),
        "depth_ms": summary(whole),
        "model_ms": summary(model),
        "depth_without_model_ms": summary(node),
        "echo_over_bare": summary(e / b for e, b in zip(echo, bare, strict=True)),
        "intake_over_bare": summary(i / b for i, b in zip(intake, bare, strict=True)),
        "depth_without_model_over_bare": summary(n / b for n, b in zip(node, bare, strict=True)),
        "depth_without_model_over_echo": summary(n / e for n, e in zip(node, echo, strict=True)),
        "intake_overhead_ms": summary(i - b for i, b in zip(intake, bare, strict=True)),
        "node_overhead_ms": summary(n - e for n, e in zip(node, echo, strict=True)),
        "frames": {name: [w.frames for w in many] for name, many in windows.items()},
        "depth_stream": _stream(windows["depth"]),
    }


def _stream(windows: list[Window]) -> dict[str, Any]:
    """The depth windows in the key names and definitions of ros2_benchmark; times in ms."""
    each = [_stream_of(w) for w in windows]
    return {f"BasicPerformanceMetrics.{key}": summary(e[key] for e in each) for key in each[0]}


def _stream_of(window: Window) -> dict[str, float]:
    sent_ms = np.asarray(window.sent_ns) / 1e6
    received_ms = np.sort(np.asarray(list(window.received_ns.values()), np.int64)) / 1e6
    latency_ms = np.asarray([(r - s) / 1e6 for s, r in window.received_ns.items()])
    if len(received_ms) < 3:
        raise BenchmarkError(f"of {len(sent_ms)} images only {len(received_ms)} came back with depth")
    jitter_ms = np.abs(np.diff(received_ms, 2))
    received_for_ms, sent_for_ms = received_ms[-1] - received_ms[0], sent_ms[-1] - sent_ms[0]
    values = {
        "RECEIVED_DURATION": received_for_ms,
        "MEAN_PLAYBACK_FRAME_RATE": 1e3 * len(sent_ms) / sent_for_ms,
        "MEAN_FRAME_RATE": 1e3 * len(received_ms) / received_for_ms,
        "NUM_FRAMES_SENT": len(sent_ms),
        "NUM_MISSED_FRAMES": len(sent_ms) - len(received_ms),
        "FIRST_SENT_RECEIVED_LATENCY": received_ms[0] - sent_ms[0],
        "LAST_SENT_RECEIVED_LATENCY": received_ms[-1] - sent_ms[-1],
        "MIN_LATENCY": latency_ms.min(),
        "MEAN_LATENCY": latency_ms.mean(),
        "MAX_LATENCY": latency_ms.max(),
        "P50_LATENCY": np.percentile(latency_ms, 50),
        "P95_LATENCY": np.percentile(latency_ms, 95),
        "MIN_JITTER": jitter_ms.min(),
        "MEAN_JITTER": jitter_ms.mean(),
        "MAX_JITTER": jitter_ms.max(),
        "STD_DEV_JITTER": jitter_ms.std(),
    }
    return {name: float(value) for name, value in values.items()}


# -- memory -----------------------------------------------------------------------------------------


def _serve_everything(station: Station, width: int, height: int) -> dict[str, Any]:
    """Depth, a reward task and questions at once; the peak of resident memory."""
    base = "/benchmark_serving"
    counts = {"depth": 0, "rewards": 0, "answers": 0, "refused": 0}

    def counting(name: str) -> Callable[[Any], None]:
        def count(message: Any) -> None:
            counts[name] += int(getattr(message, "valid", True))

        return count

    arguments = ["-m", "spatial_mllm.bringup", "--ros-args"]
    arguments += ["-p", f"image_topic:={base}/image", "-r", f"__ns:={base}"]
    limit_s = START_LIMIT_S + 4 * ANSWER_LIMIT_S + SERVING_FRAMES / RATE_HZ
    with (
        Child(arguments, limit_s=limit_s) as child,
        station.listening(Image, f"{base}/depth/image", counting("depth"), raw=True),
        station.listening(Reward, f"{base}/reward", counting("rewards"), raw=False),
    ):
        camera = Camera(station, base, width, height)
        reward_client = station.run(
            lambda: station.node.create_client(SetRewardTask, f"{base}/set_reward_task")
        )
        ask_client = station.run(lambda: ActionClient(station.node, Ask, f"{base}/ask"))
        wait_until(camera.is_seen, START_LIMIT_S, "bringup to subscribe", child)
        wait_until(reward_client.service_is_ready, START_LIMIT_S, "set_reward_task", child)
        wait_until(ask_client.server_is_ready, START_LIMIT_S, "ask", child)
        loaded_mb = child.memory_mb("VmRSS")
        while not counts["depth"]:
            camera.play(WARM_UP)
            time.sleep(0.3)
            child.check()
        point = (pictures.POINT[0] * width, pictures.POINT[1] * height)
        task = RewardTask("push", point, RewardGoal.MOVE_DISTANCE, distance_m=0.3)
        request = SetRewardTask.Request(task=convert.task_to_msg(task))
        answer = station.result(lambda: reward_client.call_async(request), "set_reward_task", child)
        if not answer.success:
            raise BenchmarkError(f"the reward task was refused: E{answer.error_code} {answer.error_msg}")
        futures: list[Any] = []

        def ask(i: int, _stamp_ns: int) -> None:
            if i % (SERVING_FRAMES // QUESTIONS) == 3 and len(futures) < QUESTIONS:
                name = DEPTH_VALUE.name if len(futures) % 2 == 0 else OBJECT_DISTANCE[False].name
                goal = Ask.Goal(
                    task=name, points_px=[Pixel(u=point[0], v=point[1])], max_new_tokens=32, deadline_s=20.0
                )
                futures.append(station.run(lambda: ask_client.send_goal_async(goal)))

        camera.play(SERVING_FRAMES, ask)
        for future in futures:
            wait_until(future.done, ANSWER_LIMIT_S, "a goal to be accepted", child)
            handle = future.result()
            result = station.result(handle.get_result_async, "an answer", child).result
            counts["refused" if result.error_code else "answers"] += 1
        time.sleep(1.0)
        peak_mb = child.memory_mb("VmHWM")
        station.run(ask_client.destroy)
    if not (counts["depth"] and counts["rewards"] and counts["answers"]):
        raise BenchmarkError(f"bringup did not serve everything while its memory was measured: {counts}")
    return {"peak_mb": peak_mb, "loaded_mb": loaded_mb, "served": counts}


if __name__ == "__main__":
    main()
