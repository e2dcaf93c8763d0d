"""HTTP: uvicorn's protocol on sockets of ours, in the loop that control has.

uvicorn's own server would take the signals of the process and a loop for itself. What is added is patience with an end: a
client has so many seconds for its handshake and for the head of a request, and of too many clients the one that has been idle
longest goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pwd
import socket
import ssl
import struct
from functools import partial
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for a TLS handshake, and as many for the head of a request
IDLE = 75  # seconds that a connection is kept between two requests
MAX_CLIENTS = 512
_HEAD = 16 << 10  # bytes of a request line and its fields
_UNREAD = 30_000  # milliseconds that a client may leave an answer unread (tcp(7))
_GRACE = 2.0  # seconds that answers have when serving ends


class Protocol(H11Protocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _busy = False  # the head of a request has come

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            self.client = _peer(sock)
        if len(self.connections) > MAX_CLIENTS:
            self._make_room()
        self._deadline = self.loop.call_later(PATIENCE, self._late)

    def _make_room(self) -> None:
        idle = [each for each in self.connections if each is not self and isinstance(each, Protocol) and not each.busy]
        (min(idle, key=lambda each: each.since) if idle else self).transport.abort()

    @property
    def busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def since(self) -> float:
        return self._deadline.when() if self._deadline is not None else 0.0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.busy and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif not self.busy and self._deadline is None:  # a head that comes in pieces
            self._deadline = self.loop.call_later(PATIENCE, self._late)

    def send_400_response(self, msg: str) -> None:
        """To what is not HTTP."""
        problem = json.dumps({"type": "about:blank", "title": "Bad Request", "status": 400, "detail": msg}).encode()
        fields = [(b"content-type", b"application/problem+json"), (b"connection", b"close")]
        for event in (
            h11.Response(
                status_code=400,
                reason=b"Bad Request",
                headers=[*fields, (b"content-length", str(len(problem)).encode())],
            ),
            h11.Data(data=problem),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _late(self) -> None:
        self._deadline = None
        if not self.busy:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


def _peer(sock: socket.socket) -> tuple[str, int]:
    """Who is at the other end of a unix socket: user and process (SO_PEERCRED of unix(7))."""
    process, user, _ = struct.unpack(
        "3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    try:
        return pwd.getpwuid(user).pw_name, process
    except KeyError:
        return f"uid {user}", process


class _Marked:
    """An application that is told by which door a request came."""

    def __init__(self, app: Any, door: str) -> None:
        self._app = app
        self._door = door

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["door"] = self._door
        await self._app(scope, receive, send)


class Site:
    """An application, and what it is reached by: a TCP socket, and a unix socket for who may administer anyhow."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._states: list[ServerState] = []
        self._tcp: tuple[socket.socket, asyncio.Server, ServerState] | None = None
        self._local: asyncio.Server | None = None

    def listens_on(self, sock: socket.socket) -> bool:
        return self._tcp is not None and self._tcp[0] is sock

    async def listen(self, sock: socket.socket, tls: ssl.SSLContext | None, *, loopback: bool) -> None:
        """Answer there from now on."""
        state, make = self._protocol("loopback" if loopback else "network")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD)  # accepted sockets have both, too
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does that only to sockets that name TCP
        patience: dict[str, Any] = (
            {} if tls is None else {"ssl_handshake_timeout": PATIENCE, "ssl_shutdown_timeout": 2.0}
        )
        server = await asyncio.get_running_loop().create_server(make, sock=sock, ssl=tls, **patience)
        self._tcp = (sock, server, state)

    async def listen_locally(self, sock: socket.socket) -> None:
        _, make = self._protocol("local")
        self._local = await asyncio.get_running_loop().create_unix_server(make, sock=sock)

    def _protocol(self, door: str) -> tuple[ServerState, Any]:
        config = Config(
            _Marked(self._app, door),
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # nobody is believed who says for whom he asks
            server_header=False,
            timeout_keep_alive=IDLE,
            h11_max_incomplete_event_size=_HEAD,
        )
        config.load()
        state = ServerState()
        self._states.append(state)
        return state, partial(Protocol, config=config, server_state=state, app_state={})

    def cease(self) -> None:
        """Listen on the TCP socket no more; answers that have begun are given."""
        if self._tcp is not None:
            _, server, state = self._tcp
            server.close()
            for connection in list(state.connections):
                connection.shutdown()
            self._tcp = None

    async def stop(self) -> None:
        """Listen no more, and give what answers there are a moment."""
        self.cease()
        if self._local is not None:
            self._local.close()
        for state in self._states:
            for connection in list(state.connections):
                connection.shutdown()
        tasks = [task for state in self._states for task in state.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE)
        self.close()

    def close(self) -> None:
        """At once."""
        if self._tcp is not None:
            self._tcp[1].close()
            self._tcp = None
        if self._local is not None:
            self._local.close()
            self._local = None
        for state in self._states:
            for task in state.tasks:
                task.cancel()
            for connection in list(state.connections):
                with contextlib.suppress(OSError):
                    connection.transport.abort()
