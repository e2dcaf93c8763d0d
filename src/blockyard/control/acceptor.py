"""Accepting connections, and finding out whose they are.

A connection belongs to the worker that owns its target, and which one that is stands in the first login
request(s) (TargetName, RFC 7143 §13.4). So each connection starts in `_Reception` here, on the same
Connection that workers use. As soon as the login asks for its target, the reception ends: the socket goes to the
worker with all bytes received so far, and the number of bytes that have been answered. The worker replays
the former and skips the latter. Discovery sessions have no target: they are served here to their end.

All that a stranger can make this process spend is bounded: receptions in number and in time, bytes by the limits of the
login phase, and log lines by the rate.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import logging
import socket
from collections.abc import Callable
from typing import Protocol

from blockyard.iscsi.connection import LOGIN_DATA_LIMIT, Connection, State
from blockyard.iscsi.directory import Directory, Portal, portal_from, portal_of
from blockyard.iscsi.login import Authenticator, Found, Moved, TargetLogin
from blockyard.iscsi.pdu import BHS_LENGTH, MAX_AHS_LENGTH, LoginStatus
from blockyard.iscsi.transmit import TransmitBuffer
from blockyard.worker.handoff import Message

log = logging.getLogger(__name__)

MAX_HALF_OPEN = 256  # logins that may be under way at a time
MAX_DISCOVERY = 64  # discovery sessions at a time
LOGIN_DEADLINE = 15.0  # seconds from accepting to hand-over
DISCOVERY_SILENCE = 30.0  # seconds until a silent discovery session is pinged, and until that must be answered
FAREWELL = 1.0  # seconds that a refused peer has for reading why
_CHUNK = BHS_LENGTH + MAX_AHS_LENGTH + LOGIN_DATA_LIMIT  # bytes: the longest PDU of the login phase
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class WorkerUnavailable(Exception):
    """The worker that owns a target does not run."""


class Workers(Protocol):
    """What the acceptor asks of the supervisor."""

    async def hand_over(self, target: str, message: Message, fd: int) -> None:
        """Send a connection to the owner of `target`. Raises WorkerUnavailable when there is none in time."""


class Gate(Protocol):
    """What the acceptor asks of who may log in (control/gate.py)."""

    def wait(self, login: TargetLogin, target: str) -> float:
        """How many seconds the host has to wait before it may log in to `target`."""

    def authenticator(self, login: TargetLogin) -> Authenticator | None:
        """What decides on AuthMethod in a discovery session. Raises NegotiationError for who is not let in."""

    def refuses(self, login: TargetLogin) -> LoginStatus | None:
        """Why a discovery session is not granted; None when it is."""

    def shows(self, login: TargetLogin) -> Callable[[str], bool]:
        """Whether this discovery session is told of a target."""

    def ended(self, login: TargetLogin) -> None:
        """A login has ended here."""


class _OpenGate:
    """Lets everybody in."""

    def wait(self, login: TargetLogin, target: str) -> float:
        return 0.0

    def authenticator(self, login: TargetLogin) -> Authenticator | None:
        return None

    def refuses(self, login: TargetLogin) -> LoginStatus | None:
        return None

    def shows(self, login: TargetLogin) -> Callable[[str], bool]:
        return lambda name: True

    def ended(self, login: TargetLogin) -> None:
        """Nobody wants to know."""


class Acceptor:
    """Accepts on `listeners` from `start` to `close`."""

    def __init__(
        self,
        directory: Directory,
        workers: Workers,
        listeners: list[socket.socket],
        *,
        gate: Gate | None = None,
        login_deadline: float = LOGIN_DEADLINE,
        max_half_open: int = MAX_HALF_OPEN,
    ) -> None:
        self.directory = directory
        self.workers = workers
        self.gate = gate or _OpenGate()
        self.login_deadline = login_deadline
        self._listeners = listeners  # until `start`
        self._max_half_open = max_half_open
        self._accepting: dict[socket.socket, asyncio.Task[None]] = {}
        self._receptions: dict[asyncio.Task[None], Portal] = {}  # by which portal they have come; in order of arrival
        self._discoveries: dict[asyncio.Task[None], Portal] = {}
        self._scratch = TransmitBuffer()

    @property
    def half_open(self) -> int:
        """Connections accepted and neither handed over nor logged in to discovery."""
        return len(self._receptions)

    def start(self) -> None:
        for listener in self._listeners:
            self.listen(listener)

    def listen(self, listener: socket.socket) -> None:
        """Accept on one more socket."""
        self._accepting[listener] = asyncio.create_task(self._accept(listener))

    async def cease(self, listener: socket.socket) -> None:
        """Accept on a socket no more, and close it."""
        task = self._accepting.pop(listener)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()

    async def drop_stranded(self) -> None:
        """End what has come by portals that the directory does not have any more."""
        connections = self._receptions | self._discoveries
        stranded = [task for task, portal in connections.items() if self.directory.group_of(portal) is None]
        for task in stranded:
            task.cancel()
        await asyncio.gather(*stranded, return_exceptions=True)

    async def close(self) -> None:
        """Stop accepting and drop what has not been handed over."""
        tasks = [*self._accepting.values(), *self._receptions, *self._discoveries]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            listener.close()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listener)
            except OSError as error:  # mostly the fault of one connection, e.g. ECONNABORTED (accept(2))
                if error.errno in _OUT_OF_RESOURCES:
                    log.error("cannot accept connections: %s", error.strerror)
                    await asyncio.sleep(0.2)
                continue
            self._receive(sock)

    def _receive(self, sock: socket.socket) -> None:
        try:
            reception = _Reception(self, sock)
        except OSError:  # gone already
            sock.close()
            return
        if len(self._receptions) >= self._max_half_open:
            # An honest login takes milliseconds, so the oldest one is the least likely to be one.
            log.warning("%d logins are under way: the oldest is dropped", len(self._receptions))
            _drop_oldest(self._receptions)
        task = asyncio.create_task(reception.run())
        self._receptions[task] = reception.portal
        task.add_done_callback(self._forget)
        task.add_done_callback(lambda _: sock.close())  # here, as a task that is cancelled at once never runs

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._receptions.pop(task, None)
        self._discoveries.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a login could not be handled: %r", error, exc_info=error)

    def becomes_discovery(self, task: asyncio.Task[None]) -> None:
        """The connection that `task` serves is a discovery session from now on."""
        if len(self._discoveries) >= MAX_DISCOVERY:
            log.warning("%d discovery sessions are open: the oldest is dropped", len(self._discoveries))
            _drop_oldest(self._discoveries)
        self._discoveries[task] = self._receptions.pop(task)

    def output(self, connection: Connection) -> bytes:
        """What `connection` has to send."""
        tx = self._scratch
        connection.fill(tx)
        data = bytes(tx.pending)
        tx.sent(len(data))
        return data


class _Owned(Exception):
    """The login asks for a target that a worker owns."""


class _Reception:
    """One connection until it is handed over, refused, or has ended its discovery; its Connection's Service."""

    def __init__(self, acceptor: Acceptor, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._acceptor = acceptor
        self._sock = sock
        self.portal = portal_of(sock.getsockname())
        self._peer = str(portal_of(sock.getpeername()))
        self._received = b""  # since the connection began
        self._answered = 0  # bytes
        self._login: TargetLogin | None = None
        self._target = ""  # once it is known
        self._owner_is_away = False

    # ---- what the connection asks (iscsi.connection.Service)

    def new_login(self, portal: str, peer: str, attach: Callable[[TargetLogin], int | LoginStatus]) -> TargetLogin:
        gate = self._acceptor.gate
        self._login = TargetLogin(
            self,
            portal,
            peer=peer,
            attach=lambda login: gate.refuses(login) or attach(login),
            authenticator=gate.authenticator,
            ended=gate.ended,
        )
        return self._login

    def find(self, name: str, portal: str) -> Found | Moved | LoginStatus:
        found = self._acceptor.directory.find(name, portal_from(portal))
        assert self._login is not None
        if not isinstance(found, Found) or self._login.parameters.discovery:
            return found
        if self._owner_is_away or self._acceptor.gate.wait(self._login, found.target.name):
            return LoginStatus.SERVICE_UNAVAILABLE
        self._target = found.target.name
        raise _Owned

    def send_targets(self, name: str | None, portal: str) -> list[tuple[str, str]]:
        assert self._login is not None
        return self._acceptor.directory.send_targets(name, portal_from(portal), self._acceptor.gate.shows(self._login))

    # ---- life

    async def run(self) -> None:
        try:
            await self._serve()
        except (OSError, EOFError) as error:
            log.debug("%s: connection ended: %s", self._peer, error)

    async def _serve(self) -> None:
        connection = Connection(self, str(self.portal), self._peer)
        try:
            async with asyncio.timeout(self._acceptor.login_deadline):
                at = await self._log_in(connection)
        except TimeoutError:
            log.warning("%s: the login was not over after %g s", self._peer, self._acceptor.login_deadline)
        except _Owned:
            await self._hand_over()
        else:
            if connection.state is State.FULL_FEATURE:
                await self._discovery(connection, self._received[at:])
            await self._farewell()
        finally:
            connection.closed()

    async def _log_in(self, connection: Connection) -> int:
        """Take login requests until the login is over; the end of the last one in what was received.

        Raises _Owned as soon as the target is known.
        """
        at = 0
        while connection.state is State.LOGIN:
            after = connection.receive(self._received, at, len(self._received))
            await self._send(connection)
            if after == at and connection.state is State.LOGIN:
                self._received += await self._more()
            at = after
        return at

    async def _hand_over(self) -> None:
        message = {
            "type": "connection",
            "portal": str(self.portal),
            "peer": self._peer,
            "received": base64.b64encode(self._received).decode(),
            "answered": self._answered,
        }
        try:
            await self._acceptor.workers.hand_over(self._target, message, self._sock.fileno())
        except WorkerUnavailable:
            log.warning("%s: %s is not available: login refused", self._peer, self._target)
            await self._refuse()

    async def _refuse(self) -> None:
        """Go through the login again, now to the answer that the target's owner is away."""
        self._owner_is_away = True
        connection = Connection(self, str(self.portal), self._peer)
        at, after = -1, 0
        while after != at:
            at, after = after, connection.receive(self._received, after, len(self._received))
        answers = self._acceptor.output(connection)[self._answered :]
        async with asyncio.timeout(FAREWELL):
            await asyncio.get_running_loop().sock_sendall(self._sock, answers)
        await self._farewell()

    async def _discovery(self, connection: Connection, data: bytes) -> None:
        """Serve a discovery session until it is logged out or lost."""
        task = asyncio.current_task()
        assert task is not None
        self._acceptor.becomes_discovery(task)
        while True:
            after = connection.receive(data, 0, len(data))
            await self._send(connection)
            data = data[after:]
            if connection.state is State.CLOSING:
                return
            if after == 0:
                try:
                    async with asyncio.timeout(DISCOVERY_SILENCE):  # wait_for may swallow a cancellation
                        data += await self._more()
                except TimeoutError:
                    if not connection.ping():
                        raise EOFError("no answer to a ping") from None

    async def _send(self, connection: Connection) -> None:
        data = self._acceptor.output(connection)
        if data:
            self._answered += len(data)
            async with asyncio.timeout(DISCOVERY_SILENCE):
                await asyncio.get_running_loop().sock_sendall(self._sock, data)

    async def _more(self) -> bytes:
        data = await asyncio.get_running_loop().sock_recv(self._sock, _CHUNK)
        if not data:
            raise EOFError("closed by the peer")
        return data

    async def _farewell(self) -> None:
        """Let the last answer arrive: closing with input unread would send a reset after it (RFC 1122 §4.2.2.13)."""
        self._sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                while True:
                    await self._more()


def _drop_oldest(tasks: dict[asyncio.Task[None], Portal]) -> None:
    oldest = next(iter(tasks))
    del tasks[oldest]
    oldest.cancel()
