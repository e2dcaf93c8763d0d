"""Requests to an NBD server and their replies, on one connection (Transmission phase)."""

from __future__ import annotations

import errno
import select
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Lock

from blockyard.block import keeper
from blockyard.block.bell import Bell
from blockyard.block.nbd.handshake import Export
from blockyard.block.nbd.protocol import (
    CHUNK,
    CHUNK_MAGIC,
    DATA_CHUNK,
    DONE,
    ERRNOS,
    ERROR_CHUNK,
    ERROR_HEAD,
    EXTENT,
    HOLE_CHUNK,
    MAX_PAYLOAD,
    NO_HOLE,
    REQUEST,
    REQUEST_MAGIC,
    SHUTDOWN,
    SIMPLE,
    SIMPLE_MAGIC,
    Chunk,
    Command,
    ProtocolError,
)
from blockyard.block.nbd.stream import Buffer, Stream
from blockyard.block.unflushed import Change

_BUFFER = 64 << 10
_MASK = (1 << 64) - 1
_LOOKS = 4  # times that one looks whether the server is silent, before it has been for too long
_LONGEST_CHUNK = MAX_PAYLOAD + DATA_CHUNK.size


class Request(keeper.Request):
    """A request of this protocol, and what has come of it."""

    def __init__(
        self,
        command: Command,
        offset: int = 0,
        length: int = 0,
        *,
        flags: int = 0,
        data: Sequence[Buffer] = (),
        views: Sequence[memoryview] = (),
    ) -> None:
        self.command = command
        self.flags = flags
        self.offset = offset
        self.length = length
        self.data = data  # to write
        self.views = views  # where to read to
        super().__init__()

    def begin(self) -> None:
        super().begin()
        self.extents: list[tuple[int, int]] = []  # length and status, of BLOCK_STATUS
        self.left = self.length if self.command == Command.READ else 0  # bytes that have not come
        self.sent = 0.0

    def fail(self, number: int, text: str = "") -> None:
        if self.error is None:
            code = ERRNOS.get(number, errno.EIO)
            self.error = OSError(code, text or f"the NBD server answers error {number}")

    def place(self, offset: int, length: int) -> Iterator[memoryview]:
        """Where bytes of the reply to a READ go; `offset` counts from the beginning of the export."""
        at, left = offset - self.offset, length
        for view in self.views:
            if at < len(view) and left:
                piece = view[at : at + left]
                yield piece
                left -= len(piece)
                at = 0
            else:
                at = max(0, at - len(view))


