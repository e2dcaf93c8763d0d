"""The order of commands over all connections of a session (RFC 7143 §4.2.2.1).

A PDU whose CmdSN is not due yet is held with all that belongs to it, until the gap before it has been closed, on whatever
connection. `due` hands out what has its turn then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.pdu import DataOut, Pdu, serial_less

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.session import Session

MASK = 0xFFFFFFFF


class Arrival(NamedTuple):
    """A PDU that was held, and where from."""

    connection: Connection
    pdu: Pdu
    damaged: bool = False


class _Turn:
    """What waits for the turn of one CmdSN."""

    __slots__ = ("aborted", "before", "own")

    def __init__(self) -> None:
        self.before: list[Arrival] = []  # immediate requests that act on all commands up to here
        self.own: list[Arrival] = []  # the PDU with this CmdSN, and Data-Out that has followed it
        self.aborted = False  # it counts as come, but is not to be carried out


class CommandOrder:
    """Says of each PDU of a session whether its turn has come, and keeps it when not."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._turns: dict[int, _Turn] = {}  # by CmdSN

    def __bool__(self) -> bool:
        """Whether anything is held."""
        return bool(self._turns)

    def take(self, cmd_sn: int) -> bool:
        """Account for a non-immediate PDU. True when it is to be handled; False when it is early, late, or aborted."""
        if cmd_sn != self._session.exp_cmd_sn or self._session.outstanding >= COMMAND_WINDOW:
            return False
        self._session.exp_cmd_sn = (cmd_sn + 1) & MASK
        turn = self._turns.pop(cmd_sn, None)
        if turn is None:
            return True
        self._session.look()
        return not turn.aborted

    def _expects(self, cmd_sn: int) -> bool:
        """Whether a CmdSN is in the window."""
        return not serial_less(cmd_sn, self._session.exp_cmd_sn) and not serial_less(self._session.max_cmd_sn, cmd_sn)

    def hold(self, connection: Connection, pdu: Pdu, cmd_sn: int, *, damaged: bool = False) -> None:
        """Keep a PDU that came too early; one outside the window, or a duplicate, is silently ignored."""
        if self._expects(cmd_sn):
            turn = self._turns.setdefault(cmd_sn, _Turn())
            if not turn.own:
                self._keep(turn.own, Arrival(connection, pdu, damaged))

    def hold_data(self, connection: Connection, pdu: DataOut, *, damaged: bool = False) -> None:
        """Keep a Data-Out PDU if it belongs to a command that is held."""
        for turn in self._turns.values():
            if turn.own and turn.own[0].connection is connection and turn.own[0].pdu.itt == pdu.itt:
                self._keep(turn.own, Arrival(connection, pdu, damaged))

    def postpone(self, connection: Connection, pdu: Pdu, cmd_sn: int) -> bool:
        """Keep an immediate request until all commands before it have come, if any has not (RFC 7143 §4.2.3.3).

        On a single connection where nothing is sent again, what has not come before it never will.
        """
        if len(self._session.connections) == 1 and not self._session.parameters.error_recovery_level:
            return False
        late = serial_less(self._session.exp_cmd_sn, cmd_sn) and self._expects((cmd_sn - 1) & MASK)
        if late:
            self._keep(self._turns.setdefault(cmd_sn, _Turn()).before, Arrival(connection, pdu))
        return late

    def _keep(self, where: list[Arrival], arrival: Arrival) -> None:
        arrival.pdu.data = bytes(arrival.pdu.data)  # the receive buffer goes on to other PDUs
        where.append(arrival)
        self._session.look()

    def abort_early(self, cmd_sn: int) -> bool:
        """Abort a command that has not come yet, or not had its turn: it counts as come. False when it cannot be."""
        if not self._expects(cmd_sn):
            return False
        self._turns.setdefault(cmd_sn, _Turn()).aborted = True
        self._session.look()
        return True

    def due(self) -> Iterator[Arrival]:
        """What was held and has its turn now, accounted for, with the connections that it came on."""
        while (turn := self._turns.get(self._session.exp_cmd_sn)) is not None:
            before, turn.before = turn.before, []
            yield from before
            if self._turns.get(self._session.exp_cmd_sn) is not turn:  # the session has ended with it
                return
            del self._turns[self._session.exp_cmd_sn]
            if turn.own or turn.aborted:
                self._session.exp_cmd_sn = (self._session.exp_cmd_sn + 1) & MASK
                self._session.look()
                yield from () if turn.aborted else turn.own
            else:
                self._session.look()

    def forget(self, connection: Connection) -> None:
        """A connection is gone: the initiator will send again, by another, what was held of it."""
        for turn in self._turns.values():
            turn.before = [held for held in turn.before if held.connection is not connection]
            turn.own = [held for held in turn.own if held.connection is not connection]
        self._turns = {sn: turn for sn, turn in self._turns.items() if turn.before or turn.own or turn.aborted}
        self._session.look()

    def clear(self) -> None:
        """The session is over."""
        self._turns.clear()
