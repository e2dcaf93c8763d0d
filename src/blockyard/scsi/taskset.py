"""The task set of a logical unit: which commands run beside each other, which wait, and what an error does to the rest
(SAM-5, task set management; conditions resulting from command errors).

What the Control mode page says is what happens:

* SIMPLE commands run side by side; with restricted reordering (QUEUE ALGORITHM MODIFIER 0) those of one nexus one after
  the other. ORDERED ones wait for all that came before and hold back all that comes after. HEAD OF QUEUE ones overtake
  what waits. Commands that the table marks exclusive (COMPARE AND WRITE, MODE SELECT, …) are atomic: nothing at
  all runs beside them.
* With TST=1 every nexus has a task set of its own; with TST=0 all share one.
* A command that ends with CHECK CONDITION aborts what QERR says. When its NACA bit is set, an auto contingent allegiance
  holds until the nexus clears it: only commands with the ACA attribute run, everything else waits or is refused.
* TAS says whether commands that another nexus has aborted are answered with TASK ABORTED, or passed over in silence and
  told by a unit attention.

A command belongs to the set from `enter` to `end`. In between the transport gathers its data, then gives it to
`submit`. One whose data is still to come holds back only commands of its own nexus: a host that died in the midst of a
write must not stop the others.

Commands that go on in pieces (operation.py) do not keep an exclusive command waiting: each of their pieces visits
the task set, and only that has to end. ORDERED commands do wait for all of it, and pieces never for those.

While any of this can make a difference `unit.gate` is set, so that the data path sends its commands here too.
Everything happens on the event loop's thread; only `PrimaryUnit.run` of a blocking task leaves it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from blockyard.scsi import limits
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, StatusCondition, failure
from blockyard.scsi.task import Attribute, Result, Status, Task

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus
    from blockyard.scsi.operation import Operation
    from blockyard.scsi.primary import PrimaryUnit

Done = Callable[[Task, Result], None]

QERR_NONE, QERR_ALL, QERR_SAME_NEXUS = 0, 1, 3
UA_CLEARED, UA_KEPT, UA_KEPT_AND_ESTABLISHED = 0, 2, 3  # UA_INTLCK_CTRL

# UA_INTLCK_CTRL 11b: a status without sense data is told again by a unit attention (SPC-5, Control mode page)
_PREVIOUS_STATUS = {
    Status.BUSY: Asc.PREVIOUS_BUSY_STATUS,
    Status.TASK_SET_FULL: Asc.PREVIOUS_TASK_SET_FULL_STATUS,
    Status.RESERVATION_CONFLICT: Asc.PREVIOUS_RESERVATION_CONFLICT_STATUS,
}
_SIMPLE = frozenset({Attribute.SIMPLE, Attribute.UNTAGGED})
_LOWEST = 0x10  # below every COMMAND PRIORITY
_PREEMPT_AND_ABORT = (0x5F, 0x05)  # the one command that passes an ACA of another nexus


class Executor(Protocol):
    """Runs a function in a thread, and a second with its result on the loop's thread (worker/executor.py)."""

    def submit(self, job: Callable[[], Any], done: Callable[[Any], None]) -> None: ...


def _wait() -> None:
    """The pause goes on until somebody ends it."""


class _Visit:
    """A piece of an operation that waits to be let in."""

    def __init__(self, enter: Callable[[], None]) -> None:
        self.enter = enter


class Queueing(NamedTuple):
    """What the Control mode page says of task sets."""

    per_nexus: bool = False  # TST=001b
    restricted: bool = False  # QUEUE ALGORITHM MODIFIER 0h
    qerr: int = QERR_NONE
    ua_interlock: int = UA_CLEARED
    report_aborted: bool = False  # TAS


