"""Plain HTTP, for those who have no HTTPS yet: the challenges of ACME (RFC 8555 §8.3), and the way to HTTPS for everybody else.

An ACME client puts files into a directory (`certbot certonly --webroot -w STATE/acme -d NAME`), and whoever signs certificates
fetches them, from port 80. Nothing else is to be had here: no API, no cookie, no secret.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blockyard.control.portals import Inherited, OneSocket

if TYPE_CHECKING:
    from blockyard.api.http import Site

WEBROOT = "acme"  # in the state directory
CHALLENGES = "/.well-known/acme-challenge/"
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,256}")  # base64url (RFC 8555 §8.3)
_HOST = re.compile(r"([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?")
_LONGEST = 4096  # bytes: a token, a dot, and a hash


async def answer_challenge(state: Path, scope: Any, send: Any) -> None:
    """What is in the file that a challenge is about, or that there is none (ASGI)."""
    token = scope["path"].removeprefix(CHALLENGES)
    found = await asyncio.to_thread(_read, state, token) if _TOKEN.fullmatch(token) else None
    if found is None:
        await _send(scope, send, HTTPStatus.NOT_FOUND, b"there is no such challenge\n")
    else:
        await _send(scope, send, HTTPStatus.OK, found)


def _read(state: Path, token: str) -> bytes | None:
    try:
        with (state / WEBROOT / CHALLENGES.strip("/") / token).open("rb") as file:
            return file.read(_LONGEST)
    except OSError:
        return None


async def _send(scope: Any, send: Any, status: HTTPStatus, body: bytes, *more: tuple[bytes, bytes]) -> None:
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class Plain(OneSocket):
    """Answers at one socket."""

    def __init__(self, state: Path, inherited: Inherited) -> None:
        super().__init__("plain", "api.http", inherited)
        self._state = state
        self._site: Site | None = None
        self._https: int | None = None  # the port to lead to

    async def start(self, https: int | None) -> None:
        """Answer from now on, and lead to HTTPS at that port, if it is anywhere."""
        self._https = https
        if self._sock is not None and self._site is None:
            from blockyard.api.http import Site  # noqa: PLC0415  (with uvicorn, which is not needed before)

            self._site = Site(self._answer)
            await self._site.listen(self._sock, None, loopback=False)

    async def stop(self) -> None:
        """Listen no more; who is being answered gets the answer."""
        if self._site is not None:
            await self._site.stop()
        self.close()

    def _end(self) -> None:
        if self._site is not None:
            self._site.close()
        elif self._sock is not None:
            self._sock.close()
        self._site = None

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if scope["path"].startswith(CHALLENGES):
            await answer_challenge(self._state, scope, send)
            return
        host = _HOST.fullmatch(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
        if host is None or self._https is None:
            await _send(scope, send, HTTPStatus.NOT_FOUND, b"there is nothing here\n")
            return
        port = "" if self._https == 443 else f":{self._https}"
        query = f"?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else ""
        where = f"https://{host[1]}{port}{scope['raw_path'].decode('latin-1')}{query}"
        await _send(scope, send, HTTPStatus.PERMANENT_REDIRECT, b"", (b"location", where.encode("latin-1")))
