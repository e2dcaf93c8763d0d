"""The target's side of one connection, without a socket (RFC 7143 §4.2, §7.2).

Theory of operation. Bytes go in by `receive`, one PDU at a time; bytes come out by `fill`, which
packs what is due into a TransmitBuffer until that is full. In between stand three states:

    LOGIN ──► FULL_FEATURE ──► CLOSING ──► (the owner closes the socket)

LOGIN is iscsi/login.py's matter. In FULL_FEATURE every PDU type has one method, found by the table
at the end of the class; what it has to say is put on `backlog` and gets its numbers (StatSN,
ExpCmdSN, MaxCmdSN) only when it is packed, so that answers may come in any order. Two rules:

* A fault in one PDU rejects that PDU; only lost framing or a protocol error that leaves the two
  sides in disagreement closes the connection (ErrorRecoveryLevel 0, RFC 7143 §7.1.4).
* Nothing here blocks, and nothing raises for what a peer may have sent: `receive` closes instead.

READ and WRITE commands in their usual form never come here: worker/fastpath.py answers them out of
the same state. This module is the whole truth, that one a shortcut.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from blockyard.iscsi.login import LoginState, TargetLogin
from blockyard.iscsi.negotiation import NegotiationError, TextAccumulator
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    NO_TAG,
    R2T,
    AhsType,
    AsyncEvent,
    AsyncMessage,
    Buffer,
    DataIn,
    DataOut,
    LoginRequest,
    LoginStatus,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    LogoutResponseCode,
    NopIn,
    NopOut,
    Opcode,
    Pdu,
    PduError,
    Reject,
    RejectReason,
    ScsiCommand,
    ScsiResponse,
    SnackRequest,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
    TextRequest,
    TextResponse,
    decode,
    parse_ahs,
    pdu_length,
)
from blockyard.iscsi.session import MASK, MAX_IMMEDIATE, Command, Session
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.scsi import sense
from blockyard.scsi.task import Result, Status, Task

log = logging.getLogger(__name__)

_TEXT_TAG = 1  # target transfer tag of a text exchange: a connection has one at a time (RFC 7143 §11.10.4)
LOGIN_DATA_LIMIT = 8192  # MaxRecvDataSegmentLength before it is negotiated (RFC 7143 §13.12)


class State(Enum):
    LOGIN = "login"
    FULL_FEATURE = "full feature"
    CLOSING = "closing"  # nothing more is taken in; closed once all output has left


class Service(Protocol):
    """What a connection asks of the process that it lives in."""

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        """A login phase on `portal` ("ADDR:PORT") of `peer`; `attach` finds or makes the session that it enters."""

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        """The answer to SendTargets for one target, or for all of them (RFC 7143 App. C)."""


class _Output(Protocol):
    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        """Pack what is due. False when `tx` is full and more is to come."""


class _Single:
    """An answer of one PDU."""

    __slots__ = ("advances", "pdu")

    def __init__(self, pdu: Pdu, *, advances: bool = True) -> None:
        self.pdu = pdu
        self.advances = advances  # whether it takes a StatSN of its own (RFC 7143 §4.2.2.2)

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        connection.pack(tx, self.pdu, advances=self.advances)
        return True


class _LoginOutput:
    """A login response, which has its numbers from the login phase and never a digest."""

    __slots__ = ("pdu",)

    def __init__(self, pdu: Pdu) -> None:
        self.pdu = pdu

    def emit(self, connection: Connection, tx: TransmitBuffer) -> bool:
        tx.append(self.pdu.encode())
        return True


class _Completion:
    """The end of a SCSI command: its Data-In PDUs and its status."""

    __slots__ = ("command", "data", "data_sn", "result", "sent")

    def __init__(self, command: Command, result: Result) -> None:
        self.command = command
        self.result = result
        self.data = memoryview(result.data)[: command.task.read_length]
        self.sent = 0
        self.data_sn = 0

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
                exp_data_sn=self.data_sn + self.command.r2t_sn,
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
        pdu.residual = min(abs(excess), MASK)  # a CDB can ask for more than the field can tell
        if task.data_out_length and task.read_length and isinstance(pdu, ScsiResponse):
            pdu.bidi_overflow = reading > 0
            pdu.bidi_underflow = reading < 0
            pdu.bidi_residual = min(abs(reading), MASK)


class Connection:
    """One connection of one session, from its first byte to its last.

    `portal` is the address that it came in on, `peer` where it came from, both "ADDR:PORT". `wake` is called
    when there is output that no `receive` has caused; `on_drop` when the connection must end at once.
    """

    def __init__(self, service: Service, portal: str, peer: str) -> None:
        self.portal = portal
        self.peer = peer
        self.state = State.LOGIN
        self.dropped = False  # to be closed at once, whatever has not been sent
        self.session: Session | None = None
        self.backlog: deque[_Output] = deque()
        self.wake: Callable[[], None] = lambda: None
        self.on_drop: Callable[[], None] = lambda: None
        self.stat_sn = 0
        self.header_digest = False
        self.data_digest = False
        self.segment = LOGIN_DATA_LIMIT  # the longest data segment that the peer may send
        self.peer_segment = LOGIN_DATA_LIMIT  # the longest that it takes
        self.max_burst = LOGIN_DATA_LIMIT
        self._service = service
        self._login = service.new_login(portal, peer, self._attach)
        self._text = TextAccumulator()
        self._ping_tag: int | None = None  # TTT of the NOP-In that waits for its answer
        self._ping_count = 0

    def __str__(self) -> str:
        return f"{self.peer} on {self.portal}"

    # ---- input

    def receive(self, buffer: Buffer, at: int, end: int) -> int:
        """Take the PDU at `buffer[at:end]`; return where the next begins, or `at` when this one is not all there."""
        if end - at < BHS_LENGTH or self.state is State.CLOSING:
            return at
        if int.from_bytes(buffer[at + 5 : at + 8], "big") > self.segment:
            self._fail(f"a data segment is longer than {self.segment} bytes")
            return at
        after = at + pdu_length(buffer, at, header_digest=self.header_digest, data_digest=self.data_digest)
        if after > end:
            return at
        try:
            pdu = decode(buffer, at, header_digest=self.header_digest, data_digest=self.data_digest)
        except PduError as error:
            if error.pdu is None:
                self._fail(str(error))
                return at
            self._damaged(error.pdu, error.reason)
            return after
        self._take(pdu)
        return after

    def _take(self, pdu: Pdu) -> None:
        if self.state is State.LOGIN:
            self._log_in(pdu)
            return
        assert self.session is not None
        if not isinstance(pdu, _NUMBERED) or pdu.immediate:
            self._handle(pdu)
        else:
            if self.session.take(pdu.cmd_sn):
                self._handle(pdu)
            else:
                self.session.hold(pdu.cmd_sn, pdu)
            while self.state is State.FULL_FEATURE and (held := self.session.next_held()) is not None:
                self._handle(held)

    def _handle(self, pdu: Pdu) -> None:
        handler = _HANDLERS.get(pdu.opcode)
        if handler is None:
            self.reject(pdu, RejectReason.COMMAND_NOT_SUPPORTED)
        else:
            handler(self, pdu)

    def _damaged(self, pdu: Pdu, reason: RejectReason) -> None:
        """A data digest does not match (RFC 7143 §7.8): the PDU is rejected, and the command that it belongs to fails."""
        log.warning("%s: data digest error", self)
        self.reject(pdu, reason)
        assert self.session is not None
        if isinstance(pdu, ScsiCommand) and (pdu.immediate or self.session.take(pdu.cmd_sn)):
            self._scsi_command(pdu, sense.PROTOCOL_SERVICE_CRC_ERROR)
        elif isinstance(pdu, DataOut):
            self._data_out(pdu, sense.PROTOCOL_SERVICE_CRC_ERROR)

    # ---- output

    def fill(self, tx: TransmitBuffer) -> bool:
        """Pack what is due into `tx`. True when all of it is there, False when `tx` is full."""
        while self.backlog:
            if tx.full or not self.backlog[0].emit(self, tx):
                return False
            self.backlog.popleft()
        return True

    def pack(self, tx: TransmitBuffer, pdu: Pdu, *, advances: bool) -> None:
        """Give a PDU its numbers and put it into `tx`."""
        pdu.bhs[24:28] = self.stat_sn.to_bytes(4, "big")
        if self.session is not None:
            pdu.bhs[28:32] = self.session.exp_cmd_sn.to_bytes(4, "big")
            pdu.bhs[32:36] = self.session.max_cmd_sn.to_bytes(4, "big")
        if advances:
            self.stat_sn = (self.stat_sn + 1) & MASK
        tx.append(pdu.encode(header_digest=self.header_digest, data_digest=self.data_digest))

    def _send(self, pdu: Pdu, *, advances: bool = True) -> None:
        self.backlog.append(_Single(pdu, advances=advances))

    def reject(self, pdu: Pdu, reason: RejectReason) -> None:
        """Reject a PDU, sending its header back (RFC 7143 §11.17)."""
        log.info("%s: PDU with opcode 0x%02x rejected: %s", self, pdu.opcode, reason.name)
        self._send(Reject(itt=NO_TAG, final=True, reason=reason, data=bytes(pdu.bhs) + pdu.ahs))

    # ---- life and death

    def drop(self) -> None:
        """End the connection at once; what has not been sent is lost."""
        self.state = State.CLOSING
        self.dropped = True
        self.backlog.clear()
        self.on_drop()

    def _fail(self, why: str) -> None:
        log.warning("%s: connection dropped: %s", self, why)
        self.drop()

    def closed(self) -> None:
        """The socket is gone: for its owner to say. The session ends with its connection (DefaultTime2Retain=0)."""
        self.state = State.CLOSING
        self.backlog.clear()
        if self.session is not None and self.session.connection is self:
            self.session.connection = None
            self.session.close()

    def request_logout(self, seconds: int) -> None:
        """Ask the initiator to log out (RFC 7143 §11.9.1, event 1); the owner drops what is left after the time."""
        if self.state is State.FULL_FEATURE:
            event = AsyncEvent.LOGOUT_REQUESTED
            self._send(AsyncMessage(lun=0, itt=NO_TAG, final=True, event=event, parameter3=seconds))
            self.wake()

    def ping(self) -> bool:
        """Ask whether the peer is alive (RFC 7143 §11.19). False when the last question has not been answered."""
        if self.state is not State.FULL_FEATURE:
            return True
        if self._ping_tag is not None:
            return False
        self._ping_count = (self._ping_count + 1) & 0x7FFFFFFF
        self._ping_tag = self._ping_count
        self._send(NopIn(itt=NO_TAG, ttt=self._ping_tag, final=True), advances=False)
        self.wake()
        return True

    # ---- login (RFC 7143 §6)

    def _log_in(self, pdu: Pdu) -> None:
        if not isinstance(pdu, LoginRequest):
            self._fail(f"the opcode 0x{pdu.opcode:02x} came before the login was over")
            return
        for response in self._login.receive(pdu):
            self.backlog.append(_LoginOutput(response))
        self.stat_sn = self._login.next_stat_sn
        if self._login.state is LoginState.FULL_FEATURE:
            self._enter_full_feature()
        elif self._login.state is LoginState.FAILED:
            log.warning("%s: login failed: %s", self, self._login.failure)
            self.state = State.CLOSING

    def _attach(self, login: TargetLogin) -> int | LoginStatus:
        if login.parameters.session_type == "Discovery":
            self.session = Session(None, login, 1)
        else:
            found = login.target.attach(login)
            if isinstance(found, LoginStatus):
                return found
            self.session = found
        self.session.connection = self
        return self.session.tsih

    def _enter_full_feature(self) -> None:
        parameters = self._login.parameters
        self.state = State.FULL_FEATURE
        self.max_burst = parameters.max_burst_length
        self.segment = parameters.max_recv_data_segment_length
        self.peer_segment = parameters.peer_max_recv_data_segment_length
        # Digests hold from the first full feature PDU on; the last login response is packed without (RFC 7143 §13.1).
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        log.info("%s: %s logged in to %s", self, parameters.initiator_name, parameters.target_name or "discovery")

    # ---- SCSI commands (RFC 7143 §11.3)

    def _scsi_command(self, pdu: ScsiCommand, failure: Result | None = None) -> None:
        session = self.session
        assert session is not None
        if session.node is None:
            self.reject(pdu, RejectReason.PROTOCOL_ERROR)  # a discovery session has no SCSI (RFC 7143 §4.3)
            return
        if pdu.itt in session.commands:
            self.reject(pdu, RejectReason.TASK_IN_PROGRESS)
            return
        if pdu.immediate and len(session.commands) - session.outstanding >= MAX_IMMEDIATE:
            self.reject(pdu, RejectReason.TOO_MANY_IMMEDIATE)
            return
        try:
            task = self._make_task(session, pdu)
        except ValueError as error:
            log.warning("%s: %s", self, error)
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        command = Command(pdu, task)
        session.add(command)
        command.failure = failure or self._unexpected_data(pdu) or task.nexus.unit.begin(task)
        command.wanted = 0 if command.failure else min(task.expected, task.data_out_length)
        command.unsolicited = pdu.write and not pdu.final
        command.store(0, memoryview(pdu.data))
        command.received = len(pdu.data)
        self._after_data(command)

    def _make_task(self, session: Session, pdu: ScsiCommand) -> Task:
        """The SCSI task that a command PDU carries. Raises ValueError for an AHS that cannot be understood."""
        segments = parse_ahs(pdu.ahs) if pdu.ahs else {}
        cdb = pdu.cdb + segments.get(AhsType.EXTENDED_CDB, b"")
        read_length = pdu.edtl if pdu.read and not pdu.write else 0
        if pdu.read and pdu.write:
            bidirectional = segments.get(AhsType.BIDI_READ_LENGTH, b"")
            if len(bidirectional) != 4:
                raise ValueError("a bidirectional command has no read data length (RFC 7143 §11.2.2.4)")
            read_length = int.from_bytes(bidirectional, "big")
        return Task(
            session.nexus(pdu.lun),
            cdb,
            attribute=pdu.attribute,
            data_out_length=pdu.edtl if pdu.write else 0,
            read_length=read_length,
        )

    def _unexpected_data(self, pdu: ScsiCommand) -> Result | None:
        """Data that was not agreed upon at login (RFC 7143 §11.4.7.2, §13.10, §13.11, §13.14)."""
        assert self.session is not None
        parameters = self.session.parameters
        limit = min(parameters.first_burst_length, pdu.edtl) if pdu.write else 0
        early = len(pdu.data) > limit or (pdu.data and not parameters.immediate_data)
        if early or (pdu.write and not pdu.final and parameters.initial_r2t):
            return sense.UNEXPECTED_UNSOLICITED_DATA
        return None

    def _after_data(self, command: Command) -> None:
        """Go on with a command as far as its data allows: wait, ask for more, run it, or end it."""
        assert self.session is not None
        if command.unsolicited or command.solicitations:
            return
        if command.failure is not None:
            self.complete(command, command.failure)
        elif command.received < command.wanted:
            if not command.charged:
                self.session.solicit(command)
        else:
            self._run(command)

    def _run(self, command: Command) -> None:
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
        if self.session is None:
            return
        self.session.remove(command)
        if command.aborted is not None:
            command.aborted()
        elif self.state is State.FULL_FEATURE:
            self.backlog.append(_Completion(command, result))
        self.wake()

    def send_r2t(self, command: Command, ttt: int, offset: int, length: int) -> None:
        """Ask for `length` bytes of a command's data from `offset` on (RFC 7143 §11.8)."""
        pdu = R2T(
            lun=command.lun, itt=command.itt, ttt=ttt, final=True,
            r2t_sn=command.r2t_sn, buffer_offset=offset, desired_length=length,
        )  # fmt: skip
        command.r2t_sn += 1
        self._send(pdu, advances=False)

    def _data_out(self, pdu: DataOut, failure: Result | None = None) -> None:
        session = self.session
        assert session is not None
        command = session.commands.get(pdu.itt)
        if command is None:
            return  # of a command that was aborted: its data may be under way still (RFC 7143 §4.2.3.3)
        solicited = command.solicitations[0] if command.solicitations else None
        if pdu.ttt == NO_TAG and command.unsolicited:
            expected_sn, limit = (
                command.data_sn,
                min(session.parameters.first_burst_length, command.task.data_out_length),
            )
            command.data_sn += 1
        elif solicited is not None and pdu.ttt == solicited.ttt:
            expected_sn, limit = solicited.data_sn, solicited.end
            solicited.data_sn += 1
        else:
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        end = pdu.buffer_offset + len(pdu.data)
        if (
            pdu.data_sn != expected_sn
            or pdu.buffer_offset != command.received
            or end > limit
            or (pdu.final and solicited is not None and end < limit)
        ):
            failure = failure or sense.INCORRECT_AMOUNT_OF_DATA
        command.failure = command.failure or failure
        command.store(command.received, memoryview(pdu.data))
        command.received += len(pdu.data)
        if pdu.final:
            self._end_of_sequence(command)

    def _end_of_sequence(self, command: Command) -> None:
        assert self.session is not None
        if command.unsolicited:
            command.unsolicited = False
        else:
            command.solicitations.popleft()
            if command.failure is None:
                self.session.continue_solicited(command)
        self._after_data(command)

    # ---- everything else

    def _nop_out(self, pdu: NopOut) -> None:
        """RFC 7143 §11.18: a ping is echoed; an answer to ours is taken note of."""
        if pdu.ttt != NO_TAG and pdu.ttt == self._ping_tag:
            self._ping_tag = None
        if pdu.itt != NO_TAG:
            echo = bytes(pdu.data[: self.peer_segment])
            self._send(NopIn(lun=pdu.lun, itt=pdu.itt, ttt=NO_TAG, final=True, data=echo))

    def _text_request(self, pdu: TextRequest) -> None:
        """RFC 7143 §11.10, §11.11: text both ways may take several PDUs; a new request forgets an unfinished one."""
        if pdu.ttt == NO_TAG:
            self._text.reset()
        elif pdu.ttt != _TEXT_TAG:
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        try:
            pairs = self._text.take(pdu.data, continued=pdu.continued)
            self._text.put(self._answer_text(pairs or []))
        except NegotiationError as error:
            log.warning("%s: %s", self, error)
            self._text.reset()
            self.reject(pdu, RejectReason.PROTOCOL_ERROR)
            return
        segment, more = self._text.next_segment(self.peer_segment)
        final = pdu.final and not more
        tag = NO_TAG if final else _TEXT_TAG
        self._send(TextResponse(lun=pdu.lun, itt=pdu.itt, ttt=tag, final=final, continued=more, data=segment))

    def _answer_text(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        negotiated = [pair for pair in pairs if pair[0] != "SendTargets"]
        answers = self._login.negotiator.answer_full_feature(negotiated)
        for _, value in (pair for pair in pairs if pair[0] == "SendTargets"):
            answers += self._send_targets(value)
        self.peer_segment = self._login.parameters.peer_max_recv_data_segment_length
        return answers

    def _send_targets(self, value: str) -> list[tuple[str, str]]:
        """RFC 7143 §13.3 and Appendix C: a normal session may only ask for its own target."""
        assert self.session is not None
        if self.session.node is None:
            return self._service.send_targets(None if value == "All" else value, self.portal)
        if value in ("", self.session.node.name):
            return self._service.send_targets(self.session.node.name, self.portal)
        return [("SendTargets", "Reject")]

    def _task_management(self, pdu: TaskManagementRequest) -> None:
        session = self.session
        assert session is not None
        if session.node is None:
            self.reject(pdu, RejectReason.PROTOCOL_ERROR)
            return
        node = session.node

        def answer(response: TaskResponse) -> None:
            log.info("%s: task management function %d: %s", self, pdu.function, response.name)
            self._send(TaskManagementResponse(itt=pdu.itt, final=True, response=response))
            if pdu.function == TaskFunction.TARGET_COLD_RESET and response == TaskResponse.COMPLETE:
                node.drop_sessions(but=session)
                self.state = State.CLOSING  # RFC 7143 §11.5.1: like power on, it ends all sessions
            self.wake()

        session.manage(pdu, answer)

    def _logout(self, pdu: LogoutRequest) -> None:
        """RFC 7143 §11.14, §11.15: the connection is closed once the response has left."""
        code = LogoutResponseCode.CLOSED
        if pdu.reason == LogoutReason.RECOVERY:
            code = LogoutResponseCode.RECOVERY_UNSUPPORTED
        elif pdu.reason not in (LogoutReason.CLOSE_SESSION, LogoutReason.CLOSE_CONNECTION):
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        elif pdu.reason == LogoutReason.CLOSE_CONNECTION and pdu.cid != self._login.cid:
            code = LogoutResponseCode.CID_NOT_FOUND
        self._send(LogoutResponse(itt=pdu.itt, final=True, response=code))
        if code == LogoutResponseCode.CLOSED:
            log.info("%s: logged out", self)
            self.state = State.CLOSING

    def _snack(self, pdu: SnackRequest) -> None:
        self.reject(pdu, RejectReason.SNACK_REJECT)  # ErrorRecoveryLevel 0 (RFC 7143 §11.16)


# Initiator PDUs that carry a CmdSN (RFC 7143 §4.2.2.1)
_NUMBERED = (
    NopOut,
    ScsiCommand,
    TaskManagementRequest,
    TextRequest,
    LogoutRequest,
)  # carry a CmdSN (RFC 7143 §4.2.2.1)

_HANDLERS: dict[int, Callable[..., None]] = {
    Opcode.NOP_OUT: Connection._nop_out,
    Opcode.SCSI_COMMAND: Connection._scsi_command,
    Opcode.TASK_MANAGEMENT_REQUEST: Connection._task_management,
    Opcode.TEXT_REQUEST: Connection._text_request,
    Opcode.DATA_OUT: Connection._data_out,
    Opcode.LOGOUT_REQUEST: Connection._logout,
    Opcode.SNACK_REQUEST: Connection._snack,
}