class TaskSet:
    """All commands of one logical unit that have begun and not ended."""

    def __init__(self, unit: PrimaryUnit, executor: Executor) -> None:
        self._unit = unit
        self.executor = executor
        # In order of arrival the commands, None for those whose data is still to come, and pieces that wait.
        self._queue: dict[Task | _Visit, Done | None] = {}
        self._waiting: set[Task | _Visit] = set()  # of these, all that could run if nothing stood in the way
        self._running: set[Task] = set()
        self._in_pieces: dict[Task, Operation] = {}
        self._outlasted: set[Task] = set()  # have run, and end when what they have begun does (overhaul.py)
        self._visits = 0  # pieces that are inside now
        self._contingent: set[Nexus] = set()  # nexuses for which an ACA condition holds
        self._paused: Callable[[], None] | None = None  # is to be called when nothing runs any more
        self._pauses: deque[Callable[[], None]] = deque()  # likewise, of those who wait for the one before
        self._special = 0  # how many of the tasks may have to wait, or others for them
        self._advancing = False

    def __len__(self) -> int:
        return len(self._queue)

    # ---- from begin to end

    def enter(self, task: Task) -> None:
        """A command has come."""
        self._queue[task] = None

    def admit(self, task: Task) -> None:
        """Raise StatusCondition or CheckCondition when the task set cannot take a command that has come (SAM-5)."""
        faulted = self._faulted(task.nexus) if self._contingent else None
        if faulted is None:
            if task.attribute == Attribute.ACA:
                raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_MESSAGE_ERROR)
        elif faulted is task.nexus:
            if task.attribute != Attribute.ACA or self._others(task, lambda other: other.attribute == Attribute.ACA):
                raise StatusCondition(Status.ACA_ACTIVE)
        elif (task.cdb[0], task.cdb[1] & 0x1F) != _PREEMPT_AND_ABORT:
            raise StatusCondition(Status.ACA_ACTIVE if task.naca else Status.BUSY)
        if len(self._queue) > limits.TASKS:
            own = self._others(task, lambda other: other.nexus is task.nexus)
            raise StatusCondition(Status.TASK_SET_FULL if own else Status.BUSY)

    def _others(self, task: Task, which: Callable[[Task], bool]) -> bool:
        return any(which(other) for other in self._commands() if other is not task)

    def _commands(self) -> list[Task]:
        return [task for task in self._queue if isinstance(task, Task)]

    def accept(self, task: Task) -> None:
        """Nothing stands in the way of the command: it counts in the order of commands."""
        task.special = task.exclusive or task.attribute not in _SIMPLE or self._unit.queueing.restricted
        if task.special:
            self._special += 1
            self._update_gate()

    def submit(self, task: Task, done: Done) -> None:
        """Run `task` as soon as the rules allow; `done` gets its result, perhaps before this returns."""
        self._queue[task] = done
        if self._special or self._contingent or self._paused is not None:
            self._waiting.add(task)
            self._advance()
        else:
            self._start(task)

    def pause(self, then: Callable[[], None]) -> None:
        """Start nothing more, and call `then` when nothing runs, perhaps before this returns; `go_on` ends that.

        What stands below is being changed meanwhile: initiators only find their commands slow. One at a time does that:
        whoever comes while another one does is called after that one's `go_on`.
        """
        if self._paused is not None:
            self._pauses.append(then)
            return
        self._paused = then
        self._advance()

    def go_on(self) -> None:
        """Start what has come meanwhile. Also before `then` has been called, which is not called any more then."""
        self._paused = self._pauses.popleft() if self._pauses else None
        self._advance()

    @property
    def quiet(self) -> bool:
        """Whether nothing runs."""
        return not self._running and not self._visits

    def visit(self, enter: Callable[[], None]) -> None:
        """Call `enter` once a piece of an operation may touch the unit, perhaps before this returns; `leave` ends it."""
        visit = _Visit(enter)
        self._queue[visit] = None
        self._waiting.add(visit)
        self._advance()

    def leave(self) -> None:
        """A piece that was let in has ended."""
        self._visits -= 1
        self._advance()

    def withdraw(self, task: Task) -> bool:
        """Take a task back that does not run yet. False when it runs already, where one in pieces ends early, or is not here."""
        self.abort(task)
        if task not in self._queue or task in self._running or task in self._in_pieces:
            return False
        self.end(task, None)
        return True

    def abort(self, task: Task) -> None:
        """Have a task in pieces end as soon as the piece that runs now has."""
        if task in self._in_pieces:
            self._in_pieces[task].abort()

    def end(self, task: Task, result: Result | None) -> None:
        """A command is over, with `result` sent to its initiator, or aborted in silence."""
        if task not in self._queue:  # it was over before
            return
        del self._queue[task]
        self._unit.ended(task)
        self._waiting.discard(task)
        self._outlasted.discard(task)
        self._special -= task.special
        if result is not None and result.status != Status.GOOD:
            if result.status == Status.CHECK_CONDITION:
                self._failed(task)
            elif self._unit.queueing.ua_interlock == UA_KEPT_AND_ESTABLISHED and result.status in _PREVIOUS_STATUS:
                task.nexus.establish(_PREVIOUS_STATUS[result.status])
        self._advance()

    # ---- order

    def _update_gate(self) -> None:
        self._unit.gate = self if self._special or self._contingent or self._paused is not None else None

    def _advance(self) -> None:
        """Start what may start, of several the one with the highest priority first."""
        if self._advancing:  # a task that has just been started has ended at once: the loop below goes on
            return
        if self._waiting and self._paused is None:
            self._start_ready()
        self._update_gate()
        if self._paused is not None and self.quiet:
            self._paused, then = _wait, self._paused
            then()

    def _start_ready(self) -> None:
        self._advancing = True
        try:
            while self._waiting and (ready := list(self._ready())):
                chosen = min(ready, key=self._priority)
                self._waiting.remove(chosen)
                if isinstance(chosen, _Visit):
                    del self._queue[chosen]
                    self._visits += 1
                    chosen.enter()
                else:
                    self._start(chosen)
        finally:
            self._advancing = False

    def _priority(self, waiter: Task | _Visit) -> int:
        own = waiter.nexus.priority if isinstance(waiter, Task) else 0
        return own or self._unit.initial_priority or _LOWEST

    def _ready(self) -> Iterator[Task | _Visit]:
        """The tasks and pieces that wait for nothing any more (SAM-5, task attributes), in order of arrival."""
        if any(task.exclusive for task in self._running):
            return
        busy = bool(self._running or self._visits)
        restricted = self._unit.queueing.restricted
        overtaking = {self._set_of(task) for task in self._commands() if self._overtakes(task)}
        # What came before: nexuses and task sets that have commands, and those that have ORDERED ones. `unsent` and
        # `unsent_ordered` are nexuses with commands whose data is still to come, or that wait for such.
        older: set[object] = set()
        ordered: set[object] = set()
        unsent: set[Nexus] = set()
        unsent_ordered: set[Nexus] = set()
        closed = False  # an exclusive one waits until nothing runs: nothing that came later may prolong that
        for task, done in self._queue.items():
            if isinstance(task, _Visit):
                if not closed:
                    yield task
                continue
            nexus, own_set, is_ordered = task.nexus, self._set_of(task), task.attribute == Attribute.ORDERED
            if task in self._outlasted:
                continue
            if task in self._waiting and self._overtakes(task):
                if not (task.exclusive and busy):
                    yield task
            elif done is None or nexus in (unsent if is_ordered or restricted else unsent_ordered):
                unsent.add(nexus)
                if is_ordered:
                    unsent_ordered.add(nexus)
                continue
            elif task in self._waiting:
                may = not (closed or self._faulted(nexus) is not None or own_set in overtaking)
                may = may and own_set not in (older if is_ordered else ordered)
                may = may and not (restricted and nexus in older)
                if may and task.exclusive and busy:
                    closed, may = True, False
                if may:
                    yield task
            older |= {nexus, own_set}
            if is_ordered:
                ordered.add(own_set)

    def _set_of(self, task: Task) -> object:
        return task.nexus if self._unit.queueing.per_nexus else self

    def _overtakes(self, task: Task) -> bool:
        """Whether it goes before all others of its set; while its data is still to come it does not."""
        if task.attribute not in (Attribute.HEAD_OF_QUEUE, Attribute.ACA) or task in self._outlasted:
            return False
        return self._queue[task] is not None

    # ---- running

    def _start(self, task: Task) -> None:
        done = self._queue[task]
        assert done is not None
        if task.command is not None and task.command.in_pieces:
            self._in_pieces[task] = self._unit.operation(task, lambda result: self._end_in_pieces(task, done, result))
            self._in_pieces[task].start()
            return
        self._running.add(task)
        if self._unit.overlaps(task):
            self._unit.launch(task, lambda result: self.finish(task, done, result))
        elif self._unit.waits(task):
            self.executor.submit(lambda: self._unit.run(task), lambda result: self.finish(task, done, result))
        else:
            self.finish(task, done, self._unit.run(task))

    def _end_in_pieces(self, task: Task, done: Done, result: Result) -> None:
        del self._in_pieces[task]
        self._answer(task, done, result)

    def run_at_once(self, task: Task, done: Done) -> None:
        """A command of the data path runs, in whose way nothing stands: `gate` is open. `finish` ends it, or `ran` and `end`."""
        self._queue[task] = done
        self._running.add(task)

    def ran(self, task: Task) -> None:
        """It has done what it does; `end` follows."""
        self._running.discard(task)

    def finish(self, task: Task, done: Done, result: Result) -> None:
        """A command that ran has a result."""
        if task.effect is not None:  # before anything that waits has its turn
            task.effect()
        self._running.discard(task)
        if task.overhaul is None or result.status != Status.GOOD:
            self._answer(task, done, result)
        elif task.fields["immed"]:
            task.overhaul.start()
            self._answer(task, done, result)
        else:
            self._outlasted.add(task)
            task.overhaul.start(lambda error: self._end_outlasted(task, done, result, error))
            self._advance()

    def _end_outlasted(self, task: Task, done: Done, result: Result, error: CheckCondition | None) -> None:
        if task not in self._outlasted:  # it was aborted
            return
        if error is not None:
            result = failure(error, descriptor=self._unit.descriptor_sense, expected=task.expected)
        self._answer(task, done, result)

    def _answer(self, task: Task, done: Done, result: Result) -> None:
        done(task, result)  # a transport knows of tasks that were aborted while they ran, and ends them without result
        self.end(task, result)

    # ---- errors (SAM-5, contingent allegiance and auto contingent allegiance)

    def _faulted(self, nexus: Nexus) -> Nexus | None:
        """The nexus whose ACA condition concerns `nexus`."""
        if nexus in self._contingent:
            return nexus
        if self._contingent and not self._unit.queueing.per_nexus:
            return next(iter(self._contingent))
        return None

    def _failed(self, task: Task) -> None:
        """A command has ended with CHECK CONDITION."""
        queueing = self._unit.queueing
        if queueing.qerr == QERR_SAME_NEXUS or (queueing.qerr == QERR_ALL and queueing.per_nexus):
            self._abort(lambda other: other.nexus is task.nexus, task.nexus)
        elif queueing.qerr == QERR_ALL:
            self._abort(lambda other: True, task.nexus)
        if task.naca:
            self._contingent.add(task.nexus)
        elif task.attribute == Attribute.ACA:
            self._contingent.discard(task.nexus)

    @property
    def contingent(self) -> frozenset[Nexus]:
        """The nexuses for which an ACA condition holds."""
        return frozenset(self._contingent)

    def clear_aca(self, nexus: Nexus) -> None:
        """CLEAR ACA, or the nexus is gone: what was blocked goes on."""
        self._contingent.discard(nexus)
        self._advance()

    def reset(self) -> None:
        """A reset clears every ACA condition (SAM-5)."""
        self._contingent.clear()
        self._advance()

    # ---- aborting

    def _abort(self, which: Callable[[Task], bool], by: Nexus) -> None:
        """Abort commands because of an error of the nexus `by`.

        Those of other nexuses are answered with TASK ABORTED where TAS is set, else told by a unit attention (SAM-5,
        aborting commands).
        """
        doomed = [task for task in self._commands() if which(task)]
        if not self._unit.queueing.report_aborted:
            for nexus in {task.nexus for task in doomed if task.nexus is not by}:
                nexus.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
        for task in doomed:
            task.abort(task.nexus is not by)