class Link:
    """One connection: several threads send, one receives."""

    def __init__(self, stream: Stream, export: Export) -> None:
        self.stream = stream
        self.export = export
        self.heard = time.monotonic()  # when something came last
        self.requests: dict[int, Request] = {}  # that have no answer yet, by their cookies
        self._abandoned = False
        self.output: list[memoryview] = []  # what could not be sent at once
        self._sending = Lock()
        self._cookie = 0
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0

    # ---- sending

    def send(self, request: Request) -> bool:
        """Without waiting; what comes of the request is told by who receives. Whether some of it is left. Raises OSError."""
        with self._sending:
            if self._abandoned:
                raise keeper.Abandoned
            self._cookie = cookie = (self._cookie + 1) & _MASK
            request.sent = time.monotonic()
            self.requests[cookie] = request
            header = REQUEST.pack(REQUEST_MAGIC, request.flags, request.command, cookie, request.offset, request.length)
            return self._put([memoryview(header), *(memoryview(data).cast("B") for data in request.data)])

    def _put(self, buffers: list[memoryview]) -> bool:
        self.output = [*self.output, *buffers] if self.output else self.stream.send_some(buffers)
        return bool(self.output)

    def drain(self) -> None:
        """Go on with what is left to be sent. Raises OSError."""
        with self._sending:
            self.output = self.stream.send_some(self.output) if self.output else []

    def abandon(self) -> list[Request]:
        """Send nothing more; the requests that have no answer."""
        with self._sending:
            self._abandoned = True
            left, self.requests = list(self.requests.values()), {}
        return left

    def disconnect(self) -> None:
        """Say that nothing more will come. Raises OSError."""
        with self._sending:
            self._put([memoryview(REQUEST.pack(REQUEST_MAGIC, 0, Command.DISC, 0, 0, 0))])

    @property
    def events(self) -> int:
        """What to wait for (poll(2))."""
        return select.POLLIN | (select.POLLOUT if self.output else 0)

    def is_silent(self, seconds: float) -> bool:
        """Whether it owes an answer and has said nothing for so long."""
        with self._sending:
            since = min((request.sent for request in self.requests.values()), default=None)
        return since is not None and time.monotonic() - max(self.heard, since) >= seconds

    # ---- receiving

    def receive(self) -> None:
        """Handle what has come. Raises OSError, ProtocolError: the connection is over then."""
        while True:
            if self._start == self._end:
                self._start = self._end = 0
            elif self._start:
                left = self._end - self._start
                self._buffer[:left] = self._buffer[self._start : self._end]
                self._start, self._end = 0, left
            count = self.stream.receive_some(self._buffer[self._end :])
            if count < 0:
                return
            if not count:
                raise ConnectionResetError("it has closed the connection")
            self._end += count
            self.heard = time.monotonic()
            while self._reply():
                pass

    def _reply(self) -> bool:
        """Handle one reply or chunk, if its header is there."""
        here = self._end - self._start
        if here < SIMPLE.size:
            return False
        magic = int.from_bytes(self._buffer[self._start : self._start + 4], "big")
        if magic == SIMPLE_MAGIC:
            _, error, cookie = SIMPLE.unpack_from(self._buffer, self._start)
            self._start += SIMPLE.size
            self._simple(self._request(cookie), cookie, error)
            return True
        if magic != CHUNK_MAGIC:
            raise ProtocolError("it sends what is no reply")
        if here < CHUNK.size:
            return False
        _, flags, kind, cookie, length = CHUNK.unpack_from(self._buffer, self._start)
        self._start += CHUNK.size
        if length > _LONGEST_CHUNK:
            raise ProtocolError(f"it announces a chunk of {length} bytes")
        request = self._request(cookie)
        self._chunk(request, kind, length)
        if flags & DONE:
            self._end_of(request, cookie)
        return True

    def _request(self, cookie: int) -> Request:
        request = self.requests.get(cookie)
        if request is None:
            raise ProtocolError("it answers what nobody has asked")
        return request

    def _simple(self, request: Request, cookie: int, error: int) -> None:
        if error:
            self._failed(request, error, "")
        elif request.command == Command.READ:
            if self.export.structured:
                raise ProtocolError("it answers a read without structure, though it has agreed on that")
            self._data(request, request.offset, request.length)
        self._end_of(request, cookie)

    def _failed(self, request: Request, error: int, text: str) -> None:
        if error == SHUTDOWN:
            raise ConnectionResetError("it is shutting down")
        request.fail(error, text)

    def _end_of(self, request: Request, cookie: int) -> None:
        if request.left and request.error is None:
            request.fail(0, "the NBD server has answered a part of what was to be read")
        with self._sending:
            del self.requests[cookie]
        request.end()

    def _chunk(self, request: Request, kind: int, length: int) -> None:
        if kind == Chunk.OFFSET_DATA and length > DATA_CHUNK.size:
            (offset,) = DATA_CHUNK.unpack(self._take(DATA_CHUNK.size))
            self._data(request, offset, length - DATA_CHUNK.size)
            return
        body = self._take(length)
        if kind == Chunk.OFFSET_HOLE and length == HOLE_CHUNK.size:
            offset, size = HOLE_CHUNK.unpack(body)
            self._check(request, offset, size)
            for view in request.place(offset, size):
                view[:] = bytes(len(view))
        elif kind == Chunk.BLOCK_STATUS and length >= 4 + EXTENT.size and not (length - 4) % EXTENT.size:
            if int.from_bytes(body[:4], "big") == self.export.allocation:
                request.extents += EXTENT.iter_unpack(body[4:])
        elif kind & ERROR_CHUNK and length >= ERROR_HEAD.size:
            error, size = ERROR_HEAD.unpack_from(body)
            self._failed(request, error, body[ERROR_HEAD.size :][:size].decode("utf-8", "replace"))
        elif kind != Chunk.NONE or length:
            raise ProtocolError(f"a chunk of type {kind} and {length} bytes makes no sense")

    def _check(self, request: Request, offset: int, length: int) -> None:
        """A chunk of a READ, which lies within what was asked for, and is not more than that in all."""
        if (
            request.command != Command.READ
            or not request.offset <= offset <= request.offset + request.length - length
            or length > request.left
        ):
            raise ProtocolError("it sends data that nobody has asked for")
        request.left -= length

    def _data(self, request: Request, offset: int, length: int) -> None:
        self._check(request, offset, length)
        for view in request.place(offset, length):
            self._fill(view)

    def _take(self, length: int) -> bytes:
        data = bytearray(length)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, view: memoryview) -> None:
        """From what is in the buffer, then from the connection."""
        here = min(self._end - self._start, len(view))
        view[:here] = self._buffer[self._start : self._start + here]
        self._start += here
        if here < len(view):
            self.stream.receive(view[here:])
            self.heard = time.monotonic()

    def close(self) -> None:
        self.stream.close()


