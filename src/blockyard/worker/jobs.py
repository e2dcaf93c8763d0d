"""Jobs: what takes long enough that somebody will want to watch it, or to stop it.

Each runs in a thread of its own and tells how far it is; whoever wants to know asks. Jobs that are over are remembered for a
while. What has to go on after a restart is the pool's own affair: it takes it up again by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from blockyard.worker.job_numbers import NUMBERS

log = logging.getLogger(__name__)

REMEMBERED = 50  # jobs that are over


class Cancelled(Exception):
    """Somebody has asked for the job to stop."""


class Job:
    """One job. `work` gets it, and tells it how far it is by calling it; the result is what it returns, for people."""

    def __init__(
        self, number: int, kind: str, subject: str, work: Callable[[Job], str], known: tuple[type[Exception], ...] = ()
    ) -> None:
        self.number = number
        self.kind = kind
        self.subject = subject  # POOL, POOL/VOLUME …
        self.unit = ""  # what is counted: "bytes", "chunks", …
        self.done = 0
        self.total = 0  # 0: nobody knows
        self.state = "running"
        self.result = ""
        self.details: Any = None  # the result, for programs
        self.claims: frozenset[str] = frozenset()  # what it works on, as layers claim it (block/building.py, Claim)
        self.error: Exception | None = None  # why it has failed
        self.began = time.time()
        self.ended: float | None = None
        self._cancelled = False
        self._work = work
        self._known = known  # failures that say all in a line, besides OSError
        self._thread = threading.Thread(target=self._run, name=f"job-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def __call__(self, done: int, total: int) -> None:
        """So much is done. Raises Cancelled where it is to stop: the work lets that pass."""
        self.done, self.total = done, total
        if self._cancelled:
            raise Cancelled

    def cancel(self) -> None:
        self._cancelled = True

    def wait(self, seconds: float | None = None) -> None:
        """Until it is over, or so many seconds."""
        self._thread.join(seconds)

    def _run(self) -> None:
        state = "done"
        try:
            self.result = self._work(self)
        except Cancelled:
            state = "cancelled"
        except Exception as error:  # whatever went wrong with it is for whoever asks: nobody else waits for it
            self.result, self.error = _said(error), error
            state = "failed"
            known = isinstance(error, (OSError, *self._known))
            log.error("%s of %s has failed: %s", self.kind, self.subject, error, exc_info=not known)
        self.ended = time.time()
        self.state = state  # at last: who sees that it is over looks at the others at once

    def describe(self) -> dict[str, Any]:
        """What control is told."""
        found: dict[str, Any] = {"state": self.state}  # first: what belongs to it is there before it
        for key in ("number", "kind", "subject", "unit", "done", "total", "result", "details", "began", "ended"):
            found[key] = getattr(self, key)
        if found["state"] == "running":  # it may have ended meanwhile
            found |= {"result": "", "ended": None}
        return found


def _said(error: Exception) -> str:
    """What went wrong, as people are told."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


class Jobs:
    """Those of one pool, drive or library, or of all layers. For the loop's thread. `listing` is the command that lists them."""

    def __init__(
        self, listing: str = "blockyard pool jobs", known: tuple[type[Exception], ...] = (ValueError,)
    ) -> None:
        self._listing = listing
        self._known = known
        self._jobs: dict[int, Job] = {}

    def start(self, kind: str, subject: str, work: Callable[[Job], str]) -> Job:
        """Begin a job. Raises ValueError when the same is under way, OSError when it can have no number."""
        for job in self._jobs.values():
            if (job.kind, job.subject, job.state) == (kind, subject, "running"):
                raise ValueError(f"{kind} of {subject} is under way already: it is job {job.number}")
        over = [number for number, job in self._jobs.items() if job.state != "running"]
        for number in over[: max(0, len(over) - REMEMBERED + 1)]:
            del self._jobs[number]
        job = Job(NUMBERS.take(), kind, subject, work, self._known)
        job.start()  # where that fails, there is none that others would wait for
        self._jobs[job.number] = job
        return job

    def find(self, number: int) -> Job:
        """Raises LookupError where there is none."""
        if number not in self._jobs:
            raise LookupError(f"there is no job {number}: `{self._listing}` lists them")
        return self._jobs[number]

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def close(self) -> None:
        """Have all of them stop, and wait for that."""
        for job in self:
            job.cancel()
        for job in self:
            job.wait()
