"""The inference thread alone: turns, drops, counters, parked questions; no ROS graph."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from spatial_mllm.faults import FaultLog
from spatial_mllm.inference_worker import InferenceWorker
from spatial_mllm.intake import camera_info_beside
from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames import Frame, FrameMemory

pytestmark = pytest.mark.timeout(30)


class Pipeline:
    """Stands for SpatialPipeline: keeps frames, notes what was wanted, can be held."""

    def __init__(self) -> None:
        self.model = SimpleNamespace(name="double/0")
        self.memory = FrameMemory()
        self.may_go = threading.Event()
        self.may_go.set()
        self.seen: list[tuple[int, bool, bool]] = []

    def process(self, frame, *, want_depth, want_reward):
        self.may_go.wait(10)
        self.memory.add(frame)
        self.seen.append((frame.stamp_ns, want_depth, want_reward))
        return SimpleNamespace(stamp_ns=frame.stamp_ns)


class Listener:
    def __init__(self, depth=True, reward=False) -> None:
        self.depth, self.reward = depth, reward
        self.stamps: list[int] = []
        self.faults: list[SpatialError] = []

    def wants_depth(self) -> bool:
        return self.depth

    def wants_reward(self) -> bool:
        return self.reward

    def on_frame(self, frame, result) -> None:
        self.stamps.append(frame.stamp_ns)

    def on_fault(self, fault) -> None:
        self.faults.append(fault)


def frame(stamp_ns: int) -> Frame:
    return Frame(stamp_ns, "optical", np.zeros((2, 2, 3), np.uint8))


def wait(condition, limit_s=5.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.fixture
def make():
    workers = []

    def _make(**options):
        pipeline, listener = Pipeline(), Listener()
        worker = InferenceWorker(lambda: pipeline, log_crash=lambda _: None, **options)
        worker.add_listener(listener)
        workers.append(worker)
        assert worker.start().result(5) == "double/0"
        return worker, pipeline, listener

    yield _make
    for worker in workers:
        assert worker.stop()


def test_the_newest_frame_wins_and_the_counters_add_up(make):
    worker, pipeline, listener = make()
    pipeline.may_go.clear()
    for stamp in range(1, 11):
        worker.offer_frame(lambda stamp=stamp: frame(stamp))
        if stamp == 1:
            wait(lambda: worker.counters().waiting == 0)
    pipeline.may_go.set()
    wait(lambda: len(listener.stamps) == 2)
    assert listener.stamps == [1, 10]
    c = worker.counters()
    assert (c.received, c.served, c.dropped, c.faulty, c.waiting) == (10, 2, 8, 0, 0)


def test_a_longer_queue_loses_nothing(make):
    worker, pipeline, listener = make(frame_capacity=100)
    pipeline.may_go.clear()
    for stamp in range(1, 51):
        worker.offer_frame(lambda stamp=stamp: frame(stamp))
    pipeline.may_go.set()
    wait(lambda: len(listener.stamps) == 50)
    assert listener.stamps == list(range(1, 51))


def test_what_listeners_want_is_what_is_computed(make):
    worker, pipeline, listener = make()
    listener.depth = False
    worker.offer_frame(lambda: frame(1))
    wait(lambda: pipeline.seen)
    worker.add_listener(Listener(depth=True, reward=True))
    worker.offer_frame(lambda: frame(2))
    wait(lambda: len(pipeline.seen) == 2)
    assert pipeline.seen == [(1, False, False), (2, True, True)]


def test_a_frame_that_cannot_be_built_is_told_and_the_next_is_served(make):
    worker, _, listener = make(frame_capacity=10)

    def broken():
        raise SpatialError(ErrorCode.TRUNCATED_IMAGE, "half an image")

    def unexpected():
        raise ZeroDivisionError("oops")

    for build in (broken, unexpected, lambda: frame(3)):
        worker.offer_frame(build)
    wait(lambda: listener.stamps == [3])
    assert [f.code for f in listener.faults] == [ErrorCode.TRUNCATED_IMAGE, ErrorCode.INVALID_OUTPUT]
    assert worker.counters().faulty == 2


def test_a_listener_that_raises_does_not_stop_the_thread(make):
    worker, _, listener = make(frame_capacity=10)
    listener.on_frame = lambda frame, result: 1 / 0
    worker.offer_frame(lambda: frame(1))
    wait(lambda: listener.faults)
    assert worker.submit(lambda pipeline: 7).result(5) == 7


def test_questions_and_frames_take_turns(make):
    worker, _, listener = make(frame_capacity=100, job_capacity=100)
    order = []
    listener.on_frame = lambda frame, result: order.append("frame")
    gate = threading.Event()
    first = worker.submit(lambda _: gate.wait(5))
    wait(lambda: not worker._jobs)
    for stamp in range(1, 6):
        worker.offer_frame(lambda stamp=stamp: frame(stamp))
        worker.submit(lambda _: order.append("question"))
    gate.set()
    first.result(5)
    wait(lambda: len(order) == 10)
    assert order[:8] in (["frame", "question"] * 4, ["question", "frame"] * 4)


def test_a_full_queue_is_busy_and_a_stopped_worker_not_ready(make):
    worker, _, _ = make(job_capacity=2)
    gate = threading.Event()
    running = worker.submit(lambda _: gate.wait(5))
    wait(lambda: not worker._jobs)
    waiting = [worker.submit(lambda _: 1) for _ in range(2)]
    refused = worker.submit(lambda _: 1)
    assert refused.exception(1).code is ErrorCode.BUSY
    gate.set()
    assert [w.result(5) for w in waiting] == [1, 1]
    assert running.result(5)
    assert worker.stop()
    assert worker.submit(lambda _: 1).exception(1).code is ErrorCode.NOT_READY
    assert not worker.is_ready
    assert worker.start().result(5) == "double/0"
    assert worker.submit(lambda _: 5).result(5) == 5


def test_stop_ends_what_waits(make):
    worker, _, _ = make()
    gate = threading.Event()
    worker.submit(lambda _: gate.wait(5))
    wait(lambda: not worker._jobs)
    waiting = worker.submit(lambda _: 1)
    threading.Timer(0.2, gate.set).start()
    assert worker.stop()
    assert waiting.exception(1).code is ErrorCode.NOT_READY


def test_a_question_is_tried_again_after_each_frame_until_its_time_is_over(make):
    worker, pipeline, _ = make()
    pipeline.memory.add(frame(1))
    later = worker.submit(lambda p: p.memory.at(5).stamp_ns, wait_s=5)
    never = worker.submit(lambda p: p.memory.at(10**12), wait_s=0.3)
    at_once = worker.submit(lambda p: p.memory.at(10**12))
    assert at_once.exception(1).code is ErrorCode.FRAME_NOT_YET
    worker.offer_frame(lambda: frame(3))
    time.sleep(0.05)
    assert not later.done()
    worker.offer_frame(lambda: frame(5))
    assert later.result(2) == 5
    assert never.exception(2).code is ErrorCode.FRAME_NOT_YET


def test_a_load_that_fails_is_told_and_may_be_tried_again():
    attempts = []

    def load():
        attempts.append(1)
        if len(attempts) == 1:
            raise SpatialError(ErrorCode.HASH_MISMATCH, "decoder.onnx")
        return Pipeline()

    worker = InferenceWorker(load)
    assert worker.start().exception(5).code is ErrorCode.HASH_MISMATCH
    assert worker.stop()
    assert worker.start().result(5) == "double/0"
    assert worker.stop()


def test_no_thread_is_left_behind(make):
    before = threading.active_count()
    for _ in range(20):
        worker, _, _ = make()
        worker.submit(lambda _: 1).result(5)
        assert worker.stop()
    assert threading.active_count() == before


def test_a_fault_is_logged_once_in_five_seconds_and_always_counted():
    now, lines = [0.0], []
    log = FaultLog(lines.append, clock_s=lambda: now[0])
    for second in range(11):
        now[0] = float(second)
        log.add(SpatialError(ErrorCode.BAD_STEP, f"at {second}"))
    assert log.counts() == {"E103 BAD_STEP": 11}
    assert [line.split(": ")[1][:4] for line in lines] == ["at 0", "at 5", "at 1"]
    assert "(4 more since the last such line)" in lines[1]
    assert log.recent().endswith("at 10")
    now[0] = 100.0
    assert log.recent() == ""


@pytest.mark.parametrize(
    ("image", "info"),
    [
        ("image", "camera_info"),
        ("/camera/image_raw", "/camera/camera_info"),
        ("/a/b/image_rect", "/a/b/camera_info"),
        ("~/image", "~/camera_info"),
    ],
)
def test_camera_info_lies_beside_the_image(image, info):
    assert camera_info_beside(image) == info
