"""A small thread pool for what would block the loop: cold reads, flushes, writes that must be stable.

Jobs go in by `submit`; when one is done its result comes back on the loop's thread, which learns of
it by an eventfd. Threads are started when there is work for them and none is idle, up to `limit`.
concurrent.futures would cost a Future, two locks and a condition for each job.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Job = tuple[Callable[[], Any], Callable[[Any], None]]


class ThreadExecutor:
    """Runs jobs in threads and their completions on the thread that calls `complete`.

    A job must not raise: LogicalUnit.run turns every error into a result.
    """

    def __init__(self, limit: int = 16) -> None:
        self._limit = limit
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._done: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._threads: list[threading.Thread] = []
        self._busy = 0  # jobs submitted and not yet completed; touched by the loop's thread alone
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watched: dict[
            int, Callable[[], None]
        ] = {}  # what else is done on that thread when a descriptor is readable
        self.on_watch: Callable[[int], None] = lambda fd: None  # the loop's: there is one more, or one less

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` on the loop's thread when `fd` is readable, until `forget`."""
        self.watched[fd] = handler
        self.on_watch(fd)

    def forget(self, fd: int) -> None:
        self.watched.pop(fd, None)
        self.on_watch(fd)

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self._busy += 1
        if self._busy > len(self._threads) < self._limit:
            thread = threading.Thread(target=self._work, name=f"io-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((job, done))

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            self._done.append((done, job()))
            os.eventfd_write(self.eventfd, 1)

    def complete(self) -> None:
        """Call the completions of all jobs that are done. For the loop, when `eventfd` is readable."""
        try:
            os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return
        while self._done:
            done, result = self._done.popleft()
            self._busy -= 1
            done(result)

    @property
    def busy(self) -> int:
        return self._busy

    def close(self) -> None:
        """Let the threads end once all jobs are done, and wait for them."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        os.close(self.eventfd)
