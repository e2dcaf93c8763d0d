"""CHAP users and groups as commands: for a server that is asked, and for the command line beside one or without any.

They are done to the state database, which a server looks at by itself (control/gate.py). Each writes down what it has changed, in
the events and in the audit log, without the secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from blockyard.control import audit
from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.events import EventLog
from blockyard.control.roles import Role
from blockyard.control.state import State
from blockyard.control.users import Accounts, Users
from blockyard.iscsi.chap import Account

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

Done = Callable[[State, "Request"], Any]


def user_list(state: State, request: Request) -> list[dict[str, Any]]:
    """All users, without their secrets."""
    accounts = Users(state).load()
    return [_told(user, accounts) for user in accounts.users.values()]


def user_add(state: State, request: Request) -> None:
    """Make a user: name, secret, and for mutual CHAP `mutual` and `mutual_secret`; groups that it is to be in."""
    name = _text(request, "name")
    Users(state).add(_new(name, _secret(request, "secret"), _mutual(request)), _groups(request))
    _record(state, request, f"the user {name} was made")


def user_set(state: State, request: Request) -> None:
    """Change a user; what is not said stays."""
    name, users = _text(request, "name"), Users(state)
    old = users.get(name)
    secret = old.secret if request.get("secret") is None else _secret(request, "secret")
    users.set(_changed(old, {"secret": secret, **_mutual(request)}), _groups(request))
    _record(state, request, f"the user {name} was changed")


def user_remove(state: State, request: Request) -> None:
    """Remove a user, and end its sessions."""
    name = _text(request, "name")
    Users(state).remove(name)
    _record(state, request, f"the user {name} was removed")


def group_list(state: State, request: Request) -> dict[str, list[str]]:
    """All groups, and who is in them."""
    return {name: list(members) for name, members in Users(state).load().groups.items()}


def group_add(state: State, request: Request) -> None:
    """Make a group, or put users into it."""
    group, users = _text(request, "group"), _texts(request, "users")
    Users(state).add_to_group(group, users)
    _record(state, request, f"the group {group} was given {', '.join(users) or 'nobody yet'}")


def group_remove(state: State, request: Request) -> None:
    """Take users out of a group; without any, the group goes."""
    group, users = _text(request, "group"), _texts(request, "users")
    Users(state).remove_from_group(group, users)
    _record(state, request, f"{', '.join(users)} left the group {group}" if users else f"the group {group} is gone")


DOABLE: Mapping[str, Done] = {
    "user list": user_list,
    "user add": user_add,
    "user set": user_set,
    "user remove": user_remove,
    "group list": group_list,
    "group add": group_add,
    "group remove": group_remove,
}


async def _in_thread(done: Done, server: Server, request: Request) -> Any:
    def work() -> Any:
        with contextlib.closing(State(server.options.state)) as state:
            return done(state, request)

    return await asyncio.to_thread(work)


def _command(name: str, done: Done) -> Command:
    run = partial(_in_thread, done)
    run.__doc__ = done.__doc__
    return Command(run, Role.VIEWER if name.endswith("list") else Role.ADMIN, recorded=True)


USER_COMMANDS = {name: _command(name, done) for name, done in DOABLE.items()}


# ---- what a request says


def _told(user: Account, accounts: Accounts) -> dict[str, Any]:
    groups = [group for group, members in accounts.groups.items() if user.name in members]
    return {"name": user.name, "mutual": user.target_name, "groups": groups}


def _mutual(request: Request) -> dict[str, Any]:
    """What is said of mutual CHAP. Raises UsageError."""
    if request.get("mutual") is not None:
        return {"target_name": _text(request, "mutual"), "target_secret": _secret(request, "mutual_secret")}
    if request.get("mutual_secret") is not None:
        raise UsageError("a secret of the target needs its name for this user: say mutual")
    return {}


def _new(name: str, secret: bytes, more: dict[str, Any]) -> Account:
    try:
        return Account(name, secret, **more)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _changed(account: Account, changes: dict[str, Any]) -> Account:
    try:
        return replace(account, **changes)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _secret(request: Request, name: str) -> bytes:
    """As text; bytes that are none come as Python has them in names of files."""
    return _text(request, name).encode("utf-8", "surrogateescape")


def _text(request: Request, name: str) -> str:
    value = request.get(name)
    if not isinstance(value, str):
        raise UsageError(f"the request has no {name.replace('_', ' ')}")
    return value


def _texts(request: Request, name: str) -> list[str]:
    value = request.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise UsageError(f"{name} are a list of names")
    return value


def _groups(request: Request) -> list[str]:
    return _texts(request, "groups")


def _record(state: State, request: Request, done: str) -> None:
    events = EventLog(state)
    events.record("users-changed", f"{done}, by {request['who']}", who=request["who"])
    events.flush()
    audit.record(state, audit.Entry(request["who"], done))
