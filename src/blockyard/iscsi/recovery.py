"""Recovery within a connection: what was sent is kept until it is acknowledged, and sent again on demand (RFC 7143 §7, §11.16).

With ErrorRecoveryLevel 1 and 2 a connection has a `Retention`: every PDU that took a StatSN, and the data of commands,
until ExpStatSN says that the initiator has got it. A SNACK asks for some of it:

    Data/R2T  the Data-In or R2T PDUs of one command, as they were
    Status    PDUs by StatSN, as they were
    DataACK   nothing: it acknowledges data of a command whose status is still to come
    R-Data    all data of a command that is not acknowledged, cut anew, and a response that carries the SNACK tag

What a SNACK asks for and was never sent, or has been acknowledged, is a protocol error.

Memory. The command window bounds what has not been sent; what has been sent and is not acknowledged is on its way,
as long as the initiator acknowledges: when it has nothing else to say it is asked to, by a NOP-In. For one that
does not answer there are limits, beyond which the oldest is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from blockyard.iscsi.login import COMMAND_WINDOW
from blockyard.iscsi.output import Completion, Replica
from blockyard.iscsi.pdu import NO_TAG, RejectReason, ScsiResponse, SnackRequest, SnackType, serial_less
from blockyard.iscsi.transmit import TransmitBuffer

if TYPE_CHECKING:
    from blockyard.iscsi.connection import Connection
    from blockyard.iscsi.pdu import Pdu

MAX_STATUSES = 4 * COMMAND_WINDOW  # PDUs kept for one connection
MAX_DATA = 64 << 20  # bytes of data kept for one connection beside
_MASK = 0xFFFFFFFF


class Retention:
    """What a connection has sent and the initiator has not acknowledged. `new_tag` makes target transfer tags."""

    def __init__(self, new_tag: Callable[[], int]) -> None:
        self.new_tag = new_tag
        self.statuses: dict[int, Pdu] = {}  # by StatSN, oldest first
        self._completions: dict[int, Completion] = {}  # of these, by StatSN
        self._bytes = 0
        self._oldest: int | None = None  # StatSN that was the oldest at the last look

    def add(self, pdu: Pdu) -> None:
        """A PDU has got a StatSN of its own."""
        self.statuses[int.from_bytes(pdu.bhs[24:28], "big")] = pdu
        if len(self.statuses) > MAX_STATUSES:
            self._forget(next(iter(self.statuses)))

    def keep(self, completion: Completion, response: ScsiResponse) -> None:
        """The response to a command has been sent, perhaps once more."""
        stat_sn = response.stat_sn
        self.statuses[stat_sn] = response
        if stat_sn not in self._completions:
            self._completions[stat_sn] = completion
            self._bytes += len(completion.data)
            while self._bytes > MAX_DATA and len(self._completions) > 1:
                self._drop_data(next(iter(self._completions)))

    def acknowledge(self, exp_stat_sn: int) -> None:
        """The initiator has everything before this StatSN."""
        while self.statuses and serial_less(stat_sn := next(iter(self.statuses)), exp_stat_sn):
            self._forget(stat_sn)

    def _forget(self, stat_sn: int) -> None:
        del self.statuses[stat_sn]
        if stat_sn in self._completions:
            self._drop_data(stat_sn)

    def _drop_data(self, stat_sn: int) -> None:
        self._bytes -= len(self._completions.pop(stat_sn).data)

    @property
    def completions(self) -> Iterator[Completion]:
        """The commands that have ended, newest first."""
        return reversed(self._completions.values())

    def stale(self) -> bool:
        """Whether nothing has been acknowledged since the last look, though something was to be."""
        before, self._oldest = self._oldest, next(iter(self.statuses), None)
        return before is not None and before == self._oldest


class _DataReplay:
    """Data-In PDUs of a command, sent once more."""

    def __init__(self, completion: Completion, first: int, end: int) -> None:
        self._completion = completion
        self._next = first
        self._end = end

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        while self._next < min(self._end, self._completion.data_sn):  # it may have been rewound meanwhile
            if tx.full:
                return False
            connection.pack(tx, self._completion.replica(self._next), advances=False)
            self._next += 1
        return True


def snack(connection: Connection, retention: Retention, pdu: SnackRequest) -> RejectReason | None:
    """Carry out a SNACK request; the reason when it is to be rejected (RFC 7143 §11.16)."""
    if pdu.type == SnackType.STATUS:
        return _resend_statuses(connection, retention, pdu)
    if pdu.type == SnackType.DATA_ACK:
        found = next((c for c in connection.completions() if c.ttt == pdu.snack_tag != NO_TAG), None)
        if found is None or not found.acknowledged <= pdu.beg_run <= found.data_sn or found.command.lun != pdu.lun:
            return RejectReason.INVALID_DATA_ACK
        found.acknowledged = pdu.beg_run
        return None
    found = next((c for c in connection.completions() if c.command.itt == pdu.itt), None)
    if pdu.type == SnackType.DATA:
        return _resend_r2ts(connection, pdu) if found is None else _resend_data(connection, found, pdu)
    if pdu.type == SnackType.R_DATA:
        return _resend_all(connection, found, pdu)
    return RejectReason.PROTOCOL_ERROR


def _run(pdu: SnackRequest, begin: int, end: int) -> range | None:
    """The numbers that a SNACK asks for: a part of `begin` to `end`; None when it is not."""
    length = pdu.run_length or end - pdu.beg_run
    if not begin <= pdu.beg_run or length < 0 or pdu.beg_run + length > end:
        return None
    return range(pdu.beg_run, pdu.beg_run + length)


def _resend_statuses(connection: Connection, retention: Retention, pdu: SnackRequest) -> RejectReason | None:
    length = pdu.run_length or (connection.stat_sn - pdu.beg_run) & _MASK
    wanted = [(pdu.beg_run + index) & _MASK for index in range(min(length, MAX_STATUSES + 1))]
    if not all(stat_sn in retention.statuses for stat_sn in wanted):
        return RejectReason.PROTOCOL_ERROR
    for stat_sn in wanted:
        connection.put(Replica(retention.statuses[stat_sn]))
    return None


def _resend_data(connection: Connection, completion: Completion, pdu: SnackRequest) -> RejectReason | None:
    run = _run(pdu, completion.acknowledged, completion.data_sn)
    if run is None:
        return RejectReason.PROTOCOL_ERROR
    connection.put(_DataReplay(completion, run.start, run.stop))
    return None


def _resend_r2ts(connection: Connection, pdu: SnackRequest) -> RejectReason | None:
    command = connection.command(pdu.itt)
    run = None if command is None else _run(pdu, 0, len(command.r2ts))
    if command is None or run is None:
        return RejectReason.PROTOCOL_ERROR
    for number in run:
        connection.send(command.r2t(number), advances=False)
    return None


def _resend_all(connection: Connection, completion: Completion | None, pdu: SnackRequest) -> RejectReason | None:
    command = connection.command(pdu.itt) if completion is None else completion.command
    if command is None:
        return RejectReason.PROTOCOL_ERROR
    command.snack_tag = pdu.snack_tag
    if completion is not None:  # else nothing has been sent yet
        completion.rewind(completion.acknowledged)
        if completion not in connection.backlog:
            connection.put(completion)
    return None
