"""Tokens: what programs prove themselves by. A token is told once, when it is made."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Owners, Routes, Who
from blockyard.control.accounts import Token as Kept
from blockyard.control.roles import Identity, Role

routes = Routes("tokens")

_LONGEST = 10 * 366 * 86400


class Token(BaseModel):
    """A token of an account; it is what the account is, or less."""

    id: str
    account: str
    note: str = Field(description="what it is for")
    role: Role
    created: float = Field(description="seconds since 1970")
    expires: float | None
    used: float | None = Field(description="when it was used last, give or take a minute")


class MadeToken(Token):
    token: str = Field(description="to be sent as Authorization: Bearer TOKEN; it is told this one time")


class NewToken(Input):
    account: str | None = Field(None, max_length=64, description="nothing: one's own; for admins, any")
    note: str = Field("", max_length=200, description="what it is for")
    role: Role | None = Field(None, description="nothing: that of the account")
    lifetime: int | None = Field(None, ge=1, le=_LONGEST, description="seconds; nothing: for ever")


@routes.get("/tokens", Role.VIEWER, Owners.THEIRS)
async def list_tokens(here: Here, who: Who) -> list[Token]:
    """One's own; for admins, all."""
    return list(map(_token, here.accounts.tokens(None if who.at_least(Role.ADMIN) else who.name)))


@routes.post("/tokens", Role.VIEWER, Owners.THEIRS, status_code=201)
async def create_token(new: NewToken, here: Here, who: Who, response: Response) -> MadeToken:
    """Make one. Who asks with a token gets none that can do more."""
    account = new.account or who.name
    if account != who.name and not who.at_least(Role.ADMIN):
        raise Refused(HTTPStatus.FORBIDDEN, "tokens of other accounts are for admins")
    if here.accounts.find(account) is None:
        raise Refused(HTTPStatus.CONFLICT, f"there is no account {account} that a token could be of")
    role = new.role or min(who.role, here.accounts.get(account).role, key=lambda each: each.rank)
    if account == who.name and role.rank > who.role.rank:
        raise Refused(HTTPStatus.FORBIDDEN, f"{who.name} is {who.role} here: a token cannot be more")
    made, text = here.accounts.add_token(account, new.note, role, new.lifetime)
    here.record(who, f"token {made.id} of {account} made", None, _token(made).model_dump())
    response.headers["Location"] = f"/api/v1/tokens/{made.id}"
    return MadeToken(token=text, **_token(made).model_dump())


@routes.get("/tokens/{token}", Role.VIEWER, Owners.THEIRS)
async def get_token(token: str, here: Here, who: Who, response: Response) -> Token:
    """One of them, without its secret."""
    found = _find(here, who, token)
    etags.mark(response, found.id)
    return found


@routes.delete("/tokens/{token}", Role.VIEWER, Owners.THEIRS, status_code=204)
async def revoke_token(token: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Let it be worth nothing from now on."""
    found = _find(here, who, token)
    etags.check(if_match, found.id)
    here.accounts.revoke(token)
    here.record(who, f"token {token} of {found.account} revoked", found.model_dump(), None)


def _find(here: Context, who: Identity, number: str) -> Token:
    found = here.accounts.get_token(number)
    if found.account != who.name and not who.at_least(Role.ADMIN):
        raise not_found(f"token {number!r} of yours")
    return _token(found)


def _token(kept: Kept) -> Token:
    return Token(**vars(kept))
