"""How a session gets the data of its commands that write (RFC 7143 §4.2.5.2, §11.7, §11.8).

Data comes immediate in the command, unsolicited in Data-Out PDUs behind it, and solicited by R2Ts, in
that order and without gaps: DataPDUInOrder and DataSequenceInOrder are Yes. A session asks for so much at a
time as it cares to hold in memory; commands beyond that wait for their first R2T.

With ErrorRecoveryLevel 0 a PDU out of place fails its command. Above that it was lost, or damaged, and is recovered
within the command (§7.8): the rest of its sequence is let pass, and what is missing is asked for by another R2T.
As sequences come in order there is one R2T outstanding then (§13.19), so that this is the only one to be repeated.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from blockyard.iscsi.command import Command, Sequence
from blockyard.iscsi.pdu import NO_TAG, DataOut, RejectReason, ScsiCommand, serial_less
from blockyard.scsi import sense
from blockyard.scsi.task import Result

if TYPE_CHECKING:
    from blockyard.iscsi.session import Session

SOLICITED_LIMIT = 16 << 20  # bytes of Data-Out that a session is asked for at a time; more R2Ts wait
MAX_RECOVERIES = 16  # R2Ts for what was lost that one command is worth
PATIENCE = (
    4  # looks at the clock, mostly seconds, that a sequence is waited for before it counts as lost (RFC 7143 §7.1.4.1)
)


class DataOutCollector:
    """Collects the Data-Out of one session's commands."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._waiting: deque[Command] = deque()  # for their first R2T
        self._soliciting = 0  # bytes of buffers that solicited data is collected in
        self._next_ttt = 0

    def new_tag(self) -> int:
        """A target transfer tag that no other PDU of the session has now (RFC 7143 §11.7.4)."""
        tag = self._next_ttt
        self._next_ttt = (tag + 1) % NO_TAG
        return tag

    # ---- input

    def begin(self, command: Command, pdu: ScsiCommand) -> None:
        """Take the command PDU with its immediate data, and go on with it."""
        if pdu.write and not pdu.final:
            command.unsolicited = Sequence(
                min(self._session.parameters.first_burst_length, command.task.data_out_length)
            )
        if pdu.data:
            command.store(memoryview(pdu.data))
        self.advance(command)

    def refuse(self, pdu: ScsiCommand) -> Result | None:
        """What to answer to data that was not agreed upon at login (RFC 7143 §11.4.7.2, §13.10, §13.11, §13.14)."""
        parameters = self._session.parameters
        if pdu.data:
            limit = min(parameters.first_burst_length, pdu.edtl) if pdu.write else 0
            if len(pdu.data) > limit or not parameters.immediate_data:
                return sense.UNEXPECTED_UNSOLICITED_DATA
        if parameters.initial_r2t and pdu.write and not pdu.final:
            return sense.UNEXPECTED_UNSOLICITED_DATA
        return None

    def take(self, command: Command, pdu: DataOut, *, damaged: bool = False) -> RejectReason | None:
        """Take a Data-Out PDU of a command; the reason when it is to be rejected."""
        sequence = command.unsolicited if pdu.ttt == NO_TAG else next(iter(command.solicited), None)
        if sequence is None or sequence.ttt != pdu.ttt:  # recovery leaves PDUs behind that nobody waits for any more
            return None if self._recovers else RejectReason.INVALID_PDU_FIELD
        if self._recovers:
            if serial_less(pdu.data_sn, sequence.data_sn):
                return None
            sequence.broken = sequence.broken or damaged or pdu.data_sn != sequence.data_sn
            sequence.data_sn = pdu.data_sn
            damaged = False
        command.waited = 0
        if not sequence.broken:
            failure = sense.PROTOCOL_SERVICE_CRC_ERROR if damaged else self._misplaced(command, sequence, pdu)
            command.failure = command.failure or failure
            command.store(memoryview(pdu.data))
        sequence.data_sn += 1
        if pdu.final:
            self._end(command, sequence)
        return None

    @property
    def _recovers(self) -> bool:
        return self._session.parameters.error_recovery_level > 0

    def _misplaced(self, command: Command, sequence: Sequence, pdu: DataOut) -> Result | None:
        """The failure of a command whose Data-Out breaks the rules (RFC 7143 §11.7)."""
        end = pdu.buffer_offset + len(pdu.data)
        short = pdu.final and sequence.ttt != NO_TAG and end < sequence.end
        if pdu.data_sn != sequence.data_sn or pdu.buffer_offset != command.received or end > sequence.end or short:
            return sense.INCORRECT_AMOUNT_OF_DATA
        return None

    def _end(self, command: Command, sequence: Sequence) -> None:
        """A sequence is at its end, or has been given up: what it lacks is asked for again (RFC 7143 §7.8)."""
        if sequence is command.unsolicited:
            command.unsolicited = None
        else:
            command.solicited.popleft()
            if command.received < sequence.end and command.failure is None:
                command.asked = command.received
                command.recoveries += 1
                if sequence.broken and command.recoveries > MAX_RECOVERIES:
                    command.failure = sense.PROTOCOL_SERVICE_CRC_ERROR
            if command.failure is None:
                self._continue(command)
        self.advance(command)

    def tick(self) -> None:
        """Give up the sequences that nothing has come of for a while: something was lost on the way, or the R2T.

        Each time more patience is had with that command: its connection may just be slow.
        """
        for command in list(self._session.commands.values()):
            sequence = command.unsolicited or next(iter(command.solicited), None)
            if sequence is None or command.connection is None or command.connection.backlog:
                continue
            command.waited += 1
            if command.waited >= PATIENCE * (1 + command.recoveries):
                command.waited = 0
                self._end(command, sequence)

    def advance(self, command: Command) -> None:
        """Go on with a command as far as its data allows: wait, ask for more, run it, or end it."""
        if command.unsolicited is not None or command.solicited:
            return
        if command.failure is not None:
            self._session.complete(command, command.failure)
        elif command.received < command.wanted:
            if not command.charged:
                command.asked = command.received
                self._waiting.append(command)
                self._send_first()
        else:
            self._session.run(command)

    # ---- R2Ts

    def _send_first(self) -> None:
        """Send the first R2Ts of the commands that wait for them, as far as the memory for solicited data goes."""
        while self._waiting:
            command = self._waiting[0]
            if self._soliciting and self._soliciting + command.wanted > SOLICITED_LIMIT:
                # Those that hold the memory may wait in the task set for the oldest command: that one gets its data.
                command = next(c for c in self._session.commands.values() if c.collecting)
                if command not in self._waiting:
                    return
            self._soliciting += command.wanted
            command.charged = command.wanted
            self._waiting.remove(command)
            self._continue(command)

    def _continue(self, command: Command) -> None:
        """Send as many further R2Ts for one command as may be outstanding (RFC 7143 §11.8)."""
        assert command.connection is not None
        parameters = self._session.parameters
        while command.asked < command.wanted and len(command.solicited) < parameters.max_outstanding_r2t:
            length = min(parameters.max_burst_length, command.wanted - command.asked)
            ttt = self.new_tag()
            command.solicited.append(Sequence(command.asked + length, ttt))
            command.r2ts.append((ttt, command.asked, length))
            command.connection.send(command.r2t(len(command.r2ts) - 1), advances=False)
            command.asked += length

    def suspend(self, command: Command) -> None:
        """The connection of a command is gone, and what was under way on it."""
        if not command.collecting:
            return
        command.unsolicited = None
        command.solicited.clear()
        if command in self._waiting:
            self._waiting.remove(command)
        if not command.collecting:  # all that it waited for was data to pass which it does not want
            self.advance(command)

    def resume(self, command: Command) -> None:
        """The command is allegiant to another connection: ask for all data there that has not come."""
        command.asked = command.received
        command.waited = 0
        if not command.collecting:
            return  # it runs
        if command.charged and command.failure is None:
            self._continue(command)
        else:
            self.advance(command)

    def forget(self, command: Command) -> None:
        """The command is over: what it held is free for the next."""
        if command in self._waiting:
            self._waiting.remove(command)
        if command.charged:
            self._soliciting -= command.charged
            command.charged = 0
            self._send_first()

    def clear(self) -> None:
        """Ask for nothing more: the session is over."""
        self._waiting.clear()
