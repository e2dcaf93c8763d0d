"""Who asks, as Redfish has it (DSP0266 §13.3): by X-Auth-Token of a session, or name and password with every request (Basic)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import Request

from blockyard.api.context import Context
from blockyard.api.hashing import is_password, succeeded
from blockyard.api.logins import Login
from blockyard.api.problems import Refused
from blockyard.control.roles import NOBODY, Identity

ROOT = "/redfish"
TOKEN = "x-auth-token"  # noqa: S105  (the name of a field)


def is_redfish(path: str) -> bool:
    return path == ROOT or path.startswith(ROOT + "/")


async def identify(
    here: Context, scope: dict[str, Any], headers: Mapping[str, str]
) -> tuple[Identity, Login | None] | None:
    """None where no proof of Redfish's own was sent. Raises Refused for one that is none."""
    if TOKEN in headers:
        return _of_token(here, headers[TOKEN])
    kind, _, credentials = headers.get("authorization", "").partition(" ")
    if kind.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise unauthorized("this is not a name and a password in Base64") from None
    request = Request(scope)
    if not await is_password(here, request, name, password):
        raise unauthorized("the name or the password is wrong")
    account = here.accounts.get(name)
    if account.totp:
        raise unauthorized("this account has one-time passwords: begin a session, with Token")
    succeeded(here, request, name)
    return replace(account.identity, by=f"account {name}"), None


def _of_token(here: Context, token: str) -> tuple[Identity, Login | None]:
    login = here.logins.find(token)
    account = None if login is None else here.accounts.find(login.account)
    if login is None or account is None or account.changed != login.since:
        return NOBODY, None
    return replace(account.identity, by=f"session {login.id}"), login


def unauthorized(detail: str) -> Refused:
    return Refused(HTTPStatus.UNAUTHORIZED, detail)
