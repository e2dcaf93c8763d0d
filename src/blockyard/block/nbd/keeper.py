"""The thread that keeps the connections of an NBD device: makes them, receives, and makes them anew when they are lost.

Whoever wants something from the server sends it from a thread of its own and waits; what comes is received here. When a
connection fails, all of them are dropped, whoever waits is told to ask again, and new ones are tried for, more and more
seldom. Before others may use these, what the server may have lost with its cache is written once more (unflushed.py). While
there are none, requests wait for `patience` seconds, counted from the loss; then they fail with ENOTCONN, which
initiators are told as NOT READY, and at once from then on: threads that wait are threads that other disks have not.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Sequence
from threading import Condition, Thread
from typing import Protocol

from blockyard.block.layers import Notify
from blockyard.block.nbd.handshake import Export
from blockyard.block.nbd.protocol import NO_HOLE, Command
from blockyard.block.nbd.transfer import Link, Request
from blockyard.block.unflushed import Change, Unflushed

PATIENCE = 5.0  # seconds
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 10.0  # seconds between attempts to connect
_CLOSING = 30.0  # seconds that the end of a server of our own may take


class Connector(Protocol):
    """Where connections come from."""

    name: str  # what the other end is called

    def connect(self) -> list[Link]:
        """New connections, all to one export. Raises OSError."""

    def lost(self) -> None:
        """They are of no use any more, and closed. Who runs the server ends it."""

    def watch(self) -> tuple[int, Callable[[], bool]] | None:
        """A descriptor, and what to do when it can be read; False when it is to be looked at no more."""

    def close(self) -> None:
        """No more connections are wanted."""


class Keeper:
    """The connections of one device. `timeout`: seconds that a server that owes an answer may be silent."""

    def __init__(self, connector: Connector, unflushed: Unflushed, *, timeout: float, notify: Notify) -> None:
        self.export: Export | None = None  # as the server had it last
        self.generation = 0  # of connections: how often they were lost
        self.failure: OSError | None = None  # why there is no connection
        self.lost_write: OSError | None = None  # what was acknowledged could not be written once more
        self._connector = connector
        self._unflushed = unflushed
        self._timeout = timeout
        self._patience = min(PATIENCE, timeout)
        self._notify = notify
        self._state = Condition()
        self._links: list[Link] = []  # empty: not connected
        self._turn = 0
        self._down_since = time.monotonic()
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = Thread(target=self._keep, name=f"nbd {connector.name}"[:15], daemon=True)
        self._thread.start()

    @property
    def connected(self) -> bool:
        return bool(self._links)

    # ---- for those who want something

    def wait_connected(self, seconds: float) -> Export:
        """What the export is. Raises OSError when there is no connection in time: why the first attempt failed."""
        with self._state:
            self._state.wait_for(lambda: self._links or self.failure is not None or self._closing, seconds)
            if self._links and self.export is not None:
                return self.export
            raise self.failure or OSError(errno.ETIMEDOUT, "it does not answer", self._connector.name)

    def run(self, requests: Sequence[Request]) -> None:
        """Have requests answered, all at a time. Raises the first error, and ENOTCONN without a connection."""
        began = time.monotonic()
        todo = list(requests)
        while todo:
            started: list[Request] = []
            try:
                for request in todo:
                    self._start(request, began)
                    started.append(request)
            finally:
                for request in started:
                    self._await(request)
            todo = [request for request in todo if request.again]
        for request in requests:
            if request.error is not None:
                raise request.error

    def _start(self, request: Request, began: float) -> None:
        link, generation = self._link(began)
        request.begin(generation)
        try:
            link.send(request)
        except OSError:  # the thread that receives finds out, and has all that was sent there sent again
            link.stream.fail()

    def _link(self, began: float) -> tuple[Link, int]:
        with self._state:
            limit = self._down_since + self._patience if not self._links else 0.0
            while not self._links:
                if self._closing or time.monotonic() >= limit or time.monotonic() - began > self._timeout:
                    raise self._not_connected()
                self._state.wait(max(0.0, limit - time.monotonic()))
            self._turn = (self._turn + 1) % len(self._links)
            return self._links[self._turn], self.generation

    def _not_connected(self) -> OSError:
        reason = f": {self.failure.strerror or self.failure}" if self.failure else ""
        return OSError(errno.ENOTCONN, f"The NBD server cannot be reached{reason}", self._connector.name)

    def _await(self, request: Request) -> None:
        while not request.ended.acquire(timeout=self._timeout):
            with self._state:
                for link in self._links:
                    if request in link.requests.values():
                        since = max(link.heard, request.sent)
                        if time.monotonic() - since >= self._timeout:
                            link.stream.fail()

    # ---- the thread

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._closing:
            links: list[Link] = []
            began = time.monotonic()
            try:
                links = self._connector.connect()
                self._adopt(links)
                self._serve(links)
            except OSError as error:
                self._drop(links, error)
            except Exception as error:  # whatever it is: who waits must not wait for ever
                self._drop(links, OSError(errno.EPROTO, f"a fault of this program: {error!r}"))
                raise
            if links and time.monotonic() - began > _LONGEST_PAUSE:
                pause = _FIRST_PAUSE
            if not self._closing and self._pause(pause):  # what dies again and again is made again less and less often
                pause = min(pause * 2, _LONGEST_PAUSE)

    def _pause(self, seconds: float) -> bool:
        """Wait, unless it is to end."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        return not poll.poll(seconds * 1000)

    def _adopt(self, links: list[Link]) -> None:
        """Use connections from now on, once the server has what it may have lost."""
        export = links[0].export
        if self.export is not None:
            if export.size < self.export.size:
                raise OSError(errno.EPROTO, f"the disk has {export.size} bytes now: it had {self.export.size}")
            self._write_again(links[0])
        with self._state:
            again = self.export is not None and self.failure is not None
            self.export, self.failure, self._links = export, None, links
            self._state.notify_all()
        if again:
            self._notify("info", "server-back", f"{self._connector.name} answers again")

    def _write_again(self, link: Link) -> None:
        for change in self._unflushed.changes():
            request = request_of(change)
            link.send(request)
            while not request.ended.acquire(blocking=False):
                poll = select.poll()
                poll.register(link.stream.fileno(), select.POLLIN)
                if not poll.poll(self._timeout * 1000):
                    raise TimeoutError(errno.ETIMEDOUT, "it is silent")
                link.receive()
            if request.error is not None:
                self.lost_write = request.error
                what = f"{change.length} bytes at {change.offset}, acknowledged earlier, cannot be written"
                self._notify("error", "data-lost", f"{self._connector.name}: {what}: {request.error.strerror}")

    def _serve(self, links: list[Link]) -> None:
        """Receive until a connection fails, which is raised, or all is to end."""
        poll = select.poll()
        receivers: dict[int, Callable[[], object]] = {link.stream.fileno(): link.receive for link in links}
        watched = self._connector.watch()
        if watched is not None:
            descriptor, look = watched

            def watch() -> None:
                if not look():
                    poll.unregister(descriptor)

            receivers[descriptor] = watch
        for fd in (*receivers, self._wake):
            poll.register(fd, select.POLLIN)
        for link in links:  # what came with the last bytes of the handshake
            link.receive()
        while not self._closing:
            for fd, _ in poll.poll():
                if fd != self._wake:
                    receivers[fd]()
        for link in links:
            link.disconnect()
        raise OSError(errno.ESHUTDOWN, "it is closed")

    def _drop(self, links: list[Link], error: OSError) -> None:
        with self._state:
            first = self.failure is None
            self.generation += 1
            if first:
                self._down_since = time.monotonic()
            self.failure = error
            self._links = []
            for link in links:
                link.stream.fail()
                for request in link.requests.values():
                    request.again = True
                    request.ended.release()
                link.requests = {}
            self._state.notify_all()
        if first and self.export is not None and not self._closing:
            self._notify("error", "server-lost", f"{self._connector.name}: {error.strerror or error}")
        for link in links:
            link.close()
        self._connector.lost()

    def close(self) -> None:
        with self._state:
            self._closing = True
            self._state.notify_all()
        os.eventfd_write(self._wake, 1)
        self._thread.join(_CLOSING)
        self._connector.close()
        if not self._thread.is_alive():
            os.close(self._wake)


def request_of(change: Change) -> Request:
    """What makes a change once more."""
    if change.data is not None:
        return Request(Command.WRITE, change.offset, change.length, data=[change.data])
    flags = 0 if change.free else NO_HOLE
    return Request(Command.WRITE_ZEROES, change.offset, change.length, flags=flags)
