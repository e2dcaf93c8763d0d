"""Sessions: everything of iSCSI that outlives a connection (RFC 7143 §4.2.2.1, §4.4.3, §6.3, §7.5).

Theory of operation. A `Session` is an I_T nexus with one or more connections. What holds for all of them
together is here; StatSN and the wire are each connection's own matter (iscsi/connection.py):

* CmdSN orders the commands of all connections. A PDU that comes before its turn is held, together with the connection
  that it came on and the Data-Out that follows it (iscsi/order.py). ExpCmdSN and MaxCmdSN are written into every
  PDU as it is packed, on whichever connection.
* A command is allegiant to the connection that it came on: its data and its status go there. When that
  connection is gone the command is aborted; or kept, to be reassigned to another (iscsi/reassign.py).
* Responses pass through `respond`, so that a response fence can hold them back (iscsi/fence.py).

A session ends when it is logged out or reinstated. When its last connection is lost without that, it
waits for DefaultTime2Wait and DefaultTime2Retain to be continued by another connection, then it is closed
and its I_T nexus is lost (SAM-5 §6.3.4). There is no clock here: `tick` is told the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from blockyard.iscsi.command import Command
from blockyard.iscsi.dataout import DataOutCollector
from blockyard.iscsi.fence import ResponseFence, wants_fence
from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.order import MASK, CommandOrder
from blockyard.iscsi.output import Completion, Output
from blockyard.iscsi.pdu import (
    AsyncEvent,
)
from blockyard.iscsi.permit import NO_PERMIT, Permit
from blockyard.iscsi.reassign import LostConnections
from blockyard.scsi.lun import canonical
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.sense import Asc
from blockyard.scsi.task import Result, Status, Task

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.login import TargetLogin
    from blockyard.iscsi.negotiation import Parameters
    from blockyard.iscsi.node import TargetNode
    from blockyard.scsi.target import LunMap

log = logging.getLogger(__name__)

MAX_IMMEDIATE = 16  # commands marked for immediate delivery that may be in progress besides (RFC 7143 §4.2.2.1)


class Session:
    """A session, normal or for discovery (RFC 7143 §4.4.3, §4.3)."""

    def __init__(self, node: TargetNode | None, login: TargetLogin, tsih: int, permit: Permit | None = None) -> None:
        self.node = node  # None for a discovery session
        self.permit = permit or NO_PERMIT
        self.initiator: str = login.parameters.initiator_name
        self.isid = login.isid
        self.portal_group = login.portal_group
        self.tsih = tsih
        self.parameters: Parameters = (
            login.parameters
        )  # of the leading login: what belongs to one connection is not used
        # Where the initiator did not negotiate it, the key has its default, which this side need not care to keep.
        wish = login.negotiator.preferences.default_time2retain
        self.time2retain = min(self.parameters.default_time2retain, wish)  # seconds (RFC 7143 §13.16)
        self.exp_cmd_sn = login.cmd_sn
        self.connections: dict[int, Connection] = {}  # by CID
        self.commands: dict[int, Command] = {}  # by initiator task tag
        self.outstanding = 0  # of these, the ones that count against the command window
        self.data = DataOutCollector(self)
        self.order = CommandOrder(self)
        self.fence = ResponseFence(self)
        self.lost = LostConnections(self)
        self.detour = False  # whether every command is to take the slow road
        self._nexuses: dict[int, Nexus] = {}
        self.broken = False  # its last connection was lost without a logout
        self._settling = 0  # how many sessions and connections that it replaces have tasks that run
        self._newcomers: list[Callable[[], None]] = []  # logins that wait until they have ended
        self._deadline: float | None = None  # when a session without connections is over
        self._stuck: int | None = None  # ExpCmdSN at the last look, if commands were held
        self.look()

    def __str__(self) -> str:
        return f"session {self.tsih} of {self.initiator}"

    @property
    def target(self) -> TargetNode:
        """The target of a session that is not for discovery."""
        assert self.node is not None
        return self.node

    @property
    def max_cmd_sn(self) -> int:
        return (self.exp_cmd_sn + COMMAND_WINDOW - 1 - self.outstanding) & MASK

    def nexus(self, lun: int) -> Nexus:
        """The I_T_L nexus for the 64-bit LUN field of a PDU."""
        nexus = self._nexuses.get(lun)
        if nexus is None and lun != (usual := canonical(lun)):  # one nexus, whatever form an initiator gives the LUN
            nexus = self.nexus(usual)
            if nexus.unit.tasks is not None:
                self._nexuses[lun] = nexus
        if nexus is None:
            assert self.node is not None
            port = self.node.port(self.portal_group)
            luns = self.permit.luns
            initiator = f"{self.initiator},i,0x{self.isid.hex()}"
            unit, ports = luns.unit(lun), self.node.scsi.ports
            nexus = Nexus(unit, initiator, port, luns, ports, read_only=self.permit.read_only)
            nexus.abort_tasks = partial(self._abort_on, nexus)
            nexus.reach = self._reach
            if nexus.unit.tasks is not None:  # a LUN that is not there is looked for anew each time
                nexus.unit.attach(nexus)
                self._nexuses[lun] = nexus
        return nexus

    @property
    def nexuses(self) -> set[Nexus]:
        """Those that it has used."""
        return set(self._nexuses.values())

    @property
    def luns(self) -> LunMap:
        """What its initiator sees of the target."""
        return self.permit.luns

    def luns_changed(self) -> None:
        """Logical units have come or gone beneath its LUNs: its nexuses with those that have gone are over."""
        for lun, nexus in list(self._nexuses.items()):
            if self.luns.unit(lun) is not nexus.unit:
                nexus.unit.detach(nexus)
                del self._nexuses[lun]

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.node is not None and self not in self.node.sessions.values()

    def _reach(self) -> list[Session]:
        """The sessions by which its initiator may use logical units: this one, and those that it has with other targets.

        The initiator's name alone could be anybody's: its address and its user have to be the same too.
        """
        others = (session for session in self.target.fellow_sessions() if session is not self)
        who = self.permit.host, self.permit.user
        return [self, *(session for session in others if (session.permit.host, session.permit.user) == who)]

    # ---- command numbering (RFC 7143 §4.2.2.1)

    def look(self) -> None:
        """Bring `detour` up to date.

        The data path may go ahead while the window is open, nothing held and no fence up. It keeps nothing of
        what it sends: sessions that recover never go there.
        """
        recovers = self.parameters.error_recovery_level > 0
        self.detour = recovers or self.outstanding >= COMMAND_WINDOW or bool(self.order) or self.fence.up

    # ---- commands in progress

    def add(self, command: Command) -> None:
        self.commands[command.itt] = command
        if not command.immediate:
            self.outstanding += 1
            if self.outstanding >= COMMAND_WINDOW:
                self.look()

    def remove(self, command: Command, result: Result | None = None) -> None:
        """The command is over, with `result` or aborted: its tag and its place in the window are free."""
        if self.commands.pop(command.itt, None) is None:
            return
        tasks = command.task.nexus.unit.tasks
        if tasks is not None:
            tasks.end(command.task, result)
        if not command.immediate:
            self.outstanding -= 1
            if self.detour:
                self.look()
        self.data.forget(command)
        if command.lost is not None and command.lost.get(command.itt) is command:
            del command.lost[command.itt]

    def run(self, command: Command) -> None:
        """All data of a command is there: let the SCSI layer have it."""
        task = command.task
        if command.buffer is not None:
            task.data_out = command.buffer
        unit = task.nexus.unit
        if unit.tasks is None:
            self.complete(command, unit.run(task))
        else:
            unit.tasks.submit(task, lambda _, result: self.complete(command, result))

    def complete(self, command: Command, result: Result) -> None:
        """A command has ended: answer it, unless it was aborted meanwhile."""
        if not command.aborted:
            self.remove(command, result)
            self._answer(command, result)
            return
        self.remove(command)
        for ended in command.aborted:
            ended()

    def _answer(self, command: Command, result: Result) -> None:
        completion = Completion(command, result)
        if command.connection is not None and wants_fence(command.task, result):
            self.fence.raise_for((command.connection, completion))
        elif command.connection is not None:
            self.respond(command.connection, completion)
        elif command.lost is not None:
            command.lost[command.itt] = completion

    def respond(self, connection: Connection, output: Output) -> None:
        """Put a response on its connection's backlog, now or when a response fence is down."""
        if self.fence.up:
            self.fence.hold(connection, output)
        else:
            self.deliver(connection, output)

    def deliver(self, connection: Connection, output: Output) -> None:
        """Put a response on its connection's backlog, or keep it where the connection is gone meanwhile."""
        if self.connections.get(connection.cid) is connection:
            connection.put(output)
        elif isinstance(output, Completion):
            self.lost.ended(output, connection.cid)

    def _abort_on(self, nexus: Nexus, but: Task) -> None:
        """Another nexus has shut this one out: its tasks are aborted, and it is told so (SPC-4 5.13.11.2.6)."""
        doomed = [
            command for command in self.commands.values() if command.task.nexus is nexus and command.task is not but
        ]
        if but.nexus is not nexus:
            self.fence.raise_for(None)
        self.withdraw_all(doomed, lambda: None, by_other=but.nexus is not nexus)
        if doomed and but.nexus is not nexus and not nexus.unit.queueing.report_aborted:
            nexus.establish(Asc.COMMANDS_CLEARED_BY_ANOTHER_INITIATOR)

    def on(self, lun: int) -> list[Command]:
        """The commands in progress on one LUN."""
        usual = canonical(lun)
        return [command for command in self.commands.values() if canonical(command.lun) == usual]

    def withdraw(self, command: Command, ended: Callable[[], None], *, by_other: bool = False) -> None:
        """Abort one command: no response will be sent for it. `ended` is called when it can do nothing any more.

        Where another nexus is to blame and the TAS bit says so, the response is TASK ABORTED status (SAM-5).
        """
        unit = command.task.nexus.unit
        tasks = unit.tasks
        if by_other and unit.queueing.report_aborted:
            ended = partial(self._report_aborted, command, ended)
        if command.collecting or (tasks is not None and tasks.withdraw(command.task)):
            self.remove(command)
            ended()
        elif command.itt in self.commands:
            command.aborted.append(ended)  # it is running; `complete` will find it so
        else:
            ended()

    def abort(self, itt: int, by_other: bool) -> None:
        """The task set aborts a command because of an error (SAM-5, QERR).

        It knows the command by its tag: were it to know the command itself, which knows its task, no command and no
        buffer would be free before the garbage collector has run.
        """
        command = self.commands.get(itt)
        if command is not None:  # else it has ended because of others that were aborted before it
            self.withdraw(command, lambda: None, by_other=by_other)

    def _report_aborted(self, command: Command, ended: Callable[[], None]) -> None:
        self._answer(command, Result(Status.TASK_ABORTED))
        ended()

    def withdraw_all(self, commands: Iterable[Command], ended: Callable[[], None], *, by_other: bool = False) -> None:
        """Abort commands; `ended` is called when none of them can do anything any more."""
        chosen = list(commands)
        left = len(chosen) + 1

        def one_ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                ended()

        for command in chosen:
            self.withdraw(command, one_ended, by_other=by_other)
        one_ended()

    # ---- connections (RFC 7143 §6.3, §7.5, §11.14)

    def join(self, connection: Connection) -> None:
        """A connection has logged in: in place of one with the same CID, if there is any (RFC 7143 §6.3.4)."""
        old = self.connections.get(connection.cid)
        if old is not None:
            log.info("%s: connection %d is reinstated", self, connection.cid)
            self.part(old, self.settle())
            old.drop()
        self.lost.recover(connection.cid)  # an implied logout for recovery
        self.connections[connection.cid] = connection
        self.broken = False
        self._deadline = None

    def settle(self) -> Callable[[], None]:
        """Hold logins back until what is returned has been called: what they replace has tasks that run."""
        self._settling += 1
        return self._settled

    def _settled(self) -> None:
        self._settling -= 1
        if not self._settling:
            waiting, self._newcomers = self._newcomers, []
            for grant in waiting:
                grant()

    def when_settled(self, grant: Callable[[], None]) -> None:
        """Call `grant` when nothing is left of the sessions and connections that this one has replaced."""
        if self._settling:
            self._newcomers.append(grant)
        else:
            grant()

    def leave(self, connection: Connection) -> list[Command]:
        """Take a connection out of the session; returns its commands, whose end is the caller's matter."""
        del self.connections[connection.cid]
        self.order.forget(connection)
        return [command for command in self.commands.values() if command.connection is connection]

    def part(self, connection: Connection, ended: Callable[[], None]) -> None:
        """Take a connection out whose commands are kept or, where they are not, aborted; then `ended` waits for them."""
        commands = self.leave(connection)
        if self.parameters.error_recovery_level == 2 and self.time2retain:
            self.lost.keep(connection, commands)
            commands = []
        self.withdraw_all(commands, ended)

    def lose(self, connection: Connection) -> None:
        """A connection has ended without a logout (RFC 7143 §7.5)."""
        if self.connections.get(connection.cid) is not connection:
            return
        self.part(connection, lambda: None)
        self.broken = not self.connections
        if self.connections:
            self.announce(AsyncEvent.CONNECTION_DROPPED, connection.cid)
        elif self.node is None or not self.time2retain:
            self.close()
        else:
            log.info("%s: no connection is left; it can be continued", self)

    def announce(self, event: AsyncEvent, parameter1: int = 0, lun: int = 0) -> None:
        """Tell the initiator on every connection what happens to the session (RFC 7143 §11.9.1)."""
        for connection in self.connections.values():
            connection.announce(event, parameter1, self.parameters.default_time2wait, self.time2retain, lun)

    @property
    def watched(self) -> bool:
        """Whether it wants to be told the time."""
        return self.parameters.error_recovery_level > 0 or not self.connections

    def tick(self, now: float) -> None:
        """Look after what is lost, in a session that recovers; close one that has waited long enough for a connection.

        `now` is in seconds (RFC 7143 §7.1.4, §7.5, §13.15, §13.16).
        """
        self.lost.tick(now)
        if self.connections:
            self.data.tick()
            stuck, self._stuck = self._stuck, self.exp_cmd_sn if self.order else None
            for connection in list(self.connections.values()):
                connection.probe(anyway=stuck is not None and stuck == self._stuck)
        elif self._deadline is None:
            self._deadline = now + self.parameters.default_time2wait + self.time2retain
        elif now >= self._deadline:
            log.info("%s: nobody has continued it", self)
            self.close()

    def close(self, ended: Callable[[], None] = lambda: None, *, politely: bool = False) -> None:
        """The session is over: its tasks are aborted and the nexus is gone (RFC 7143 §6.3.5, SAM-5 §6.3.4).

        Its connections are dropped, or `politely` closed when they have sent what they have. `ended` is called when
        none of its tasks can do anything any more.
        """
        connections = list(self.connections.values())
        self.connections.clear()
        self.order.clear()
        self.data.clear()
        self.fence.clear()
        self.lost.clear()
        if self.node is not None:
            self.node.forget(self)
        self.withdraw_all(list(self.commands.values()), ended)
        for nexus in self._nexuses.values():
            nexus.unit.detach(nexus)
        self._nexuses.clear()
        self.permit.luns.close()
        for connection in connections:
            if politely:
                connection.finish()
            else:
                connection.drop()
