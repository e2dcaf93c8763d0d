"""Users who log in to targets by CHAP, and groups of them (docs/access.md). Secrets go in, and never come out."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from typing import Any

from fastapi import Response
from pydantic import BaseModel, Field

from blockyard.api import etags
from blockyard.api.context import Context
from blockyard.api.etags import Conditional, IfMatch
from blockyard.api.models import Input
from blockyard.api.problems import Refused, not_found
from blockyard.api.security import Here, Routes, Who
from blockyard.control.roles import Role
from blockyard.control.users import Accounts, Users
from blockyard.iscsi.chap import MIN_SECRET, Account

routes = Routes("users")

_SECRET = Field(
    None, min_length=MIN_SECRET, max_length=255, description=f"{MIN_SECRET} bytes at least; nothing: it stays"
)


class User(BaseModel):
    """Who may log in to targets."""

    name: str
    mutual: str | None = Field(description="the name by which the target proves itself to this user")
    groups: list[str]


class UserChange(Input):
    secret: str | None = _SECRET
    mutual: str | None = Field(None, max_length=255, description="have the target prove itself by this name")
    mutual_secret: str | None = _SECRET
    groups: list[str] | None = Field(None, max_length=100, description="that it is to be in; nothing: as it is")


class Group(BaseModel):
    name: str
    users: list[str]


class Members(Input):
    users: list[str] = Field(max_length=10_000)


@routes.get("/users", Role.VIEWER)
async def list_users(here: Here) -> list[User]:
    """All users, without their secrets."""
    return [_user(each, _load(here)) for each in _load(here).users.values()]


@routes.get("/users/{user}", Role.VIEWER)
async def get_user(user: str, here: Here, response: Response) -> User:
    """One of them."""
    found = _find(here, user)
    etags.mark(response, _state(here, user))
    return found


@routes.put("/users/{user}", Role.ADMIN, responses={201: {"model": User, "description": "made"}})
async def put_user(
    user: str,
    change: UserChange,
    here: Here,
    who: Who,
    response: Response,
    wanted: Conditional,
) -> User:
    """Make a user, or change one: its sessions end when its secret is another."""
    users, accounts = Users(here.state), _load(here)
    old = accounts.users.get(user)
    wanted.check(None if old is None else _state(here, user))
    before = None if old is None else _user(old, accounts).model_dump()
    account = _account(user, change, old)
    (users.add if old is None else users.set)(account, change.groups or [])
    for group in () if change.groups is None or old is None else set(_user(old, accounts).groups) - set(change.groups):
        users.remove_from_group(group, [user])
    found = _find(here, user)
    here.record(who, f"user {user} {'made' if old is None else 'changed'}", before, found.model_dump())
    response.status_code = 201 if old is None else 200
    etags.mark(response, _state(here, user))
    return found


@routes.delete("/users/{user}", Role.ADMIN, status_code=204)
async def delete_user(user: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Remove a user, and end its sessions."""
    found = _find(here, user)
    etags.check(if_match, _state(here, user))
    Users(here.state).remove(user)
    here.record(who, f"user {user} removed", found.model_dump(), None)


@routes.get("/groups", Role.VIEWER)
async def list_groups(here: Here) -> list[Group]:
    """All groups, and who is in them."""
    return [Group(name=name, users=list(members)) for name, members in _load(here).groups.items()]


@routes.get("/groups/{group}", Role.VIEWER)
async def get_group(group: str, here: Here, response: Response) -> Group:
    """One of them."""
    found = _group(here, group)
    etags.mark(response, found.model_dump())
    return found


@routes.put("/groups/{group}", Role.ADMIN, responses={201: {"model": Group, "description": "made"}})
async def put_group(
    group: str,
    members: Members,
    here: Here,
    who: Who,
    response: Response,
    wanted: Conditional,
) -> Group:
    """Make a group, or say who is in it."""
    users, old = Users(here.state), _load(here).groups.get(group)
    wanted.check(None if old is None else _group(here, group).model_dump())
    users.add_to_group(group, members.users)
    leaving = set(old or ()) - set(members.users)
    if leaving:
        users.remove_from_group(group, leaving)
    found = _group(here, group)
    before = None if old is None else {"users": list(old)}
    here.record(who, f"group {group} {'made' if old is None else 'changed'}", before, {"users": found.users})
    response.status_code = 201 if old is None else 200
    etags.mark(response, found.model_dump())
    return found


@routes.delete("/groups/{group}", Role.ADMIN, status_code=204)
async def delete_group(group: str, here: Here, who: Who, if_match: IfMatch = None) -> None:
    """Remove a group; its users stay."""
    found = _group(here, group)
    etags.check(if_match, found.model_dump())
    Users(here.state).remove_from_group(group, [])
    here.record(who, f"group {group} removed", {"users": found.users}, None)


def _load(here: Context) -> Accounts:
    return Users(here.state).load()


def _find(here: Context, name: str) -> User:
    accounts = _load(here)
    if name not in accounts.users:
        raise not_found(f"user {name!r}")
    return _user(accounts.users[name], accounts)


def _user(account: Account, accounts: Accounts) -> User:
    groups = [group for group, members in accounts.groups.items() if account.name in members]
    return User(name=account.name, mutual=account.target_name or None, groups=groups)


def _group(here: Context, name: str) -> Group:
    members = _load(here).groups.get(name)
    if members is None:
        raise not_found(f"group {name!r}")
    return Group(name=name, users=list(members))


def _state(here: Context, name: str) -> Any:
    """What the ETag of a user is of: it changes with the secrets, too, and tells nothing of them."""
    accounts = _load(here)
    return [_user(accounts.users[name], accounts).model_dump(), Users(here.state).sealed(name)]


def _account(name: str, change: UserChange, old: Account | None) -> Account:
    """What is to be. Raises Refused."""
    if change.secret is None and old is None:
        raise _unfit("secret: a new user has one")
    if (change.mutual is None) != (change.mutual_secret is None):
        raise _unfit("mutual and mutual_secret belong together")
    try:
        account = Account(
            name, old.secret if change.secret is None and old is not None else (change.secret or "").encode()
        )
        if change.mutual is not None and change.mutual_secret is not None:
            return replace(account, target_name=change.mutual, target_secret=change.mutual_secret.encode())
        if old is not None and old.target_secret is not None:
            return replace(account, target_name=old.target_name, target_secret=old.target_secret)
    except ValueError as error:
        raise _unfit(str(error)) from None
    return account


def _unfit(why: str) -> Refused:
    return Refused(HTTPStatus.UNPROCESSABLE_ENTITY, why)
