"""What blocks of an image can be, which of their sectors are there, and who keeps out of whose way."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

ABSENT, ZERO, PRESENT, PARTIAL = 0, 2, 6, 7  # as VHDX numbers them (MS-VHDX 2.5.1.1)
NOWHERE = -1


class ImageError(OSError):
    """An image that is damaged, or is not what it should be. Says what is wrong, and with which file."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(errno.EINVAL, what, path)
        self.what = what


class Gate:
    """Lets many in side by side, and keeps them out while somebody needs there to be nobody else."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._inside = 0
        self.shut = 0  # how many want to be alone
        self.quick = False  # one is inside who needs no lock (image_quick.py)

    @contextmanager
    def shared(self) -> Iterator[None]:
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
        """Nobody is inside, except others who want to be alone: the image's lock is between these."""
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


def bit_runs(bits: int, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """The bits from `start` to before `end` as runs of equal ones: where each begins and ends, and what it is."""
    while start < end:
        rest = bits >> start
        is_set = bool(rest & 1)
        others = ~rest if is_set else rest
        stop = min(end, start + (others & -others).bit_length() - 1) if others else end
        yield start, stop, is_set
        start = stop


def ones(start: int, end: int) -> int:
    """A number whose bits from `start` to before `end` are set."""
    return (1 << end) - (1 << start)
