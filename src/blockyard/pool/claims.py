"""Who is moving which chunk of a tree to a new place: one at a time for each chunk, any number side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Condition, Lock


class Claims:
    """Chunks that somebody is moving."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._released = Condition(self._lock)
        self._waiting = 0
        self._chunks: set[int] = set()

    @contextmanager
    def claimed(self, chunks: Collection[int]) -> Iterator[None]:
        """Have chunks for oneself, waiting until all of them are to be had."""
        with self._lock:
            self._waiting += 1
            while not self._chunks.isdisjoint(chunks):
                self._released.wait()
            self._waiting -= 1
            self._chunks.update(chunks)
        try:
            yield
        finally:
            self.release(chunks)

    def take(self, chunks: Collection[int]) -> bool:
        """Have chunks for oneself, if that takes no waiting; then `release` follows."""
        with self._lock:
            if not self._chunks.isdisjoint(chunks):
                return False
            self._chunks.update(chunks)
            return True

    def release(self, chunks: Collection[int]) -> None:
        with self._lock:
            self._chunks.difference_update(chunks)
            if self._waiting:
                self._released.notify_all()
