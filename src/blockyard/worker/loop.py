"""The event loop of a worker: one thread, one epoll, every connection of its targets.

A `Link` is a socket with its Connection. On each readiness event it takes what has come, has
`pump` handle all of it, and sends all answers at once. It waits for the socket to take more
only when a send was cut short, and takes no input meanwhile: so a peer that does not read
its answers stalls itself alone.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from blockyard.iscsi.connection import Connection, Service, State
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.worker.buffers import RECEIVE_CAPACITY, Pool, ReceiveBuffer
from blockyard.worker.executor import ThreadExecutor
from blockyard.worker.fastpath import pump

log = logging.getLogger(__name__)

SMALL = 4096  # bytes of an incomplete PDU that are worth moving, to give the buffer back
SPIN_LIMIT = 200e-6  # seconds: the longest that the loop spins for the next event instead of sleeping


@dataclass(frozen=True)
class Patience:
    """How long a loop bears with a peer, in seconds."""

    login: float = 15.0  # from the first byte to full feature phase
    silence: float = 20.0  # before the peer is asked whether it is there
    stall: float = 40.0  # without a byte from, or to, a peer that owes one; then it is dropped
    tick: float = 1.0  # between two looks at the clock


class Link:
    """One socket and its connection."""

    def __init__(self, loop: Loop, sock: socket.socket, service: Service, portal: str, peer: str) -> None:
        self.loop = loop
        self.sock = sock
        self.fd = sock.fileno()
        self.connection = Connection(service, portal, peer)
        self.connection.wake = lambda: loop.wake(self)
        self.connection.on_drop = lambda: loop.wake(self)
        self.skip = 0  # bytes of output that the acceptor has sent already
        self.moved = loop.now  # when bytes last came or went
        self.handled = loop.now  # when a PDU was last complete
        self.opened = loop.now
        self.pinged = False
        self._rx: ReceiveBuffer | None = None
        self._rest = b""  # the beginning of a PDU, when it is small
        self._tx: TransmitBuffer | None = None  # output that the socket would not take yet

    def feed(self, data: bytes) -> None:
        """Take bytes that were received elsewhere."""
        rx = self._receive_buffer()
        rx.view[rx.end : rx.end + len(data)] = data
        rx.end += len(data)
        self.work()

    def on_event(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._writable()
        else:
            self._readable()

    def _readable(self) -> None:
        rx = self._receive_buffer()
        try:
            count = self.sock.recv_into(rx.room)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if not count:
            self.close("closed by the peer")
            return
        rx.end += count
        self.moved = rx.since = self.loop.now
        self.pinged = False
        self.work()

    def _writable(self) -> None:
        tx = self._tx
        assert tx is not None
        if not self._send(tx):
            return
        self._tx = None
        # What has just been sent is the warmer of the two: it serves next (a fifth faster for 256 KiB reads).
        self.loop.transmit_buffers.give(self.loop.transmit_buffer)
        self.loop.transmit_buffer = tx
        self.loop.epoll.modify(self.fd, select.EPOLLIN)
        self.work()

    def work(self) -> None:
        """Handle all input and send all output, as far as both go."""
        if self.connection.dropped:
            self.close("")
        elif self._tx is None:
            try:
                self._exchange(self.connection, self._rx)
            except Exception:  # a fault of ours in one session must not end the others
                log.exception("%s: internal error, the connection is dropped", self.connection)
                self.loop.transmit_buffer.clear()
                self.close("")

    def _exchange(self, connection: Connection, rx: ReceiveBuffer | None) -> None:
        while self.fd >= 0:
            tx = self.loop.transmit_buffer
            before = rx.start if rx is not None else 0
            if connection.fill(tx) and rx is not None:
                pump(connection, rx, tx)
            if rx is None or rx.start != before:
                self.handled = self.loop.now
            full = tx.full
            if self.skip:
                self._skip_sent(tx)
            if tx.end and not self._send(tx):
                return
            if not full:
                break
        if connection.state is State.CLOSING:
            self.close("")
        else:
            self._release_receive_buffer()

    def _send(self, tx: TransmitBuffer) -> bool:
        """Send what is in `tx`. True when all has left; else this link keeps `tx` and waits for the socket."""
        try:
            count = self.sock.send(tx.pending)
            self.moved = self.loop.now
        except BlockingIOError:
            count = 0
        except OSError as error:
            tx.clear()
            self.close(str(error))
            return False
        if tx.sent(count):
            return True
        if self._tx is None:
            self._tx = tx
            self.loop.transmit_buffer = self.loop.transmit_buffers.take()
            self.loop.epoll.modify(self.fd, select.EPOLLOUT)
        return False

    def _skip_sent(self, tx: TransmitBuffer) -> None:
        count = min(self.skip, tx.end)
        self.skip -= count
        tx.sent(count)

    def _receive_buffer(self) -> ReceiveBuffer:
        rx = self._rx
        if rx is None:
            rx = self._rx = self.loop.receive_buffers.take()
            rx.start = 0
            rx.end = len(self._rest)
            if self._rest:
                rx.view[: rx.end] = self._rest
                self._rest = b""
        return rx

    def _release_receive_buffer(self, limit: int = SMALL) -> None:
        rx = self._rx
        if rx is not None and rx.end - rx.start <= limit:
            self._rest = bytes(rx.view[rx.start : rx.end])
            self._rx = None
            self.loop.receive_buffers.give(rx)

    @property
    def _incomplete(self) -> bool:
        return bool(self._rest) or (self._rx is not None and self._rx.end > self._rx.start)

    def excuse(self, seconds: float) -> None:
        """Do not count so much of the time that has passed."""
        now = self.loop.now
        self.moved = min(now, self.moved + seconds)
        self.handled = min(now, self.handled + seconds)
        self.opened = min(now, self.opened + seconds)

    def tick(self, now: float, patience: Patience) -> None:
        """Look whether the peer is alive and does its part."""
        silent = now - self.moved
        if self.connection.state is State.LOGIN:
            if now - self.opened > patience.login:
                self.close(f"the login was not over after {patience.login:g} s")
        elif silent > patience.stall:
            self.close(f"no sign of life for {silent:.0f} s")
        elif self._incomplete and now - self.handled > patience.stall:
            self.close(f"a PDU was not complete after {patience.stall:g} s")
        elif silent > patience.silence and not self.pinged and self._tx is None:
            self.pinged = True
            self.connection.ping()
        elif silent > patience.tick and self._tx is None:
            self._release_receive_buffer(RECEIVE_CAPACITY)  # half a PDU and no more for now: a copy of it will do

    def close(self, why: str) -> None:
        if self.fd < 0:
            return
        if why:
            log.info("%s: connection ended: %s", self.connection, why)
        self.loop.forget(self)
        self.fd = -1
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
        self.sock.close()
        for buffer, pool in ((self._rx, self.loop.receive_buffers), (self._tx, self.loop.transmit_buffers)):
            if buffer is not None:
                buffer.start = buffer.end = 0
                pool.give(buffer)  # type: ignore[arg-type]
        self._rx = self._tx = None
        self.connection.closed()


class Loop:
    """Waits for events and hands them out. Everything in it runs on the thread that calls `run`."""

    def __init__(self, executor: ThreadExecutor, *, poll: bool = False, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()
        self.executor = executor
        self.epoll = select.epoll()
        self.now = time.monotonic()
        self.links: dict[int, Link] = {}
        self.receive_buffers: Pool[ReceiveBuffer] = Pool(ReceiveBuffer)
        self.transmit_buffers: Pool[TransmitBuffer] = Pool(TransmitBuffer)
        self.transmit_buffer = self.transmit_buffers.take()  # the one that answers are built in now
        self.tick_at = 0.0  # the next look at the clock; may be brought forward
        self.on_tick: Callable[[float], None] = lambda now: None
        self.running = True
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._awake: set[Link] = set()
        self._poll = poll
        self._gap = SPIN_LIMIT  # how long the loop has waited for an event of late, in seconds
        self.watch(executor.eventfd, lambda mask: executor.complete())
        executor.on_watch = self._watch_for_executor
        for fd in executor.watched:
            self._watch_for_executor(fd)

    def watch(self, fd: int, handler: Callable[[int], None]) -> None:
        """Call `handler` when `fd` is readable."""
        self._handlers[fd] = handler
        self.epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        self.epoll.unregister(fd)
        del self._handlers[fd]

    def _watch_for_executor(self, fd: int) -> None:
        handler = self.executor.watched.get(fd)
        if handler is not None:
            self.watch(fd, lambda mask: handler())
        elif self._handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def add(self, sock: socket.socket, service: Service, portal: str, peer: str) -> Link:
        """Serve a connected socket from now on."""
        sock.setblocking(False)
        link = Link(self, sock, service, portal, peer)
        self.links[link.fd] = link
        self.watch(link.fd, link.on_event)
        return link

    def forget(self, link: Link) -> None:
        self.epoll.unregister(link.fd)
        del self._handlers[link.fd]
        del self.links[link.fd]
        self._awake.discard(link)

    def wake(self, link: Link) -> None:
        """Have a link send output that did not come from its own input."""
        if link.fd >= 0:
            self._awake.add(link)

    def run(self) -> None:
        """Serve until `running` is False."""
        self.tick_at = self.now + self.patience.tick
        while self.running:
            events = self._wait(self.tick_at)
            for fd, mask in events:
                handler = self._handlers.get(fd)  # an earlier event of this round may have closed it
                if handler is not None:
                    handler(mask)
            while self._awake:
                self._awake.pop().work()
            if self.now >= self.tick_at:
                late = self.now - self.tick_at
                self.tick_at = self.now + self.patience.tick
                if late > self.patience.tick:
                    self._excuse(late)
                self._tick()

    def _wait(self, until: float) -> list[tuple[int, int]]:
        if self._poll:
            return self._spin_and_wait(until)
        events = self.epoll.poll(max(0.0, until - self.now))
        self.now = time.monotonic()
        return events

    def _spin_and_wait(self, until: float) -> list[tuple[int, int]]:
        """Spin for twice as long as events have taken to come of late, unless that is too long; then sleep."""
        began = self.now = time.monotonic()
        events: list[tuple[int, int]] = []
        if self._gap < SPIN_LIMIT:
            limit = began + 2 * self._gap
            while not events and self.now < limit:
                events = self.epoll.poll(0)
                self.now = time.monotonic()
        if not events:
            events = self.epoll.poll(max(0.0, until - self.now))
            self.now = time.monotonic()
        self._gap += (min(self.now - began, 2 * SPIN_LIMIT) - self._gap) / 8
        return events

    def _excuse(self, seconds: float) -> None:
        """This process stood still, or had no processor: no peer is to be blamed for what it could not be asked in that time."""
        for link in self.links.values():
            link.excuse(seconds)

    def _tick(self) -> None:
        for link in list(self.links.values()):
            link.tick(self.now, self.patience)
        self.on_tick(self.now)

    def close(self) -> None:
        for link in list(self.links.values()):
            link.close("the target stops")
        self.executor.on_watch = lambda fd: None
        self.epoll.close()
