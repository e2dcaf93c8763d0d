"""Operations that take long: they are done in pieces, so that other tasks have their turn in between.

The work is a generator that yields `Piece`s and is sent what each of them returned, or has thrown into it what it
raised; what it returns is the Data-In of its command. A piece *visits* the task sets of the logical units that it
touches: it counts there as a SIMPLE task, so that COMPARE AND WRITE and whatever else must run alone stays atomic.
Generators run on the loop's thread, the jobs of pieces in the pool.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from blockyard.scsi.task import Buffer
    from blockyard.scsi.taskset import TaskSet
    from blockyard.scsi.unit import LogicalUnit


def _nothing() -> None:
    """No check."""


class Piece(NamedTuple):
    """One step of an operation: what it touches and does."""

    units: tuple[LogicalUnit, ...]
    job: Callable[[], Any]  # may block and raise; runs in a thread
    check: Callable[[], None] = _nothing  # runs just before, on the loop's thread; raises what stands in the way


Steps = Generator[Piece, Any, "Buffer"]


class Aborted(Exception):
    """Somebody has aborted the operation (task management, COPY OPERATION ABORT, loss of the nexus)."""


class Operation:
    """Runs steps to their end. `done` gets the Data-In or the exception that ended them; it may raise nothing."""

    def __init__(self, steps: Steps, done: Callable[[Buffer | Exception], None]) -> None:
        self._steps = steps
        self._done = done
        self._aborted = False
        self.ended = False

    def start(self) -> None:
        """Go on until the first piece waits; `done` may be called before this returns."""
        self._advance(None)

    def abort(self) -> None:
        """End with Aborted as soon as the piece that runs now has ended."""
        self._aborted = True

    def _advance(self, outcome: Any) -> None:
        while not self.ended:
            try:
                if self._aborted:
                    outcome = Aborted()
                piece = self._steps.throw(outcome) if isinstance(outcome, Exception) else self._steps.send(outcome)
            except StopIteration as end:
                self._end(end.value)
            except Exception as error:
                self._end(error)
            else:
                # always in the same order, so that no two pieces wait for each other
                sets = sorted({unit.tasks for unit in piece.units if unit.tasks is not None}, key=id)
                if sets:
                    self._enter(piece, sets, 0)
                    return
                outcome = _attempt(piece.check) or _attempt(piece.job)  # no task sets: nobody to make way for

    def _end(self, outcome: Buffer | Exception) -> None:
        self.ended = True
        self._steps.close()
        self._done(outcome)

    def _enter(self, piece: Piece, sets: list[TaskSet], entered: int) -> None:
        if entered < len(sets):
            sets[entered].visit(lambda: self._enter(piece, sets, entered + 1))
            return
        obstacle = Aborted() if self._aborted else _attempt(piece.check)
        if obstacle is not None:
            self._leave(sets, obstacle)
        else:
            sets[0].executor.submit(lambda: _attempt(piece.job), lambda outcome: self._leave(sets, outcome))

    def _leave(self, sets: list[TaskSet], outcome: Any) -> None:
        for taskset in sets:
            taskset.leave()
        self._advance(outcome)


def _attempt(job: Callable[[], Any]) -> Any:
    """What `job` returns or raises."""
    try:
        return job()
    except Exception as error:
        return error
