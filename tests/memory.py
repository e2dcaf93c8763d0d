"""Where files of tests are in memory, and a sync costs nothing."""

from __future__ import annotations

import contextlib
import os

_ROOM = 1 << 30  # bytes: containers have 64 MiB there by default, which would not do for all that run at a time


def _directory() -> str | None:
    with contextlib.suppress(OSError):
        space = os.statvfs("/dev/shm")
        if space.f_bavail * space.f_frsize >= _ROOM:
            return "/dev/shm"
    return None


FAST = _directory()  # for tempfile: None where there is no such place, or no room
