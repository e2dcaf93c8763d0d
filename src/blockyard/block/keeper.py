"""The thread that keeps the connection to a disk elsewhere: makes it, receives, and makes it anew when it is lost.

Whoever wants something from the server sends it, which never blocks, and either waits (`run`) or is called (`begin`); what
comes is received here. When the connection fails, it is dropped, and a new one is tried for, more and more seldom; then what
has had no answer is sent anew. Before that, what the server may have lost with its cache is written once more (unflushed.py).
While there is no connection, requests wait for `PATIENCE` seconds, counted from the loss; then they fail with ENOTCONN, which
initiators are told as NOT READY, and at once from then on. So fails a request, too, that loses one connection after the other.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import Condition, Lock, Thread
from typing import Generic, Protocol, TypeVar

from blockyard.block.layers import Notify
from blockyard.block.unflushed import Change, Unflushed

PATIENCE = 5.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0  # seconds between attempts to connect
_LOSSES = 6  # connections that a request may lose
_CLOSING = 30.0  # seconds that the end of a server of our own may take


class Request:
    """Something that a server is asked. Whoever makes it waits for `ended`, or is called by `then`, from any thread."""

    def __init__(self) -> None:
        self.ended = Lock()
        self.then: Callable[[], None] | None = None
        self.generation = 0  # of the connection that it was sent by
        self.error: OSError | None = None
        self.again = False  # its connection was lost: it has to be sent once more
        self.losses = 0  # how often that was so
        self.begin()

    def begin(self) -> None:
        """Nothing has come of it yet."""
        self.ended.acquire(blocking=False)
        self.error = None
        self.again = False

    def end(self) -> None:
        """It has its answer, or never will."""
        if self.then is not None:
            self.then()
        else:
            self.ended.release()


class Abandoned(OSError):
    """A request was not sent: the connection is not used any more."""


R = TypeVar("R", bound=Request)


class Transport(Protocol[R]):
    """A connection to a server, or several that are used as one. `size` is that of the disk, in bytes."""

    size: int

    def send(self, request: R) -> None:
        """From any thread, without blocking. What comes of the request is told by who serves. Raises OSError: Abandoned if
        that will be nothing, as `abandon` has been called.
        """

    def serve(self, wake: int) -> None:
        """Receive, until `wake` can be read. Raises OSError when the connection fails, or the server is silent for too long."""

    def finish(self, request: R) -> None:
        """Send a request and receive until it has ended, while nobody serves or sends. Raises OSError."""

    def change(self, change: Change) -> R:
        """What makes a change once more."""

    def fail(self) -> None:
        """Let who serves find that the connection is over. From any thread."""

    def abandon(self) -> Iterable[R]:
        """The requests that will not end, as nobody serves any more."""

    def close(self, *, orderly: bool) -> None: ...


T = TypeVar("T", bound=Transport)  # type: ignore[type-arg]
Made_co = TypeVar("Made_co", covariant=True)


class Connector(Protocol[Made_co]):
    """Where connections come from. All but `name` is for the keeper's thread."""

    name: str  # what the other end is called

    def connect(self) -> Made_co:
        """A new connection. Raises OSError."""

    def lost(self) -> None:
        """It is of no use any more, and closed. Who runs the server ends it."""


