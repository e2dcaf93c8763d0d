"""What an open pool does by itself, in a thread of its own: commits what has waited long enough, or too much, and prepares space.

Writes need no commit to be acknowledged, and a flush makes its own. But what waits takes memory, and is done once more when the
process has died; and the longer it waits, the longer will the next flush take.
"""

from __future__ import annotations

import logging
import threading
import time

from blockyard.pool.engine import Engine

log = logging.getLogger(__name__)

AGE = 5.0


class Upkeep:
    """Keeps an engine in order from now on, until `close`. `age` is how long a change waits for a commit, in seconds."""

    def __init__(self, engine: Engine, age: float = AGE) -> None:
        self._engine = engine
        self._age = age
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"pool {engine.directory.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        engine = self._engine
        since: float | None = None  # when the oldest change that waits was made, or a little later
        while True:
            engine.stirred.wait(None if since is None else max(0.0, since + self._age - time.monotonic()))
            engine.stirred.clear()
            if self._ended or engine.failed is not None:
                return
            engine.allocator.prepare()
            if since is None and engine.dirty:
                since = time.monotonic()
            if engine.pressed or (since is not None and time.monotonic() >= since + self._age):
                since = None if self._commit() else time.monotonic()

    def _commit(self) -> bool:
        """Whether it could be done: the disk that metadata is on may be full, and have room later."""
        try:
            self._engine.flush()
        except OSError as error:
            log.error("pool %s: committing has failed: %s", self._engine.directory, error)
            return False
        return True

    def close(self) -> None:
        """End, when what it does now is done."""
        self._ended = True
        self._engine.stirred.set()
        self._thread.join()
