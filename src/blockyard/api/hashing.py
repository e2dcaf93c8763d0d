"""Passwords, compared in threads and few at a time; and who gets one wrong waits."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from http import HTTPStatus
from typing import TypeVar

from fastapi import Request

from blockyard.api.context import Context
from blockyard.api.problems import Refused
from blockyard.control import passwords
from blockyard.control.limits import Attempt

T = TypeVar("T")

_hashing = asyncio.Semaphore(2)  # each takes a core and 32 MiB
_CONSOLE = "console"  # where logins are limited (control/limits.py), as to a target


async def hash_password(password: str) -> str:
    """What is kept of a new password. Raises Refused for one that is not good enough."""
    weak = passwords.check_password(password)
    if weak:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, weak)
    return await _in_thread(passwords.hashed, password)


async def is_password(here: Context, request: Request, name: str, password: str) -> bool:
    """Whether it is the password of an account. A wrong one counts. Raises Refused for who has to wait."""
    check_wait(here, request)
    kept = here.accounts.password_hash(name)
    right = await _in_thread(passwords.matches, password, kept)
    if not right or here.accounts.find(name) is None or here.accounts.password_hash(name) != kept:  # changed meanwhile
        failed(here, request, name, "a wrong name or password")
        return False
    return True


async def _in_thread(work: Callable[..., T], *arguments: str) -> T:
    async with _hashing:
        return await asyncio.to_thread(work, *arguments)


# ---- who fails waits


def check_wait(here: Context, request: Request) -> None:
    """Raises Refused while the address has to wait."""
    seconds = here.limits.wait(_attempt(request, "").address, _CONSOLE)
    if seconds:
        wait = str(int(seconds) + 1)
        raise Refused(
            HTTPStatus.TOO_MANY_REQUESTS, f"too many logins have failed: wait {wait} s", {"retry-after": wait}
        )


def failed(here: Context, request: Request, name: str, why: str) -> None:
    """Somebody has not proved who he is."""
    seconds = here.limits.failed(_attempt(request, name))
    here.server.gate.events.record(
        "console-login-failed",
        f"{address(request)} could not log in to the console: {why}"
        + (f"; it has to wait {seconds:g} s" if seconds else ""),
        who=name,
        address=address(request),
    )


def succeeded(here: Context, request: Request, name: str) -> None:
    """Somebody has."""
    here.limits.succeeded(_attempt(request, name))


def address(request: Request) -> str:
    """Where a request comes from."""
    return "" if request.client is None else request.client.host


def _attempt(request: Request, name: str) -> Attempt:
    try:
        found = ipaddress.ip_address(address(request).partition("%")[0])
    except ValueError:
        found = None
    return Attempt(found, "", name, _CONSOLE)
