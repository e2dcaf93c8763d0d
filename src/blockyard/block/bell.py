"""A descriptor that other threads make readable, for who waits in poll(2)."""

from __future__ import annotations

import os
from contextlib import suppress
from threading import Lock


class Bell:
    """An eventfd(2) that may be rung by anybody, also after it was closed: its number may be another file's by then."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._lock = Lock()

    def ring(self) -> None:
        with self._lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    def heard(self) -> None:
        """Let it not be readable until it is rung again."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)

    def close(self) -> None:
        with self._lock:
            fd, self.fd = self.fd, -1
            if fd >= 0:
                os.close(fd)
