"""The clock of a pool: what time a write was made.

A journal has to be in order, and the clock of a machine is not: somebody sets it, or a time server does. So this one follows it
forward, but never back: where the machine's clock is set back, this one goes on at the pace of time. Two readings never
are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """`now` is for one thread at a time (the lock of the pool)."""

    def __init__(self, wall: Callable[[], int] = time.time_ns, steady: Callable[[], int] = time.monotonic_ns) -> None:
        self._wall = wall
        self._steady = steady  # is never set, and says nothing about the time of day
        self._ahead = wall() - steady()
        self._last = 0

    def now(self) -> int:
        """Nanoseconds since 1970, later than any reading before."""
        wall, steady = self._wall(), self._steady()  # in this order: whatever comes in between, it is not ahead then
        self._ahead = max(self._ahead, wall - steady)
        now = steady + self._ahead
        if now <= self._last:
            now = self._last + 1
        self._last = now
        return now

    def reached(self, time: int) -> None:
        """It was that late before this clock was made."""
        if time > self._last:
            self._last = time
            self._ahead = max(self._ahead, time - self._steady())

    @property
    def offset(self) -> int:
        """Nanoseconds that this clock is ahead of the machine's."""
        return max(0, self._steady() + self._ahead - self._wall())
