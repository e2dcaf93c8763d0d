"""The session with a target elsewhere, kept by one thread for many (block/keeper.py).

A Session is for one thread at a time. So commands are queued by whoever wants something, and the thread that serves hands them
in, moves bytes, and tells who waits. A target that is silent is asked whether it is there (NOP-Out): a command that takes long
is no reason to give it up.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Lock

from blockyard.block.bell import Bell
from blockyard.block.keeper import Abandoned
from blockyard.block.unflushed import Change
from blockyard.initiator.errors import InitiatorError, ScsiError
from blockyard.initiator.exchange import Exchange
from blockyard.initiator.lun import Lun
from blockyard.initiator.sense import decode_sense
from blockyard.initiator.session import Session
from blockyard.iscsi.pdu import NO_TAG, NopOut
from blockyard.remote import commands
from blockyard.remote.commands import CAPACITY_CHANGED, Command

_ASKING = 3  # parts of the time of silence after which the target is asked whether it is there


@dataclass(frozen=True)
class Limits:
    """What the logical unit is, and takes."""

    blocks: int
    block_size: int  # bytes
    thin: bool = False
    reads_zeros: bool = False  # from what is not mapped
    identity: str = ""  # of the logical unit: its designators in page 83h, in hexadecimal digits
    cached: bool = True  # it has a volatile cache that is on
    protected: bool = False  # it cannot be written to
    rotational: bool = False
    max_transfer: int = 0  # blocks of one command; 0: no limit
    max_unmap: int = 0  # blocks
    unmap_granularity: int = 1  # blocks
    max_write_same: int = 0  # blocks; 0: no limit
    unmaps: bool = False  # UNMAP (LBPU)
    write_same_unmaps: bool = False  # WRITE SAME(16) with UNMAP (LBPWS)


class Nexus:
    """A Transport (block/keeper.py): a session that is logged in, and what is under way in it."""

    def __init__(self, session: Session, lun: int, limits: Limits, timeout: float, resized: Callable[[], None]) -> None:
        self.limits = limits
        self.size = limits.blocks * limits.block_size
        self._session = session
        self._lun = lun
        self._timeout = timeout
        self._resized = resized
        self._queue: deque[Command] = deque()
        self._later: list[tuple[float, Command]] = []
        self._under_way: dict[Exchange, Command] = {}
        self._heard = time.monotonic()
        self._asked = False
        self._failed = False
        self._abandoned = False
        self._sending = Lock()
        self._bell = Bell()

    def terms(self) -> dict[str, object]:
        """What the logical unit is, as JSON has it."""
        return asdict(self.limits)

    # ---- for all threads

    def send(self, request: Command) -> None:
        with self._sending:
            if self._abandoned:
                raise Abandoned
            self._queue.append(request)
        self._bell.ring()

    def fail(self) -> None:
        self._failed = True
        for connection in list(self._session.connections):
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)
        self._bell.ring()

    # ---- for the thread that serves

    def serve(self, wake: int) -> None:
        try:
            while not self._step(wake):
                if self._failed:
                    raise ConnectionResetError("it is given up")
        except InitiatorError as error:
            raise OSError(errno.EPROTO, str(error)) from None

    def _step(self, wake: int) -> bool:
        poll = select.poll()
        for fd in (wake, self._bell.fd):
            poll.register(fd, select.POLLIN)
        for connection in self._session.connections:
            poll.register(connection.sock, connection.wanted)
        ready = [fd for fd, _ in poll.poll(self._sleep() * 1000 if self._under_way or self._later else None)]
        if wake in ready:
            return True
        self._bell.heard()
        now = time.monotonic()
        due = [command for when, command in self._later if when <= now]
        self._later = [(when, command) for when, command in self._later if when > now]
        self._queue.extend(due)
        while self._queue:
            self._begin(self._queue.popleft())
        self._session.poll()
        self._ask_if_silent()
        return False

    def _sleep(self) -> float:
        """Seconds until there is something to do, if nothing comes."""
        due = min((when for when, _ in self._later), default=float("inf")) - time.monotonic()
        return max(0.0, min(due, self._timeout / _ASKING))

    def _begin(self, command: Command) -> None:
        try:
            exchange = self._session.submit(self._lun, command.cdb, command.data, command.length)
        except BaseException:
            self._queue.appendleft(command)  # whoever waits for it is told with the others
            raise
        self._under_way[exchange] = command
        if exchange.done:
            self._ended(exchange)
        else:
            exchange.then = self._ended

    def _ended(self, exchange: Exchange) -> None:
        if exchange.error is not None:
            return  # the session is lost: it is abandoned with all others
        self._heard = time.monotonic()
        command = self._under_way.pop(exchange)
        again = command.take(exchange.response)
        self._look_for_changes(exchange.response.sense)
        if again is None:
            command.end()
        else:
            self._later.append((self._heard + again, command))

    def _look_for_changes(self, sense: bytes) -> None:
        found = decode_sense(sense)
        if found is not None and (found.asc, found.ascq) == CAPACITY_CHANGED:
            self._resized()

    def _ask_if_silent(self) -> None:
        if not self._under_way:
            return
        silent = time.monotonic() - max(self._heard, min(command.sent for command in self._under_way.values()))
        if silent >= self._timeout:
            raise TimeoutError(errno.ETIMEDOUT, f"it has said nothing for {self._timeout:g} s")
        if silent >= self._timeout / _ASKING and not self._asked:
            self._asked = True
            exchange = self._session.start(
                Exchange(NopOut(immediate=True, final=True, itt=self._session.new_tag(), ttt=NO_TAG))
            )
            exchange.then = self._answered

    def _answered(self, exchange: Exchange) -> None:
        self._asked = False
        if exchange.error is None:
            self._heard = time.monotonic()

    def finish(self, request: Command) -> None:
        self._queue.append(request)
        try:
            while not request.ended.acquire(blocking=False):
                while self._queue:
                    self._begin(self._queue.popleft())
                for exchange in list(self._under_way):
                    self._session.wait(exchange)
                self._queue.extend(command for _, command in self._later)
                self._later.clear()
        except InitiatorError as error:
            raise OSError(errno.EPROTO, str(error)) from None

    def change(self, change: Change) -> Command:
        size = self.limits.block_size
        lba, blocks = change.offset // size, change.length // size
        if change.data is not None:
            return Command(commands.write(lba, blocks), data=[change.data])
        return Command(commands.write_same(lba, blocks, unmap=change.free), data=[bytes(size)])

    def abandon(self) -> list[Command]:
        with self._sending:
            self._abandoned = True
            left = [*self._queue, *self._under_way.values(), *(command for _, command in self._later)]
            self._queue.clear()
        self._under_way.clear()
        self._later.clear()
        return left

    def close(self, *, orderly: bool) -> None:
        if orderly:
            self._session.close()
        else:
            self._session.drop()
        self._bell.close()


def examined(lun: Lun) -> Limits:
    """Look at a logical unit. Raises OSError, InitiatorError."""
    lun.test_unit_ready()
    standard = lun.inquiry()
    if standard[0] & 0x1F not in (0x00, 0x0E):
        raise OSError(errno.ENOTBLK, f"it is no disk, but of peripheral device type {standard[0] & 0x1F:02X}h")
    block_limits, characteristics, provisioning = (_page(lun, page) for page in (0xB0, 0xB1, 0xB2))
    header, caching = _mode(lun)

    def number(at: int, length: int) -> int:
        return int.from_bytes(block_limits[at : at + length], "big")

    capacity = lun.capacity()
    return Limits(
        blocks=capacity.blocks,
        block_size=capacity.block_size,
        thin=capacity.thin,
        reads_zeros=capacity.reads_zeros,
        identity=_identity(_page(lun, 0x83)).hex(),
        cached=bool(caching[2] & 4) if len(caching) > 2 else True,
        protected=bool(header[2] & 0x80) if len(header) > 2 else False,
        rotational=int.from_bytes(characteristics[4:6], "big") > 1,
        max_transfer=number(8, 4),
        max_unmap=number(20, 4) if number(24, 4) else 0,
        unmap_granularity=number(28, 4) or 1,
        max_write_same=number(36, 8),
        unmaps=bool(provisioning[5:6] and provisioning[5] & 0x80),
        write_same_unmaps=bool(provisioning[5:6] and provisioning[5] & 0x40),
    )


def _identity(page: bytes) -> bytes:
    """The designators of page 83h that are the logical unit's own, not those of the port that one comes by (SPC-5 §7.7.6)."""
    found, at = b"", 4
    while at + 4 <= len(page):
        end = at + 4 + page[at + 3]
        if not page[at + 1] & 0x30:
            found += page[at:end]
        at = end
    return found


def _page(lun: Lun, page: int) -> bytes:
    """A vital product data page; nothing where there is none."""
    with suppress(ScsiError):
        data = lun.inquiry(page, 255)
        if data[1:2] == bytes([page]):
            return data
    return b""


def _mode(lun: Lun) -> tuple[bytes, bytes]:
    """The header of the mode data, and the caching page (SBC-4 §6.5.6); nothing where there is none."""
    for page in (0x08, 0x3F):
        with suppress(ScsiError):
            data = lun.execute(bytes((0x1A, 8, page, 0, 255, 0)), read_length=255)
            body = data[4 + data[3] :] if len(data) > 3 else b""
            return data[:4], body if body[:1] and body[0] & 0x3F == 0x08 else b""
    return b"", b""
