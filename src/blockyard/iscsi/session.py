"""Target nodes and their sessions: everything of iSCSI that outlives a single PDU (RFC 7143 §4.3, §4.4).

A `TargetNode` is one target name with the SCSI target behind it and the sessions on it. A `Session`
is an I_T nexus: it numbers commands (CmdSN), holds those that came too early, knows which are in
progress and manages them as tasks. It has one connection; StatSN and the wire are that one's matter
(iscsi/connection.py).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.pdu import (
    NO_TAG,
    LoginStatus,
    Pdu,
    ScsiCommand,
    TaskFunction,
    TaskManagementRequest,
    TaskResponse,
    serial_less,
)
from blockyard.scsi.nexus import Nexus, TargetPort, target_port
from blockyard.scsi.sense import Asc
from blockyard.scsi.task import Result, Task

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.login import TargetLogin
    from blockyard.iscsi.negotiation import Parameters
    from blockyard.scsi.target import Target
    from blockyard.scsi.unit import Unit

log = logging.getLogger(__name__)

MAX_IMMEDIATE = 16  # commands marked for immediate delivery that may be in progress besides (RFC 7143 §4.2.2.1)
SOLICITED_LIMIT = 16 << 20  # bytes of Data-Out that a session is asked for at a time; more R2Ts wait
MASK = 0xFFFFFFFF


class Solicitation:
    """One R2T that has not been answered in full."""

    __slots__ = ("data_sn", "end", "ttt")

    def __init__(self, ttt: int, end: int) -> None:
        self.ttt = ttt
        self.end = end  # buffer offset just past what was asked for
        self.data_sn = 0


class Command:
    """A SCSI command in progress: the task, and how far its data has come."""

    __slots__ = (
        "aborted", "asked", "buffer", "charged", "data_sn", "failure", "immediate", "itt", "lun", "r2t_sn", "read",
        "received", "solicitations", "task", "unsolicited", "wanted",
    )  # fmt: skip

    def __init__(self, pdu: ScsiCommand, task: Task) -> None:
        self.task = task
        self.itt = pdu.itt
        self.lun = pdu.lun
        self.immediate = pdu.immediate
        self.read = pdu.read
        self.wanted = 0  # bytes of Data-Out to wait for
        self.received = 0  # bytes of Data-Out that have come, wanted or not: all in order (DataPDUInOrder=Yes)
        self.asked = 0  # buffer offset up to which data has come unasked or been asked for
        self.charged = 0  # bytes held against the session's limit of solicited data
        self.buffer: bytearray | None = None
        self.unsolicited = False  # unsolicited Data-Out PDUs are still to come
        self.data_sn = 0  # DataSN that the next unsolicited Data-Out must have
        self.r2t_sn = 0
        self.solicitations: deque[Solicitation] = deque()
        self.failure: Result | None = None  # the answer is known; only its data must still be let pass
        self.aborted: Callable[[], None] | None = None  # whoever waits for the end of an aborted, running command

    @property
    def collecting(self) -> bool:
        """Whether Data-Out is still to come, so that the SCSI layer has not got the task."""
        return self.unsolicited or bool(self.solicitations) or (self.failure is None and self.received < self.wanted)

    def store(self, offset: int, data: memoryview) -> None:
        """Keep what of `data` is wanted."""
        length = min(len(data), self.wanted - offset)
        if length > 0 and self.failure is None:
            if self.buffer is None:
                self.buffer = bytearray(self.wanted)
            self.buffer[offset : offset + length] = data[:length]


class Session:
    """A session, normal or for discovery (RFC 7143 §4.4.3, §4.3)."""

    def __init__(self, node: TargetNode | None, login: TargetLogin, tsih: int) -> None:
        self.node = node  # None for a discovery session
        self.initiator: str = login.parameters.initiator_name
        self.isid = login.isid
        self.portal_group = login.portal_group
        self.tsih = tsih
        self.parameters: Parameters = login.parameters
        self.exp_cmd_sn = login.cmd_sn
        self.connection: Connection | None = None
        self.commands: dict[int, Command] = {}  # by initiator task tag
        self.outstanding = 0  # of these, the ones that count against the command window
        self.held: dict[int, Pdu | None] = {}  # CmdSN → what came before its turn; None: aborted before it came
        self._waiting_for_r2t: deque[Command] = deque()
        self._soliciting = 0  # bytes of buffers that solicited data is collected in
        self._next_ttt = 0
        self._nexuses: dict[int, Nexus] = {}

    @property
    def max_cmd_sn(self) -> int:
        return (self.exp_cmd_sn + COMMAND_WINDOW - 1 - self.outstanding) & MASK

    def nexus(self, lun: int) -> Nexus:
        """The I_T_L nexus for the 64-bit LUN field of a PDU."""
        nexus = self._nexuses.get(lun)
        if nexus is None:
            assert self.node is not None
            port = self.node.port(self.portal_group)
            luns = self.node.scsi.luns
            initiator = f"{self.initiator},i,0x{self.isid.hex()}"
            nexus = Nexus(luns.unit(lun), initiator, port, luns, self.node.scsi.ports)
            nexus.abort_tasks = partial(self._abort_on, nexus)
            if nexus.unit.tasks is not None:  # a LUN that is not there is looked for anew each time
                nexus.unit.attach(nexus)
                self._nexuses[lun] = nexus
        return nexus

    # ---- command numbering (RFC 7143 §4.2.2.1)

    def take(self, cmd_sn: int) -> bool:
        """Account for a non-immediate PDU. True when it is to be handled; False when it is early, late, or aborted."""
        if cmd_sn != self.exp_cmd_sn:
            return False
        self.exp_cmd_sn = (cmd_sn + 1) & MASK
        return cmd_sn not in self.held or self.held.pop(cmd_sn) is not None

    def hold(self, cmd_sn: int, pdu: Pdu) -> None:
        """Keep a PDU that came too early; one outside the window, or a duplicate, is silently ignored."""
        early = serial_less(self.exp_cmd_sn, cmd_sn) and not serial_less(self.max_cmd_sn, cmd_sn)
        if early and cmd_sn not in self.held:
            pdu.data = bytes(pdu.data)
            self.held[cmd_sn] = pdu

    def next_held(self) -> Pdu | None:
        """The held PDU whose turn has come, accounted for."""
        while self.exp_cmd_sn in self.held:
            pdu = self.held.pop(self.exp_cmd_sn)
            self.exp_cmd_sn = (self.exp_cmd_sn + 1) & MASK
            if pdu is not None:
                return pdu
        return None

    # ---- commands in progress

    def add(self, command: Command) -> None:
        self.commands[command.itt] = command
        if not command.immediate:
            self.outstanding += 1

    def remove(self, command: Command) -> None:
        """The command is over: its tag and its place in the window are free."""
        if self.commands.pop(command.itt, None) is None:
            return
        if not command.immediate:
            self.outstanding -= 1
        if command in self._waiting_for_r2t:
            self._waiting_for_r2t.remove(command)
        self._release(command)

    def solicit(self, command: Command) -> None:
        """Ask for the rest of a command's data, now or when there is room for it."""
        command.asked = command.received
        self._waiting_for_r2t.append(command)
        self.send_r2ts()

    def send_r2ts(self) -> None:
        """Send the first R2Ts of the commands that wait for them, as far as the memory for solicited data goes."""
        while self._waiting_for_r2t:
            command = self._waiting_for_r2t[0]
            if self._soliciting and self._soliciting + command.wanted > SOLICITED_LIMIT:
                return
            self._soliciting += command.wanted
            command.charged = command.wanted
            self._waiting_for_r2t.popleft()
            self.continue_solicited(command)

    def continue_solicited(self, command: Command) -> None:
        """Send as many further R2Ts for one command as may be outstanding."""
        assert self.connection is not None
        while command.asked < command.wanted and len(command.solicitations) < self.parameters.max_outstanding_r2t:
            length = min(self.parameters.max_burst_length, command.wanted - command.asked)
            ttt = self._next_ttt
            self._next_ttt = (ttt + 1) % NO_TAG
            command.solicitations.append(Solicitation(ttt, command.asked + length))
            self.connection.send_r2t(command, ttt, command.asked, length)
            command.asked += length

    def _release(self, command: Command) -> None:
        if command.charged:
            self._soliciting -= command.charged
            command.charged = 0
            self.send_r2ts()

    # ---- task management (RFC 7143 §4.2.3.3, §11.5; SAM-5 §7)

    def manage(self, pdu: TaskManagementRequest, answer: Callable[[TaskResponse], None]) -> None:
        """Carry out a task management request; `answer` is called once every affected task is at its end."""
        function = pdu.function
        assert self.node is not None
        if function == TaskFunction.ABORT_TASK:
            self._abort_task(pdu, answer)
        elif function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET):
            self.node.reset(answer)
        elif function == TaskFunction.TASK_REASSIGN:
            answer(TaskResponse.REASSIGN_UNSUPPORTED)
        elif function in (TaskFunction.ABORT_TASK_SET, TaskFunction.CLEAR_TASK_SET, TaskFunction.LOGICAL_UNIT_RESET):
            unit = self.nexus(pdu.lun).unit
            if unit.tasks is None:
                answer(TaskResponse.NO_SUCH_LUN)
            elif function == TaskFunction.ABORT_TASK_SET:
                abort((self, command) for command in self.on(pdu.lun) if command.itt != pdu.itt)(answer)
            else:
                self.node.clear(pdu.lun, self, answer, reset=function == TaskFunction.LOGICAL_UNIT_RESET)
        else:  # CLEAR ACA too: the NACA bit is refused, so that there is no ACA condition to clear
            answer(TaskResponse.UNSUPPORTED)

    def _abort_task(self, pdu: TaskManagementRequest, answer: Callable[[TaskResponse], None]) -> None:
        command = self.commands.get(pdu.referenced_task_tag)
        if command is not None:
            if command.lun == pdu.lun:
                abort([(self, command)])(answer)
            else:
                answer(TaskResponse.NO_SUCH_TASK)
            return
        early = not serial_less(pdu.ref_cmd_sn, self.exp_cmd_sn) and not serial_less(self.max_cmd_sn, pdu.ref_cmd_sn)
        if early and pdu.ref_cmd_sn != pdu.cmd_sn:  # not here yet: it counts as come and aborted (RFC 7143 §11.6.1)
            self.held[pdu.ref_cmd_sn] = None
            answer(TaskResponse.COMPLETE)
        else:
            answer(TaskResponse.NO_SUCH_TASK)

    def _abort_on(self, nexus: Nexus, but: Task) -> None:
        """Another nexus has shut this one out: its tasks are aborted, and it is told so (SPC-4 5.13.11.2.6)."""
        doomed = [
            command for command in self.commands.values() if command.task.nexus is nexus and command.task is not but
        ]
        for command in doomed:
            self.withdraw(command, lambda: None)
        if doomed and but.nexus is not nexus:
            nexus.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)

    def on(self, lun: int) -> list[Command]:
        """The commands in progress on one LUN."""
        return [command for command in self.commands.values() if command.lun == lun]

    def withdraw(self, command: Command, ended: Callable[[], None]) -> None:
        """Abort one command: no response will be sent for it. `ended` is called when it can do nothing any more."""
        tasks = command.task.nexus.unit.tasks
        if command.collecting or (tasks is not None and tasks.withdraw(command.task)):
            self.remove(command)
            ended()
        elif command.itt in self.commands:
            command.aborted = ended  # it is running; Connection.complete will find it so
        else:
            ended()

    def close(self) -> None:
        """The session is over: its tasks are aborted and the nexus is gone (RFC 7143 §6.3.5, SAM-5 §6.3.4)."""
        self._waiting_for_r2t.clear()
        for command in list(self.commands.values()):
            self.withdraw(command, lambda: None)
        for nexus in self._nexuses.values():
            nexus.unit.detach(nexus)
        self._nexuses.clear()
        if self.node is not None:
            self.node.forget(self)


