"""FaultLog: every fault is counted under its number and logged at most once per five seconds."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable

from spatial_mllm_core.errors import SpatialError

LOG_PERIOD_S = 5.0
RECENT_S = 5.0


class FaultLog:
    """Counts faults by code; safe to call from any thread.

    Args:
        warn: where a sentence goes, for example the node's logger.
        clock_s: a monotonic clock, for tests.
    """

    def __init__(self, warn: Callable[[str], object], clock_s: Callable[[], float] = time.monotonic) -> None:
        self._warn = warn
        self._clock_s = clock_s
        self._counts: Counter[str] = Counter()
        self._logged_s: dict[int, float] = {}
        self._unlogged: Counter[int] = Counter()
        self._last: tuple[float, str] | None = None
        self._lock = threading.Lock()

    def add(self, fault: SpatialError) -> None:
        """Count a fault; log it unless one of the same number was logged just before."""
        now, code = self._clock_s(), int(fault.code)
        with self._lock:
            self._counts[f"E{code} {fault.code.name}"] += 1
            self._last = (now, str(fault))
            if now - self._logged_s.get(code, -LOG_PERIOD_S) < LOG_PERIOD_S:
                self._unlogged[code] += 1
                return
            self._logged_s[code] = now
            more = self._unlogged.pop(code, 0)
        self._warn(f"{fault}" + (f" ({more} more since the last such line)" if more else ""))

    def counts(self) -> dict[str, int]:
        """Faults so far, by "E<number> <NAME>"."""
        with self._lock:
            return dict(self._counts)

    def recent(self) -> str:
        """The last fault's words if it happened within the last five seconds, else ""."""
        with self._lock:
            if self._last is None or self._clock_s() - self._last[0] > RECENT_S:
                return ""
            return self._last[1]
