"""HTTP: uvicorn's protocol on sockets of ours, in the loop that control has.

uvicorn's own server would take the signals of the process and a loop for itself. What is added is patience with an end: a
client has so many seconds for its handshake and for the head of a request, and so many bytes; and of too many clients the one
that has been idle longest goes.

Requests are parsed by httptools (llhttp, the parser of Node): in Python that took as long as all that an answer needs. One that
has come before may not need even that (repeats.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import pwd
import re
import socket
import ssl
import struct
import sys
from collections.abc import Callable
from http import HTTPStatus
from time import monotonic
from typing import Any

from httptools import HttpParserInvalidMethodError
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from blockyard.api.repeats import LONGEST, Repeat, Repeats
from blockyard.control.portals import cease

log = logging.getLogger(__name__)

PATIENCE = 10.0  # seconds for a TLS handshake, and as many for the head of a request
IDLE = 75  # seconds that a connection is kept between two requests
MAX_CLIENTS = 512
_HEAD = 16 << 10  # bytes of a request line and its fields, and of anything else that is not content
_PIPELINED = 32  # requests of a connection that wait for the answer to the one before
_UNREAD = 30_000  # milliseconds that a client may leave an answer unread (tcp(7))
_REQUEST = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [/*][^ ]* HTTP/1\.[01]\r\n")  # a request line (RFC 9112 §3)
_GRACE = 2.0  # seconds that answers have when serving ends
_LAST = 0.2  # seconds in which a request may come then that was on its way


class Protocol(HttpToolsProtocol):
    """One connection."""

    repeats: Repeats | None = None  # of the door that it has come by
    _user = ""  # who is at the other end, where the kernel knows
    _repeat: Repeat | None = None  # the request that is being answered, if it has come alone and as a whole
    _messages = 0  # requests that have begun
    _resting = True  # no request has begun to come and not come yet
    _answered = 0.0  # when the last request that had come before was answered, in the loop's time
    _deadline: asyncio.TimerHandle | None = None
    _unknown = 0  # bytes that have come since anything of a request was complete
    _begun = b""  # what has come last
    _fields = 0  # bytes of the fields of a request so far
    last = False  # no request is taken after the next one

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock.family == socket.AF_UNIX:
            self.client = _peer(sock)
            self._user = self.client[0]
        self.transport = self._together = _Together(transport, self.loop)  # type: ignore[assignment]
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
        fresh = self._resting and (self.cycle is None or self.cycle.response_complete) and len(data) <= LONGEST
        if fresh and self.repeats is not None and not self.last:
            now = monotonic()  # the loop's time
            answer = self.repeats.answer(self._user, data, now)
            if answer is not None and not self._together.kept and not self.flow.write_paused:
                self._together.send(answer)
                self._answered = now
                if self.timeout_keep_alive_task is None:  # it is the first one here
                    self._quiet()
                return
        self._repeat, before = None, self._messages
        self._unknown += len(data)
        self._begun = data
        super().data_received(data)
        if fresh and self._resting and self._messages == before + 1 and self.repeats is not None:
            self._repeat = self.cycle.scope["repeat"] = self.repeats.begin(self._user, data)  # type: ignore[typeddict-unknown-key]
        if self._unknown > _HEAD:
            self.send_400_response(f"the head of a request has at most {_HEAD} bytes")
        if self.busy and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        elif not self.busy and self._deadline is None:  # a head that comes in pieces
            self._deadline = self.loop.call_later(PATIENCE, self._late)

    # ---- requests that have come before

    def on_response_complete(self) -> None:
        repeat, self._repeat = self._repeat, None
        if repeat is not None and self.repeats is not None and self.cycle.keep_alive:
            self.repeats.keep(repeat, b"".join(self._together.kept))  # all of it, as it was written in one turn
        super().on_response_complete()

    def _quiet(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.timeout_keep_alive_task = self.loop.call_later(IDLE, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        left = self._answered + IDLE - self.loop.time()
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    # ---- what the parser finds; what is raised here is answered with 400

    def on_message_begin(self) -> None:
        self._resting = False
        self._messages += 1
        self._fields = 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += len(name) + len(value)
        if self._fields > _HEAD:
            raise ValueError("too long")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unknown = 0
        version, hosts = self.parser.get_http_version(), sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.0", "1.1") or hosts > 1 or (not hosts and version == "1.1"):  # RFC 9112 §2.3, §3.2
            raise ValueError("not a request")
        if len(self.pipeline) >= _PIPELINED:
            raise ValueError("too many requests at once")
        super().on_headers_complete()
        # An upgrade is not done (RFC 9110 §7.8), and the parser takes what follows for that.
        if self.last or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._unknown = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._resting = True
        self._unknown = 0
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Anybody could fill the log with these."""

    def send_400_response(self, msg: str) -> None:
        """To what is not HTTP; and to a method that the parser does not know (RFC 9110 §15.6.2)."""
        if self.busy:  # in the midst of an answer there is no place for another one
            self.transport.abort()
            return
        unknown = isinstance(sys.exception(), HttpParserInvalidMethodError) and _REQUEST.match(self._begun)
        status = HTTPStatus.NOT_IMPLEMENTED if unknown else HTTPStatus.BAD_REQUEST
        problem = json.dumps({"type": "about:blank", "title": status.phrase, "status": status, "detail": msg}).encode()
        fields = "content-type: application/problem+json\r\nconnection: close\r\n"
        head = f"HTTP/1.1 {status} {status.phrase}\r\n{fields}content-length: {len(problem)}\r\n\r\n"
        self.transport.write(head.encode() + problem)
        self.transport.close()

    def _late(self) -> None:
        self._deadline = None
        if not self.busy:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)


