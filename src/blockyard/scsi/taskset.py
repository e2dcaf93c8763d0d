"""The task set of a logical unit: which tasks run beside each other and which wait (SAM-5 §8).

SIMPLE tasks run side by side. ORDERED ones, and commands that the table marks exclusive (COMPARE
AND WRITE, MODE SELECT, …), run alone: they wait for all that came before and hold back all that
comes after. HEAD OF QUEUE tasks overtake those that wait. While anything waits or runs alone,
`unit.gate` is set, so that the data path sends its commands here too.

Everything happens on the event loop's thread; only `LogicalUnit.run` of a blocking task leaves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blockyard.scsi.task import Attribute, Result, Task

if TYPE_CHECKING:
    from blockyard.scsi.unit import LogicalUnit

Done = Callable[[Task, Result], None]


class Executor(Protocol):
    """Runs a function in a thread, and a second with its result on the loop's thread (worker/executor.py)."""

    def submit(self, job: Callable[[], Result], done: Callable[[Result], None]) -> None: ...


class TaskSet:
    """All tasks of one logical unit that have begun and not ended."""

    def __init__(self, unit: LogicalUnit, executor: Executor) -> None:
        self._unit = unit
        self._executor = executor
        self._running: dict[Task, Done] = {}
        self._waiting: deque[tuple[Task, Done]] = deque()
        self._alone = False  # what runs now runs alone

    def __len__(self) -> int:
        return len(self._running) + len(self._waiting)

    def submit(self, task: Task, done: Done) -> None:
        """Run `task` as soon as the rules allow; `done` gets its result, perhaps before this returns."""
        if task.attribute == Attribute.HEAD_OF_QUEUE:
            self._waiting.appendleft((task, done))
        else:
            self._waiting.append((task, done))
        self._advance()

    def withdraw(self, task: Task) -> bool:
        """Take a task back that still waits. False when it runs already or is not here."""
        for entry in self._waiting:
            if entry[0] is task:
                self._waiting.remove(entry)
                self._advance()
                return True
        return False

    def _advance(self) -> None:
        while self._waiting and not self._alone:
            task, done = self._waiting[0]
            alone = task.exclusive or task.attribute == Attribute.ORDERED
            if alone and self._running:
                break
            self._waiting.popleft()
            self._alone = alone
            self._start(task, done)
        self._unit.gate = self if self._waiting or self._alone else None

    def _start(self, task: Task, done: Done) -> None:
        self._running[task] = done
        if not task.blocking:
            self._finish(task, self._unit.run(task))
            return
        self._unit.gate = self if self._alone else self._unit.gate
        self._executor.submit(lambda: self._unit.run(task), lambda result: self._end(task, result))

    def _end(self, task: Task, result: Result) -> None:
        self._finish(task, result)
        self._advance()

    def _finish(self, task: Task, result: Result) -> None:
        done = self._running.pop(task)
        if not self._running:
            self._alone = False
        done(task, result)
