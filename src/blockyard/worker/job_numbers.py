"""Numbers of jobs: each is given once by all processes that keep things in the same directory, over restarts and power loss.

So who asks for a job by its number never gets another one that began later. How far numbers have been taken is written down, and
some are taken at a time, as that goes to stable storage: those that a process has not given when it ends are left out.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sys
import time
from pathlib import Path

from blockyard.scsi.durable import Durable

log = logging.getLogger(__name__)

_AT_A_TIME = 10
_OWNER, _KIND = "jobs", "numbers"
_LOCK = "jobs.lock"  # beside the directory, which may not be there itself yet


class Numbers:
    """Those of one process, from 1 on until it has a directory. For one thread."""

    def __init__(self) -> None:
        self._directory: Path | None = None
        self._next, self._end = 1, sys.maxsize

    def keep_in(self, directory: Path) -> None:
        """Give numbers from now on that no process has given that did the same."""
        self._directory = directory
        self._next = self._end = 0

    def take(self) -> int:
        """One that is new. Raises OSError when it cannot be written down."""
        if self._next == self._end:
            self._take_more()
        self._next += 1
        return self._next - 1

    def _take_more(self) -> None:
        assert self._directory is not None
        kept = Durable(self._directory, _OWNER)
        # A file of ours, as whoever may read a directory can keep it locked, too (flock(2)).
        lock = os.open(self._directory.with_name(_LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            first = _last(kept) + 1
            kept.save(_KIND, first + _AT_A_TIME - 1)
        finally:
            os.close(lock)
        self._next, self._end = first, first + _AT_A_TIME


def _last(kept: Durable) -> int:
    """How far numbers have been taken. Raises OSError."""
    try:
        found = kept.load(_KIND)
    except OSError as error:
        if error.errno != errno.EUCLEAN:
            raise
        log.warning("%s: jobs have numbers from the time on now", error)  # so many there have not been
        return int(time.time())
    return found if isinstance(found, int) else 0


def carry_over(old: Path, new: Path) -> None:
    """What is kept in `new` takes the place of what is in `old`: numbers that were given there are not given again.

    `old` may be unreadable, for which `new` is there. Raises OSError for `new`.
    """
    found = _last(Durable(new, _OWNER))
    with contextlib.suppress(OSError):
        found = max(found, _last(Durable(old, _OWNER)))
    if found:
        Durable(new, _OWNER).save(_KIND, found)


NUMBERS = Numbers()  # of this process