class _Together:
    """A transport that sends what is written in one turn of the loop at once: the head of an answer with its content.

    Two sends would cost twice as much, and wake the client twice.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self.kept: list[bytes] = []  # what is sent when this turn ends
        self.send = transport.write  # now, where nothing is kept
        self.abort = transport.abort
        self.is_closing = transport.is_closing
        self.get_extra_info = transport.get_extra_info

    def write(self, data: bytes) -> None:
        if not self.kept:
            self._loop.call_soon(self._flush)
        self.kept.append(data)

    def _flush(self) -> None:
        if self.kept:
            data = b"".join(self.kept)
            self.kept.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()


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

    def __init__(self, app: Any, repeats: Callable[[], Repeats] | None = None) -> None:
        """`repeats` makes the memory of a door; without, there is none."""
        self._app = app
        self._repeats = repeats
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
        )
        config.load()
        state = ServerState()
        self._states.append(state)
        repeats = None if self._repeats is None else self._repeats()

        def make() -> Protocol:
            protocol = Protocol(config=config, server_state=state, app_state={})
            protocol.repeats = repeats
            return protocol

        return state, make

    def cease(self) -> None:
        """Listen on the TCP socket no more; answers that have begun are given."""
        if self._tcp is not None:
            _, server, state = self._tcp
            server.close()
            for connection in list(state.connections):
                connection.shutdown()
            self._tcp = None

    async def stop(self) -> None:
        """Listen no more, and give what answers there are a moment.

        A client that has been told nothing yet may be sending a request just now, and could not know whether it was done.
        """
        for server in (self._local, None if self._tcp is None else self._tcp[1]):
            if server is not None:
                await cease(server)
        connections = self._connections()
        for connection in connections:
            connection.last = True
        if connections:
            await asyncio.sleep(_LAST)
        for connection in self._connections():
            connection.shutdown()
        tasks = [task for state in self._states for task in state.tasks]
        if tasks:
            await asyncio.wait(tasks, timeout=_GRACE)
        self.close()

    def _connections(self) -> list[Protocol]:
        found = [connection for state in self._states for connection in state.connections]
        return [connection for connection in found if isinstance(connection, Protocol)]

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
