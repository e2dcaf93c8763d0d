"""What a connection has to send: things on its backlog, packed when their turn comes (RFC 7143 §4.2.2.2, §11.4, §11.7)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from blockyard.iscsi.pdu import NO_TAG, DataIn, Pdu, ScsiResponse
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.scsi.task import Result, Status

if TYPE_CHECKING:
    from blockyard.iscsi.command import Command
    from blockyard.iscsi.connection import Connection

_MASK = 0xFFFFFFFF
_FINAL, _ACKNOWLEDGE, _STATUS = DataIn.final.mask, DataIn.acknowledge.mask, DataIn.has_status.mask


class Output(Protocol):
    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        """Pack what is due. False when `tx` is full and more is to come."""


class Single:
    """An answer of one PDU. `packed` is called when it has got its number."""

    __slots__ = ("advances", "packed", "pdu")

    def __init__(self, pdu: Pdu, *, advances: bool = True, packed: Callable[[], None] | None = None) -> None:
        self.pdu = pdu
        self.advances = advances  # whether it takes a StatSN of its own (RFC 7143 §4.2.2.2)
        self.packed = packed

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        connection.pack(tx, self.pdu, advances=self.advances)
        if self.packed is not None:
            self.packed()
        return True


class LoginOutput:
    """A login response, which has its numbers from the login phase and never a digest."""

    __slots__ = ("pdu",)

    def __init__(self, pdu: Pdu) -> None:
        self.pdu = pdu

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        tx.append(self.pdu.encode())
        return True


class Replica:
    """A PDU that has been sent before, with the number that it had (RFC 7143 §11.16)."""

    __slots__ = ("pdu",)

    def __init__(self, pdu: Pdu) -> None:
        self.pdu = pdu

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        connection.pack_again(tx, self.pdu)
        return True


class Completion:
    """The end of a SCSI command: its Data-In PDUs and its status.

    Where the connection keeps what it has sent (ErrorRecoveryLevel 1 and 2), status always has a PDU of its own, so that
    data and status are asked for again independently; the initiator is asked to acknowledge the data of each burst
    (the A bit, RFC 7143 §11.7.2), and `pieces` says how the data was cut, so that any part can be sent again.
    """

    __slots__ = ("acknowledged", "command", "data", "first_sn", "pieces", "response", "result", "sent", "ttt")

    def __init__(self, command: Command, result: Result) -> None:
        self.command = command
        self.result = result
        self.data = memoryview(result.data)[: command.task.read_length]
        self.first_sn = len(command.r2ts)  # DataSN: R2T and Data-In PDUs share one numbering (RFC 7143 §11.7.5)
        self.pieces: list[tuple[int, int, int]] = []  # Data-In PDUs sent: offset, length and flags, from first_sn on
        self.sent = 0  # bytes
        self.acknowledged = self.first_sn  # DataSN before which the initiator has everything
        self.ttt = NO_TAG  # by which it acknowledges
        self.response: ScsiResponse | None = None  # once it has been sent

    @property
    def data_sn(self) -> int:
        """DataSN of the next Data-In PDU."""
        return self.first_sn + len(self.pieces)

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        collapsed = False
        while self.sent < len(self.data):
            if tx.full:
                return False
            collapsed = self._emit_data(connection, tx)
        if not collapsed:
            self._emit_status(connection, tx)
        return True

    def _emit_status(self, connection: Connection, tx: TransmitBuffer) -> None:
        sense = self.result.sense
        response = ScsiResponse(len(sense).to_bytes(2, "big") + sense if sense else b"")
        response.final = True
        response.itt = self.command.itt
        response.status = self.result.status
        response.snack_tag = self.command.snack_tag
        response.exp_data_sn = self.data_sn
        self._set_residuals(response)
        if self.response is None:
            connection.pack(tx, response, advances=True)
        else:  # sent anew for an R-Data SNACK: all responses to a command have one StatSN (RFC 7143 §11.16.1)
            response.stat_sn = self.response.stat_sn
            connection.pack_again(tx, response)
        self.response = response
        if connection.retention is not None:
            connection.retention.keep(self, response)

    def _emit_data(self, connection: Connection, tx: TransmitBuffer) -> bool:
        """Pack the next Data-In PDU; True when it carries the status too (RFC 7143 §11.7.3)."""
        max_burst, retention = connection.max_burst, connection.retention
        left_in_burst = max_burst - self.sent % max_burst
        length = min(len(self.data) - self.sent, connection.peer_segment, left_in_burst)
        last = self.sent + length == len(self.data)
        flags = _FINAL if last or length == left_in_burst else 0
        if retention is None:
            if last and self.result.status == Status.GOOD and not self.command.task.data_out_length:
                flags |= _STATUS
        elif flags and not last:
            if self.ttt == NO_TAG:
                self.ttt = retention.new_tag()
            flags |= _ACKNOWLEDGE
        pdu = self._data_in(self.data_sn, self.sent, length, flags)
        collapsed = bool(flags & _STATUS)
        if collapsed:
            self._set_residuals(pdu)
        connection.pack(tx, pdu, advances=collapsed)
        self.pieces.append((self.sent, length, flags))
        self.sent += length
        return collapsed

    def _data_in(self, data_sn: int, offset: int, length: int, flags: int) -> DataIn:
        pdu = DataIn(self.data[offset : offset + length])
        pdu.flags = flags
        pdu.itt, pdu.ttt, pdu.data_sn, pdu.buffer_offset = self.command.itt, NO_TAG, data_sn, offset
        if flags & _ACKNOWLEDGE:
            pdu.ttt, pdu.lun = self.ttt, self.command.lun
        return pdu

    def replica(self, data_sn: int) -> DataIn:
        """The Data-In PDU with that DataSN as it was sent."""
        return self._data_in(data_sn, *self.pieces[data_sn - self.first_sn])

    @property
    def lun(self) -> int:
        return self.command.lun

    def restart(self, exp_data_sn: int) -> None:
        """Have all data from that DataSN on, and the status, sent on another connection (RFC 7143 §7.2.2)."""
        self.acknowledged = min(max(exp_data_sn, self.first_sn), self.data_sn)
        self.rewind(self.acknowledged)
        self.response = None

    def rewind(self, data_sn: int) -> None:
        """Have all data from that DataSN on, and the status, sent once more, cut as the connection now wants it."""
        del self.pieces[data_sn - self.first_sn :]
        self.sent = sum(self.pieces[-1][:2]) if self.pieces else 0

    def _set_residuals(self, pdu: ScsiResponse | DataIn) -> None:
        """Say in a new PDU how far the data moved falls short of, or exceeds, what was expected (RFC 7143 §11.4.5)."""
        task = self.command.task
        reading = len(self.result.data) - task.read_length
        writing = self.result.expected - task.data_out_length
        excess = writing if task.data_out_length or not self.command.read else reading
        if excess:
            pdu.overflow = excess > 0
            pdu.underflow = excess < 0
            pdu.residual = min(abs(excess), _MASK)  # a CDB can ask for more than the field can tell
        if task.data_out_length and task.read_length and isinstance(pdu, ScsiResponse):
            pdu.bidi_overflow = reading > 0
            pdu.bidi_underflow = reading < 0
            pdu.bidi_residual = min(abs(reading), _MASK)
