"""Accounts: who may log in here. Passwords go in, and never come out."""

from __future__ import annotations

import base64
import io
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.hashing import hash_password, is_password
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control import totp
from blockyard.control.accounts import Account as Kept
from blockyard.control.passwords import MAX_PASSWORD, MIN_PASSWORD
from blockyard.control.roles import Role

routes = Routes("accounts")

TargetName = Annotated[str, Field(max_length=223)]
_PASSWORD = Field(min_length=1, max_length=MAX_PASSWORD, description=f"{MIN_PASSWORD} characters at least")
_TARGETS = Field(None, max_length=1000, description="iSCSI names; for owners")


class Account(BaseModel):
    """Somebody, or a program, that logs in here."""

    name: str
    role: Role
    targets: list[str] = Field(description="of an owner")
    enabled: bool
    totp: bool = Field(description="one-time passwords are asked for")
    created: float = Field(description="seconds since 1970")
    changed: float

    @property
    def changeable(self) -> dict[str, Any]:
        """What its ETag is of: `changed` tells of a new password, too."""
        return self.model_dump()


class NewAccount(Input):
    name: str = Field(max_length=64)
    role: Role
    password: str = _PASSWORD
    targets: list[TargetName] | None = _TARGETS


class AccountChange(Input):
    role: Role | None = None
    targets: list[TargetName] | None = _TARGETS
    enabled: bool | None = None
    password: str | None = Field(None, min_length=1, max_length=MAX_PASSWORD)
    totp: bool | None = Field(None, description="false: ask for one-time passwords no more, where a telephone was lost")


class NewPassword(Input):
    old: str = Field(max_length=MAX_PASSWORD)
    new: str = _PASSWORD


class Totp(Input):
    password: str = Field(max_length=MAX_PASSWORD)
    code: str | None = Field(
        None, max_length=10, description="of the secret that was told before; nothing: tell a new one"
    )
    off: bool = Field(False, description="ask for one-time passwords no more")


class TotpSecret(BaseModel):
    uri: str | None = Field(
        description="what a telephone takes as a QR code; none: one-time passwords are asked for from now on, or no more"
    )
    qr: str | None = Field(None, description="that code as a picture: a data: URI of an SVG image")


@routes.get("/accounts", Role.ADMIN)
async def list_accounts(here: Here) -> list[Account]:
    """All accounts."""
    return list(map(_account, here.accounts.all()))


@routes.post("/accounts", Role.ADMIN, status_code=201)
async def create_account(new: NewAccount, here: Here, who: Who, response: Response) -> Account:
    """Make one."""
    hashed = await hash_password(new.password)
    made = _account(here.accounts.add(new.name, new.role, hashed, new.targets or ()))
    here.record(who, f"account {new.name} made", None, made.model_dump())
    response.headers["Location"] = f"/api/v1/accounts/{new.name}"
    etags.mark(response, made.changeable)
    return made


@routes.get("/accounts/{account}", Role.ADMIN)
async def get_account(account: str, here: Here, response: Response) -> Account:
    """One of them."""
    found = _account(here.accounts.get(account))
    etags.mark(response, found.changeable)
    return found


@routes.patch("/accounts/{account}", Role.ADMIN)
async def change_account(
    account: str, change: AccountChange, here: Here, who: Who, response: Response, if_match: IfMatch = None
) -> Account:
    """Change what is said; its sessions of the console end."""
    etags.check(if_match, _account(here.accounts.get(account)).changeable)
    if change.totp:
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "totp: whose account it is turns it on, with PUT /me/totp")
    hashed = None if change.password is None else await hash_password(change.password)
    before = _account(
        here.accounts.get(account)
    )  # which somebody else may have changed meanwhile; from here on nobody can
    etags.check(if_match, before.changeable)
    if change.totp is False:
        here.accounts.set_totp(account, None)
    here.accounts.set(account, role=change.role, targets=change.targets, enabled=change.enabled, password_hash=hashed)
    after = _account(here.accounts.get(account))
    here.record(who, f"account {account} changed", before.model_dump(), after.model_dump())
    etags.mark(response, after.changeable)
    return after


@routes.delete("/accounts/{account}", Role.ADMIN, status_code=204)
async def delete_account(account: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Remove it, with its tokens."""
    found = _account(here.accounts.get(account))
    etags.check(if_match, found.changeable)
    here.accounts.remove(account)
    here.logins.end_of(account)
    here.record(who, f"account {account} removed", found.model_dump(), None)


# ---- one's own


@routes.put("/me/password", Role.VIEWER, Owners.THEIRS, status_code=204)
async def change_my_password(change: NewPassword, request: Request, here: Here, who: Who) -> None:
    """Another password for whoever asks; all of its other sessions of the console end."""
    await _check_mine(here, request, who.name, change.old)
    here.accounts.set(who.name, password_hash=await hash_password(change.new))
    here.record(who, f"password of {who.name} changed", None, None)
    here.logins.end_of(who.name, but=request.state.login)
    if request.state.login is not None:
        here.logins.renew(request.state.login, here.accounts.get(who.name).changed)


@routes.put("/me/totp", Role.VIEWER, Owners.THEIRS)
async def turn_on_my_totp(change: Totp, request: Request, here: Here, who: Who) -> TotpSecret:
    """Ask whoever asks for one-time passwords: first without a code, which tells a secret, then with one of its codes."""
    await _check_mine(here, request, who.name, change.password)
    if change.off:
        here.accounts.set_totp(who.name, None)
    elif change.code is None:
        secret = here.totp_secrets[who.name] = totp.new_secret()
        uri = totp.uri(secret, who.name, "Blockyard")
        return TotpSecret(uri=uri, qr=_drawn(uri))
    else:
        _confirm(here, who.name, change.code)
    here.record(who, f"one-time passwords of {who.name} turned {'off' if change.off else 'on'}", None, None)
    if request.state.login is not None:
        here.logins.renew(request.state.login, here.accounts.get(who.name).changed)
    return TotpSecret(uri=None, qr=None)


def _confirm(here: Context, name: str, code: str) -> None:
    """Raises Refused."""
    wanted = here.totp_secrets.get(name)
    if wanted is None:
        raise Refused(HTTPStatus.CONFLICT, "ask for a secret first, without a code")
    if not here.accounts.confirm_totp(name, wanted, code):
        raise Refused(HTTPStatus.FORBIDDEN, "this is not the code of now: look at the clocks")
    del here.totp_secrets[name]


def _drawn(text: str) -> str:
    """A QR code (ISO/IEC 18004), drawn here: nobody else is to see the secret."""
    import segno  # noqa: PLC0415  (who has no telephone does not wait for it)

    picture = io.BytesIO()
    segno.make(text, micro=False, error="m").save(picture, kind="svg", scale=8, border=4, light="#fff", xmldecl=False)
    return "data:image/svg+xml;base64," + base64.b64encode(picture.getvalue()).decode()


async def _check_mine(here: Context, request: Request, name: str, password: str) -> None:
    """Raises Refused."""
    if here.accounts.find(name) is None:
        raise not_found(f"account {name!r}: who comes by the unix socket needs none")
    if not await is_password(here, request, name, password):
        raise Refused(HTTPStatus.FORBIDDEN, "the password is wrong")


def _account(kept: Kept) -> Account:
    return Account(**{**vars(kept), "targets": list(kept.targets)})
