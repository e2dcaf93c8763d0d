"""What has to be done for a pool in the background: a thread that does it, a piece at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

_LOOK = 1.0  # seconds after which it is looked whether there is anything to do
_AFTER_FAILURE = 30.0  # seconds until what has failed is tried again


class Chores:
    """Does `piece` again and again as long as it returns True, and otherwise looks now and then.

    Between pieces it leaves as much time as they take to those who are waiting for the disk.
    """

    def __init__(self, name: str, piece: Callable[[], bool]) -> None:
        self._name = name
        self._piece = piece
        self._wanted = threading.Event()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"chores-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to do."""
        self._wanted.set()

    def close(self) -> None:
        """Wait until the piece that is under way is done; no other begins."""
        self._ending.set()
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                wait = time.monotonic() - began if self._piece() else _LOOK
            except Exception as error:  # whatever it was, the pool is served on
                log.error(
                    "%s: work in the background has failed: %s",
                    self._name,
                    error,
                    exc_info=not isinstance(error, OSError),
                )
                wait = _AFTER_FAILURE
            if self._wanted.wait(wait):
                self._wanted.clear()
