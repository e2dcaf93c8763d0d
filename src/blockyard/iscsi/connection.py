"""The target's side of one connection, without a socket (RFC 7143 §4.2, §7.2).

Theory of operation. Bytes go in by `receive`, one PDU at a time; bytes come out by `fill`, which
packs what is due into a TransmitBuffer until that is full. In between stand three states:

    LOGIN ──► FULL_FEATURE ──► LOGOUT ──► CLOSING ──► (the owner closes the socket)

LOGIN is iscsi/login.py's matter. In FULL_FEATURE every PDU type has one method, found by the table
at the end of the class; what it has to say is put on `backlog` (iscsi/output.py) and gets its numbers (StatSN,
ExpCmdSN, MaxCmdSN) only when it is packed, so that answers may come in any order. LOGOUT waits for tasks
that still run. What a connection shares with the others of its session is the session's matter (iscsi/session.py):
a PDU that comes here before its turn may be handled when another connection has closed the gap. Two rules:

* A fault in one PDU rejects that PDU; only lost framing or a protocol error that leaves the two
  sides in disagreement closes the connection (RFC 7143 §7.1.4). What was sent can be asked for again with
  ErrorRecoveryLevel 1 and 2 (iscsi/recovery.py).
* Nothing here blocks, and nothing raises for what a peer may have sent: `receive` closes instead.

READ and WRITE commands in their usual form never come here: worker/fastpath.py answers them out of
the same state. This module is the whole truth, that one a shortcut.
"""

from __future__ import annotations

import logging
import struct
from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from functools import partial
from typing import Protocol

from blockyard.iscsi.acknowledgement import Acknowledgements
from blockyard.iscsi.command import Command, make_task
from blockyard.iscsi.login import LoginState, TargetLogin
from blockyard.iscsi.logout import log_out
from blockyard.iscsi.management import ON_MANY, fenced, manage
from blockyard.iscsi.order import MASK
from blockyard.iscsi.output import Completion, LoginOutput, Output, Single
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    LOST,
    NO_TAG,
    AsyncEvent,
    AsyncMessage,
    Buffer,
    DataOut,
    LoginRequest,
    LoginResponse,
    LoginStatus,
    LogoutReason,
    LogoutRequest,
    NopIn,
    NopOut,
    Opcode,
    Pdu,
    PduError,
    Reject,
    RejectReason,
    ScsiCommand,
    SnackRequest,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TaskResponse,
    TextRequest,
    data_length,
    decode,
    next_sound_header,
    pdu_length,
    serial_less,
)
from blockyard.iscsi.recovery import Retention, snack
from blockyard.iscsi.session import MAX_IMMEDIATE, Session
from blockyard.iscsi.text import TextExchange, TextRejected
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.scsi import sense

log = logging.getLogger(__name__)

# What every PDU of a target has at bytes 24 and 28: StatSN; ExpCmdSN and MaxCmdSN (RFC 7143 §11.4)
_STAT_SN, _COMMAND_NUMBERS = struct.Struct(">I"), struct.Struct(">II")
LOGIN_DATA_LIMIT = 8192  # MaxRecvDataSegmentLength before it is negotiated (RFC 7143 §13.12)


class State(Enum):
    LOGIN = "login"
    FULL_FEATURE = "full feature"
    LOGOUT = "logout"  # nothing more is taken in; the answer is due when all tasks have ended
    CLOSING = "closing"  # nothing more is taken in; closed once all output has left


_DEAF = State.LOGOUT, State.CLOSING
_ANSWERING = State.FULL_FEATURE, State.LOGOUT


