"""What has been written to a server elsewhere and may not be on stable storage there yet.

A server that dies takes with it what it had in its cache; SCSI knows no word for "some of what I acknowledged is gone". So it
is kept until a flush has returned, and written once more when the server is back. There is a limit to it: who goes beyond
has to flush first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock
from typing import NamedTuple

LIMIT = 32 << 20  # bytes


class Change(NamedTuple):
    """Bytes that were written, or where there is None a range that was made zeros, freed or kept reserved."""

    number: int
    offset: int
    length: int
    data: bytes | None
    free: bool = False


class Unflushed:
    """Changes in the order in which they ended. A change that began after another had ended comes after it."""

    def __init__(self) -> None:
        self._changes: deque[Change] = deque()
        self._lock = Lock()
        self._number = 0
        self._bytes = 0

    @property
    def full(self) -> bool:
        return self._bytes > LIMIT

    def wrote(self, buffers: Sequence[memoryview | bytes | bytearray], offset: int) -> None:
        data = b"".join(buffers)
        self._add(offset, len(data), data)

    def zeroed(self, offset: int, length: int, *, free: bool) -> None:
        self._add(offset, length, None, free)

    def _add(self, offset: int, length: int, data: bytes | None, free: bool = False) -> None:
        with self._lock:
            self._number += 1
            self._changes.append(Change(self._number, offset, length, data, free))
            self._bytes += length if data is not None else 512

    @property
    def mark(self) -> int:
        """For `flushed`: what a flush that begins now makes stable."""
        return self._number

    def flushed(self, mark: int) -> None:
        """A flush that began at `mark` has returned."""
        with self._lock:
            while self._changes and self._changes[0].number <= mark:
                change = self._changes.popleft()
                self._bytes -= change.length if change.data is not None else 512

    def changes(self) -> list[Change]:
        with self._lock:
            return list(self._changes)