def abort(commands: Iterable[tuple[Session, Command]]) -> Callable[[Callable[[TaskResponse], None]], None]:
    """Abort commands of any sessions; the function returned arranges for the answer once all have ended."""
    chosen = list(commands)
    left = len(chosen) + 1

    def arrange(answer: Callable[[TaskResponse], None]) -> None:
        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                answer(TaskResponse.COMPLETE)

        for session, command in chosen:
            session.withdraw(command, ended)
        ended()

    return arrange


class TargetNode:
    """One iSCSI target: its name, the SCSI target behind it, and the sessions on it.

    `relative_ports` has the relative target port identifier of each of its ports (SPC-5), by the tag of the portal
    group; a port that it does not name has the tag itself. `fellows` are all targets that may share logical units with
    this one, by name.
    """

    def __init__(
        self,
        name: str,
        scsi: Target,
        relative_ports: Mapping[int, int] | None = None,
        fellows: Mapping[str, TargetNode] | None = None,
    ) -> None:
        self.name = name
        self.scsi = scsi
        self.relative_ports = relative_ports or {}
        self.sessions: dict[tuple[str, bytes, int], Session] = {}
        self._fellows = {name: self} if fellows is None else fellows
        self._next_tsih = 0

    def port(self, portal_group: int) -> TargetPort:
        """The SCSI target port that a portal group is (RFC 7143 §4.4.2)."""
        return target_port(self.name, portal_group, self.relative_ports.get(portal_group))

    def attach(self, login: TargetLogin) -> Session | LoginStatus:
        """The session that a login enters (RFC 7143 §6.3.1): a new one, in place of one of the same two ports."""
        key = (login.parameters.initiator_name, login.isid, login.portal_group)
        old = self.sessions.get(key)
        if login.requested_tsih:
            known = old is not None and old.tsih == login.requested_tsih
            return LoginStatus.TOO_MANY_CONNECTIONS if known else LoginStatus.SESSION_DOES_NOT_EXIST
        if old is not None:  # session reinstatement (RFC 7143 §6.3.5)
            log.info("%s: session of %s is reinstated", self.name, key[0])
            old.close()
            if old.connection is not None:
                old.connection.drop()
        session = self.sessions[key] = Session(self, login, self._new_tsih())
        return session

    def _new_tsih(self) -> int:
        used = {session.tsih for session in self.sessions.values()}
        while True:
            self._next_tsih = self._next_tsih % 0xFFFF + 1
            if self._next_tsih not in used:
                return self._next_tsih

    def forget(self, session: Session) -> None:
        key = (session.initiator, session.isid, session.portal_group)
        if self.sessions.get(key) is session:
            del self.sessions[key]

    def drop_sessions(self, *, but: Session | None = None) -> None:
        """End every session at once, except perhaps one."""
        for session in list(self.sessions.values()):
            if session is not but and session.connection is not None:
                session.connection.drop()

    def clear(self, lun: int, requester: Session, answer: Callable[[TaskResponse], None], *, reset: bool) -> None:
        """CLEAR TASK SET or LOGICAL UNIT RESET: every session's tasks on one unit, by whatever target (SAM-5 §7.5, §7.7)."""
        unit = requester.nexus(lun).unit
        doomed = self._commands_on([unit])

        def finish(response: TaskResponse) -> None:
            if reset:
                unit.reset()
            answer(response)

        if not reset:
            for nexus in {command.task.nexus for session, command in doomed if session is not requester}:
                nexus.establish(0x2F00)  # COMMANDS CLEARED BY ANOTHER INITIATOR (SAM-5 §5.14)
        abort(doomed)(finish)

    def reset(self, answer: Callable[[TaskResponse], None]) -> None:
        """TARGET WARM RESET: every session's tasks, then every logical unit."""
        doomed = self._commands_on(self.scsi.luns.units.values())

        def finish(response: TaskResponse) -> None:
            for unit in self.scsi.luns.units.values():
                unit.reset()
            answer(response)

        abort(doomed)(finish)

    def _commands_on(self, units: Iterable[Unit]) -> list[tuple[Session, Command]]:
        """All that is in progress on these units, whichever target it has come by."""
        chosen = set(units)
        return [
            (session, command)
            for node in self._fellows.values()
            for session in node.sessions.values()
            for command in session.commands.values()
            if command.task.nexus.unit in chosen
        ]
