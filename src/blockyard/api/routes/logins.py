"""The first account, logging in to the console and out, and who one is."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.guard import COOKIE
from blockyard.api.logins import ABSOLUTE, Login
from blockyard.api.models import Input
from blockyard.api.problems import Refused, responses
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control import passwords
from blockyard.control.events import Severity
from blockyard.control.limits import Attempt
from blockyard.control.roles import Identity, Role

routes = Routes("logins")
T = TypeVar("T")

_hashing = asyncio.Semaphore(2)  # each takes a core and 32 MiB
_CONSOLE = "console"  # where logins are limited (control/limits.py), as to a target


class Credentials(Input):
    name: str = Field(max_length=64)
    password: str = Field(max_length=passwords.MAX_PASSWORD)
    code: str | None = Field(None, max_length=10, description="one-time password, for accounts that have them")


class FirstAccount(Input):
    name: str = Field(max_length=64)
    password: str = Field(max_length=passwords.MAX_PASSWORD)
    code: str | None = Field(
        None, max_length=64, description="the code that `blockyard serve` has printed; not needed on this machine"
    )


class Setup(BaseModel):
    needed: bool = Field(description="there is no account yet: make the first, which administers")
    code_needed: bool = Field(
        description="who asks from elsewhere has to bring the code that `blockyard serve` has printed"
    )


class Me(BaseModel):
    """Who asks."""

    name: str
    role: Role
    targets: list[str] = Field(description="of an owner")
    by: str = Field(description="session, token or local")
    csrf: str | None = Field(
        None, description="to be sent as X-CSRF-Token with every change that comes with the cookie"
    )
    expires_in: float | None = Field(None, description="seconds until the session ends if nothing comes any more")


@routes.get("/setup", None)
async def get_setup(request: Request, here: Here) -> Setup:
    """Whether the first account is still to be made."""
    return Setup(needed=not here.accounts.all(), code_needed=not _is_here(request))


@routes.post("/setup", None, status_code=201, responses=responses(409))
async def set_up(account: FirstAccount, request: Request, response: Response, here: Here) -> Me:
    """Make the first account, which administers, and log in as it. Possible once."""
    if here.accounts.all():
        raise Refused(HTTPStatus.CONFLICT, "there is an account already: log in")
    if not _is_here(request):
        _check_wait(here, request)
        given = "" if account.code is None else account.code.strip().lower()
        if not hmac.compare_digest(given.encode(), here.setup_code.encode()):
            _failed(here, request, "", "a wrong code for the first account")
            raise Refused(HTTPStatus.FORBIDDEN, "from elsewhere, the code that `blockyard serve` has printed is needed")
    weak = passwords.check_password(account.password)
    if weak:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, weak)
    hashed = await _in_thread(passwords.hashed, account.password)
    if here.accounts.all():  # somebody else was faster
        raise Refused(HTTPStatus.CONFLICT, "there is an account already: log in")
    here.accounts.add(account.name, Role.ADMIN, hashed)
    here.server.gate.events.record(
        Severity.INFO,
        "account-made",
        f"the first account, {account.name}, was made",
        who=account.name,
        address=_address(request),
    )
    return _begin(here, request, response, account.name)


@routes.post("/login", None, responses=responses(401, 409))
async def log_in(credentials: Credentials, request: Request, response: Response, here: Here) -> Me:
    """Begin a session of the console: its cookie, and the token that changes need with it."""
    _check_wait(here, request)
    account = here.accounts.find(credentials.name)
    right = await _in_thread(passwords.matches, credentials.password, here.accounts.password_hash(credentials.name))
    if account is None or not right:
        _failed(here, request, credentials.name, "a wrong name or password")
        raise Refused(HTTPStatus.UNAUTHORIZED, "the name or the password is wrong")
    if account.totp and not credentials.code:
        raise Refused(HTTPStatus.UNAUTHORIZED, "a one-time password is needed", {"x-needs": "code"})
    if account.totp and not here.accounts.take_code(account.name, credentials.code or ""):
        _failed(here, request, credentials.name, "a wrong one-time password")
        raise Refused(
            HTTPStatus.UNAUTHORIZED, "the one-time password is wrong, or was used already", {"x-needs": "code"}
        )
    here.limits.succeeded(_attempt(request, account.name))
    return _begin(here, request, response, account.name)


@routes.post("/logout", Role.VIEWER, Owners.THEIRS, status_code=204)
async def log_out(request: Request, response: Response, here: Here) -> None:
    """End the session of the console."""
    cookie = request.cookies.get(COOKIE)
    if cookie is not None:
        here.logins.end(cookie)
    response.delete_cookie(COOKIE)


@routes.get("/me", Role.VIEWER, Owners.THEIRS)
async def get_me(request: Request, here: Here, who: Who) -> Me:
    """Who asks, and as what."""
    login: Login | None = request.state.login
    return _me(here, who, login)


def _begin(here: Context, request: Request, response: Response, name: str) -> Me:
    cookie, login = here.logins.begin(name, _address(request))
    response.set_cookie(
        COOKIE, cookie, max_age=int(ABSOLUTE), httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    account = here.accounts.get(name)
    return _me(here, Identity(name, account.role, frozenset(account.targets), "session"), login)


def _me(here: Context, who: Identity, login: Login | None) -> Me:
    return Me(
        name=who.name,
        role=who.role,
        targets=sorted(who.targets),
        by=who.by.partition(" ")[0],
        csrf=None if login is None else login.csrf,
        expires_in=None if login is None else here.logins.left(login),
    )


# ---- who fails waits


def _check_wait(here: Context, request: Request) -> None:
    seconds = here.limits.wait(_attempt(request, "").address, _CONSOLE)
    if seconds:
        wait = str(int(seconds) + 1)
        raise Refused(
            HTTPStatus.TOO_MANY_REQUESTS, f"too many logins have failed: wait {wait} s", {"retry-after": wait}
        )


def _failed(here: Context, request: Request, name: str, why: str) -> None:
    seconds = here.limits.failed(_attempt(request, name))
    here.server.gate.events.record(
        Severity.WARNING,
        "console-login-failed",
        f"{_address(request)} could not log in to the console: {why}"
        + (f"; it has to wait {seconds:g} s" if seconds else ""),
        who=name,
        address=_address(request),
    )


def _attempt(request: Request, name: str) -> Attempt:
    try:
        address = ipaddress.ip_address(_address(request).partition("%")[0])
    except ValueError:
        address = None
    return Attempt(address, "", name, _CONSOLE)


def _address(request: Request) -> str:
    return "" if request.client is None else request.client.host


def _is_here(request: Request) -> bool:
    """Whether it comes from this machine, and not from elsewhere by a proxy on it."""
    door: str = request.scope["door"]
    proxied = any(field in request.headers for field in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    return door == "local" or (door == "loopback" and not proxied)


async def _in_thread(work: Callable[..., T], *arguments: str) -> T:
    async with _hashing:
        return await asyncio.to_thread(work, *arguments)
