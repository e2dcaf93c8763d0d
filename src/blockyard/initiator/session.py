"""A session of an initiator: one connection or several, numbered commands (RFC 7143 §4.2, §4.4).

Commands are handed in by `submit` and waited for by `wait`, so that several can be outstanding:

    commands = [session.submit(lun, cdb, read_length=4096) for cdb in cdbs]
    responses = [session.wait(command) for command in commands]

Nothing happens behind the caller's back: there is no thread, bytes move while `submit`, `wait` and
their like run, and then in all directions at once, so that a target that must be read from before
it takes more can never lock the two up. A session is for one thread at a time.

Commands take turns on the connections; everything that belongs to one stays on its connection
(allegiance, §4.2.5.1). What is lost on the way, or a whole connection, is recovery.py's matter.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from blockyard.initiator.connection import Connection, Dial
from blockyard.initiator.errors import InitiatorError, ProtocolError, SessionLost
from blockyard.initiator.exchange import Exchange, Response
from blockyard.initiator.login import InitiatorLogin
from blockyard.initiator.receiver import Receiver
from blockyard.initiator.recovery import Recovery
from blockyard.iscsi.names import PortalAddress
from blockyard.iscsi.negotiation import NegotiationError, Pairs, Parameters, TextAccumulator
from blockyard.iscsi.pdu import (
    NO_TAG,
    AhsType,
    AsyncMessage,
    Buffer,
    DataOut,
    LogoutReason,
    LogoutRequest,
    LogoutResponse,
    LogoutResponseCode,
    NopIn,
    NopOut,
    ScsiCommand,
    TaskFunction,
    TaskManagementRequest,
    TaskManagementResponse,
    TextRequest,
    TextResponse,
    extended_cdb_ahs,
    serial_less,
)
from blockyard.scsi.lun import encode_lun

DEFAULT_TIMEOUT = 30.0  # seconds
RETRY_AFTER = 2.0  # seconds
SIMPLE = 1  # the usual task attribute (RFC 7143 §11.3.1)
_MASK = 0xFFFFFFFF


def random_isid() -> bytes:
    """An ISID of the random format (RFC 7143 §11.12.5)."""
    return b"\x80" + os.urandom(5)


class Session:
    """A session that has logged in; `open_session` makes one.

    `timeout` is how many seconds a target may stay silent while it owes an answer; then TimeoutError is raised.
    `events` collects the target's asynchronous messages. How a session meets errors depends on the
    ErrorRecoveryLevel that was negotiated, and on `recover`: see recovery.py.
    """

    def __init__(
        self,
        leading: Connection,
        timeout: float = DEFAULT_TIMEOUT,
        *,
        dial: Dial | None = None,
        recover: bool = False,
        retry_after: float = RETRY_AFTER,
    ) -> None:
        self.timeout = timeout
        self.events: deque[AsyncMessage] = deque(maxlen=64)
        self.logout_requested = False  # the target wants this session to end soon (RFC 7143 §11.9.1)
        self.connections: list[Connection] = []
        self.exchanges: dict[int, Exchange] = {}  # that have not ended, by task tag
        self.lost: Exception | None = None
        self.ending = False  # a logout is under way: nothing is worth being recovered
        self._poll = select.poll()
        self._next_itt = 1
        self._next_turn = 0
        self._dial = dial
        self._receiver = Receiver(self)
        self.recovery = Recovery(self, dial, reconnect=recover, retry_after=retry_after)
        self.begin(leading)

    def begin(self, leading: Connection) -> None:
        """Start with a session's first connection."""
        self._leading = leading.login
        self._last_cid = leading.cid
        self.cmd_sn = leading.login.cmd_sn
        self.exp_cmd_sn = leading.login.exp_cmd_sn
        self.max_cmd_sn = leading.login.max_cmd_sn
        self.add(leading)

    def add(self, connection: Connection) -> None:
        """Take a connection that has logged in to this session."""
        self.take_window(connection.login.exp_cmd_sn, connection.login.max_cmd_sn)
        self.connections.append(connection)
        self._drain(connection)

    @property
    def parameters(self) -> Parameters:
        """What has been negotiated for the session; digests and segment lengths are each connection's own."""
        return self._leading.parameters

    @property
    def login(self) -> InitiatorLogin:
        """The login phase that led here: ISID, TSIH, CID and everything that the target said."""
        return self._leading

    @property
    def recovery_level(self) -> int:
        return self.parameters.error_recovery_level

    @property
    def outstanding(self) -> int:
        """Requests that have not been answered."""
        return len(self.exchanges)

    @property
    def window(self) -> int:
        """How many more commands the target would take now (RFC 7143 §4.2.2.1)."""
        return (self.max_cmd_sn - self.cmd_sn + 1) & _MASK if self.window_open else 0

    @property
    def window_open(self) -> bool:
        return not serial_less(self.max_cmd_sn, self.cmd_sn)

    # ---- life

    def add_connection(self, portal: PortalAddress | None = None) -> Connection:
        """Log one more connection in to this session (RFC 7143 §6.3.1), through another portal of the same group or the same.

        Raises OSError, LoginError, ProtocolError or TimeoutError; the session goes on without it.
        """
        self._check()
        if self._dial is None:
            raise RuntimeError("this session was not opened by open_session")
        # A CID that has been used would mean reinstatement to a target that has not quite done with the old connection.
        self._last_cid = (self._last_cid + 1) & 0xFFFF
        connection = self._dial(portal, tsih=self._leading.tsih, cid=self._last_cid, cmd_sn=self.cmd_sn)
        self.add(connection)
        return connection

    def close_connection(self, connection: Connection) -> int:
        """Log one connection out; return the response code. With code 0 it is gone, and so are the commands on it."""
        return self.logout(LogoutReason.CLOSE_CONNECTION, connection)

    def logout(self, reason: int = LogoutReason.CLOSE_SESSION, connection: Connection | None = None) -> int:
        """Log out (RFC 7143 §11.14); return the response code. With code 0 the session, or the connection, is over."""
        connection = connection or self.connections[0] if self.connections else None
        cid = connection.cid if connection else self._leading.cid
        self.ending = reason == LogoutReason.CLOSE_SESSION or len(self.connections) == 1
        pdu = LogoutRequest(immediate=True, final=True, reason=reason, itt=self.new_tag(), cid=cid)
        exchange = self.start(Exchange(pdu), connection)
        answer: LogoutResponse = self.wait(exchange)
        if answer.response == LogoutResponseCode.CLOSED:
            if self.ending or connection is None:
                self.lose(SessionLost("the session has logged out"))
            else:
                self.release(connection, SessionLost("the connection has logged out"))
        self.ending = False
        return answer.response

    def release(self, connection: Connection, error: Exception) -> None:
        """A connection is gone on purpose, and what was on it with it."""
        self.forget(connection)
        for exchange in [each for each in self.exchanges.values() if each.connection is connection]:
            self.end(exchange, error=error)

    def forget(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self._unregister(connection)
        connection.close()

    def _unregister(self, connection: Connection) -> None:
        with contextlib.suppress(KeyError, ValueError):  # it may never have been polled
            self._poll.unregister(connection.sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Log out if that can be done, and close all connections. Raises nothing."""
        try:
            if self.lost is None and self.connections:
                self.logout()
        except (InitiatorError, OSError):
            pass
        finally:
            self.drop()

    def drop(self) -> None:
        """Close all connections without a word."""
        self.lose(SessionLost("the session was dropped"))
        for connection in list(self.connections):
            self.forget(connection)

    def lose(self, error: Exception) -> None:
        """The session is over, for good."""
        self.lost = self.lost or error
        for exchange in list(self.exchanges.values()):
            self.end(exchange, error=error)
        for connection in self.connections:
            connection.output.clear()

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
        connection: Connection | None = None,
    ) -> Exchange:
        """Send a SCSI command, as soon as the command window is open; what it returns is for `wait`.

        `data_out` is all that can be written, `read_length` the most bytes that can be read; neither may change before
        the command has ended. Connections take turns unless one is named. Raises SessionLost, ProtocolError or TimeoutError.
        """
        length = len(memoryview(data_out))
        pdu = ScsiCommand(
            lun=encode_lun(lun),
            itt=self.new_tag(),
            immediate=immediate,
            read=bool(read_length),
            write=bool(length),
            attribute=attribute,
            edtl=length or read_length,
            cdb=cdb,
            ahs=_ahs(cdb, read_length if length else 0),
        )
        exchange = self.start(Exchange(pdu, data_out, read_length), connection)
        self._pump(lambda: exchange.connection is None or not exchange.connection.output)
        return exchange

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

    def ping(self, data: bytes = b"", connection: Connection | None = None) -> bytes:
        """Send a NOP-Out and return what the target echoes (RFC 7143 §11.18)."""
        pdu = NopOut(itt=self.new_tag(), ttt=NO_TAG, final=True, data=data)
        answer: NopIn = self.wait(self.start(Exchange(pdu), connection))
        return bytes(answer.data)

    def text(
        self, pairs: Iterable[tuple[str, str]], *, segment: int | None = None, connection: Connection | None = None
    ) -> Pairs:
        """Send a text request, in PDUs of at most `segment` bytes, and return the whole answer (RFC 7143 §11.10)."""
        accumulator = TextAccumulator(limit=64 << 20)  # a discovery may list very many targets
        accumulator.put(pairs)
        connection = connection or self._turn()
        segment = segment or connection.parameters.peer_max_recv_data_segment_length
        itt, ttt, lun = self.new_tag(), NO_TAG, 0
        while True:
            data, continued = accumulator.next_segment(segment)
            pdu = TextRequest(itt=itt, ttt=ttt, lun=lun, final=not continued, continued=continued, data=data)
            answer: TextResponse = self.wait(self.start(Exchange(pdu), connection))
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

    def set_segment_length(self, length: int) -> None:
        """Have all connections bring data in segments of at most `length` bytes from now on (RFC 7143 §13.12)."""
        for connection in list(self.connections):
            connection.set_segment_length(length)  # before it is said: the answer may come with what is to be cut anew
            self.text([("MaxRecvDataSegmentLength", str(length))], connection=connection)

    def manage(self, function: int, lun: int = 0, referenced: Exchange | None = None) -> int:
        """Send a task management request, immediate; return the response code (RFC 7143 §11.5, §11.6).

        A command that was aborted successfully never ends: `referenced` gets SessionLost as its error.
        """
        pdu = TaskManagementRequest(
            immediate=True,
            final=True,
            function=function,
            lun=encode_lun(lun),
            itt=self.new_tag(),
            referenced_task_tag=referenced.itt if referenced else NO_TAG,
            ref_cmd_sn=referenced.cmd_sn if referenced else 0,
        )
        exchange = self.start(Exchange(pdu), referenced.connection if referenced else None)
        answer: TaskManagementResponse = self.wait(exchange)
        if answer.response == 0:
            self._forget_aborted(function, encode_lun(lun), referenced)
        return answer.response

    def _forget_aborted(self, function: int, lun: int, referenced: Exchange | None) -> None:
        """After the response to a task management function nothing comes any more for what it affected (§4.2.3.3)."""
        every = function in (TaskFunction.TARGET_WARM_RESET, TaskFunction.TARGET_COLD_RESET)
        for exchange in list(self.exchanges.values()):
            single = function == TaskFunction.ABORT_TASK
            if exchange is referenced if single else every or exchange.lun == lun:
                self.end(exchange, error=SessionLost("the command was aborted"))

    def poll(self) -> None:
        """Handle what the target has sent without waiting for more."""
        self._check()
        self._step(0.0)
        self._check()

    # ---- sending

    def new_tag(self) -> int:
        while True:
            tag = self._next_itt
            self._next_itt = (tag + 1) % NO_TAG
            if tag not in self.exchanges:
                return tag

    def _turn(self) -> Connection:
        """The connection whose turn it is."""
        self._pump(lambda: bool(self.connections))
        self._next_turn += 1
        return self.connections[self._next_turn % len(self.connections)]

    def start(self, exchange: Exchange, connection: Connection | None = None) -> Exchange:
        """Number a request and send it when the window is open; an immediate one at once (RFC 7143 §4.2.2.1)."""
        self._check()
        if exchange.numbered and not self._may_start():
            self._pump(self._may_start)
        self.issue(exchange, connection if connection in self.connections else self._turn())
        return exchange

    def _may_start(self) -> bool:
        return self.window_open and bool(self.connections) and not self.recovery.pending

    def issue(self, exchange: Exchange, connection: Connection | None = None) -> None:
        """Give a request its CmdSN and send it now."""
        exchange.touched = time.monotonic()
        exchange.request.cmd_sn = self.cmd_sn
        if exchange.numbered:
            self.cmd_sn = (self.cmd_sn + 1) & _MASK
        self.exchanges[exchange.itt] = exchange
        self.dispatch(exchange, connection or self._turn())

    def dispatch(self, exchange: Exchange, connection: Connection) -> None:
        """Send a request that has its number, for the first time or again, with its unsolicited data."""
        pdu = exchange.request
        exchange.connection = connection
        exchange.segment = connection.parameters.max_recv_data_segment_length
        sent = unsolicited = 0
        if exchange.is_command:
            length = len(exchange.data_out)
            sent = self._immediate_length(connection, length)
            unsolicited = 0 if self.parameters.initial_r2t else min(length, self.parameters.first_burst_length)
            pdu.data = exchange.data_out[:sent]
            pdu.final = unsolicited <= sent
        pdu.exp_stat_sn = connection.acknowledged
        connection.send(pdu)
        if sent < unsolicited:
            self.send_data(exchange, NO_TAG, sent, unsolicited)

    def _immediate_length(self, connection: Connection, length: int) -> int:
        if not self.parameters.immediate_data:
            return 0
        segment = connection.parameters.peer_max_recv_data_segment_length
        return min(length, self.parameters.first_burst_length, segment)

    def send_data(self, exchange: Exchange, ttt: int, offset: int, end: int) -> None:
        """Send Data-Out PDUs from `offset` to `end` (RFC 7143 §11.7)."""
        connection = exchange.connection
        assert connection is not None
        segment = connection.parameters.peer_max_recv_data_segment_length
        for data_sn, at in enumerate(range(offset, end, segment)):
            stop = min(at + segment, end)
            pdu = DataOut(
                lun=exchange.lun,
                itt=exchange.itt,
                ttt=ttt,
                final=stop == end,
                exp_stat_sn=connection.acknowledged,
                data_sn=data_sn,
                buffer_offset=at,
                data=exchange.data_out[at:stop],
            )
            connection.send(pdu)

    # ---- what the receiver and the recovery report

    def take_window(self, expected: int, highest: int) -> None:
        """ExpCmdSN and MaxCmdSN of the target's (RFC 7143 §4.2.2.1)."""
        if serial_less(highest, (expected - 1) & _MASK):
            return  # both are to be ignored
        if serial_less(self.max_cmd_sn, highest):
            self.max_cmd_sn = highest
        if serial_less(self.exp_cmd_sn, expected):
            self.exp_cmd_sn = expected

    def end(self, exchange: Exchange, response: Any = None, error: Exception | None = None) -> None:
        """A request has its answer, or never will."""
        exchange.response, exchange.error = response, error
        if exchange.connection is not None:
            exchange.connection.acknowledge(exchange.withheld)
        self.exchanges.pop(exchange.itt, None)
        if exchange.then is not None:
            exchange.then(exchange)

    # ---- waiting

    def _check(self) -> None:
        if self.lost is not None:
            raise self.lost

    def _protocol_error(self, message: str) -> ProtocolError:
        error = ProtocolError(message)
        self.lose(error)
        return error

    def _pump(self, enough: Callable[[], bool]) -> None:
        """Move bytes both ways until there is enough. Raises TimeoutError after `timeout` seconds of silence."""
        deadline = time.monotonic() + self.timeout
        while not enough():
            self._check()
            now = time.monotonic()
            if now >= deadline and not self.recovery.on_silence():
                raise TimeoutError(f"the target has said nothing for {self.timeout:g} s")
            if self._step(max(0.0, min(deadline, self.recovery.due) - now)) or now >= deadline:
                deadline = time.monotonic() + self.timeout  # logging in anew may have taken longer than that

    def _step(self, seconds: float) -> bool:
        """Wait for something to happen, at most so long; handle it. False when no byte has moved, on no new connection either."""
        before = list(self.connections)
        sockets = {connection.sock.fileno(): connection for connection in self.connections}
        for fd, connection in sockets.items():
            self._poll.register(fd, connection.wanted)
        moved = False
        for fd, mask in self._poll.poll(seconds * 1000):
            connection = sockets[fd]
            moved = connection.move(mask, *self._receiver.of(connection)) or moved
        self._bury()
        self.recovery.tick(time.monotonic())
        self._bury()
        return moved or self.connections != before

    def _drain(self, connection: Connection) -> None:
        connection.drain(*self._receiver.of(connection))

    def _bury(self) -> None:
        """Take leave of connections that have failed."""
        while (connection := next((each for each in self.connections if each.failure is not None), None)) is not None:
            self.connections.remove(connection)
            self._unregister(connection)
            connection.sock.close()
            self.recovery.connection_failed(connection)


def _ahs(cdb: bytes, read_length: int) -> bytes:
    """The additional headers of a command: the rest of a long CDB, and the read length of a bidirectional one."""
    ahs = extended_cdb_ahs(cdb) if len(cdb) > 16 else b""
    if read_length:  # RFC 7143 §11.2.2.4
        ahs += bytes((0, 5, AhsType.BIDI_READ_LENGTH, 0)) + read_length.to_bytes(4, "big")
    return ahs
