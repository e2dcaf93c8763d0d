"""The task set of a logical unit: which tasks run beside each other and which wait (SAM-5 §8).

SIMPLE tasks run side by side. ORDERED ones, and commands that the table marks exclusive (COMPARE
AND WRITE, MODE SELECT, …), run alone: they wait for all that came before and hold back all that
comes after. HEAD OF QUEUE tasks overtake those that wait. While anything waits or runs alone,
`unit.gate` is set, so that the data path sends its commands here too.

Commands that go on in pieces (operation.py) do not keep an exclusive command waiting: each of their pieces visits
the task set as a SIMPLE task would, and only that has to end. ORDERED tasks do wait for them, and as the pieces
must not wait for those in turn, they overtake what waits for a command in pieces.

Everything happens on the event loop's thread; only `LogicalUnit.run` of a blocking task leaves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from blockyard.scsi.sense import CheckCondition, failure
from blockyard.scsi.task import Attribute, Result, Status, Task

if TYPE_CHECKING:
    from blockyard.scsi.operation import Operation
    from blockyard.scsi.unit import LogicalUnit

Done = Callable[[Task, Result], None]


class Executor(Protocol):
    """Runs a function in a thread, and a second with its result on the loop's thread (worker/executor.py)."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None: ...


class _Visit(NamedTuple):
    """A piece of an operation that waits to be let in."""

    enter: Callable[[], None]


class TaskSet:
    """All tasks of one logical unit that have begun and not ended."""

    def __init__(self, unit: LogicalUnit, executor: Executor) -> None:
        self.executor = executor
        self._unit = unit
        self._running: dict[Task, Done] = {}
        self._in_pieces: dict[Task, tuple[Operation, Done]] = {}
        self._outlasted: dict[Task, Done] = {}  # have run, and end when what they have begun does (overhaul.py)
        self._visits = 0  # pieces that are inside now
        self._waiting: deque[tuple[Task | _Visit, Done]] = deque()
        self._alone = False  # what runs now runs alone
        self._barrier = False  # an ORDERED task in pieces runs: of what waits only pieces may enter

    def __len__(self) -> int:
        return len(self._running) + len(self._in_pieces) + len(self._outlasted) + len(self._waiting)

    def submit(self, task: Task, done: Done) -> None:
        """Run `task` as soon as the rules allow; `done` gets its result, perhaps before this returns."""
        if task.attribute == Attribute.HEAD_OF_QUEUE:
            self._waiting.appendleft((task, done))
        else:
            self._waiting.append((task, done))
        self._advance()

    def visit(self, enter: Callable[[], None]) -> None:
        """Call `enter` once a piece of an operation may touch the unit, perhaps before this returns; `leave` ends it."""
        self._waiting.append((_Visit(enter), _nobody))
        self._advance()

    def leave(self) -> None:
        """A piece that was let in has ended."""
        self._visits -= 1
        self._advance()

    def withdraw(self, task: Task) -> bool:
        """Take a task back that still waits. False when it runs already, where one in pieces ends early, or is not here."""
        for entry in self._waiting:
            if entry[0] is task:
                self._waiting.remove(entry)
                self._advance()
                return True
        self.abort(task)
        return self._outlasted.pop(task, None) is not None

    def abort(self, task: Task) -> None:
        """Have a task in pieces end as soon as the piece that runs now has."""
        if task in self._in_pieces:
            self._in_pieces[task][0].abort()

    def _advance(self) -> None:
        while not self._alone and (entry := self._next()) is not None:
            self._waiting.remove(entry)
            waiter, done = entry
            if isinstance(waiter, _Visit):
                self._visits += 1
                waiter.enter()
            else:
                self._start(waiter, done)
        self._unit.gate = self if self._waiting or self._alone or self._barrier else None

    def _next(self) -> tuple[Task | _Visit, Done] | None:
        """The first that waits, if it may run now; pieces pass what waits for an operation to end."""
        if not self._waiting:
            return None
        first, _ = self._waiting[0]
        if isinstance(first, _Visit):
            return self._waiting[0]
        ordered = first.attribute == Attribute.ORDERED
        if self._barrier or (ordered and self._in_pieces):
            return next((entry for entry in self._waiting if isinstance(entry[0], _Visit)), None)
        if (ordered or first.exclusive) and (self._running or self._visits):
            return None
        return self._waiting[0]

    def _start(self, task: Task, done: Done) -> None:
        if task.command is not None and task.command.in_pieces:
            self._start_in_pieces(task, done)
            return
        self._alone = task.exclusive or task.attribute == Attribute.ORDERED
        self._running[task] = done
        if not task.blocking:
            self._finish(task, self._unit.run(task))
            return
        self._unit.gate = self if self._alone else self._unit.gate
        self.executor.submit(lambda: self._unit.run(task), lambda result: self._end(task, result))

    def _start_in_pieces(self, task: Task, done: Done) -> None:
        self._barrier = task.attribute == Attribute.ORDERED
        operation = self._unit.operation(task, lambda result: self._end_in_pieces(task, result))
        self._in_pieces[task] = operation, done
        operation.start()

    def _end_in_pieces(self, task: Task, result: Result) -> None:
        _, done = self._in_pieces.pop(task)
        self._barrier = False  # it was the only one, if it was ORDERED
        done(task, result)
        self._advance()

    def _end(self, task: Task, result: Result) -> None:
        self._finish(task, result)
        self._advance()

    def _finish(self, task: Task, result: Result) -> None:
        if task.effect is not None:  # before anything that waits has its turn
            task.effect()
        done = self._running.pop(task)
        if not self._running:
            self._alone = False
        if task.overhaul is None or result.status != Status.GOOD:
            done(task, result)
        elif task.fields["immed"]:
            task.overhaul.start()
            done(task, result)
        else:
            self._outlasted[task] = done
            task.overhaul.start(lambda error: self._end_outlasted(task, result, error))

    def _end_outlasted(self, task: Task, result: Result, error: CheckCondition | None) -> None:
        done = self._outlasted.pop(task, None)
        if done is not None:  # else it was aborted
            if error is not None:
                result = failure(error, descriptor=self._unit.descriptor_sense, expected=task.expected)
            done(task, result)


def _nobody(task: Task, result: Result) -> None:
    """Nobody waits for the end of a visit."""
