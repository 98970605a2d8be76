"""ImageInfoPairer: which CameraInfo belongs to which image; knows neither decoding nor ROS.

message_filters' Python synchroniser is not used because it deletes the smallest stamp when full:
after a bag loop that is the message that just arrived, and whole passes lose their pairs. Here
the oldest *arrival* leaves, and a stamp that goes back discards what lies in its future.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PairReason(Enum):
    """Why this CameraInfo was given to this image."""

    EXACT = "equal stamps"
    NEAREST = "nearest stamp within the window"
    STATIC = "stamps do not match; the latest CameraInfo serves"
    NONE = "no CameraInfo was received"


@dataclass(frozen=True)
class Pair(Generic[T]):
    """One image with its CameraInfo.

    Attributes:
        stamp_ns, frame_id, payload: of the image as offered.
        info: its CameraInfo; None when there is none.
        reason: how it was found.
    """

    stamp_ns: int
    frame_id: str
    payload: T
    info: Any | None
    reason: PairReason


@dataclass(frozen=True)
class PairingCounters:
    """Totals since construction.

    Attributes:
        images, infos: offered.
        exact, nearest, static, without_info: images given out, by reason.
        dropped: images lost because more than `capacity` waited, or by a jump.
        jumps: times the stamps of a stream went back.
        info_conflicts: a second CameraInfo with the same stamp but other content (two publishers).
    """

    images: int = 0
    infos: int = 0
    exact: int = 0
    nearest: int = 0
    static: int = 0
    without_info: int = 0
    dropped: int = 0
    jumps: int = 0
    info_conflicts: int = 0


@dataclass
class _Waiting(Generic[T]):
    stamp_ns: int
    frame_id: str
    payload: T
    arrival: int


class ImageInfoPairer(Generic[T]):
    """Pairs the images and CameraInfos of one camera; safe to call from any thread.

    An image leaves as soon as its CameraInfo is there, images in their order of arrival. If it
    is still alone after `patience` more images it leaves with the best CameraInfo known (STATIC)
    or with none (NONE), so that questions without scale go on. After three such images in a row
    the pairer stops waiting (a latched or never-stamped CameraInfo) until a matching stamp shows
    up again.

    Args:
        window_ns: largest difference of stamps within which a CameraInfo belongs to an image; 0
            = equal stamps only, which is what a driver publishes.
        capacity: bound on waiting images and on kept CameraInfos.
        patience: how many further images an image may wait for its CameraInfo.
        regression_ns: a stamp this much before the last of its stream is a jump (bag loop).
        static_max_age_ns: a STATIC CameraInfo whose stamp is further than this from the image's
            is refused; None = any age; stamp 0 never ages.
        is_same: compares two CameraInfos with equal stamps.
    """

    _MISSES_BEFORE_STATIC = 3

    def __init__(
        self,
        window_ns: int = 0,
        capacity: int = 16,
        *,
        patience: int = 2,
        regression_ns: int = 1_000_000_000,
        static_max_age_ns: int | None = None,
        is_same: Callable[[Any, Any], bool] | None = None,
    ) -> None:
        if window_ns < 0 or capacity < 1 or patience < 0 or regression_ns < 1:
            raise ValueError("window_ns and patience must not be negative, the others positive")
        self._window_ns = window_ns
        self._capacity = capacity
        self._patience = patience
        self._regression_ns = regression_ns
        self._static_max_age_ns = static_max_age_ns
        self._is_same = is_same or _same_calibration
        self._waiting: dict[int, _Waiting[T]] = {}
        self._infos: dict[int, Any] = {}  # in order of arrival
        self._given_unmatched: dict[int, None] = {}  # stamps that left without a match
        self._last_info: tuple[int, Any] | None = None
        self._last_image_ns: int | None = None
        self._last_info_ns: int | None = None
        self._arrivals = 0
        self._misses = 0
        self._counters = PairingCounters()
        self._lock = threading.Lock()

    @property
    def counters(self) -> PairingCounters:
        """A snapshot of the totals."""
        return self._counters

    @property
    def waiting(self) -> int:
        """Images that wait for their CameraInfo."""
        return len(self._waiting)

    def offer_image(self, stamp_ns: int, frame_id: str, payload: T) -> tuple[Pair[T], ...]:
        """Take in an image; return the pairs that are now ready, oldest arrival first."""
        with self._lock:
            self._count(images=1)
            if _went_back(stamp_ns, self._last_image_ns, self._regression_ns):
                self._jump(stamp_ns, images=True)
            self._last_image_ns = stamp_ns
            self._arrivals += 1
            if stamp_ns in self._waiting:
                self._count(dropped=1)
            self._waiting[stamp_ns] = _Waiting(stamp_ns, frame_id, payload, self._arrivals)
            return self._ready()

    def offer_info(self, stamp_ns: int, info: Any) -> tuple[Pair[T], ...]:
        """Take in a CameraInfo; return the pairs that are now ready, oldest arrival first."""
        with self._lock:
            self._count(infos=1)
            if _went_back(stamp_ns, self._last_info_ns, self._regression_ns):
                self._jump(stamp_ns, images=False)
            self._last_info_ns = stamp_ns
            known = self._infos.pop(stamp_ns, None)
            if known is not None and not self._is_same(known, info):
                self._count(info_conflicts=1)
            self._infos[stamp_ns] = info
            self._last_info = (stamp_ns, info)
            while len(self._infos) > self._capacity:
                del self._infos[next(iter(self._infos))]
            if any(abs(s - stamp_ns) <= self._window_ns for s in self._given_unmatched):
                self._misses = 0  # it was only late: wait for it from now on
            return self._ready()

    def flush(self) -> tuple[Pair[T], ...]:
        """Give out everything that waits, matched or not; for a timer or the end of a bag."""
        with self._lock:
            return tuple(self._give(w) for w in self._in_order())

    def reset(self) -> None:
        """Forget all stamps and waiting images; the last CameraInfo stays for static use."""
        with self._lock:
            self._count(dropped=len(self._waiting))
            self._waiting.clear()
            self._infos.clear()
            self._given_unmatched.clear()
            self._last_image_ns = self._last_info_ns = None
            self._misses = 0

    def describe(self) -> str:
        """Say in words what is missing, for diagnostics; "" when images find their CameraInfo."""
        with self._lock:
            counters = self._counters
            if counters.images == 0:
                return "no image received" + ("" if counters.infos else ", and no camera_info either")
            if counters.infos == 0:
                return "no camera_info received; answers in metres are refused"
            if self._misses and self._last_image_ns is not None and self._last_info is not None:
                gap_ms = (self._last_image_ns - self._last_info[0]) / 1e6
                return (
                    f"stamps of image and camera_info differ (last ones by {gap_ms:.1f} ms); "
                    "the latest camera_info is used"
                )
            return ""

    # ---- inside, with the lock held -------------------------------------------------------

    def _ready(self) -> tuple[Pair[T], ...]:
        """Give out what is matched or overdue, and everything that came before it.

        CameraInfos of one topic come in order, so one for a later image means that the earlier
        is lost; waiting on would only turn the images' order around.
        """
        waiting = self._in_order()
        ready = 0
        for i, image in enumerate(waiting):
            overdue = self._arrivals - image.arrival >= self._patience
            impatient = self._misses >= self._MISSES_BEFORE_STATIC
            if overdue or impatient or self._match(image.stamp_ns) is not None:
                ready = i + 1
        out = tuple(self._give(image) for image in waiting[:ready])
        for image in waiting[ready : max(ready, len(waiting) - self._capacity)]:
            del self._waiting[image.stamp_ns]
            self._count(dropped=1)
        return out

    def _in_order(self) -> list[_Waiting[T]]:
        return sorted(self._waiting.values(), key=lambda w: w.arrival)

    def _give(self, waiting: _Waiting[T]) -> Pair[T]:
        del self._waiting[waiting.stamp_ns]
        stamp = self._match(waiting.stamp_ns)
        info: Any | None
        if stamp is not None:
            info = self._infos[stamp]
            reason = PairReason.EXACT if stamp == waiting.stamp_ns else PairReason.NEAREST
            self._misses = 0
        else:
            info = self._static(waiting)
            reason = PairReason.NONE if info is None else PairReason.STATIC
            self._misses += 1
            self._given_unmatched[waiting.stamp_ns] = None
            while len(self._given_unmatched) > self._capacity:
                del self._given_unmatched[next(iter(self._given_unmatched))]
        name = {
            PairReason.EXACT: "exact",
            PairReason.NEAREST: "nearest",
            PairReason.STATIC: "static",
            PairReason.NONE: "without_info",
        }[reason]
        self._count(**{name: 1})
        return Pair(waiting.stamp_ns, waiting.frame_id, waiting.payload, info, reason)

    def _match(self, stamp_ns: int) -> int | None:
        """Return the stamp of the CameraInfo that belongs to an image of this stamp."""
        if stamp_ns in self._infos:
            return stamp_ns
        if self._window_ns == 0 or not self._infos:
            return None
        nearest = min(self._infos, key=lambda s: abs(s - stamp_ns))
        return nearest if abs(nearest - stamp_ns) <= self._window_ns else None

    def _static(self, waiting: _Waiting[T]) -> Any | None:
        """Return the CameraInfo valid at the image's stamp: the last before it, else the latest."""
        if self._last_info is None:
            return None
        before = [s for s in self._infos if s <= waiting.stamp_ns]
        stamp, info = (max(before), self._infos[max(before)]) if before else self._last_info
        limit = self._static_max_age_ns
        if limit is not None and stamp != 0 and abs(waiting.stamp_ns - stamp) > limit:
            return None
        return info

    def _jump(self, stamp_ns: int, *, images: bool) -> None:
        """Discard what lies in the future of a stream that went back to `stamp_ns`."""
        self._count(jumps=1)
        horizon = stamp_ns + self._regression_ns
        if images:
            self._count(dropped=len(self._waiting))
            self._waiting.clear()
            self._given_unmatched.clear()
        for stamp in [s for s in self._infos if not images or s > horizon]:
            del self._infos[stamp]

    def _count(self, **more: int) -> None:
        old = self._counters
        self._counters = replace(old, **{k: getattr(old, k) + n for k, n in more.items()})


def _went_back(stamp_ns: int, last_ns: int | None, regression_ns: int) -> bool:
    return last_ns is not None and stamp_ns < last_ns - regression_ns


def _same_calibration(one: Any, other: Any) -> bool:
    """Whether two CameraInfos say the same K for the same size (ROS 1 or 2 field names)."""

    def key(info: Any) -> tuple[Any, ...]:
        k: Any = getattr(info, "k", None)
        k = getattr(info, "K", ()) if k is None else k
        size = (getattr(info, "width", None), getattr(info, "height", None))
        return (*size, *(float(v) for v in k))

    return key(one) == key(other)
