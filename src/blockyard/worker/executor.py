"""A small thread pool for what would block the loop: cold reads, flushes, writes that must be stable.

Jobs go in by `submit`; when one is done its result comes back on the loop's thread, which learns of it by an eventfd. What may
wait long, as a stack with a limit on its speed does, has threads of its own, so that nobody else waits with it.
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


class Threads:
    """Threads that are started when there is work for them and none is idle, up to `limit`.

    What they have done is told to `finished`, on whichever thread that was.
    """

    def __init__(self, limit: int, finished: Callable[[Threads, Callable[[Any], None], Any], None]) -> None:
        self._limit = limit
        self._finished = finished
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self.busy = 0  # jobs submitted and not yet completed; touched by the loop's thread alone

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Run `job` in a thread, and `done` with its result on the loop's thread."""
        self.busy += 1
        if self.busy > len(self._threads) < self._limit:
            thread = threading.Thread(target=self._work, name=f"io-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put((job, done))

    def _work(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            self._finished(self, done, job())

    def __len__(self) -> int:
        """How many have been started."""
        return len(self._threads)

    def release(self) -> None:
        """Let the threads end once all jobs are done."""
        for _ in self._threads:
            self._jobs.put(None)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


class ThreadExecutor:
    """Runs jobs in threads and their completions on the thread that calls `complete`.

    A job must not raise: LogicalUnit.run turns every error into a result.
    """

    def __init__(self, limit: int = 16) -> None:
        self._done: deque[tuple[Threads, Callable[[Any], None], Any]] = deque()
        self.threads = Threads(limit, self._finished)
        self._branches: list[Threads] = []
        self.eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # What else is done on that thread when a descriptor is readable
        self.watched: dict[int, Callable[[], None]] = {}
        self.on_watch: Callable[[int], None] = lambda fd: None  # the loop's: there is one more, or one less

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call `handler` on the loop's thread when `fd` is readable, until `forget`."""
        self.watched[fd] = handler
        self.on_watch(fd)

    def forget(self, fd: int) -> None:
        self.watched.pop(fd, None)
        self.on_watch(fd)

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None:
        self.threads.submit(job, done)

    def branch(self, limit: int = 32) -> Threads:
        """Threads for what may wait long, so that nobody else waits with it; `cut` ends them."""
        self._branches.append(Threads(limit, self._finished))
        return self._branches[-1]

    def cut(self, branch: Threads) -> None:
        """Nothing more comes for this branch: its threads end when they can."""
        branch.release()
        if not branch.busy:
            self._branches.remove(branch)

    def _finished(self, threads: Threads, done: Callable[[Any], None], result: Any) -> None:
        self._done.append((threads, done, result))
        os.eventfd_write(self.eventfd, 1)

    def complete(self) -> None:
        """Call the completions of all jobs that are done. For the loop, when `eventfd` is readable."""
        try:
            os.eventfd_read(self.eventfd)
        except BlockingIOError:
            return
        while self._done:
            threads, done, result = self._done.popleft()
            threads.busy -= 1
            done(result)

    @property
    def busy(self) -> int:
        return self.threads.busy + sum(branch.busy for branch in self._branches)

    def close(self) -> None:
        """Let the threads end once all jobs are done, and wait for them."""
        for threads in (self.threads, *self._branches):
            threads.release()
        for threads in (self.threads, *self._branches):
            threads.join()
        os.close(self.eventfd)
