"""When freed space may be used again: not before a commit without it is durable, and all have left who may be reading it.

Operations say when they begin and end (`enter`, `leave`). Each commit begins an epoch; what was freed before it is free when no
operation is left that began in an earlier one. Giving it back to what is beneath is I/O, and is done outside of the lock.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from blockyard.pool.space import Freed, Space

_PATIENCE = 30.0  # seconds that `drain` waits for operations to end: a disk that stalls for less is no full pool
_LOOK = 0.01  # seconds until it looks by itself: who is on the short road does not tell when he leaves


class Reclaimer:
    """What of a pool's space waits to be free. `lock` is the pool's."""

    def __init__(self, space: Space, lock: threading.RLock) -> None:
        self._space = space
        self._lock = lock
        self._left = threading.Condition(lock)
        self._turn = threading.Lock()
        self.epoch = 0
        self.quick_epoch: int | None = None  # in which the short road (quick.py) is inside
        self._inside: dict[int, int] = {}  # epoch → operations that began in it and have not ended
        self._waiting: deque[tuple[int, list[Freed]]] = (
            deque()
        )  # the epoch that a commit has ended, and what it has freed

    def enter(self) -> int:
        """Begin an operation: what is looked up from now on stays what it is until `leave`."""
        with self._lock:
            epoch = self.epoch
            self._inside[epoch] = self._inside.get(epoch, 0) + 1
            return epoch

    def leave(self, epoch: int) -> None:
        with self._lock:
            self._inside[epoch] -= 1
            if not self._inside[epoch]:
                del self._inside[epoch]
                self._left.notify_all()

    def committed(self, freed: list[Freed]) -> None:
        """A commit is durable, without what was freed before it. Under the lock."""
        if freed:
            self._waiting.append((self.epoch, freed))
        self.epoch += 1

    def _due(self) -> bool:
        if not self._waiting:
            return False
        oldest = min(self._inside, default=self.epoch)
        if (quick := self.quick_epoch) is not None:
            oldest = min(oldest, quick)
        return self._waiting[0][0] < oldest

    def reclaim(self) -> None:
        """Have all be free that can be."""
        with self._turn:
            with self._lock:
                freed: list[Freed] = []
                while self._due():
                    freed += self._waiting.popleft()[1]
            if freed:
                zeroed = self._space.wipe(freed)
                with self._lock:
                    self._space.release(freed, zeroed)

    def drain(self) -> None:
        """The same, waiting for those who are inside. Not for one of these."""
        end = time.monotonic() + _PATIENCE
        with self._lock:
            while self._waiting and not self._due() and time.monotonic() < end:
                self._left.wait(_LOOK)
        self.reclaim()
