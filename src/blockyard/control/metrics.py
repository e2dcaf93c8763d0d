"""The HTTP endpoint from which Prometheus fetches metrics: GET and HEAD of /metrics, and nothing else (RFC 9110, RFC 9112).

One request a connection, which is closed after the answer. Whoever is slow has a few seconds; of very many clients at once the
one that came first has to go, so that whoever asks properly is always served. Requests that come together get the same
measurements.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import urlsplit

from blockyard.control.exposition import Measured
from blockyard.control.portals import Inherited, OneSocket, cease

log = logging.getLogger(__name__)

PATH = "/metrics"
PATIENCE = 5.0  # seconds that a client has for its request, and as many for taking the answer
MAX_CLIENTS = 64
_GRACE = 2.0  # seconds that clients have when serving ends
_HEAD_LIMIT = 8 << 10  # bytes of a request line and its fields
_CHUNK = 4 << 10
_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_REQUEST_LINE = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([!-~]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_WEIGHT = re.compile(r"[ \t]*q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


class _Refused(Exception):
    """A request that is answered with a status and a line that says why."""

    def __init__(self, status: HTTPStatus, why: str, fields: Iterable[str] = ()) -> None:
        super().__init__(why)
        self.status = status
        self.fields = tuple(fields)


class _Request(NamedTuple):
    body_wanted: bool
    openmetrics: bool


Measure = Callable[[], Awaitable[Measured]]


class Endpoint(OneSocket):
    """Answers at one socket. `measure` is asked for each answer."""

    def __init__(self, measure: Measure, inherited: Inherited) -> None:
        super().__init__("metrics", "--metrics or metrics.listen", inherited)
        self._measure = measure
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._measuring: asyncio.Task[Measured] | None = None

    # ---- where it listens

    async def start(self) -> None:
        """Answer from now on, where there is a socket that is not served yet."""
        if self._sock is not None and self._server is None:
            self._server = await asyncio.start_server(self._connected, sock=self._sock, limit=_HEAD_LIMIT)

    async def stop(self) -> None:
        """Listen no more; who is being answered gets the answer."""
        if self._server is not None:
            await cease(self._server)
            if self._clients:
                await asyncio.wait(self._clients, timeout=_GRACE)
        self.close()

    def _end(self) -> None:
        for task in self._clients:
            task.cancel()
        if self._server is not None:
            self._server.close()
        elif self._sock is not None:
            self._sock.close()
        self._server = None

    # ---- clients

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            oldest = next(iter(self._clients))
            del self._clients[oldest]
            oldest.cancel()
        self._clients[task] = None
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # it had to go; the loop would log it otherwise
        finally:
            self._clients.pop(task, None)
            writer.transport.abort()  # of what it has not taken by now nothing is kept

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            writer.write(await self._answer(request))
        except _Refused as refusal:
            writer.write(
                _response(refusal.status, f"{refusal}\n".encode(), "text/plain; charset=utf-8", refusal.fields)
            )
        async with asyncio.timeout(PATIENCE):
            writer.write_eof()
            while await reader.read(_CHUNK):  # to close before it does could make it lose the answer (RFC 9112 §9.6)
                pass
            writer.close()
            await writer.wait_closed()

    async def _answer(self, request: _Request) -> bytes:
        try:
            measured = await self.measured()
        except Exception:
            log.exception("metrics could not be gathered")
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, "metrics could not be gathered: see the log") from None
        body = measured.text(openmetrics=request.openmetrics)
        kind = _OPENMETRICS if request.openmetrics else _TEXT
        return _response(HTTPStatus.OK, body, kind, body_wanted=request.body_wanted)

    async def measured(self) -> Measured:
        """What is just being gathered, for all who wait for it; one that goes away does not end it."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.ensure_future(self._measure())
        return await asyncio.shield(self._measuring)


# ---- HTTP


async def _read(reader: asyncio.StreamReader) -> _Request:
    """A request that can be answered. Raises _Refused; IncompleteReadError when the client has gone."""
    try:
        async with asyncio.timeout(PATIENCE):
            head = await reader.readuntil(b"\r\n\r\n")
    except TimeoutError:
        raise _Refused(HTTPStatus.REQUEST_TIMEOUT, f"the request has not come within {PATIENCE:.0f} s") from None
    except asyncio.LimitOverrunError:
        limit = f"a request has at most {_HEAD_LIMIT} bytes"
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, limit) from None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    line = _REQUEST_LINE.fullmatch(first)
    if line is None:
        raise _Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP request line")
    method, target, major, minor = line.groups()
    if major != "1":
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this is HTTP/1.1")
    fields = _fields(lines)
    if len(fields.get("host", [])) != 1 and (minor != "0" or "host" in fields):
        raise _Refused(HTTPStatus.BAD_REQUEST, "a request has one Host field (RFC 9112 section 3.2)")
    if _path(target) != PATH:
        raise _Refused(HTTPStatus.NOT_FOUND, f"there is nothing but {PATH}")
    if method not in ("GET", "HEAD"):
        raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "metrics can be read only: GET, HEAD", ["Allow: GET, HEAD"])
    if "transfer-encoding" in fields or fields.get("content-length", ["0"]) != ["0"]:
        raise _Refused(HTTPStatus.BAD_REQUEST, "a request for metrics has no content")
    return _Request(method == "GET", _wants_openmetrics(",".join(fields.get("accept", []))))


def _fields(lines: Iterable[str]) -> dict[str, list[str]]:
    """The values of each field, by its name in lower case. Raises _Refused."""
    fields: dict[str, list[str]] = {}
    for text in lines:
        match = _FIELD.fullmatch(text)
        if match is None:
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is no HTTP field line")
        fields.setdefault(match[1].lower(), []).append(match[2])
    return fields


def _path(target: str) -> str:
    """Of the origin or the absolute form; a query is let pass, as Prometheus can be told to send one (RFC 9112 §3.2)."""
    try:
        return urlsplit(target).path
    except ValueError:
        return ""


def _wants_openmetrics(accept: str) -> bool:
    """Whether a client likes OpenMetrics, in the version that there is, at least as much as the older text (RFC 9110 §12.5.1)."""
    weights = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = part.split(";")
        name = kind.strip().lower()
        said = dict(parameter.strip().lower().partition("=")[::2] for parameter in parameters)
        if name not in weights or (name.startswith("application/") and said.get("version", "1.0.0") != "1.0.0"):
            continue
        weight = next((float(found[1]) for found in map(_WEIGHT.fullmatch, parameters) if found), 1.0)
        weights[name] = max(weights[name], weight)
    return 0 < weights["application/openmetrics-text"] >= weights["text/plain"]


def _response(
    status: HTTPStatus, body: bytes, kind: str, fields: Iterable[str] = (), *, body_wanted: bool = True
) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *fields,
    ]
    head = "".join(f"{line}\r\n" for line in lines) + "\r\n"
    return head.encode() + (body if body_wanted else b"")
