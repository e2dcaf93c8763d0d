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
        self.shut = 0  # how many want there to be nobody
        self.quick = False  # a writer is inside who needs no lock

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Go in, waiting until it is open."""
        with self._condition:
            while self.shut:
                self._condition.wait()
            self._writers += 1
        try:
            yield
        finally:
            with self._condition:
                self._writers -= 1
                self._condition.notify_all()

    def leave(self) -> None:
        """For one thread alone, which needs no lock to go in: it sets `quick`, looks at `shut`, and leaves if that is not 0.

        It says that it is inside before it looks, and who closes looks after he has said so: at least one sees the other.
        """
        self.quick = False
        if self.shut:
            with self._condition:
                self._condition.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Have nobody inside."""
        with self._condition:
            self.shut += 1
            while self._writers or self.quick:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self.shut -= 1
                self._condition.notify_all()
