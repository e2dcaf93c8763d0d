"""One TCP connection of a session: PDUs in and out, and the numbering of the target's responses on it.

A connection that breaks is not an exception here: `failure` says what happened, and the session decides.
"""

from __future__ import annotations

import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from blockyard.initiator.errors import InitiatorError, ProtocolError, SessionLost
from blockyard.initiator.login import InitiatorLogin
from blockyard.iscsi.names import PortalAddress
from blockyard.iscsi.negotiation import LOGIN_SEGMENT, Parameters
from blockyard.iscsi.pdu import (
    BHS_LENGTH,
    NO_TAG,
    R2T,
    DataIn,
    LoginResponse,
    NopIn,
    Pdu,
    PduError,
    decode,
    pdu_length,
    serial_less,
)

_CHUNK = 1 << 20  # bytes of receive buffer to begin with, and of output given to the kernel at a time
_MASK = 0xFFFFFFFF

Handler = Callable[[Pdu], None]


class Connection:
    """A connection that has logged in.

    Raises LoginError, ProtocolError, SessionLost or TimeoutError when the login does not succeed.
    """

    def __init__(self, sock: socket.socket, login: InitiatorLogin, timeout: float) -> None:
        self.sock = sock
        self.login = login
        self.failure: Exception | None = None
        self.output: deque[memoryview] = deque()
        self.exp_stat_sn = 0  # everything before it has come (RFC 7143 §4.2.2.2)
        self.asked = 0  # StatSNs before it have been asked for again
        self._withheld: set[int] = set()  # StatSNs of responses to commands whose data has not all come
        self._ahead: set[int] = set()  # StatSNs that came after a gap
        self._highest = 0  # one more than the highest StatSN that is known to have been given
        self._buffer = bytearray(_CHUNK)
        self._start = self._end = 0  # of what is in the buffer
        self._header_digest = self._data_digest = False
        self._max_segment = LOGIN_SEGMENT
        sock.setblocking(False)
        try:
            self._log_in(timeout)
        except BaseException:
            sock.close()
            raise

    def __str__(self) -> str:
        return f"connection {self.cid}"

    @property
    def cid(self) -> int:
        return self.login.cid

    @property
    def parameters(self) -> Parameters:
        """What holds for this connection: digests and lengths of data segments; all else is the session's."""
        return self.login.parameters

    def set_segment_length(self, length: int) -> None:
        """Another MaxRecvDataSegmentLength has been declared; what is on its way may be cut by the one before."""
        self.parameters.max_recv_data_segment_length = length
        self._max_segment = max(self._max_segment, length)

    def _log_in(self, timeout: float) -> None:
        request: Pdu | None = self.login.start()
        deadline = time.monotonic() + timeout
        poll = select.poll()
        while request is not None:
            self.output.append(memoryview(request.encode()))
            answers: list[Pdu] = []
            while not self._take_pdu(answers.append, _damaged_login):  # one: what follows the last may have digests
                poll.register(self.sock, self.wanted)
                ready = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
                if not ready:
                    raise TimeoutError(f"the target has said nothing for {timeout:g} s")
                if ready[0][1] & select.POLLOUT:
                    self._transmit()
                if ready[0][1] & ~select.POLLOUT:
                    self._read()
                if self.failure is not None:
                    raise self.failure
            (response,) = answers
            if not isinstance(response, LoginResponse):
                raise ProtocolError(f"the target sends opcode 0x{response.opcode:02x} during the login")
            response.data = bytes(response.data)
            request = self.login.receive(response)
        self._header_digest = self.parameters.header_digest
        self._data_digest = self.parameters.data_digest
        self._max_segment = self.parameters.max_recv_data_segment_length
        self.exp_stat_sn = self._highest = self.asked = self.login.exp_stat_sn

    # ---- bytes

    @property
    def wanted(self) -> int:
        """The events to poll for."""
        return select.POLLIN | (select.POLLOUT if self.output else 0)

    def send(self, pdu: Pdu) -> None:
        """Queue a PDU."""
        data = pdu.encode(header_digest=self._header_digest, data_digest=self._data_digest)
        self.output.append(memoryview(data))

    def move(self, mask: int, handle: Handler, damaged: Handler) -> bool:
        """Send and receive as `mask` of poll allows; see `drain`. False when no byte has moved."""
        moved = bool(mask & select.POLLOUT and self.output and self._transmit())
        if mask & ~select.POLLOUT and self.failure is None and self._read():
            self.drain(handle, damaged)
            moved = True
        return moved

    def fail(self, error: Exception) -> None:
        """The connection is of no use any more."""
        self.failure = self.failure or error
        self.output.clear()

    def close(self) -> None:
        self.fail(SessionLost("the session was dropped"))
        self.sock.close()

    def _transmit(self) -> bool:
        try:
            sent = self.sock.send(self.output[0][:_CHUNK])
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail(SessionLost(f"the connection is broken: {error.strerror or error}"))
            return True
        if sent == len(self.output[0]):
            self.output.popleft()
        else:
            self.output[0] = self.output[0][sent:]
        return True

    def _read(self) -> bool:
        try:
            count = self.sock.recv_into(memoryview(self._buffer)[self._end :])
        except BlockingIOError:
            return False
        except OSError as error:
            self.fail(SessionLost(f"the connection is broken: {error.strerror or error}"))
            return True
        if not count:
            self.fail(SessionLost("the target has closed the connection"))
        self._end += count
        return True

    def drain(self, handle: Handler, damaged: Handler) -> None:
        """Hand on the PDUs that have come; to `damaged` those whose data digest is wrong."""
        try:
            while self._take_pdu(handle, damaged):
                pass
        except (InitiatorError, PduError) as error:
            # A header digest error is one of them: where the next PDU begins cannot be known (RFC 7143 §7.7).
            self.fail(error if isinstance(error, InitiatorError) else ProtocolError(str(error)))
        if self.failure is None:
            self._make_room()

    def _take_pdu(self, handle: Handler, damaged: Handler) -> bool:
        """Hand on the next PDU in the buffer. False when it is not all there."""
        available = self._end - self._start
        if available < BHS_LENGTH or self.failure is not None:
            return False
        digests = {"header_digest": self._header_digest, "data_digest": self._data_digest}
        length = pdu_length(self._buffer, self._start, **digests)
        data_length = int.from_bytes(self._buffer[self._start + 5 : self._start + 8], "big")
        if data_length > self._max_segment:
            raise ProtocolError(f"a data segment of {data_length} bytes is longer than {self._max_segment}")
        if available < length:
            return False
        try:
            pdu = decode(self._buffer, self._start, **digests)
        except PduError as error:
            if error.pdu is None:
                raise
            self._start += length
            damaged(error.pdu)
            return True
        self._start += length
        handle(pdu)
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

    # ---- numbering (RFC 7143 §4.2.2.2)

    def take_stat_sn(self, pdu: Pdu) -> bool:
        """Account for the StatSN of a PDU that carries one. False when that has come before."""
        number = pdu.stat_sn  # type: ignore[attr-defined]
        if not takes_stat_sn(pdu):  # it tells which number is next (RFC 7143 §11.8, §11.19)
            self.know_of(number)
            return True
        if serial_less(number, self.exp_stat_sn) or number in self._ahead:
            return False
        self._ahead.add(number)
        while self.exp_stat_sn in self._ahead:
            self._ahead.discard(self.exp_stat_sn)
            self.exp_stat_sn = (self.exp_stat_sn + 1) & _MASK
        self.know_of((number + 1) & _MASK)
        return True

    @property
    def acknowledged(self) -> int:
        """ExpStatSN as the target is to know it: the acknowledgement of a status is that of its data too (§11.16)."""
        number = self.exp_stat_sn
        for withheld in self._withheld:
            if serial_less(withheld, number):
                number = withheld
        return number

    def withhold(self, stat_sn: int) -> None:
        """Do not acknowledge a response yet."""
        self._withheld.add(stat_sn)

    def acknowledge(self, withheld: set[int]) -> None:
        """These may be acknowledged after all."""
        self._withheld -= withheld

    def know_of(self, end: int) -> None:
        """The target has given the StatSNs before `end`."""
        if serial_less(self._highest, end):
            self._highest = end

    def missing(self) -> list[tuple[int, int]]:
        """Runs of StatSNs that have been given and not come: the first and how many."""
        runs: list[tuple[int, int]] = []
        for offset in range((self._highest - self.exp_stat_sn) & _MASK):
            number = (self.exp_stat_sn + offset) & _MASK
            if number in self._ahead:
                continue
            if runs and (runs[-1][0] + runs[-1][1]) & _MASK == number:
                runs[-1] = (runs[-1][0], runs[-1][1] + 1)
            else:
                runs.append((number, 1))
        return runs


class Dial(Protocol):
    """Makes connections to one target with one ISID, as often as it takes."""

    def __call__(
        self, portal: PortalAddress | None = None, *, tsih: int = 0, cid: int = 0, cmd_sn: int = 1, exp_stat_sn: int = 0
    ) -> Connection:
        """A connection that has logged in, through `portal` or the one of the first; redirections are followed.

        Raises OSError when there is no connection, LoginError, ProtocolError, SessionLost or TimeoutError.
        """


def carries_stat_sn(pdu: Pdu) -> bool:
    """Whether the StatSN field of a target's PDU means anything (RFC 7143 §11.7.5: in Data-In only with status)."""
    return not (isinstance(pdu, DataIn) and not pdu.has_status)


def takes_stat_sn(pdu: Pdu) -> bool:
    """Whether a target's PDU takes a StatSN of its own (RFC 7143 §11.8, §11.19)."""
    return carries_stat_sn(pdu) and not (isinstance(pdu, R2T) or (isinstance(pdu, NopIn) and pdu.itt == NO_TAG))


def _damaged_login(pdu: Pdu) -> None:
    raise AssertionError("no digests are used during the login")
