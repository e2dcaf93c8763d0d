"""Task management (RFC 7143 §4.2.3.3, §4.2.3.4, §11.5, §11.6; SAM-5 §7).

A function that ends many tasks takes effect when all commands before it have come, on whatever connection; its response
stands behind a response fence in the session that asked, and so does the next response in every other session that it
affects. Data-Out for what was aborted may still come and is ignored, with every value of TaskReporting: initiators
often stop sending it as soon as they have asked for the function, so that nobody should wait for it. Sessions that
have agreed on FastAbort are told of their tasks' end by an asynchronous message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from blockyard.iscsi.access import Right
from blockyard.iscsi.pdu import AsyncEvent, TaskFunction, TaskManagementRequest, TaskResponse
from blockyard.scsi.lun import canonical
from blockyard.scsi.sense import Asc

if TYPE_CHECKING:
    from blockyard.iscsi.command import Command
    from blockyard.iscsi.session import Session

Answer = Callable[[TaskResponse], None]
_Affected = dict["Session", list["Command"]]

ON_MANY = frozenset(  # functions that end the tasks of many (RFC 7143 §4.2.3.3)
    {
        TaskFunction.ABORT_TASK_SET,
        TaskFunction.CLEAR_TASK_SET,
        TaskFunction.LOGICAL_UNIT_RESET,
        TaskFunction.TARGET_WARM_RESET,
        TaskFunction.TARGET_COLD_RESET,
    }
)


_ON_OTHERS = ON_MANY - {TaskFunction.ABORT_TASK_SET}  # they end tasks of other sessions too


def fenced(function: int, response: TaskResponse) -> bool:
    """Whether a response stands behind a fence (RFC 7143 §4.2.2.3.3).

    So does one that says that there is no task to be aborted: the task's own response, on another connection, comes first.
    """
    ended = function == TaskFunction.ABORT_TASK and response == TaskResponse.NO_SUCH_TASK
    return ended or function in ON_MANY or function == TaskFunction.CLEAR_ACA


def manage(session: Session, pdu: TaskManagementRequest, answer: Answer) -> None:
    """Carry out a task management request; `answer` is called once every affected task is at its end.

    TASK REASSIGN is the connection's matter that it has come on (iscsi/reassign.py).
    """
    function = pdu.function
    if not _is_permitted(session, function):
        answer(TaskResponse.UNAUTHORIZED)
    elif function == TaskFunction.ABORT_TASK:
        _abort_task(session, pdu, answer)
    elif function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET):
        _reset_target(session, answer)
    elif function in ON_MANY:
        if session.nexus(pdu.lun).unit.tasks is None:
            answer(TaskResponse.NO_SUCH_LUN)
        elif function == TaskFunction.ABORT_TASK_SET:
            session.withdraw_all(session.on(pdu.lun), lambda: answer(TaskResponse.COMPLETE))
        else:
            _clear(session, pdu.lun, answer, reset=function == TaskFunction.LOGICAL_UNIT_RESET)
    elif function == TaskFunction.CLEAR_ACA:
        _clear_aca(session, pdu.lun, answer)
    else:
        answer(TaskResponse.UNSUPPORTED)


def _clear_aca(session: Session, lun: int, answer: Answer) -> None:
    nexus = session.nexus(lun)
    if nexus.unit.tasks is None:
        answer(TaskResponse.NO_SUCH_LUN)
        return
    nexus.unit.tasks.clear_aca(nexus)
    answer(TaskResponse.COMPLETE)


def _is_permitted(session: Session, function: int) -> bool:
    """Whether the session's right lets it end what is others': with virtual write, that is only all sessions at once."""
    if session.permit.read_only:
        return function not in _ON_OTHERS
    return session.permit.rule.right == Right.FULL or function != TaskFunction.TARGET_COLD_RESET


def _abort_task(session: Session, pdu: TaskManagementRequest, answer: Answer) -> None:
    """The task may have come on any connection (RFC 7143 §11.5.1)."""
    command = session.commands.get(pdu.referenced_task_tag)
    if command is not None:
        if canonical(command.lun) == canonical(pdu.lun):
            session.withdraw(command, lambda: answer(TaskResponse.COMPLETE))
        else:
            answer(TaskResponse.NO_SUCH_TASK)
    elif pdu.ref_cmd_sn != pdu.cmd_sn and session.order.abort_early(pdu.ref_cmd_sn):
        answer(TaskResponse.COMPLETE)  # not here yet: it counts as come and aborted (RFC 7143 §11.6.1)
    else:
        answer(TaskResponse.NO_SUCH_TASK)


def _clear(requester: Session, lun: int, answer: Answer, *, reset: bool) -> None:
    """CLEAR TASK SET or LOGICAL UNIT RESET: every session's tasks on one unit (SAM-5 §7.5, §7.7)."""
    unit = requester.nexus(lun).unit
    affected = requester.target.commands_on([unit])
    if unit.queueing.per_nexus and not reset:  # each nexus has a task set of its own: this one's is meant
        affected = {session: commands for session, commands in affected.items() if session is requester}

    def finish() -> None:
        if reset:
            unit.reset()
        answer(TaskResponse.COMPLETE)

    if not reset and not unit.queueing.report_aborted:
        for nexus in {c.task.nexus for session, cs in affected.items() if session is not requester for c in cs}:
            nexus.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)
    _end(requester, affected, finish)


def _reset_target(requester: Session, answer: Answer) -> None:
    """TARGET WARM RESET, and what TARGET COLD RESET begins with: every session's tasks, then every logical unit.

    That is, of the units that the requester sees: what others have is not its business, and a session with the right
    of virtual write has units of its own.
    """
    units = list(requester.luns.resettable())

    def finish() -> None:
        for unit in units:
            unit.reset()
        answer(TaskResponse.COMPLETE)

    _end(requester, requester.target.commands_on(units), finish)


def _end(requester: Session, affected: _Affected, finish: Callable[[], None]) -> None:
    """Abort commands of any sessions; `finish` is called once all have ended."""
    left = len(affected) + 1

    def one_ended() -> None:
        nonlocal left
        left -= 1
        if not left:
            finish()

    for session, commands in affected.items():
        if session is not requester:
            session.fence.raise_for(None)
            if session.parameters.task_reporting == "FastAbort":
                for lun in {command.lun for command in commands}:
                    session.announce(AsyncEvent.TASKS_TERMINATED, lun=lun)
        session.withdraw_all(commands, one_ended, by_other=session is not requester)
    one_ended()
