"""Recovery of connections: tasks outlive the connection that they came on (RFC 7143 §7.2.2, §7.5, §11.5.1, §11.14).

With ErrorRecoveryLevel 2 the tasks of a connection that is gone are kept: those in progress, which go on without
it, and those that have ended, as far as the initiator has not acknowledged their status. They are

    lost ──► recoverable ──► allegiant to another connection, on which they go on (TASK REASSIGN)
      └───────────┴────────► aborted, DefaultTime2Wait and DefaultTime2Retain later

The step in the middle is a logout "for recovery" on another connection, or an implied one: a login with the same CID.
Before that a task counts as allegiant to its old connection, from which more could come.

On the new connection a read sends its data from the ExpDataSN that the initiator names, cut as this connection wants it; a
write asks for all data that has not come; and the status is sent, with a StatSN of the new connection, in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from blockyard.iscsi.command import Command
from blockyard.iscsi.output import Completion
from blockyard.iscsi.pdu import TaskManagementRequest, TaskResponse
from blockyard.scsi.lun import canonical

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.session import Session

MAX_LOST = 16  # connections of one session; beyond that the tasks of the oldest are given up
Resume = Callable[[], None]


class _Lost:
    """What is kept of one connection."""

    __slots__ = ("deadline", "recoverable", "tasks")

    def __init__(self) -> None:
        self.tasks: dict[int, Command | Completion] = {}  # by initiator task tag: in progress, or ended
        self.recoverable = False
        self.deadline: float | None = None  # when its tasks are given up; set at the next look at the clock


class LostConnections:
    """What is kept of the connections that one session has lost, by CID."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lost: dict[int, _Lost] = {}

    def __contains__(self, cid: int) -> bool:
        return cid in self._lost

    # ---- connections go

    def keep(self, connection: Connection, commands: Iterable[Command]) -> None:
        """A connection is gone: keep its tasks, `commands` among them, the ones in progress."""
        lost = self._lost.setdefault(connection.cid, _Lost())
        if len(self._lost) > MAX_LOST:
            self.give_up(next(iter(self._lost)))
        lost.recoverable, lost.deadline = False, None
        for completion in connection.take_completions():
            lost.tasks[completion.command.itt] = completion
        for command in commands:
            command.connection, command.lost = None, lost.tasks
            lost.tasks[command.itt] = command
            self._session.data.suspend(command)

    def ended(self, completion: Completion, cid: int) -> None:
        """A command has ended whose response the connection has not lived to send."""
        lost = self._lost.get(cid)
        if lost is not None:
            lost.tasks[completion.command.itt] = completion

    def recover(self, cid: int) -> None:
        """A lost connection has been logged out for recovery: its tasks may be reassigned from now on."""
        lost = self._lost.get(cid)
        if lost is not None:
            lost.recoverable, lost.deadline = True, None

    def give_up(self, cid: int, ended: Callable[[], None] = lambda: None) -> None:
        """Abort the tasks of a lost connection; `ended` is called when they can do nothing any more."""
        tasks = self._lost.pop(cid).tasks.values()
        self._session.withdraw_all([task for task in tasks if isinstance(task, Command)], ended)

    def clear(self) -> None:
        """The session is over."""
        self._lost.clear()

    def tick(self, now: float) -> None:
        """Give up what nobody has come back for in time; `now` is in seconds (RFC 7143 §13.15, §13.16)."""
        for cid, lost in list(self._lost.items()):
            if lost.deadline is None:
                lost.deadline = now + self._session.parameters.default_time2wait + self._session.time2retain
            elif now >= lost.deadline:
                self.give_up(cid)

    # ---- tasks come back

    def reassign(self, by: Connection, pdu: TaskManagementRequest) -> tuple[TaskResponse, Resume]:
        """Answer a TASK REASSIGN that has come on `by`, and what to do once the answer is on its way (§11.6.1)."""
        if self._session.parameters.error_recovery_level < 2:
            return TaskResponse.REASSIGN_UNSUPPORTED, _nothing
        itt = pdu.referenced_task_tag
        holder = next((lost for lost in self._lost.values() if itt in lost.tasks), None)
        if holder is None:
            allegiant = any(connection.has_task(itt) for connection in self._session.connections.values())
            return TaskResponse.STILL_ALLEGIANT if allegiant else TaskResponse.NO_SUCH_TASK, _nothing
        if canonical(holder.tasks[itt].lun) != canonical(pdu.lun):
            return TaskResponse.NO_SUCH_TASK, _nothing
        if not holder.recoverable:
            return TaskResponse.STILL_ALLEGIANT, _nothing
        return TaskResponse.COMPLETE, partial(self._resume, holder.tasks, itt, by, pdu.exp_data_sn)

    def _resume(self, tasks: dict[int, Command | Completion], itt: int, by: Connection, exp_data_sn: int) -> None:
        task = tasks.pop(itt, None)
        if isinstance(task, Completion):
            task.command.snack_tag = 0
            task.restart(exp_data_sn)
            self._session.respond(by, task)
        elif task is not None:
            task.snack_tag = 0
            task.connection, task.lost = by, None
            del task.r2ts[exp_data_sn:]
            self._session.data.resume(task)


def _nothing() -> None:
    """There is nothing to resume."""
