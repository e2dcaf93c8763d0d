"""Who is changing which range of a device: one at a time where ranges overlap, any number side by side elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class Ranges:
    """Ranges that somebody is changing. They are few, so that looking at each costs less than a structure would."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._released = Condition(self._lock)
        self._waiting = 0
        self._taken: list[tuple[int, int]] = []

    def _free(self, start: int, end: int) -> bool:
        return all(end <= other or stop <= start for other, stop in self._taken)

    @contextmanager
    def taken(self, start: int, end: int) -> Iterator[None]:
        """Have a range for oneself, waiting until it is to be had."""
        with self._lock:
            self._waiting += 1
            while not self._free(start, end):
                self._released.wait()
            self._waiting -= 1
            self._taken.append((start, end))
        try:
            yield
        finally:
            self.release(start, end)

    def take(self, start: int, end: int) -> bool:
        """Have a range for oneself, if that takes no waiting; then `release` follows."""
        with self._lock:
            if self._taken and not self._free(start, end):
                return False
            self._taken.append((start, end))
            return True

    def release(self, start: int, end: int) -> None:
        with self._lock:
            self._taken.remove((start, end))
            if self._waiting:
                self._released.notify_all()
