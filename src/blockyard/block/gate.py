"""A gate: many go in side by side, and nobody while somebody needs there to be nobody else.

The event loop's thread goes in without a lock, which would cost it more than what it does there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """Lets many in side by side, and keeps them out while somebody wants to be alone."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._inside = 0
        self.shut = 0  # how many want to be alone
        self.quick = False  # the one who needs no lock is inside

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Go in beside others, waiting until it is open."""
        with self._condition:
            while self.shut:
                self._condition.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                if self.shut and not self._inside:
                    self._condition.notify_all()

    def leave(self) -> None:
        """For one thread alone, which needs no lock to go in: it sets `quick`, looks at `shut`, and leaves if that is not 0.

        It says that it is inside before it looks, and who wants to be alone looks after having said so: one sees the other.
        """
        self.quick = False
        if self.shut:
            with self._condition:
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody is inside, except others who want to be alone: a lock of the caller's is between these."""
        with self._condition:
            self.shut += 1
            while self._inside or self.quick:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self.shut -= 1
                self._condition.notify_all()