Watch = tuple[int, Callable[[], bool]]  # a descriptor, and what to do when it can be read; False: no more


class Links:
    """Connections to one export, that are used in turn: a Transport (keeper.py)."""

    def __init__(self, links: Sequence[Link], timeout: float, watch: Watch | None = None) -> None:
        self.export = links[0].export
        self._timeout = timeout
        self._bell = Bell()  # somebody could not send all at once
        self.size = self.export.size
        self.links = links
        self._watch = watch
        self._turn = 0

    def terms(self) -> dict[str, object]:
        """What the export is, as JSON has it."""
        return {name: None if value is None else int(value) for name, value in self.export._asdict().items()}

    def send(self, request: Request) -> None:
        self._turn = turn = self._turn + 1  # two threads may take the same turn: no harm
        if self.links[turn % len(self.links)].send(request):
            self._bell.ring()

    def serve(self, wake: int) -> None:
        poll = select.poll()
        links = {link.stream.fileno(): link for link in self.links}
        for fd in (wake, self._bell.fd, *([self._watch[0]] if self._watch else ())):
            poll.register(fd, select.POLLIN)
        for fd, link in links.items():
            poll.register(fd, link.events)
            link.receive()  # what came with the last bytes of the handshake
        while True:
            for fd, event in poll.poll(self._timeout / _LOOKS * 1000):
                if fd == wake:
                    return
                if fd == self._bell.fd:
                    self._bell.heard()
                    for other, link in links.items():
                        poll.modify(other, link.events)
                elif fd in links:
                    self._move(links[fd], event)
                    if event & select.POLLOUT:
                        poll.modify(fd, links[fd].events)
                elif self._watch is not None and not self._watch[1]():
                    poll.unregister(fd)
            if any(link.is_silent(self._timeout) for link in self.links):
                raise TimeoutError(errno.ETIMEDOUT, f"it has said nothing for {self._timeout:g} s")

    @staticmethod
    def _move(link: Link, event: int) -> None:
        if event & select.POLLOUT:
            link.drain()
        if event & ~select.POLLOUT:
            link.receive()

    def finish(self, request: Request) -> None:
        link = self.links[0]
        link.send(request)
        poll = select.poll()
        while not request.ended.acquire(blocking=False):
            poll.register(link.stream.fileno(), link.events)
            ready = poll.poll(self._timeout * 1000)
            if not ready:
                raise TimeoutError(errno.ETIMEDOUT, "it is silent")
            self._move(link, ready[0][1])

    def change(self, change: Change) -> Request:
        return request_of(change)

    def fail(self) -> None:
        for link in self.links:
            link.stream.fail()

    def abandon(self) -> list[Request]:
        left: list[Request] = []
        for link in self.links:
            left += link.abandon()
        return left

    def close(self, *, orderly: bool) -> None:
        for link in self.links:
            if orderly:
                with suppress(OSError):
                    link.disconnect()
            link.close()
        self._bell.close()


def request_of(change: Change) -> Request:
    """What makes a change once more."""
    if change.data is not None:
        return Request(Command.WRITE, change.offset, change.length, data=[change.data])
    flags = 0 if change.free else NO_HOLE
    return Request(Command.WRITE_ZEROES, change.offset, change.length, flags=flags)
