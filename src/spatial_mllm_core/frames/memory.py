"""FrameMemory: the last frames of every camera, found by stamp; knows neither models nor ROS."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from dataclasses import dataclass, field, replace
from enum import Enum

from spatial_mllm_core.errors import ErrorCode, SpatialError
from spatial_mllm_core.frames.frame import Frame


class Added(Enum):
    """What `FrameMemory.add` did with a frame."""

    NEWEST = "newest"
    LATE = "late"  # out of order but kept
    DUPLICATE = "duplicate"  # a frame of this stamp is kept already
    TOO_LATE = "too late"  # older than everything kept
    JUMP = "jump"  # stamps went back (bag loop): the history was cleared, this frame is the first


@dataclass(frozen=True)
class MemoryCounters:
    """Totals since construction.

    Attributes:
        added: frames kept.
        late: of these, frames that came out of order.
        duplicates, too_late: frames not kept.
        evicted: frames dropped to stay within the bounds.
        jumps: times the stamps of a camera went back and its history was cleared.
    """

    added: int = 0
    late: int = 0
    duplicates: int = 0
    too_late: int = 0
    evicted: int = 0
    jumps: int = 0


@dataclass
class _Camera:
    stamps: list[int] = field(default_factory=list)  # ascending
    frames: dict[int, Frame] = field(default_factory=dict)
    arrival: dict[int, int] = field(default_factory=dict)
    not_newer_in_a_row: int = 0


class FrameMemory:
    """A bounded history of frames, addressed by camera and stamp; safe to call from any thread.

    Args:
        capacity: frames kept per camera.
        max_bytes: bound on the pixels of all unpinned frames together; the newest frame is
            always kept.
        max_pinned: bound on pinned frames (reward references).
        regression_ns: a stamp this much before the newest of its camera is a jump, not disorder.

    A loop shorter than `regression_ns` is recognised too: by the third frame in a row that is not
    newer than the newest.
    """

    _NOT_NEWER_LIMIT = 3

    def __init__(
        self,
        capacity: int = 32,
        max_bytes: int = 512 * 2**20,
        *,
        max_pinned: int = 8,
        regression_ns: int = 1_000_000_000,
    ) -> None:
        if capacity < 1 or max_bytes < 1 or max_pinned < 0 or regression_ns < 1:
            raise ValueError("capacity, max_bytes and regression_ns must be positive")
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._max_pinned = max_pinned
        self._regression_ns = regression_ns
        self._cameras: dict[str, _Camera] = {}
        self._pinned: dict[tuple[str, int], tuple[Frame, int]] = {}
        self._bytes = 0
        self._arrivals = 0
        self._counters = MemoryCounters()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return sum(len(camera.stamps) for camera in self._cameras.values())

    @property
    def counters(self) -> MemoryCounters:
        """A snapshot of the totals."""
        return self._counters

    @property
    def n_bytes(self) -> int:
        """Bytes of the pixels of all unpinned frames."""
        return self._bytes

    def add(self, frame: Frame) -> Added:
        """Keep a frame; say what became of it."""
        with self._lock:
            return self._add(frame)

    def latest(self, camera_name: str | None = None) -> Frame:
        """Return the newest frame of a camera, or the last arrived of all cameras.

        Raises:
            SpatialError: NO_FRAME.
        """
        with self._lock:
            chosen = self._chosen(camera_name)
            newest = [(c.arrival[c.stamps[-1]], c.frames[c.stamps[-1]]) for c in chosen]
            return max(newest, key=lambda entry: entry[0])[1]

    def at(self, stamp_ns: int, camera_name: str | None = None, tolerance_ns: int = 0) -> Frame:
        """Return the frame with this stamp, or the nearest within the tolerance.

        Raises:
            SpatialError: NO_FRAME (nothing kept, or nothing at this stamp although older and
                newer frames are kept), FRAME_EXPIRED (older than everything kept),
                FRAME_NOT_YET (newer than everything kept).
        """
        with self._lock:
            pinned = [
                frame
                for (name, stamp), (frame, _) in self._pinned.items()
                if stamp == stamp_ns and camera_name in (None, name)
            ]
            try:
                chosen = self._chosen(camera_name)
            except SpatialError:
                if pinned:
                    return pinned[0]
                raise
            for camera in chosen:
                if stamp_ns in camera.frames:
                    return camera.frames[stamp_ns]
            if pinned:
                return pinned[0]
            nearest = min(
                (frame for camera in chosen for frame in _neighbours(camera, stamp_ns)),
                key=lambda frame: abs(frame.stamp_ns - stamp_ns),
            )
            if abs(nearest.stamp_ns - stamp_ns) <= tolerance_ns:
                return nearest
            raise _missing(
                stamp_ns,
                oldest=min(camera.stamps[0] for camera in chosen),
                newest=max(camera.stamps[-1] for camera in chosen),
                nearest=nearest.stamp_ns,
            )

    def stamps(self, camera_name: str | None = None) -> tuple[int, ...]:
        """Return the stamps kept, ascending (pinned ones that left the history not included)."""
        with self._lock:
            if camera_name is not None:
                camera = self._cameras.get(camera_name)
                return tuple(camera.stamps) if camera else ()
            return tuple(sorted({s for c in self._cameras.values() for s in c.stamps}))

    def camera_names(self) -> tuple[str, ...]:
        """Return the cameras with at least one frame, in order of first appearance."""
        with self._lock:
            return tuple(name for name, camera in self._cameras.items() if camera.stamps)

    def pin(self, stamp_ns: int, camera_name: str | None = None) -> Frame:
        """Keep a frame, whatever happens to the history, until it is unpinned as often as pinned.

        Raises:
            SpatialError: as `at`; OUT_OF_MEMORY when `max_pinned` frames are pinned already.
        """
        frame = self.at(stamp_ns, camera_name)
        key = (frame.camera_name, frame.stamp_ns)
        with self._lock:
            kept, times = self._pinned.get(key, (frame, 0))
            if times == 0 and len(self._pinned) >= self._max_pinned:
                raise SpatialError(
                    ErrorCode.OUT_OF_MEMORY,
                    f"{self._max_pinned} frames are pinned already; release one first",
                )
            self._pinned[key] = (kept, times + 1)
            return kept

    def unpin(self, stamp_ns: int, camera_name: str | None = None) -> None:
        """Undo one `pin`; unknown stamps are ignored, so that clean-up may run twice."""
        with self._lock:
            for key in [k for k in self._pinned if k[1] == stamp_ns]:
                if camera_name not in (None, key[0]):
                    continue
                frame, times = self._pinned[key]
                if times > 1:
                    self._pinned[key] = (frame, times - 1)
                else:
                    del self._pinned[key]
                return

    def pinned(self) -> tuple[Frame, ...]:
        """Return the pinned frames."""
        with self._lock:
            return tuple(frame for frame, _ in self._pinned.values())

    def clear(self, *, pinned: bool = False) -> None:
        """Forget the history of all cameras; pinned frames only on request."""
        with self._lock:
            self._cameras.clear()
            self._bytes = 0
            if pinned:
                self._pinned.clear()

    # ---- inside, with the lock held -------------------------------------------------------

    def _add(self, frame: Frame) -> Added:
        camera = self._cameras.setdefault(frame.camera_name, _Camera())
        stamp, outcome = frame.stamp_ns, Added.NEWEST
        if camera.stamps and stamp <= camera.stamps[-1]:
            camera.not_newer_in_a_row += 1
            if (
                stamp < camera.stamps[-1] - self._regression_ns
                or camera.not_newer_in_a_row >= self._NOT_NEWER_LIMIT
            ):
                self._forget(camera)
                self._count(jumps=1)
                outcome = Added.JUMP
            elif stamp in camera.frames:
                self._count(duplicates=1)
                return Added.DUPLICATE
            elif stamp < camera.stamps[0]:
                self._count(too_late=1)
                return Added.TOO_LATE
            else:
                outcome = Added.LATE
                self._count(late=1)
        if outcome is not Added.LATE:
            camera.not_newer_in_a_row = 0
        insort(camera.stamps, stamp)
        camera.frames[stamp] = frame
        self._arrivals += 1
        camera.arrival[stamp] = self._arrivals
        self._bytes += frame.image_rgb.nbytes
        self._count(added=1)
        while len(camera.stamps) > self._capacity:
            self._evict(camera)
        while self._bytes > self._max_bytes and self._evict_oldest_arrival(self._arrivals):
            pass
        return outcome

    def _evict_oldest_arrival(self, spare: int) -> bool:
        """Drop the frame that arrived first, except the one with arrival number `spare`."""
        oldest: tuple[int, _Camera, int] | None = None
        for camera in self._cameras.values():
            for stamp, number in camera.arrival.items():
                if number != spare and (oldest is None or number < oldest[0]):
                    oldest = (number, camera, stamp)
        if oldest is None:
            return False
        self._evict(oldest[1], oldest[2])
        return True

    def _evict(self, camera: _Camera, stamp_ns: int | None = None) -> None:
        stamp = camera.stamps[0] if stamp_ns is None else stamp_ns
        camera.stamps.remove(stamp)
        self._bytes -= camera.frames.pop(stamp).image_rgb.nbytes
        del camera.arrival[stamp]
        self._count(evicted=1)

    def _forget(self, camera: _Camera) -> None:
        self._bytes -= sum(frame.image_rgb.nbytes for frame in camera.frames.values())
        camera.stamps.clear()
        camera.frames.clear()
        camera.arrival.clear()

    def _chosen(self, camera_name: str | None) -> list[_Camera]:
        names = self._cameras if camera_name is None else [camera_name]
        chosen = [c for c in (self._cameras.get(name) for name in names) if c and c.stamps]
        if not chosen:
            of = "" if camera_name is None else f" of camera '{camera_name}'"
            raise SpatialError(ErrorCode.NO_FRAME, f"no frame{of} has been received yet")
        return chosen

    def _count(self, **more: int) -> None:
        old = self._counters
        self._counters = replace(old, **{k: getattr(old, k) + n for k, n in more.items()})


def _neighbours(camera: _Camera, stamp_ns: int) -> list[Frame]:
    at = bisect_left(camera.stamps, stamp_ns)
    return [camera.frames[s] for s in camera.stamps[max(0, at - 1) : at + 1]]


def _missing(stamp_ns: int, *, oldest: int, newest: int, nearest: int) -> SpatialError:
    kept = f"kept are {oldest} to {newest} ns"
    if stamp_ns < oldest:
        return SpatialError(ErrorCode.FRAME_EXPIRED, f"the frame at {stamp_ns} ns is no longer kept; {kept}")
    if stamp_ns > newest:
        return SpatialError(
            ErrorCode.FRAME_NOT_YET, f"the frame at {stamp_ns} ns has not arrived yet; {kept}"
        )
    return SpatialError(
        ErrorCode.NO_FRAME,
        f"no frame has the stamp {stamp_ns} ns; the nearest is {nearest}, {kept}",
    )
