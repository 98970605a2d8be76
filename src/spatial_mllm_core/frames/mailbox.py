"""Mailbox: one slot per camera where the newest item wins; knows neither frames nor ROS.

The verbs are those of LeRobot's cameras with explicit freshness: `take` waits for something not
yet served, `peek_latest` gives the newest there is if it is fresh enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class MailboxCounters:
    """Totals of one camera (or of all): received = dropped + served + waiting.

    Attributes:
        received: items put.
        dropped: items replaced by a newer one before anybody took them.
        served: items taken.
    """

    received: int = 0
    dropped: int = 0
    served: int = 0


@dataclass(frozen=True)
class Taken(Generic[T]):
    """One item out of the mailbox.

    Attributes:
        camera_name: whose slot it was.
        item: what was put.
        waited_s: time between `put` and `take`.
    """

    camera_name: str
    item: T
    waited_s: float


class _Slot(Generic[T]):
    def __init__(self) -> None:
        self.latest: tuple[T] | None = None  # in a tuple, so that None can be an item
        self.put_s = 0.0
        self.waiting = False
        self.last_served = 0
        self.received = self.dropped = self.served = 0


class Mailbox(Generic[T]):
    """A one-slot queue per camera between the executor's threads and the inference thread.

    `take` serves the camera that has waited longest since it was last served, so that a fast
    camera cannot starve a slow one.

    Args:
        clock_s: a monotonic clock, for tests.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._slots: dict[str, _Slot[T]] = {}
        self._turn = 0
        self._closed = False
        self._ready = threading.Condition()

    def put(self, item: T, camera_name: str = "camera") -> bool:
        """Put the newest item of a camera; never waits.

        Returns:
            True when an older item, not yet taken, was dropped for it.
        """
        with self._ready:
            slot = self._slots.setdefault(camera_name, _Slot())
            slot.received += 1
            replaced = slot.waiting
            slot.dropped += int(replaced)
            slot.latest, slot.put_s, slot.waiting = (item,), self._clock_s(), True
            self._ready.notify()
            return replaced

    def take(self, timeout_s: float | None = None) -> Taken[T] | None:
        """Wait for an item not yet served and take it out.

        Args:
            timeout_s: how long to wait; None = until something comes or the mailbox is closed.

        Returns:
            The item, or None when the time is over or the mailbox closed.
        """
        with self._ready:
            self._ready.wait_for(lambda: self._closed or self._next() is not None, timeout_s)
            found = self._next()
            if found is None or self._closed:
                return None
            name, slot = found
            assert slot.latest is not None
            self._turn += 1
            slot.waiting, slot.last_served = False, self._turn
            slot.served += 1
            return Taken(name, slot.latest[0], self._clock_s() - slot.put_s)

    def peek_latest(self, max_age_s: float, camera_name: str | None = None) -> T | None:
        """Return the newest item, served or not, if it was put at most `max_age_s` ago.

        Args:
            max_age_s: largest age accepted.
            camera_name: whose; None = of any camera.
        """
        with self._ready:
            slots = [
                slot
                for name, slot in self._slots.items()
                if camera_name in (None, name) and slot.latest is not None
            ]
            newest = max(slots, key=lambda slot: slot.put_s, default=None)
            if newest is None or newest.latest is None or self._clock_s() - newest.put_s > max_age_s:
                return None
            return newest.latest[0]

    def counters(self, camera_name: str | None = None) -> MailboxCounters:
        """Return the totals of one camera, or of all together."""
        with self._ready:
            slots = [s for name, s in self._slots.items() if camera_name in (None, name)]
            return MailboxCounters(
                received=sum(s.received for s in slots),
                dropped=sum(s.dropped for s in slots),
                served=sum(s.served for s in slots),
            )

    def camera_names(self) -> tuple[str, ...]:
        """Return the cameras that ever put something."""
        with self._ready:
            return tuple(self._slots)

    def clear(self) -> None:
        """Drop what waits and what could be peeked at; a waiting item counts as dropped."""
        with self._ready:
            for slot in self._slots.values():
                slot.dropped += int(slot.waiting)
                slot.waiting, slot.latest = False, None

    def close(self) -> None:
        """Wake every `take` with None; for shutdown."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _next(self) -> tuple[str, _Slot[T]] | None:
        waiting = [(name, slot) for name, slot in self._slots.items() if slot.waiting]
        return min(waiting, key=lambda entry: (entry[1].last_served, entry[1].put_s), default=None)
