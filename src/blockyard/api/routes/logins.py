"""The first account, logging in to the console and out, and who one is."""

from __future__ import annotations

import hmac
from http import HTTPStatus

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api.context import Context
from blockyard.api.guard import COOKIE
from blockyard.api.hashing import address, check_wait, failed, hash_password, is_password, succeeded
from blockyard.api.logins import ABSOLUTE, Login
from blockyard.api.models import Input
from blockyard.api.problems import Refused, responses
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control import passwords
from blockyard.control.roles import Identity, Role

routes = Routes("logins")


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
    totp: bool = Field(False, description="one-time passwords are asked for when this account logs in")
    expires_in: float | None = Field(None, description="seconds until the session ends if nothing comes any more")


@routes.get("/setup", None)
async def get_setup(request: Request, here: Here) -> Setup:
    """Whether the first account is still to be made."""
    return Setup(needed=not here.accounts.all(), code_needed=not _is_here(request))


@routes.post("/setup", None, status_code=201, responses=responses(409))
async def set_up(account: FirstAccount, request: Request, response: Response, here: Here) -> Me:
    """Make the first account, which administers, and log in as it. Possible once."""
    _check_first(here)
    if not _is_here(request):
        check_wait(here, request)
        given = "" if account.code is None else account.code.strip().lower()
        if not hmac.compare_digest(given.encode(), here.setup_code.encode()):
            failed(here, request, "", "a wrong code for the first account")
            raise Refused(HTTPStatus.FORBIDDEN, "from elsewhere, the code that `blockyard serve` has printed is needed")
    hashed = await hash_password(account.password)
    _check_first(here)  # somebody else may have been faster
    here.accounts.add(account.name, Role.ADMIN, hashed)
    here.record(Identity(account.name, Role.ADMIN), f"first account, {account.name}, made", None, {"role": "admin"})
    return _begin(here, request, response, account.name)


@routes.post("/login", None, responses=responses(401, 409))
async def log_in(credentials: Credentials, request: Request, response: Response, here: Here) -> Me:
    """Begin a session of the console: its cookie, and the token that changes need with it."""
    name = credentials.name
    if not await is_password(here, request, name, credentials.password):
        raise Refused(HTTPStatus.UNAUTHORIZED, "the name or the password is wrong")
    if here.accounts.get(name).totp:
        if not credentials.code:
            raise Refused(HTTPStatus.UNAUTHORIZED, "a one-time password is needed", {"x-needs": "code"})
        if not here.accounts.take_code(name, credentials.code):
            failed(here, request, name, "a wrong one-time password")
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "the one-time password is wrong, or was used already", {"x-needs": "code"}
            )
    succeeded(here, request, name)
    return _begin(here, request, response, name)


@routes.post("/logout", Role.VIEWER, Owners.THEIRS, status_code=204)
async def log_out(request: Request, response: Response, here: Here) -> None:
    """End the session of the console."""
    cookie = request.cookies.get(COOKIE)
    if cookie is not None:
        here.logins.end(cookie)
    response.delete_cookie(COOKIE)


@routes.get("/me", Role.VIEWER, Owners.THEIRS, of=())
async def get_me(request: Request, here: Here, who: Who) -> Me:
    """Who asks, and as what."""
    login: Login | None = request.state.login
    return _me(here, who, login)


def _begin(here: Context, request: Request, response: Response, name: str) -> Me:
    account = here.accounts.get(name)
    cookie, login = here.logins.begin(name, account.changed, address(request))
    response.set_cookie(
        COOKIE, cookie, max_age=int(ABSOLUTE), httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return _me(here, Identity(name, account.role, frozenset(account.targets), "session"), login)


def _me(here: Context, who: Identity, login: Login | None) -> Me:
    return Me(
        name=who.name,
        role=who.role,
        targets=sorted(who.targets),
        by=who.by.partition(" ")[0],
        totp=any(each.name == who.name and each.totp for each in here.accounts.all()),
        csrf=None if login is None else login.csrf,
        expires_in=None if login is None else here.logins.left(login),
    )


def _check_first(here: Context) -> None:
    """Raises Refused where there is an account."""
    if here.accounts.all():
        raise Refused(HTTPStatus.CONFLICT, "there is an account already: log in")


def _is_here(request: Request) -> bool:
    """Whether it comes from this machine, and not from elsewhere by a proxy on it."""
    door: str = request.scope["door"]
    proxied = any(field in request.headers for field in ("forwarded", "x-forwarded-for", "x-real-ip", "via"))
    return door == "local" or (door == "loopback" and not proxied)
