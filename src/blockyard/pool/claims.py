"""Who is moving which chunk of a tree to a new place: one at a time for each chunk, any number side by side."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from threading import Condition


class Claims:
    """Chunks that somebody is moving."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._chunks: set[int] = set()

    @contextmanager
    def claimed(self, chunk: int) -> Iterator[None]:
        """Have a chunk for oneself, waiting for it."""
        with self._condition:
            while chunk in self._chunks:
                self._condition.wait()
            self._chunks.add(chunk)
        try:
            yield
        finally:
            self.release((chunk,))

    def take(self, chunks: Collection[int]) -> bool:
        """Have all of some chunks for oneself, if that takes no waiting; then `release` follows."""
        with self._condition:
            if not self._chunks.isdisjoint(chunks):
                return False
            self._chunks.update(chunks)
            return True

    def release(self, chunks: Collection[int]) -> None:
        with self._condition:
            self._chunks.difference_update(chunks)
            self._condition.notify_all()
