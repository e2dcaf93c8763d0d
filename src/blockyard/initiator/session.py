"""A session of an initiator over one blocking connection (RFC 7143 §4.2, §4.4).

Commands are handed in by `submit` and waited for by `wait`, so that several can be outstanding:

    commands = [session.submit(lun, cdb, read_length=4096) for cdb in cdbs]
    responses = [session.wait(command) for command in commands]

Nothing happens behind the caller's back: there is no thread, bytes move while `submit`, `wait` and
their like run, and then in both directions at once, so that a target that must be read from before
it takes more can never lock the two up. A session is for one thread at a time.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from blockyard.initiator.errors import InitiatorError, ProtocolError, Redirected, Rejected, SessionLost
from blockyard.initiator.login import PREFERENCES, InitiatorLogin
from blockyard.iscsi.names import PortalAddress, normalise
from blockyard.iscsi.negotiation import LOGIN_SEGMENT, NegotiationError, Pairs, Parameters, Preferences, TextAccumulator
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
    LoginResponse,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    LogoutResponseCode,
    NopIn,
    NopOut,
    Pdu,
    PduError,
    Reject,
    ScsiCommand,
    ScsiResponse,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
    decode,
    extended_cdb_ahs,
    pdu_length,
    serial_less,
)
from blockyard.scsi.lun import encode_lun

DEFAULT_TIMEOUT = 30.0  # seconds
MAX_REDIRECTS = 4
_CHUNK = 1 << 20  # bytes of receive buffer to begin with, and of output given to the kernel at a time
_MASK = 0xFFFFFFFF
SIMPLE = 1  # the usual task attribute (RFC 7143 §11.3.1)


@dataclass(frozen=True, slots=True)
class Response:
    """How a command ended. `residual` bytes too few were moved, or with `overflow` there would have been more."""

    status: int
    data: bytes = b""
    sense: bytes = b""
    residual: int = 0
    overflow: bool = False


class Exchange:
    """A request that waits for its answer: a SCSI command, a ping, a text, a task management function or a logout."""

    __slots__ = ("cmd_sn", "data_in", "data_out", "data_sn", "error", "itt", "lun", "r2t_sn", "received", "response")

    def __init__(self, itt: int, lun: int = 0, data_out: Buffer = b"", read_length: int = 0) -> None:
        self.itt = itt
        self.lun = lun  # as the LUN field has it
        self.cmd_sn = 0
        self.data_out = memoryview(data_out)
        self.data_in = bytearray(read_length)
        self.received = 0  # bytes of Data-In
        self.data_sn = 0  # of the next Data-In
        self.r2t_sn = 0
        self.response: Any = None  # a Response; for the other requests the PDU that answers
        self.error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.response is not None or self.error is not None


def random_isid() -> bytes:
    """An ISID of the random format (RFC 7143 §11.12.5)."""
    return b"\x80" + os.urandom(5)


class Session:
    """A session that has logged in; `open_session` makes one.

    `timeout` is how many seconds a target may stay silent while it owes an answer; then TimeoutError is raised.
    `events` collects the target's asynchronous messages.
    """

    def __init__(self, sock: socket.socket, login: InitiatorLogin, timeout: float = DEFAULT_TIMEOUT) -> None:
        self.timeout = timeout
        self.events: deque[AsyncMessage] = deque(maxlen=64)
        self.logout_requested = False  # the target wants this session to end soon (RFC 7143 §11.9.1)
        self._sock = sock
        self._login = login
        self._poll = select.poll()
        self._exchanges: dict[int, Exchange] = {}
        self._output: deque[memoryview] = deque()
        self._buffer = bytearray(_CHUNK)
        self._start = self._end = 0  # of what is in the buffer
        self._header_digest = self._data_digest = False
        self._max_segment = LOGIN_SEGMENT
        self._lost: Exception | None = None
        self._next_itt = 1
        self._handlers: dict[type[Pdu], Callable[[Any], None]] = {
            NopIn: self._on_nop_in,
            ScsiResponse: self._on_scsi_response,
            DataIn: self._on_data_in,
            R2T: self._on_r2t,
            TextResponse: self._on_answer,
            TaskManagementResponse: self._on_answer,
            LogoutResponse: self._on_answer,
            AsyncMessage: self._on_async_message,
            Reject: self._on_reject,
        }
        sock.setblocking(False)
        try:
            self._log_in()
        except BaseException:
            sock.close()
            raise

    @property
    def parameters(self) -> Parameters:
        """What has been negotiated."""
        return self._login.parameters

    @property
    def login(self) -> InitiatorLogin:
        """The login phase that led here: ISID, TSIH, CID and everything that the target said."""
        return self._login

    @property
    def outstanding(self) -> int:
        """Requests that have not been answered."""
        return len(self._exchanges)

    @property
    def window(self) -> int:
        """How many more commands the target would take now (RFC 7143 §4.2.2.1)."""
        return (self._max_cmd_sn - self._cmd_sn + 1) & _MASK if not self._window_closed() else 0

    # ---- life

    def _log_in(self) -> None:
        self._awaited: LoginResponse | None = None
        request: Pdu | None = self._login.start()
        while request is not None:
            self._send(request, plain=True)
            self._awaited = None
            self._pump(lambda: self._awaited is not None)
            assert self._awaited is not None
            request = self._login.receive(self._awaited)
        parameters = self._login.parameters
        self._header_digest = parameters.header_digest
        self._data_digest = parameters.data_digest
        self._max_segment = parameters.max_recv_data_segment_length
        self._cmd_sn = self._login.cmd_sn
        self._exp_stat_sn = self._login.exp_stat_sn
        self._exp_cmd_sn = self._login.exp_cmd_sn
        self._max_cmd_sn = self._login.max_cmd_sn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out if that can be done, and close the connection. Raises nothing."""
        try:
            if self._lost is None:
                self.logout()
        except (InitiatorError, OSError):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        """Close the connection without a word."""
        self._lose(SessionLost("the session was dropped"))
        self._sock.close()

    def _lose(self, error: Exception) -> None:
        self._lost = self._lost or error
        for exchange in self._exchanges.values():
            exchange.error = exchange.error or error
        self._exchanges.clear()
        self._output.clear()

    # ---- requests

    def submit(
        self,
        lun: int,
        cdb: bytes,
        data_out: Buffer = b"",
        read_length: int = 0,
        *,
        attribute: int = SIMPLE,
        immediate: bool = False,
    ) -> Exchange:
        """Send a SCSI command, as soon as the command window is open; what it returns is for `wait`.

        `data_out` is all that can be written, `read_length` the most bytes that can be read. Raises
        SessionLost, ProtocolError or TimeoutError.
        """
        exchange = Exchange(self._new_tag(), encode_lun(lun), data_out, read_length)
        length = len(exchange.data_out)
        pdu = ScsiCommand(
            lun=exchange.lun,
            itt=exchange.itt,
            immediate=immediate,
            read=bool(read_length),
            write=bool(length),
            attribute=attribute,
            edtl=length or read_length,
            cdb=cdb,
            ahs=_ahs(cdb, read_length if length else 0),
        )
        sent = self._immediate_length(length)
        pdu.data = exchange.data_out[:sent]
        unsolicited = 0 if self.parameters.initial_r2t else min(length, self.parameters.first_burst_length)
        pdu.final = unsolicited <= sent
        self._request(exchange, pdu)
        if not pdu.final:
            self._send_data(exchange, NO_TAG, sent, unsolicited)
        self._pump(lambda: not self._output)
        return exchange

    def _immediate_length(self, length: int) -> int:
        if not self.parameters.immediate_data:
            return 0
        segment = self.parameters.peer_max_recv_data_segment_length
        return min(length, self.parameters.first_burst_length, segment)

    def wait(self, exchange: Exchange) -> Any:
        """The answer to a request: for a SCSI command a Response.

        Raises Rejected, SessionLost, ProtocolError or TimeoutError; after a TimeoutError one can wait again.
        """
        self._pump(lambda: exchange.done)
        if exchange.error is not None:
            raise exchange.error
        return exchange.response

    def command(self, lun: int, cdb: bytes, data_out: Buffer = b"", read_length: int = 0) -> Response:
        """Send a SCSI command and wait for its end, whatever that is."""
        response: Response = self.wait(self.submit(lun, cdb, data_out, read_length))
        return response

    def ping(self, data: bytes = b"") -> bytes:
        """Send a NOP-Out and return what the target echoes (RFC 7143 §11.18)."""
        exchange = Exchange(self._new_tag())
        self._request(exchange, NopOut(itt=exchange.itt, ttt=NO_TAG, final=True, data=data))
        answer: NopIn = self.wait(exchange)
        return bytes(answer.data)

    def text(self, pairs: Iterable[tuple[str, str]], *, segment: int | None = None) -> Pairs:
        """Send a text request, in PDUs of at most `segment` bytes, and return the whole answer (RFC 7143 §11.10)."""
        accumulator = TextAccumulator(limit=64 << 20)  # a discovery may list very many targets
        accumulator.put(pairs)
        segment = segment or self.parameters.peer_max_recv_data_segment_length
        itt, ttt, lun = self._new_tag(), NO_TAG, 0
        while True:
            exchange = Exchange(itt)
            data, continued = accumulator.next_segment(segment)
            pdu = TextRequest(itt=itt, ttt=ttt, lun=lun, final=not continued, continued=continued, data=data)
            self._request(exchange, pdu)
            answer: TextResponse = self.wait(exchange)
            try:
                received = None if accumulator.sending else accumulator.take(answer.data, continued=answer.continued)
            except NegotiationError as error:
                raise self._protocol_error(f"text response: {error}") from error
            if answer.final and received is not None:
                return received
            ttt, lun = answer.ttt, answer.lun
            if ttt == NO_TAG:
                raise self._protocol_error("the target cuts its text response short")
            if received:
                raise self._protocol_error("the target neither ends its text response nor goes on with it")

    def manage(self, function: int, lun: int = 0, referenced: Exchange | None = None) -> int:
        """Send a task management request, immediate; return the response code (RFC 7143 §11.5, §11.6).

        A command that was aborted successfully never ends: `referenced` gets SessionLost as its error.
        """
        exchange = Exchange(self._new_tag())
        pdu = TaskManagementRequest(
            immediate=True,
            final=True,
            function=function,
            lun=encode_lun(lun),
            itt=exchange.itt,
            referenced_task_tag=referenced.itt if referenced else NO_TAG,
            ref_cmd_sn=referenced.cmd_sn if referenced else 0,
        )
        self._request(exchange, pdu)
        answer: TaskManagementResponse = self.wait(exchange)
        if answer.response == 0:
            self._forget_aborted(function, encode_lun(lun), referenced)
        return answer.response

    def _forget_aborted(self, function: int, lun: int, referenced: Exchange | None) -> None:
        """After the response to a task management function nothing comes any more for what it affected (§4.2.3.3)."""
        every = function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET)
        for exchange in list(self._exchanges.values()):
            single = function in (TaskFunction.ABORT_TASK, TaskFunction.TASK_REASSIGN)
            if exchange is referenced if single else every or exchange.lun == lun:
                exchange.error = SessionLost("the command was aborted")
                del self._exchanges[exchange.itt]

    def logout(self, reason: int = LogoutReason.CLOSE_SESSION) -> int:
        """Log out (RFC 7143 §11.14); return the response code. With code 0 the session is over."""
        exchange = Exchange(self._new_tag())
        pdu = LogoutRequest(immediate=True, final=True, reason=reason, itt=exchange.itt, cid=self._login.cid)
        self._request(exchange, pdu)
        answer: LogoutResponse = self.wait(exchange)
        if answer.response == LogoutResponseCode.CLOSED:
            self._lose(SessionLost("the session has logged out"))
        return answer.response

    def poll(self) -> None:
        """Handle what the target has sent without waiting for more."""
        self._check()
        self._receive()

    def _new_tag(self) -> int:
        while True:
            tag = self._next_itt
            self._next_itt = (tag + 1) % NO_TAG
            if tag not in self._exchanges:
                return tag

    def _window_closed(self) -> bool:
        return serial_less(self._max_cmd_sn, self._cmd_sn)

    def _request(self, exchange: Exchange, pdu: Any) -> None:
        """Number a request and send it when the window is open; an immediate one at once (RFC 7143 §4.2.2.1)."""
        self._check()
        if not pdu.immediate and self._window_closed():
            self._pump(lambda: not self._window_closed())
        pdu.cmd_sn = exchange.cmd_sn = self._cmd_sn
        if not pdu.immediate:
            self._cmd_sn = (self._cmd_sn + 1) & _MASK
        self._exchanges[exchange.itt] = exchange
        pdu.exp_stat_sn = self._exp_stat_sn
        self._send(pdu)

    def _send_data(self, exchange: Exchange, ttt: int, offset: int, end: int) -> None:
        """Send Data-Out PDUs from `offset` to `end` (RFC 7143 §11.7)."""
        segment = self.parameters.peer_max_recv_data_segment_length
        for data_sn, at in enumerate(range(offset, end, segment)):
            stop = min(at + segment, end)
            pdu = DataOut(
                lun=exchange.lun,
                itt=exchange.itt,
                ttt=ttt,
                final=stop == end,
                exp_stat_sn=self._exp_stat_sn,
                data_sn=data_sn,
                buffer_offset=at,
                data=exchange.data_out[at:stop],
            )
            self._send(pdu)

    # ---- the socket

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _send(self, pdu: Pdu, *, plain: bool = False) -> None:
        """Queue a PDU; a login request is `plain`, without digests."""
        header, data = (False, False) if plain else (self._header_digest, self._data_digest)
        self._output.append(memoryview(pdu.encode(header_digest=header, data_digest=data)))

    def _pump(self, enough: Callable[[], bool]) -> None:
        """Move bytes both ways until there is enough. Raises TimeoutError after `timeout` seconds of silence."""
        deadline = time.monotonic() + self.timeout
        while not enough():
            self._check()
            self._poll.register(self._sock, select.POLLIN | (select.POLLOUT if self._output else 0))
            ready = self._poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError(f"the target has said nothing for {self.timeout:g} s")
            mask = ready[0][1]
            moved = bool(mask & select.POLLOUT and self._transmit())
            if mask & ~select.POLLOUT:
                moved = self._receive() or moved
            if moved:
                deadline = time.monotonic() + self.timeout

    def _transmit(self) -> bool:
        try:
            sent = self._sock.send(self._output[0][:_CHUNK])
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(SessionLost(f"the connection is broken: {error.strerror or error}"))
            return True
        if sent == len(self._output[0]):
            self._output.popleft()
        else:
            self._output[0] = self._output[0][sent:]
        return True

    def _receive(self) -> bool:
        try:
            count = self._sock.recv_into(memoryview(self._buffer)[self._end :])
        except BlockingIOError:
            return False
        except OSError as error:
            self._lose(SessionLost(f"the connection is broken: {error.strerror or error}"))
            return True
        if not count:
            self._lose(SessionLost("the target has closed the connection"))
            return True
        self._end += count
        try:
            while self._take_pdu():
                pass
        except PduError as error:
            raise self._protocol_error(str(error)) from error
        self._make_room()
        return True

    def _take_pdu(self) -> bool:
        """Handle the next PDU in the buffer. False when it is not all there."""
        available = self._end - self._start
        if available < BHS_LENGTH or self._lost is not None:
            return False
        digests = {"header_digest": self._header_digest, "data_digest": self._data_digest}
        length = pdu_length(self._buffer, self._start, **digests)
        data_length = int.from_bytes(self._buffer[self._start + 5 : self._start + 8], "big")
        if data_length > self._max_segment:
            raise self._protocol_error(f"a data segment of {data_length} bytes is longer than {self._max_segment}")
        if available < length:
            return False
        pdu = decode(self._buffer, self._start, **digests)
        self._start += length
        self._handle(pdu)
        return True

    def _make_room(self) -> None:
        """Move the beginning of a PDU to the front of the buffer, and have that large enough for the rest."""
        left = self._end - self._start
        needed = BHS_LENGTH
        if left >= BHS_LENGTH:
            needed = pdu_length(
                self._buffer, self._start, header_digest=self._header_digest, data_digest=self._data_digest
            )
        if needed > len(self._buffer):
            self._buffer = self._buffer[self._start : self._end] + bytes(needed)
        elif self._start:
            self._buffer[:left] = self._buffer[self._start : self._end]
        self._start, self._end = 0, left

    # ---- what the target sends

    def _protocol_error(self, message: str) -> ProtocolError:
        error = ProtocolError(message)
        self._lose(error)
        return error

    def _handle(self, pdu: Pdu) -> None:
        if isinstance(pdu, LoginResponse) and not self._login.done:
            pdu.data = bytes(pdu.data)
            self._awaited = pdu
            return
        handler = self._handlers.get(type(pdu))
        if handler is None or not self._login.done:
            raise self._protocol_error(f"the target sends a PDU with opcode 0x{pdu.opcode:02x} that has no place here")
        self._take_numbers(pdu)
        handler(pdu)

    def _take_numbers(self, pdu: Any) -> None:
        """StatSN, ExpCmdSN and MaxCmdSN (RFC 7143 §4.2.2)."""
        if pdu.stat_sn != self._exp_stat_sn and not (isinstance(pdu, DataIn) and not pdu.has_status):
            raise self._protocol_error(f"StatSN is {pdu.stat_sn}, not {self._exp_stat_sn}: a response is lost")
        carries_status = not (
            isinstance(pdu, R2T)
            or (isinstance(pdu, DataIn) and not pdu.has_status)
            or (isinstance(pdu, NopIn) and pdu.itt == NO_TAG)
        )
        if carries_status:
            self._exp_stat_sn = (self._exp_stat_sn + 1) & _MASK
        expected, highest = pdu.exp_cmd_sn, pdu.max_cmd_sn
        if serial_less(highest, (expected - 1) & _MASK):
            return  # RFC 7143 §4.2.2.1: both are to be ignored
        if serial_less(self._max_cmd_sn, highest):
            self._max_cmd_sn = highest
        if serial_less(self._exp_cmd_sn, expected):
            self._exp_cmd_sn = expected

    def _find(self, pdu: Pdu) -> Exchange:
        exchange = self._exchanges.get(pdu.itt)
        if exchange is None:
            raise self._protocol_error(f"{type(pdu).__name__} is for no task: its tag is 0x{pdu.itt:08x}")
        return exchange

    def _end_exchange(self, exchange: Exchange, response: Any) -> None:
        exchange.response = response
        del self._exchanges[exchange.itt]

    def _on_answer(self, pdu: Pdu) -> None:
        pdu.data = bytes(pdu.data)
        self._end_exchange(self._find(pdu), pdu)

    def _on_nop_in(self, pdu: NopIn) -> None:
        if pdu.ttt != NO_TAG:  # the target wants an answer (RFC 7143 §11.18, §11.19)
            answer = NopOut(immediate=True, final=True, lun=pdu.lun, itt=NO_TAG, ttt=pdu.ttt, cmd_sn=self._cmd_sn)
            answer.exp_stat_sn = self._exp_stat_sn
            self._send(answer)
        if pdu.itt != NO_TAG:
            self._on_answer(pdu)

    def _on_data_in(self, pdu: DataIn) -> None:
        exchange = self._find(pdu)
        data, offset = pdu.data, pdu.buffer_offset
        if pdu.data_sn != exchange.data_sn:
            raise self._protocol_error(f"DataSN is {pdu.data_sn}, not {exchange.data_sn}: data is lost")
        if self.parameters.data_pdu_in_order and offset != exchange.received:
            raise self._protocol_error(f"Data-In is for offset {offset}, not {exchange.received}")
        if offset + len(data) > len(exchange.data_in):
            raise self._protocol_error(f"Data-In goes beyond the {len(exchange.data_in)} bytes that were asked for")
        exchange.data_in[offset : offset + len(data)] = data
        exchange.received += len(data)
        exchange.data_sn += 1
        if pdu.has_status:
            self._complete(exchange, pdu, b"")

    def _on_scsi_response(self, pdu: ScsiResponse) -> None:
        exchange = self._find(pdu)
        if pdu.response:  # the command was not carried out by a device server (RFC 7143 §11.4.3)
            exchange.error = InitiatorError(f"the target failed the command: response 0x{pdu.response:02x}")
            del self._exchanges[exchange.itt]
            return
        length = int.from_bytes(pdu.data[:2], "big")
        self._complete(exchange, pdu, bytes(pdu.data[2 : 2 + length]))

    def _complete(self, exchange: Exchange, pdu: DataIn | ScsiResponse, sense: bytes) -> None:
        response = Response(
            status=pdu.status,
            data=bytes(memoryview(exchange.data_in)[: exchange.received]),
            sense=sense,
            residual=pdu.residual if pdu.overflow or pdu.underflow else 0,
            overflow=pdu.overflow,
        )
        self._end_exchange(exchange, response)

    def _on_r2t(self, pdu: R2T) -> None:
        exchange = self._find(pdu)
        end = pdu.buffer_offset + pdu.desired_length
        if pdu.r2t_sn != exchange.r2t_sn:
            raise self._protocol_error(f"R2TSN is {pdu.r2t_sn}, not {exchange.r2t_sn}")
        if end > len(exchange.data_out) or not 0 < pdu.desired_length <= self.parameters.max_burst_length:
            raise self._protocol_error(
                f"an R2T asks for {pdu.desired_length} bytes from {pdu.buffer_offset}, of {len(exchange.data_out)}"
            )
        exchange.r2t_sn += 1
        self._send_data(exchange, pdu.ttt, pdu.buffer_offset, end)

    def _on_async_message(self, pdu: AsyncMessage) -> None:
        pdu.data = bytes(pdu.data)
        self.events.append(pdu)
        if pdu.event == AsyncEvent.LOGOUT_REQUESTED:
            self.logout_requested = True
        elif pdu.event == AsyncEvent.NEGOTIATION_REQUESTED:  # to be honoured with a text request, which may be empty
            exchange = Exchange(self._new_tag())
            self._request(exchange, TextRequest(immediate=True, final=True, itt=exchange.itt, ttt=NO_TAG))
        elif pdu.event in (AsyncEvent.CONNECTION_DROPPED, AsyncEvent.SESSION_DROPPED):
            self._lose(SessionLost("the target announces that it drops the session"))

    def _on_reject(self, pdu: Reject) -> None:
        """The header of what was rejected tells whose failure it is (RFC 7143 §11.17)."""
        itt = int.from_bytes(pdu.data[16:20], "big")
        exchange = self._exchanges.pop(itt, None)
        error = Rejected(pdu.reason)
        if exchange is None:
            self._lose(error)
        else:
            exchange.error = error