class Keeper(Generic[T, R]):
    """The connection of one device. `timeout`: seconds that a server that owes an answer may be silent.

    `accept` looks at each new connection before it is used, and raises OSError where it cannot be; a disk that is smaller
    than it was is refused here.
    """

    def __init__(
        self,
        connector: Connector[T],
        unflushed: Unflushed,
        accept: Callable[[T], None],
        *,
        size: int = 0,
        timeout: float,
        notify: Notify,
    ) -> None:
        self.generation = 0  # how often a connection was lost
        self.failure: OSError | None = None  # why there is no connection
        self.lost_write: OSError | None = None  # what was acknowledged could not be written once more
        self._size = size  # of the disk as it was last; 0: nobody knows
        self._accept = accept
        self._parked: list[R] = []  # that wait for a connection, with nobody who waits for them
        self._connector = connector
        self._unflushed = unflushed
        self._timeout = timeout
        self._patience = min(PATIENCE, timeout)
        self._notify = notify
        self._state = Condition()
        self._transport: T | None = None
        self._down_since = time.monotonic()
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = Thread(target=self._keep, name=f"to {connector.name}"[:15], daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        return self._transport is not None

    # ---- for those who want something

    def wait_connected(self, seconds: float) -> None:
        """Raises OSError when there is no connection in time: why the first attempt failed."""
        with self._state:
            self._state.wait_for(lambda: self._transport or self.failure is not None or self._closing, seconds)
            if self._transport is not None:
                return
            error = self.failure or TimeoutError(errno.ETIMEDOUT, "it does not answer")
            raise OSError(error.errno or errno.EIO, error.strerror or str(error), self._connector.name)

    def run(self, requests: Sequence[R]) -> None:
        """Have requests answered, all at a time. Raises the first error, and ENOTCONN without a connection."""
        done = Lock()
        done.acquire()
        self.begin(requests, done.release)
        done.acquire()
        for request in requests:
            if request.error is not None:
                raise request.error

    def begin(self, requests: Sequence[R], done: Callable[[], None]) -> None:
        """Have requests answered, all at a time, then call `done`, from any thread."""
        left, lock = len(requests), Lock()

        def one(request: R) -> None:
            nonlocal left
            if request.again:
                request.losses += 1
                if request.losses < _LOSSES:
                    self._post(request)
                    return
                request.error = self._not_connected()
            with lock:
                left -= 1
                last = not left
            if last:
                done()

        for request in requests:
            request.then = partial(one, request)
            self._post(request)

    def _post(self, request: R) -> None:
        """Send a request, or keep it until there is a connection."""
        while True:
            request.begin()
            with self._state:
                transport, request.generation = self._transport, self.generation
                if transport is None and not self._is_hopeless:
                    self._parked.append(request)
                    return
            if transport is None:
                request.error = self._not_connected()
                request.end()
                return
            try:
                transport.send(request)
            except Abandoned:
                continue
            except OSError:  # the thread that receives finds out, and has all that was sent there sent again
                transport.fail()
            return

    @property
    def _is_hopeless(self) -> bool:
        return self._closing or time.monotonic() >= self._down_since + self._patience

    def _not_connected(self) -> OSError:
        reason = f": {self.failure.strerror or self.failure}" if self.failure else ""
        return OSError(errno.ENOTCONN, f"The server cannot be reached{reason}", self._connector.name)

    # ---- the thread

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing:
            transport: T | None = None
            began = time.monotonic()
            try:
                transport = self._connector.connect()
                self._adopt(transport)
                transport.serve(self._wake)
                self._drop(transport, OSError(errno.ESHUTDOWN, "it is closed"))
            except OSError as error:
                self._drop(transport, error)
            except Exception as error:  # whatever it is: who waits must not wait for ever
                self._drop(transport, OSError(errno.EPROTO, f"a fault of this program: {error!r}"))
                raise
            if transport is not None and time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            if not self._closing and self._pause(pause):  # what dies again and again is made again less and less often
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> bool:
        """Wait, unless it is to end. Whoever has waited for long enough is told so on time."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        hopeless = max(0.0, self._down_since + self._patience - time.monotonic())
        if hopeless < seconds:
            if poll.poll(hopeless * 1000):
                return False
            self._give_up()
            seconds -= hopeless
        return not poll.poll(seconds * 1000)

    def _give_up(self) -> None:
        """Let fail what has waited for a connection for long enough."""
        with self._state:
            parked = self._parked if self._is_hopeless else []
            self._parked = self._parked if not self._is_hopeless else []
        for request in parked:
            request.error = self._not_connected()
            request.end()

    def _adopt(self, transport: T) -> None:
        """Use a connection from now on, once the server has what it may have lost."""
        again = self._size > 0
        if transport.size < self._size:
            raise OSError(errno.EPROTO, f"the disk has {transport.size} bytes now: it had {self._size}")
        self._accept(transport)
        if again:
            self._write_again(transport)
        with self._state:
            self._size, self.failure, self._transport = transport.size, None, transport
            parked, self._parked = self._parked, []
            self._state.notify_all()
        for request in parked:
            self._post(request)
        if again:
            self._notify("info", "server-back", f"{self._connector.name} answers again")

    def _write_again(self, transport: T) -> None:
        for change in self._unflushed.changes():
            request: R = transport.change(change)
            transport.finish(request)
            if request.error is not None:
                self.lost_write = request.error
                what = f"{change.length} bytes at {change.offset}, acknowledged earlier, cannot be written"
                self._notify("error", "data-lost", f"{self._connector.name}: {what}: {request.error.strerror}")

    def _drop(self, transport: T | None, error: OSError) -> None:
        with self._state:
            first = self.failure is None
            self.generation += 1
            if first:
                self._down_since = time.monotonic()
            self.failure = error
            self._transport = None
            if transport is not None:
                transport.fail()
            left = list(transport.abandon()) if transport is not None else []
            self._state.notify_all()
        for request in left:
            request.again = True
            request.end()
        self._give_up()
        if first and self._size and not self._closing:
            self._notify("error", "server-lost", f"{self._connector.name}: {error.strerror or error}")
        if transport is not None:
            transport.close(orderly=error.errno == errno.ESHUTDOWN)
        self._connector.lost()

    def close(self) -> None:
        """End the connection, and the server if it is our own."""
        with self._state:
            self._closing = True
            self._state.notify_all()
        os.eventfd_write(self._wake, 1)
        self._thread.join(_CLOSING)
        self._give_up()
        if not self._thread.is_alive():
            os.close(self._wake)
