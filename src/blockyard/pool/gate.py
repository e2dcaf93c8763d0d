"""What keeps writers away from a tree for the moment in which a snapshot is taken.

A chunk that may be written in place before that moment may not be after it. So who has found a place to write over must have
written before the snapshot comes, or look again after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """Lets writers in side by side, and keeps them out while somebody needs there to be none."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._writers = 0
        self._closed = 0
        self._quick = False  # the one that needs no lock is inside

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Go in, waiting until it is open."""
        with self._condition:
            while self._closed:
                self._condition.wait()
            self._writers += 1
        try:
            yield
        finally:
            with self._condition:
                self._writers -= 1
                self._condition.notify_all()

    def enter(self) -> bool:
        """Go in unless it is closed: without a lock, and therefore for one thread alone. `leave` follows if that is True.

        It says that it is inside before it looks, and who closes looks after he has said so: at least one sees the other.
        """
        self._quick = True
        if self._closed:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        self._quick = False
        if self._closed:
            with self._condition:
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Have nobody inside."""
        with self._condition:
            self._closed += 1
            while self._writers or self._quick:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._closed -= 1
                self._condition.notify_all()