class Service(Protocol):
    """What a connection asks of the process that it lives in."""

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        """A login phase on `portal` ("ADDR:PORT") of `peer`; `attach` finds or makes the session that it enters."""

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        """The answer to SendTargets for one target, or for all of them (RFC 7143 App. C)."""


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
        self.backlog: deque[Output] = deque()
        self.wake: Callable[[], None] = lambda: None
        self.on_drop: Callable[[], None] = lambda: None
        self.cid = 0
        self.stat_sn = 0
        self.header_digest = False
        self.data_digest = False
        self.segment = LOGIN_DATA_LIMIT  # the longest data segment that the peer may send
        self.peer_segment = LOGIN_DATA_LIMIT  # the longest that it takes
        self.max_burst = LOGIN_DATA_LIMIT
        self._service = service
        self._login = service.new_login(portal, peer, self._attach)
        self._text = TextExchange(self._login.negotiator, self._send_targets)
        self._ping_tag: int | None = None  # TTT of the NOP-In that waits for its answer
        self._ping_count = 0
        self.retention: Retention | None = None  # with ErrorRecoveryLevel 1 and 2
        self._acknowledgements = Acknowledgements()

    def __str__(self) -> str:
        return f"{self.peer} on {self.portal}"

    # ---- input

    def receive(self, buffer: Buffer, at: int, end: int) -> int:
        """Take the PDU at `buffer[at:end]`; return where the next begins, or `at` when this one is not all there."""
        if end - at < BHS_LENGTH or self.state in _DEAF:
            return at
        if data_length(buffer, at) > self.segment:
            self._fail(f"a data segment is longer than {self.segment} bytes")
            return at
        if self.retention is not None and self.header_digest:
            other = self._skip_damaged(buffer, at, end)
            if other is not None:
                return other
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

    def _take(self, pdu: Pdu, *, damaged: bool = False) -> None:
        if self.state is State.LOGIN:
            self._log_in(pdu)
            return
        session = self.session
        assert session is not None
        if (self.retention is not None or self._acknowledgements.awaited) and isinstance(pdu, _REQUESTS):
            self._acknowledge(pdu.exp_stat_sn)
        if not isinstance(pdu, _NUMBERED):
            self._handle(pdu, damaged=damaged)
        elif pdu.immediate:
            if not (_acts_on_many(pdu) and session.order.postpone(self, pdu, pdu.cmd_sn)):
                self._handle(pdu, damaged=damaged)
        elif session.order.take(pdu.cmd_sn):
            self._handle(pdu, damaged=damaged)
        else:
            session.order.hold(self, pdu, pdu.cmd_sn, damaged=damaged)
        if not session.order:
            return
        for held in session.order.due():
            held.connection._handle(held.pdu, damaged=held.damaged)

    def _handle(self, pdu: Pdu, *, damaged: bool = False) -> None:
        if self.state is not State.FULL_FEATURE:
            return
        handler = _HANDLERS.get(pdu.opcode)
        if handler is None:
            self.reject(pdu, RejectReason.COMMAND_NOT_SUPPORTED)
        elif damaged:
            handler(self, pdu, damaged=True)
        else:
            handler(self, pdu)

    def _damaged(self, pdu: Pdu, reason: RejectReason) -> None:
        """A data digest does not match (RFC 7143 §7.8): the PDU is rejected and discarded.

        Where nothing is recovered, the command that it belongs to fails. Else Data-Out is asked for again, and the
        initiator sends again what has a CmdSN, as ExpCmdSN does not go on.
        """
        log.warning("%s: data digest error", self)
        self.reject(pdu, reason)
        if isinstance(pdu, DataOut) or (isinstance(pdu, ScsiCommand) and self.retention is None):
            self._take(pdu, damaged=True)

    def _skip_damaged(self, buffer: Buffer, at: int, end: int) -> int | None:
        """Where to go on instead of `at`: where a PDU is whose header is damaged, or not all there (RFC 7143 §7.7)."""
        found = next_sound_header(buffer, at, end, data_digest=self.data_digest)
        if found == at:
            return None
        if found == LOST:
            self._fail("header digest error")
        elif found is not None:
            log.warning("%s: header digest error: the PDU is discarded", self)
            return found
        return at

    # ---- output

    def fill(self, tx: TransmitBuffer) -> bool:
        """Pack what is due into `tx`. True when all of it is there, False when `tx` is full."""
        while self.backlog and not self.dropped:
            if tx.full or not self.backlog[0].emit(self, tx):
                return False
            self.backlog.popleft()
        return True

    def pack(self, tx: TransmitBuffer, pdu: Pdu, *, advances: bool) -> None:
        """Give a PDU its numbers and put it into `tx`."""
        _STAT_SN.pack_into(pdu.bhs, 24, self.stat_sn)
        if advances:
            self.stat_sn = (self.stat_sn + 1) & MASK
            if self.retention is not None:
                self.retention.add(pdu)
        self.pack_again(tx, pdu)

    def pack_again(self, tx: TransmitBuffer, pdu: Pdu) -> None:
        """Put a PDU that has its StatSN into `tx`, with the current command numbers."""
        if self.session is not None:
            _COMMAND_NUMBERS.pack_into(pdu.bhs, 28, self.session.exp_cmd_sn, self.session.max_cmd_sn)
        tx.append(pdu.encode(header_digest=self.header_digest, data_digest=self.data_digest))

    def put(self, output: Output) -> None:
        """Have something sent when what was put before it has been."""
        if self.state in _ANSWERING:
            self.backlog.append(output)
            self.wake()

    def send(self, pdu: Pdu, *, advances: bool = True) -> None:
        """Have one PDU sent."""
        self.put(Single(pdu, advances=advances))

    def reject(self, pdu: Pdu, reason: RejectReason) -> None:
        """Reject a PDU, sending its header back (RFC 7143 §11.17)."""
        log.info("%s: PDU with opcode 0x%02x rejected: %s", self, pdu.opcode, reason.name)
        self.send(Reject(itt=NO_TAG, final=True, reason=reason, data=bytes(pdu.bhs) + pdu.ahs))

    # ---- life and death

    def drop(self) -> None:
        """End the connection at once; what has not been sent is lost."""
        self.state = State.CLOSING
        self.dropped = True
        if self.session is not None:
            self.session.lose(self)
        self.on_drop()

    def finish(self) -> None:
        """End the connection when all that is on its backlog has been sent."""
        self.state = State.CLOSING
        self.wake()

    def _fail(self, why: str) -> None:
        log.warning("%s: connection dropped: %s", self, why)
        self.drop()

    def closed(self) -> None:
        """The socket is gone: for its owner to say."""
        self.state = State.CLOSING
        if self.session is not None:
            self.session.lose(self)
        self.backlog.clear()
        self._acknowledgements.abandon()

    # ---- acknowledgement of what was sent (RFC 7143 §4.2.2.2)

    def when_acknowledged(self, then: Callable[[], None]) -> None:
        """Call `then` when the initiator has acknowledged all that is sent until now, asking for that by a NOP-In."""
        if self.state is not State.FULL_FEATURE:
            then()
            return
        known = self._acknowledgements.expect(then)
        self.put(Single(self._ping(), advances=False, packed=lambda: known(self.stat_sn)))

    def probe(self, *, anyway: bool) -> None:
        """Have the initiator acknowledge what it has got, if that is overdue; it learns what it has not got."""
        overdue = self.retention is not None and self.retention.stale()
        if (overdue or anyway) and not self.backlog:
            self.send(self._ping(), advances=False)

    def _acknowledge(self, exp_stat_sn: int) -> None:
        """The initiator has got every status before this StatSN."""
        if serial_less(self.stat_sn, exp_stat_sn):
            return  # it has not been sent
        if self.retention is not None:
            self.retention.acknowledge(exp_stat_sn)
        self._acknowledgements.reach(exp_stat_sn)

    def announce(self, event: AsyncEvent, parameter1: int, parameter2: int, parameter3: int, lun: int = 0) -> None:
        """Send an asynchronous message (RFC 7143 §11.9)."""
        message = AsyncMessage(lun=lun, itt=NO_TAG, final=True, event=event)
        message.parameter1, message.parameter2, message.parameter3 = parameter1, parameter2, parameter3
        self.send(message)

    def request_logout(self, seconds: int) -> None:
        """Ask the initiator to log out (RFC 7143 §11.9.1, event 1); the owner drops what is left after the time."""
        if self.state is State.FULL_FEATURE:
            self.announce(AsyncEvent.LOGOUT_REQUESTED, 0, 0, seconds)

    def ping(self) -> bool:
        """Ask whether the peer is alive (RFC 7143 §11.19). False when the last question has not been answered."""
        if self.state is not State.FULL_FEATURE:
            return True
        if self._ping_tag is not None:
            return False
        ping = self._ping()
        self._ping_tag = ping.ttt
        self.send(ping, advances=False)
        return True

    def _ping(self) -> NopIn:
        self._ping_count = (self._ping_count + 1) & 0x7FFFFFFF
        return NopIn(itt=NO_TAG, ttt=self._ping_count, final=True)

    # ---- login (RFC 7143 §6)

    def _log_in(self, pdu: Pdu) -> None:
        if not isinstance(pdu, LoginRequest):
            self._fail(f"the opcode 0x{pdu.opcode:02x} came before the login was over")
            return
        responses = [LoginOutput(self._renumbered(response)) for response in self._login.receive(pdu)]
        self.stat_sn = self._login.next_stat_sn
        if self._login.state is LoginState.FULL_FEATURE:
            self._enter_full_feature(responses)
            return
        self.backlog.extend(responses)
        if self._login.state is LoginState.FAILED:
            log.warning("%s: login failed: %s", self, self._login.failure)
            self.state = State.CLOSING

    def _renumbered(self, response: LoginResponse) -> LoginResponse:
        """The response with the numbers of the session that the login joins (RFC 7143 §11.13.3)."""
        login = self._login
        session = login.target.find_session(login) if login.requested_tsih and login.target is not None else None
        if session is not None:
            response.exp_cmd_sn = session.exp_cmd_sn
            response.max_cmd_sn = session.max_cmd_sn
        return response

    def _attach(self, login: TargetLogin) -> int | LoginStatus:
        self.cid = login.cid
        if login.parameters.discovery:
            if login.requested_tsih:
                return LoginStatus.SESSION_DOES_NOT_EXIST
            self.session = Session(None, login, 1)
        else:
            found = login.target.attach(login)
            if isinstance(found, LoginStatus):
                return found
            self.session = found
        self.session.join(self)
        return self.session.tsih

    def _enter_full_feature(self, responses: list[LoginOutput]) -> None:
        session, parameters = self.session, self._login.parameters
        assert session is not None
        self.state = State.FULL_FEATURE
        if session.parameters.error_recovery_level:
            self.retention = Retention(session.data.new_tag)
        self.max_burst = session.parameters.max_burst_length
        self.segment = parameters.max_recv_data_segment_length
        self._set_peer_segment()
        # Digests hold from the first full feature PDU on; the last login response is packed without (RFC 7143 §13.1).
        self.header_digest = parameters.header_digest
        self.data_digest = parameters.data_digest
        log.info("%s: %s logged in to %s", self, parameters.initiator_name, parameters.target_name or "discovery")

        def grant() -> None:
            for response in responses:
                self.put(response)

        session.when_settled(grant)

    def _set_peer_segment(self) -> None:
        """Whole words: every data segment of a sequence but the last is to be filled to those (RFC 7143 §11.7.7)."""
        self.peer_segment = self._login.parameters.peer_max_recv_data_segment_length & ~3

    # ---- SCSI commands (RFC 7143 §11.3)

    def _scsi_command(self, pdu: ScsiCommand, *, damaged: bool = False) -> None:
        session = self.session
        assert session is not None
        if session.node is None:
            self.reject(pdu, RejectReason.PROTOCOL_ERROR)  # a discovery session has no SCSI (RFC 7143 §4.3)
            return
        itt = pdu.itt
        if itt in session.commands:
            self.reject(pdu, RejectReason.TASK_IN_PROGRESS)
            return
        if pdu.immediate and len(session.commands) - session.outstanding >= MAX_IMMEDIATE:
            self.reject(pdu, RejectReason.TOO_MANY_IMMEDIATE)
            return
        try:
            task = make_task(session.nexus(pdu.lun), pdu)
        except ValueError as error:
            log.warning("%s: %s", self, error)
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)
            return
        command = Command(pdu, task, self)
        task.abort = partial(session.abort, itt)
        session.add(command)
        failure = sense.PROTOCOL_SERVICE_CRC_ERROR if damaged else None
        command.failure = failure or session.data.refuse(pdu) or task.nexus.unit.begin(task)
        command.wanted = 0 if command.failure else min(task.expected, task.data_out_length)
        session.data.begin(command, pdu)

    def _data_out(self, pdu: DataOut, *, damaged: bool = False) -> None:
        session = self.session
        assert session is not None
        command = session.commands.get(pdu.itt)
        if command is None:  # held, or aborted: then its data may be under way still (RFC 7143 §4.2.3.3)
            session.order.hold_data(self, pdu, damaged=damaged)
            return
        wrong = RejectReason.PROTOCOL_ERROR  # RFC 7143 §4.2.5.1: a command's data comes on its own connection
        reason = session.data.take(command, pdu, damaged=damaged) if command.connection is self else wrong
        if reason is not None:
            self.reject(pdu, reason)

    # ---- everything else

    def _nop_out(self, pdu: NopOut) -> None:
        """RFC 7143 §11.18: a ping is echoed; an answer to ours is taken note of."""
        if pdu.ttt != NO_TAG and pdu.ttt == self._ping_tag:
            self._ping_tag = None
        if pdu.itt != NO_TAG:
            echo = bytes(pdu.data[: self.peer_segment])
            self.send(NopIn(lun=pdu.lun, itt=pdu.itt, ttt=NO_TAG, final=True, data=echo))

    def _text_request(self, pdu: TextRequest) -> None:
        """RFC 7143 §11.10, §11.11."""
        try:
            response = self._text.take(pdu, self.peer_segment)
        except TextRejected as error:
            log.warning("%s: %s", self, error)
            self.reject(pdu, error.reason)
            return
        self.send(response)
        self._set_peer_segment()

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

        def end_all() -> None:  # RFC 7143 §11.5.1: like power on, it ends all sessions
            node.drop_sessions(asked_by=session)

        def answer(response: TaskResponse, then: Callable[[], None] | None = None) -> None:
            log.info("%s: task management function %d: %s", self, pdu.function, response.name)
            if pdu.function == TaskFunction.TARGET_COLD_RESET and response == TaskResponse.COMPLETE:
                then = end_all
            output = Single(TaskManagementResponse(itt=pdu.itt, final=True, response=response), packed=then)
            if fenced(pdu.function, response):
                session.fence.raise_for((self, output))
            else:
                session.respond(self, output)

        if pdu.function == TaskFunction.TASK_REASSIGN:
            answer(*session.lost.reassign(self, pdu))
        else:
            manage(session, pdu, answer)

    def _logout(self, pdu: LogoutRequest) -> None:
        assert self.session is not None
        if pdu.reason in tuple(LogoutReason):
            log_out(self, self.session, pdu)
        else:
            self.reject(pdu, RejectReason.INVALID_PDU_FIELD)

    def begin_logout(self) -> None:
        """Take nothing more in until the logout is answered."""
        self.state = State.LOGOUT

    def end_logout(self, *, closed: bool) -> None:
        """The answer has been given: the connection is closed once it has left, or goes on."""
        if closed:
            log.info("%s: logged out", self)
            self.finish()
        elif self.state is State.LOGOUT:
            self.state = State.FULL_FEATURE

    def command(self, itt: int) -> Command | None:
        """The command in progress with that task tag, if it is allegiant to this connection."""
        command = self.session.commands.get(itt) if self.session is not None else None
        return command if command is not None and command.connection is self else None

    def has_task(self, itt: int) -> bool:
        """Whether a task is allegiant to this connection, in progress or with a status that has not been acknowledged."""
        return self.command(itt) is not None or any(done.command.itt == itt for done in self.completions())

    def completions(self) -> Iterator[Completion]:
        """The commands that have ended and may not all have arrived, newest first."""
        yield from (output for output in reversed(self.backlog) if isinstance(output, Completion))
        if self.retention is not None:
            yield from self.retention.completions

    def take_completions(self) -> list[Completion]:
        """The commands that have ended, oldest first, for another connection to send: here nothing of them goes out."""
        taken = list(self.completions())[::-1]
        self.backlog = deque(output for output in self.backlog if not isinstance(output, Completion))
        return taken

    def _snack(self, pdu: SnackRequest) -> None:
        reason = RejectReason.SNACK_REJECT if self.retention is None else snack(self, self.retention, pdu)
        if reason is not None:
            self.reject(pdu, reason)


# Initiator PDUs that carry a CmdSN (RFC 7143 §4.2.2.1), and those that acknowledge StatSN (§4.2.2.2)
_NUMBERED = (NopOut, ScsiCommand, TaskManagementRequest, TextRequest, LogoutRequest)
_REQUESTS = (*_NUMBERED, DataOut, SnackRequest)


def _acts_on_many(pdu: Pdu) -> bool:
    return isinstance(pdu, TaskManagementRequest) and pdu.function in ON_MANY


_HANDLERS: dict[int, Callable[..., None]] = {
    Opcode.NOP_OUT: Connection._nop_out,
    Opcode.SCSI_COMMAND: Connection._scsi_command,
    Opcode.TASK_MANAGEMENT_REQUEST: Connection._task_management,
    Opcode.TEXT_REQUEST: Connection._text_request,
    Opcode.DATA_OUT: Connection._data_out,
    Opcode.LOGOUT_REQUEST: Connection._logout,
    Opcode.SNACK_REQUEST: Connection._snack,
}
