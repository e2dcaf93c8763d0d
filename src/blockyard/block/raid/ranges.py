"""Ranges of members that somebody has for himself: two writes to one place would reach its copies in different order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

from blockyard.block.gate import Gate


class Ranges:
    """Ranges that are taken. The short road takes none: it looks at `taken` from inside the gate."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._released = Condition()
        self.taken: list[tuple[int, int]] = []

    @contextmanager
    def held(self, start: int, end: int) -> Iterator[None]:
        """Have a range for oneself, waiting until it is to be had."""
        mine = start, end
        with self._released:
            while not self.free(start, end):
                self._released.wait()
            self.taken.append(mine)
        try:
            while self._gate.quick:  # for the microseconds of one system call: it may not have seen this range
                time.sleep(0)
            yield
        finally:
            with self._released:
                self.taken.remove(mine)
                self._released.notify_all()

    def free(self, start: int, end: int) -> bool:
        return all(end <= other or stop <= start for other, stop in self.taken)
