"""A live session on real ROS 2: bringup as a process of its own, a bag played through DDS topics, a recorder.

Knows nothing of truth or figures. Needs rclpy, spatial_mllm_msgs and spatial_mllm in the environment.
"""

from __future__ import annotations

import ctypes
import os
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from builtin_interfaces.msg import Time
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from spatial_mllm_msgs.action import Ask
from spatial_mllm_msgs.msg import Pixel, Reward, SpatialAnswer
from spatial_mllm_msgs.srv import SetRewardTask
from std_msgs.msg import Float64, Header

from spatial_mllm import conversions
from spatial_mllm_core.bags import BagWriter, CameraTopics, messages, open_bag
from spatial_mllm_core.bags.framing import is_rectified
from spatial_mllm_core.bags.message_types import make_message, stamp_ns_of
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.evaluation import outputs
from spatial_mllm_core.evaluation.run import Question
from spatial_mllm_core.reward.task import RewardTask

START_LIMIT_S = 90.0
ANSWER_LIMIT_S = 15.0
IN_FLIGHT = 6  # fewer than the depth of the output topics, so that no output is overwritten unread
IMAGE_TOPIC = "/demo/camera/image_raw"
INFO_TOPIC = "/demo/camera/camera_info"
RELIABLE = QoSProfile(depth=32, reliability=ReliabilityPolicy.RELIABLE, history=HistoryPolicy.KEEP_LAST)
RECORDED = {
    outputs.DEPTH: Image,
    outputs.CAMERA_INFO: CameraInfo,
    outputs.CONFIDENCE: Image,
    outputs.ANSWERS: SpatialAnswer,
    outputs.REWARD: Reward,
    outputs.REWARD_VALUE: Float64,
}

