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


class Completion:
    """The end of a SCSI command: its Data-In PDUs and its status."""

    __slots__ = ("command", "data", "data_sn", "result", "sent")

    def __init__(self, command: Command, result: Result) -> None:
        self.command = command
        self.result = result
        self.data = memoryview(result.data)[: command.task.read_length]
        self.sent = 0
        self.data_sn = len(command.r2ts)  # R2T and Data-In PDUs share one numbering (RFC 7143 §11.7.5)

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        collapsed = False
        while self.sent < len(self.data):
            if tx.full:
                return False
            collapsed = self._emit_data(connection, tx)
        if not collapsed:
            response = ScsiResponse(
                itt=self.command.itt,
                final=True,
                status=self.result.status,
                exp_data_sn=self.data_sn,
                data=len(self.result.sense).to_bytes(2, "big") + self.result.sense if self.result.sense else b"",
            )
            self._set_residuals(response)
            connection.pack(tx, response, advances=True)
        return True

    def _emit_data(self, connection: Connection, tx: TransmitBuffer) -> bool:
        """Pack the next Data-In PDU; True when it carries the status too (RFC 7143 §11.7.3)."""
        max_burst = connection.max_burst
        left_in_burst = max_burst - self.sent % max_burst
        length = min(len(self.data) - self.sent, connection.peer_segment, left_in_burst)
        last = self.sent + length == len(self.data)
        pdu = DataIn(
            itt=self.command.itt,
            ttt=NO_TAG,
            final=last or length == left_in_burst,
            data_sn=self.data_sn,
            buffer_offset=self.sent,
            data=self.data[self.sent : self.sent + length],
        )
        collapse = last and self.result.status == Status.GOOD and not self.command.task.data_out_length
        if collapse:
            pdu.has_status = True
            self._set_residuals(pdu)
        connection.pack(tx, pdu, advances=collapse)
        self.sent += length
        self.data_sn += 1
        return collapse

    def _set_residuals(self, pdu: ScsiResponse | DataIn) -> None:
        """RFC 7143 §11.4.5: how far the data moved falls short of, or exceeds, what the initiator expected."""
        task = self.command.task
        reading = len(self.result.data) - task.read_length
        writing = self.result.expected - task.data_out_length
        excess = writing if task.data_out_length or not self.command.read else reading
        pdu.overflow = excess > 0
        pdu.underflow = excess < 0
        pdu.residual = min(abs(excess), _MASK)  # a CDB can ask for more than the field can tell
        if task.data_out_length and task.read_length and isinstance(pdu, ScsiResponse):
            pdu.bidi_overflow = reading > 0
            pdu.bidi_underflow = reading < 0
            pdu.bidi_residual = min(abs(reading), _MASK)
