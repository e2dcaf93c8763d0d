"""The door of the API: what every request has to pass, whatever it is for, and what every answer carries.

Who asks is found out here: by the unix socket, by a token, or by the cookie of a console session, which for changes needs its
CSRF token as well. What somebody may do is each route's affair (security.py).

Browsers are made to bring what other sites have them send, and any name can be made to lead to 127.0.0.1: so the Host has to
be ours where only this machine can ask, and an Origin has to be that Host.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import replace
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from blockyard.api.context import Context
from blockyard.api.logins import Login
from blockyard.api.problems import Refused, problem
from blockyard.api.rates import KNOWN, UNKNOWN
from blockyard.api.redfish import door, errors
from blockyard.control.roles import NOBODY, Identity, Role

API = "/api/"
COOKIE, CSRF = "blockyard-session", "x-csrf-token"
MAX_BODY = 1 << 20  # bytes
_BODY_PATIENCE = 20.0  # seconds
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_API_ONLY = [(b"cache-control", b"no-store")]

# Who has a cookie, and does not show that a change is meant.
UNPROVED = replace(NOBODY, name=CSRF)

Scope = dict[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Guard:
    """Before an application (ASGI)."""

    def __init__(self, app: Any, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        redfish = door.is_redfish(scope["path"])
        of_api = redfish or scope["path"].startswith(API)
        fields = [*_ALWAYS, (b"date", _date())] + (_API_ONLY if of_api else [])

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *fields]
                if scope["method"] not in _SAFE:
                    self._context.forget()
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            _check_host(scope, headers, self._context.hosts)
            _check_origin(scope, headers)
            found = await self._of_redfish(scope, headers) if redfish else None
            identity, login = found or (self._identify(scope, headers) if of_api else (NOBODY, None))
            self._check_rate(scope, identity)
            receive = _limited(headers, receive)
        except Refused as refusal:
            tell = errors.answer if redfish else problem
            await tell(refusal.status_code, refusal.detail, refusal.headers)(scope, receive, answer)
            return
        scope["state"] = {"identity": identity, "login": login, "context": self._context}
        await self._app(scope, receive, answer)

    # ---- who asks

    async def _of_redfish(self, scope: Scope, headers: Mapping[str, str]) -> tuple[Identity, Login | None] | None:
        """Raises Refused."""
        if scope["door"] == "local" or headers.keys().isdisjoint((door.TOKEN, "authorization")):
            return None
        if headers.get("authorization", "").lower().startswith("basic"):
            self._check_rate(scope, NOBODY)  # a password takes time to compare
        return await door.identify(self._context, scope, headers)

    def _identify(self, scope: Scope, headers: Mapping[str, str]) -> tuple[Identity, Login | None]:
        """Raises Refused for a proof that is none."""
        if scope["door"] == "local":
            return Identity(scope["client"][0], Role.ADMIN, by="local"), None
        kind, _, credentials = headers.get("authorization", "").partition(" ")
        if kind:
            identity = self._context.accounts.of_token(credentials.strip()) if kind.lower() == "bearer" else None
            if identity is None:
                self._check_rate(scope, NOBODY)
                raise unauthorized("this token is not known, or not valid any more")
            return identity, None
        cookie = _cookie(headers.get("cookie", ""))
        login = None if cookie is None else self._context.logins.find(cookie)
        if login is None:
            return NOBODY, None
        account = self._context.accounts.find(login.account)
        if account is None or account.changed != login.since:
            self._context.logins.end(cookie or "")
            return NOBODY, None
        if scope["method"] not in _SAFE and not _same(headers.get(CSRF, ""), login.csrf):
            return UNPROVED, None
        return replace(account.identity, by=f"session {login.id}"), login

    def _check_rate(self, scope: Scope, identity: Identity) -> None:
        """Raises Refused."""
        if scope["door"] == "local":
            return
        known = bool(identity.by)
        client = identity.by if known else scope["client"][0]
        seconds = self._context.rates.take(client, KNOWN if known else UNKNOWN)
        if seconds:
            wait = str(int(seconds) + 1)
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, f"too many requests: wait {wait} s", {"retry-after": wait})


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())


def unauthorized(detail: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, detail, {"www-authenticate": 'Bearer realm="blockyard"'})


def _cookie(text: str) -> str | None:
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return None


# ---- where it comes from


def _check_host(scope: Scope, headers: Mapping[str, str], names: tuple[str, ...]) -> None:
    """That a browser on this machine was not led here by a name that is somebody else's. Raises Refused."""
    if scope["door"] != "loopback":
        return
    host = _host(headers.get("host", ""))
    if host in ("localhost", *names):
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise Refused(
        HTTPStatus.MISDIRECTED_REQUEST, f"this is not {host or 'a host without a name'}: say it in api.hosts if it is"
    )


def _host(field: str) -> str:
    try:
        return urlsplit(f"//{field}").hostname or ""
    except ValueError:
        return ""


def _check_origin(scope: Scope, headers: Mapping[str, str]) -> None:
    """That what another site has made a browser send is not done. Raises Refused."""
    if not (scope["path"].startswith(API) or door.is_redfish(scope["path"])):
        return
    origin = headers.get("origin")
    if origin is not None and _site(origin) != headers.get("host", "").lower():
        raise Refused(HTTPStatus.FORBIDDEN, f"{origin} is another site")
    if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise Refused(HTTPStatus.FORBIDDEN, "this comes from another site")


def _site(origin: str) -> str | None:
    """The host that an Origin names; None for what is no URL."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


# ---- what it brings


def _limited(headers: Mapping[str, str], receive: Receive) -> Receive:
    """A body is not longer than it may be, and does not take longer. Raises Refused."""
    length = headers.get("content-length")
    if length in (None, "0") and "transfer-encoding" not in headers:
        return receive
    too_long = Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has at most {MAX_BODY} bytes")
    if length is not None and int(length) > MAX_BODY:  # the parser has seen to it that it is a number
        raise too_long
    end = asyncio.get_running_loop().time() + _BODY_PATIENCE
    had, more = 0, True

    async def limited() -> Message:
        nonlocal had, more
        if not more:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise Refused(
                HTTPStatus.REQUEST_TIMEOUT, f"the request has not come within {_BODY_PATIENCE:.0f} s"
            ) from None
        had += len(message.get("body", b""))
        more = message.get("more_body", False)
        if had > MAX_BODY:
            raise too_long
        return message

    return limited


def _date() -> bytes:
    return _date_of(int(time.time()))


@lru_cache(1)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()
