"""InferenceWorker: the one thread that calls the model; knows neither topics nor ROS.

Executor threads only hand things over. Frames wait in a short queue where the newest wins (one
slot by default), questions in a bounded one that answers BUSY when it is full; the thread serves
them in turn, so that neither starves the other. A question about a frame that has not arrived
yet is parked and tried again after each frame until its deadline.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from spatial_mllm_core.errors import ErrorCode, SpatialError

if TYPE_CHECKING:
    from spatial_mllm_core.frames import Frame
    from spatial_mllm_core.pipeline import FrameResult, SpatialPipeline

T = TypeVar("T")


class Listener(Protocol):
    """A node that wants something of every frame; called on the inference thread."""

    def wants_depth(self) -> bool: ...

    def wants_reward(self) -> bool: ...

    def on_frame(self, frame: Frame, result: FrameResult) -> None: ...

    def on_fault(self, fault: SpatialError) -> None: ...


@dataclass(frozen=True)
class WorkerCounters:
    """Totals since the start: received = served + dropped + faulty + waiting.

    Attributes:
        received: images with their calibration handed over.
        served: frames that went through the model.
        dropped: images replaced by newer ones before their turn came.
        faulty: images that could not become a frame.
        waiting: images whose turn has not come.
        questions, busy: requests taken in and refused with BUSY.
        last_s: time the last frame took in the model.
        mean_s: mean of all frames.
        last_age_s: time from hand-over to result of the last frame.
    """

    received: int = 0
    served: int = 0
    dropped: int = 0
    faulty: int = 0
    waiting: int = 0
    questions: int = 0
    busy: int = 0
    last_s: float = 0.0
    mean_s: float = 0.0
    last_age_s: float = 0.0


@dataclass
class _Job:
    run: Callable[[SpatialPipeline], Any]
    future: Future[Any]
    wait_until_s: float


class InferenceWorker:
    """Owns the pipeline and its thread, from `start` to `stop`; may be started again.

    Args:
        load: makes the pipeline; runs on the worker's thread.
        frame_capacity: frames that may wait; 1 = the newest wins.
        job_capacity: questions and service calls that may wait.
        log_crash: where the traceback of an unexpected error goes.
    """

    def __init__(
        self,
        load: Callable[[], SpatialPipeline],
        *,
        frame_capacity: int = 1,
        job_capacity: int = 8,
        log_crash: Callable[[str], object] = print,
    ) -> None:
        self._load = load
        self._frame_capacity = frame_capacity
        self._job_capacity = job_capacity
        self._log_crash = log_crash
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loaded: Future[str] | None = None
        self._stop = threading.Event()  # one per thread, so that a thread that hangs stays stopped
        self._listeners: list[Listener] = []
        self._frames: deque[tuple[float, Callable[[], Frame]]] = deque()
        self._jobs: deque[_Job] = deque()
        self._parked: list[_Job] = []
        self._frames_turn = True
        self._last_stamp_ns: int | None = None
        self._received = self._served = self._dropped = self._faulty = 0
        self._questions = self._busy = 0
        self._last_s = self._total_s = self._last_age_s = 0.0

    # -- life -------------------------------------------------------------------------------------

    def start(self) -> Future[str]:
        """Start the thread and load the model; the future gives the model's name or the fault."""
        with self._wake:
            if self._loaded is None:
                self._stop = threading.Event()
                self._last_stamp_ns = None
                self._loaded = Future()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loaded, self._stop), name="inference", daemon=True
                )
                self._thread.start()
            return self._loaded

    def stop(self, timeout_s: float = 4.0) -> bool:
        """Let go of the model; what waits ends with NOT_READY.

        Returns:
            False when the thread did not end in time.
        """
        with self._wake:
            thread, self._thread, self._loaded = self._thread, None, None
            self._stop.set()
            self._wake.notify_all()
        self.cancel_all("the node is shutting down")
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded."""
        loaded = self._loaded
        return loaded is not None and loaded.done() and loaded.exception() is None

    @property
    def is_stopping(self) -> bool:
        """For `should_stop` of a running question."""
        return self._stop.is_set()

    def add_listener(self, listener: Listener) -> None:
        with self._wake:
            if listener not in self._listeners:
                self._listeners.append(listener)

    def remove_listener(self, listener: Listener) -> None:
        with self._wake:
            if listener in self._listeners:
                self._listeners.remove(listener)

    # -- hand-over, from any thread ---------------------------------------------------------------

    def offer_frame(self, build: Callable[[], Frame]) -> None:
        """Hand over an image; `build` decodes it when its turn comes."""
        with self._wake:
            self._received += 1
            if self._thread is None:
                self._dropped += 1
                return
            if len(self._frames) >= self._frame_capacity:
                self._frames.popleft()
                self._dropped += 1
            self._frames.append((time.monotonic(), build))
            self._wake.notify()

    def submit(self, run: Callable[[SpatialPipeline], T], *, wait_s: float = 0.0) -> Future[T]:
        """Run something on the inference thread.

        Args:
            run: gets the pipeline; a SpatialError it raises goes into the future.
            wait_s: while `run` raises FRAME_NOT_YET it is tried again for this long.

        Returns:
            A future; it carries BUSY or NOT_READY at once when the request cannot be taken in.
        """
        future: Future[T] = Future()
        fault: SpatialError | None = None
        with self._wake:
            waiting = len(self._jobs) + len(self._parked)
            if not self.is_ready or self._stop.is_set():
                fault = SpatialError(ErrorCode.NOT_READY, "the model is not loaded")
            elif waiting >= self._job_capacity:
                self._busy += 1
                fault = SpatialError(ErrorCode.BUSY, f"{waiting} requests wait already; ask again later")
            else:
                self._questions += 1
                self._jobs.append(_Job(run, future, time.monotonic() + wait_s))
                self._wake.notify()
        if fault is not None:
            future.set_exception(fault)
        return future

    def cancel_all(self, why: str) -> None:
        """End all waiting questions with NOT_READY and drop waiting frames."""
        with self._wake:
            jobs = [*self._jobs, *self._parked]
            self._jobs.clear()
            self._parked.clear()
            self._dropped += len(self._frames)
            self._frames.clear()
        for job in jobs:
            job.future.set_exception(SpatialError(ErrorCode.NOT_READY, why))

    def counters(self) -> WorkerCounters:
        with self._wake:
            return WorkerCounters(
                received=self._received,
                served=self._served,
                dropped=self._dropped,
                faulty=self._faulty,
                waiting=len(self._frames),
                questions=self._questions,
                busy=self._busy,
                last_s=self._last_s,
                mean_s=self._total_s / self._served if self._served else 0.0,
                last_age_s=self._last_age_s,
            )

    # -- on the thread ----------------------------------------------------------------------------

    def _run(self, loaded: Future[str], stop: threading.Event) -> None:
        try:
            pipeline = self._load()
            name = str(pipeline.model.name)
        except SpatialError as fault:
            loaded.set_exception(fault)
            return
        except Exception as error:
            self._log_crash(traceback.format_exc())
            loaded.set_exception(_unexpected(error))
            return
        loaded.set_result(name)
        while True:
            with self._wake:
                self._wake.wait_for(lambda: stop.is_set() or self._frames or self._due(), self._patience_s())
                if stop.is_set():
                    return
                frame, job = self._next()
            if frame is not None:
                self._serve(pipeline, *frame)
            if job is not None:
                self._answer(pipeline, job)

    def _due(self) -> bool:
        return bool(self._jobs) or any(j.wait_until_s <= time.monotonic() for j in self._parked)

    def _patience_s(self) -> float | None:
        """How long the thread may sleep before the first parked question is over."""
        if not self._parked:
            return None
        return max(0.0, min(j.wait_until_s for j in self._parked) - time.monotonic())

    def _next(self) -> tuple[tuple[float, Callable[[], Frame]] | None, _Job | None]:
        """The next frame or the next job, in turn; called with the lock held."""
        now = time.monotonic()
        for job in [j for j in self._parked if j.wait_until_s <= now]:
            self._parked.remove(job)
            self._jobs.append(job)
        frames_turn, self._frames_turn = self._frames_turn, not self._frames_turn
        if self._frames and (frames_turn or not self._jobs):
            return self._frames.popleft(), None
        return None, self._jobs.popleft() if self._jobs else None

    def _serve(self, pipeline: SpatialPipeline, offered_s: float, build: Callable[[], Frame]) -> None:
        listeners = tuple(self._listeners)
        began = time.monotonic()
        try:
            frame = build()
            if frame.stamp_ns == self._last_stamp_ns:
                raise SpatialError(
                    ErrorCode.DUPLICATE_STAMP,
                    f"two images in a row carry the stamp {frame.stamp_ns} ns; the second is not used",
                )
            self._last_stamp_ns = frame.stamp_ns
            jumps = pipeline.memory.counters.jumps
            result = pipeline.process(
                frame,
                want_depth=any(listener.wants_depth() for listener in listeners),
                want_reward=any(listener.wants_reward() for listener in listeners),
            )
        except Exception as error:
            self._faulty += 1
            self._tell(listeners, self._as_fault(error))
            return
        took_s = time.monotonic() - began
        self._served += 1
        self._last_s, self._total_s = took_s, self._total_s + took_s
        self._last_age_s = time.monotonic() - offered_s
        if pipeline.memory.counters.jumps > jumps:
            self._tell(
                listeners,
                SpatialError(
                    ErrorCode.STAMP_REGRESSION,
                    f"stamps went back to {frame.stamp_ns} ns (a bag that loops?); kept frames are forgotten",
                ),
            )
        if frame.camera_fault is not None:
            self._tell(listeners, frame.camera_fault)
        for listener in listeners:
            try:
                listener.on_frame(frame, result)
            except Exception as error:
                listener.on_fault(self._as_fault(error))
        with self._wake:
            self._jobs.extendleft(reversed(self._parked))
            self._parked.clear()

    def _answer(self, pipeline: SpatialPipeline, job: _Job) -> None:
        try:
            value = job.run(pipeline)
        except Exception as error:
            fault = self._as_fault(error)
            too_early = fault.code is ErrorCode.FRAME_NOT_YET
            with self._wake:
                if too_early and time.monotonic() < job.wait_until_s and not self._stop.is_set():
                    self._parked.append(job)
                    return
            job.future.set_exception(fault)
        else:
            job.future.set_result(value)

    def _tell(self, listeners: tuple[Listener, ...], fault: SpatialError) -> None:
        for listener in listeners:
            listener.on_fault(fault)

    def _as_fault(self, error: Exception) -> SpatialError:
        if isinstance(error, SpatialError):
            return error
        self._log_crash(traceback.format_exc())
        return _unexpected(error)


def _unexpected(error: Exception) -> SpatialError:
    code = ErrorCode.OUT_OF_MEMORY if isinstance(error, MemoryError) else ErrorCode.INVALID_OUTPUT
    return SpatialError(code, f"unexpected {type(error).__name__}: {error}")