def _ahs(cdb: bytes, read_length: int) -> bytes:
    """The additional headers of a command: the rest of a long CDB, and the read length of a bidirectional one."""
    ahs = extended_cdb_ahs(cdb) if len(cdb) > 16 else b""
    if read_length:  # RFC 7143 §11.2.2.4
        ahs += bytes((0, 5, AhsType.BIDI_READ_LENGTH, 0)) + read_length.to_bytes(4, "big")
    return ahs


def open_session(
    portal: PortalAddress,
    target: str | None,
    *,
    initiator_name: str,
    timeout: float = DEFAULT_TIMEOUT,
    preferences: Preferences = PREFERENCES,
    isid: bytes | None = None,
    **login_options: Any,
) -> Session:
    """Connect to a portal and log in to a target, or for discovery to none; redirections are followed.

    `login_options` are those of InitiatorLogin. Raises OSError when there is no connection, LoginError, ProtocolError,
    SessionLost or TimeoutError when there is no session.
    """
    isid = isid or random_isid()
    for _ in range(MAX_REDIRECTS + 1):
        login = InitiatorLogin(normalise(initiator_name), target, isid=isid, preferences=preferences, **login_options)
        sock = socket.create_connection((portal.host, portal.port), timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            return Session(sock, login, timeout)
        except Redirected as redirected:
            portal = redirected.address
    raise ProtocolError(f"the target redirects the login more than {MAX_REDIRECTS} times")