_LIBC = ctypes.CDLL(None)  # loaded before any fork
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child: be told to end when the demo dies, even when it is killed and cannot say so."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def prepare_environment(profile: Path) -> None:
    """Domain, discovery and shared-memory profile of this process and its children; before rclpy starts."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.pop("ROS_LOCALHOST_ONLY", None)
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ[variable] = str(profile)


# -- the nodes --------------------------------------------------------------------------------------


class Bringup:
    """The process `python -m spatial_mllm.bringup`, from start to end.

    Args:
        parameters: for all nodes of the process; each takes those that it has.
    """

    def __init__(self, parameters: dict[str, object]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process, not with a block
        command = [sys.executable, "-m", "spatial_mllm.bringup", "--ros-args"]
        for name, value in parameters.items():
            command += ["-p", f"{name}:={_parameter(value)}"]
        self._process = subprocess.Popen(
            command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_parent,
        )

    def check(self) -> None:
        """Raise with its last words when it has ended."""
        if self._process.poll() is not None:
            raise SpatialError(
                ErrorCode.NOT_READY,
                f"bringup ended with status {self._process.returncode}: {self.last_words()}",
            )

    def last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"

    def peak_mb(self) -> float | None:
        """Peak resident memory so far, MB; None where /proc does not tell."""
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text()
        except OSError:
            return None
        peak = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
        return int(peak[0]) / 1024 if peak else None

    def stop(self) -> int | None:
        """SIGINT, then harder; returns the exit status."""
        for number, patience_s in ((signal.SIGINT, 8.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
            if self._process.poll() is not None:
                break
            self._process.send_signal(number)
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        return self._process.returncode


def _parameter(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# -- the session ------------------------------------------------------------------------------------


class Session:
    """Publishers, recorder and clients of the demo, spun by a thread of their own.

    Attributes:
        published_ns: stamps of the images sent, in order.
        answered_ns: stamps for which depth came back.
        expects_depth: False when the nodes cannot give any (no calibration): then nothing waits for it.
    """

    def __init__(
        self,
        node: Node,
        executor: SingleThreadedExecutor,
        bringup: Bringup,
        bag: BagWriter,
        kind: type[Any],
        picture_ns: set[int],
    ) -> None:
        self._node = node
        self._executor = executor
        self._bringup = bringup
        self.expects_depth = True
        self._bag = bag
        self._bag_lock = threading.Lock()
        self._last_log_ns = 0
        self._pictures_ns = picture_ns
        self._news = threading.Condition()
        self.published_ns: list[int] = []
        self.answered_ns: set[int] = set()
        self.judged_ns: set[int] = set()
        self._given_up_ns: set[int] = set()
        self._last_news_s = time.monotonic()
        suffix = "/compressed" if kind is CompressedImage else ""
        self._image = node.create_publisher(kind, IMAGE_TOPIC + suffix, RELIABLE)
        self._info = node.create_publisher(CameraInfo, INFO_TOPIC, RELIABLE)
        self._reward_client = node.create_client(SetRewardTask, outputs.topic("set_reward_task"))
        self._ask_client = ActionClient(node, Ask, outputs.topic("ask"))
        for name, message_type in RECORDED.items():
            bag.add_topic(outputs.topic(name), outputs.TYPES[name])
            node.create_subscription(
                message_type, outputs.topic(name), self._recorder(name), RELIABLE, raw=True
            )
        bag.add_topic(outputs.topic(outputs.QUESTIONS), outputs.TYPES[outputs.QUESTIONS])
        bag.add_topic(outputs.topic(outputs.REWARD_TASK), outputs.TYPES[outputs.REWARD_TASK])

    def wait_until_ready(self) -> None:
        """Until every topic, the service and the action have found their partners.

        Raises:
            SpatialError: NOT_READY naming what is missing after `START_LIMIT_S`.
        """
        wanted: dict[str, Callable[[], bool]] = {
            "image subscription": lambda: self._image.get_subscription_count() > 0,
            "camera_info subscription": lambda: self._info.get_subscription_count() > 0,
            "set_reward_task service": self._reward_client.service_is_ready,
            "ask action": self._ask_client.server_is_ready,
        }
        for name in RECORDED:
            topic = outputs.topic(name)
            wanted[topic] = lambda topic=topic: self._node.count_publishers(topic) > 0  # type: ignore[misc]
        until_s = time.monotonic() + START_LIMIT_S
        while missing := [name for name, is_there in wanted.items() if not is_there()]:
            self._bringup.check()
            if time.monotonic() > until_s:
                raise SpatialError(
                    ErrorCode.NOT_READY,
                    f"after {START_LIMIT_S:.0f} s there is still no {', no '.join(missing)}",
                )
            time.sleep(0.05)
        # a publisher that is seen has not yet seen us: give its side of the handshake a moment
        time.sleep(0.5)

    # -- playing ----------------------------------------------------------------------------------

    def publish_image(self, message: Any) -> None:
        """Send an image of a bag as a real ROS message."""
        self._image.publish(_image_message(message))
        with self._news:
            self.published_ns.append(stamp_ns_of(message))

    def publish_info(self, message: Any) -> None:
        """Send a CameraInfo of a bag as a real ROS message."""
        self._info.publish(_info_message(message))

    def wait_for_room(self) -> None:
        """Until fewer than `IN_FLIGHT` images wait for their answer."""
        self._wait(lambda: len(self._open()) < IN_FLIGHT, ANSWER_LIMIT_S)
        if len(self._open()) >= IN_FLIGHT:
            self._given_up_ns.update(self._open())  # an image that cannot be decoded, or was lost on the way

    def wait_for_frame(self, stamp_ns: int, limit_s: float = ANSWER_LIMIT_S) -> bool:
        """Until the depth of an image has come; False when it has not in time."""
        return self._wait(lambda: stamp_ns in self.answered_ns or not self.expects_depth, limit_s)

    def wait_for_all(self, limit_s: float) -> bool:
        """Until every image has been answered and, if there is a reward task, judged."""
        return self._wait(lambda: not self._open(), limit_s)

    def wait_for_rewards(self, after_ns: int, limit_s: float) -> bool:
        """Until every answered image later than a stamp has its reward."""
        return self._wait(lambda: {s for s in self.answered_ns if s > after_ns} <= self.judged_ns, limit_s)

    def settle(self, quiet_s: float = 0.5, limit_s: float = 10.0) -> None:
        """Until nothing has come for a while: what belongs to the last image travels on several topics."""
        until_s = time.monotonic() + limit_s
        while (now_s := time.monotonic()) < until_s and now_s - self._last_news_s < quiet_s:
            time.sleep(0.05)

    def _open(self) -> list[int]:
        if not self.expects_depth:
            return []
        return [s for s in self.published_ns if s not in self.answered_ns and s not in self._given_up_ns]

    def _wait(self, is_done: Callable[[], bool], limit_s: float) -> bool:
        until_s = time.monotonic() + limit_s
        with self._news:
            while not is_done():
                left_s = until_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._news.wait(min(left_s, 0.5))
                self._bringup.check()
        return True

    # -- asking -----------------------------------------------------------------------------------

    def set_reward_task(self, task: RewardTask) -> RewardTask:
        """Set the reward task through the service; returns it as the node uses it.

        Raises:
            SpatialError: what the node answered, or NOT_READY when it did not.
        """
        request = SetRewardTask.Request(task=conversions.task_to_msg(task))
        response = self._result(lambda: self._reward_client.call_async(request), "set_reward_task")
        if not response.success:
            raise conversions.fault_from(response.error_code, response.error_msg)
        used = conversions.task_from_msg(response.task)
        self._write(outputs.REWARD_TASK, messages.reward_task_message(used))
        return used

    def ask(self, question: Question, on_text: Callable[[str], None]) -> Any:
        """Ask through the action, with streamed words; returns the Ask result.

        Raises:
            SpatialError: NOT_READY when no result comes.
        """
        text = outputs.question_text(question)
        self._write(outputs.QUESTIONS, make_message(outputs.TYPES[outputs.QUESTIONS], data=text))
        goal = Ask.Goal(
            task=question.task,
            question=question.question,
            stamps=[_time(s) for s in question.stamps_ns],
            points_px=[Pixel(u=u, v=v) for u, v in question.points_px],
            max_new_tokens=question.max_new_tokens,
        )
        streamed = [""]

        def on_feedback(message: Any) -> None:
            streamed.append(message.feedback.text)
            on_text(message.feedback.text)

        handle = self._result(
            lambda: self._ask_client.send_goal_async(goal, feedback_callback=on_feedback), "ask"
        )
        result = self._result(handle.get_result_async, "ask").result
        # feedback and result travel on different topics; the last words may come after the result
        self._wait(lambda: streamed[-1].strip() == result.answer.text, 1.0)
        return result

    def _result(self, send: Callable[[], Any], name: str) -> Any:
        """Send a request and wait for its future.

        It is sent on the executor's thread: rclpy notes a request after it has sent it, and from
        another thread a fast answer comes first and is thrown away as "unexpected".
        """
        done = threading.Event()
        box: list[Any] = []

        def run() -> None:
            box.append(send())
            box[0].add_done_callback(lambda _: done.set())

        self._executor.create_task(run)
        until_s = time.monotonic() + 60.0
        while not done.wait(0.2):
            self._bringup.check()
            if time.monotonic() > until_s:
                raise SpatialError(ErrorCode.NOT_READY, f"{name} did not answer within 60 s")
        return box[0].result()

    # -- recording --------------------------------------------------------------------------------

    def _recorder(self, name: str) -> Callable[[bytes], None]:
        def record(raw: bytes) -> None:
            # CDR: four bytes of encapsulation, then header.stamp (int32 sec, uint32 nanosec)
            sec, nanosec = struct.unpack_from("<iI", raw, 4)
            stamp_ns = sec * 10**9 + nanosec
            if name == outputs.CONFIDENCE and stamp_ns not in self._pictures_ns:
                return
            self._write(name, raw)
            with self._news:
                if name == outputs.DEPTH:
                    self.answered_ns.add(stamp_ns)
                elif name == outputs.REWARD:
                    self.judged_ns.add(stamp_ns)
                self._last_news_s = time.monotonic()
                self._news.notify_all()

        return record

    def _write(self, name: str, message: Any) -> None:
        with self._bag_lock:
            self._last_log_ns = max(self._last_log_ns + 1, time.time_ns())
            self._bag.write(outputs.topic(name), message, self._last_log_ns)


@contextmanager
def open_session(
    bag: BagWriter, topics: CameraTopics, type_name: str, model: str, picture_ns: set[int], *, waits: bool
) -> Iterator[tuple[Session, Bringup]]:
    """Start the nodes and a session with them; both are gone at the end, whatever happens."""
    kind = CompressedImage if type_name.endswith("CompressedImage") else Image
    bringup = Bringup(
        {
            "model": model or '""',
            "image_topic": IMAGE_TOPIC,
            "camera_info_topic": INFO_TOPIC,
            "image_transport": "compressed" if kind is CompressedImage else "raw",
            "rectified": "'true'" if is_rectified(topics.image) else "'false'",
            "image_qos": "reliable" if waits else "sensor_data",
            "frame_queue": 4 * IN_FLIGHT if waits else 1,
        }
    )
    node = thread = executor = None
    try:
        # Ctrl-C is ours: it must reach this thread as KeyboardInterrupt, not close the middleware under it
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = Node("demo", namespace="demo")
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        session = Session(node, executor, bringup, bag, kind, picture_ns)
        thread = threading.Thread(target=_spin, args=(executor,), name="spin", daemon=True)
        thread.start()
        yield session, bringup
    finally:
        if executor is not None:
            executor.shutdown(timeout_sec=2.0)
        if thread is not None:
            thread.join(5.0)
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
        bringup.stop()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def play(
    path: Path,
    topics: CameraTopics,
    session: Session,
    *,
    rate: float,
    waits: bool,
    limit: int,
    on_image: Callable[[int], None],
) -> None:
    """Play image and CameraInfo of a bag in the order and pace of its stamps, times `rate`.

    Args:
        waits: hold the next image back while `IN_FLIGHT` of them wait for their answer.
        on_image: called with the stamp after each image.
    """
    wanted = [name for name in (topics.image, topics.camera_info) if name]
    began_s, first_ns, images = time.monotonic(), None, 0
    with open_bag(path) as bag:
        for item in bag.messages(wanted):
            if item.topic == topics.camera_info:
                session.publish_info(item.message)
                continue
            if images >= limit:
                return
            images += 1
            stamp_ns = stamp_ns_of(item.message)
            first_ns = stamp_ns if first_ns is None else first_ns
            # a bag whose stamps jump must not stop the demo for hours
            due_s = began_s + min(max(0.0, (stamp_ns - first_ns) / 1e9 / rate), images * 2.0)
            time.sleep(max(0.0, due_s - time.monotonic()))
            if waits:
                session.wait_for_room()
            session.publish_image(item.message)
            on_image(stamp_ns)


# -- messages of a bag as messages of rclpy ---------------------------------------------------------


def _image_message(m: Any) -> Any:
    data = array("B")
    data.frombytes(memoryview(m.data).cast("B"))
    if hasattr(m, "format"):
        message = CompressedImage(header=_header(m.header), format=m.format)
    else:
        message = Image(
            header=_header(m.header),
            height=int(m.height),
            width=int(m.width),
            encoding=m.encoding,
            is_bigendian=int(m.is_bigendian),
            step=int(m.step),
        )
    message.data = data
    return message


def _info_message(m: Any) -> CameraInfo:
    k, d, r, p = (getattr(m, n, getattr(m, n.upper(), None)) for n in "kdrp")
    message = CameraInfo(
        header=_header(m.header),
        height=int(m.height),
        width=int(m.width),
        distortion_model=m.distortion_model,
        d=[float(v) for v in d],
        k=[float(v) for v in k],
        r=[float(v) for v in r],
        p=[float(v) for v in p],
        binning_x=int(m.binning_x),
        binning_y=int(m.binning_y),
    )
    for name in ("x_offset", "y_offset", "height", "width"):
        setattr(message.roi, name, int(getattr(m.roi, name)))
    message.roi.do_rectify = bool(m.roi.do_rectify)
    return message


def _header(header: Any) -> Header:
    return Header(
        stamp=Time(sec=int(header.stamp.sec), nanosec=int(header.stamp.nanosec)), frame_id=header.frame_id
    )


def _time(stamp_ns: int) -> Time:
    return conversions.to_time(stamp_ns)
