"""Accounts and tokens as commands: for a server that is asked, and for the command line beside one or without any.

They are done to the state database, which a server looks at with each request: so none has to run. Each writes down what it
has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from blockyard.control import audit, passwords
from blockyard.control.accounts import Accounts
from blockyard.control.command import Command
from blockyard.control.errors import UsageError
from blockyard.control.roles import Role
from blockyard.control.state import State

if TYPE_CHECKING:
    from blockyard.control.administration import Request
    from blockyard.control.server import Server

T = TypeVar("T")


def account_list(state: State, request: Request) -> list[dict[str, Any]]:
    """All accounts."""
    return [asdict(account) for account in Accounts(state).all()]


def account_add(state: State, request: Request) -> dict[str, Any]:
    """Make an account: name, role, password, and of an owner its targets."""
    name, role = _field(request, "name", str), _role(request.get("role"))
    hashed = _hashed(_field(request, "password", str))
    made = asdict(Accounts(state).add(name, role, hashed, _targets(request) or ()))
    _record(state, request, f"account {name} made", None, made)
    return made


def account_set(state: State, request: Request) -> dict[str, Any]:
    """Change what is said of an account: role, targets, enabled, password; `totp` false: no one-time passwords any more."""
    name, accounts = _field(request, "name", str), Accounts(state)
    before = asdict(accounts.get(name))
    password, role, enabled = (request.get(key) for key in ("password", "role", "enabled"))
    hashed = None if password is None else _hashed(_field(request, "password", str))
    if request.get("totp") is False:
        accounts.set_totp(name, None)
    accounts.set(
        name,
        role=None if role is None else _role(role),
        targets=_targets(request),
        enabled=None if enabled is None else bool(enabled),
        password_hash=hashed,
    )
    after = asdict(accounts.get(name))
    _record(state, request, f"account {name} changed", before, after)
    return after


def account_remove(state: State, request: Request) -> None:
    """Remove an account, with its tokens."""
    name, accounts = _field(request, "name", str), Accounts(state)
    before = asdict(accounts.get(name))
    accounts.remove(name)
    _record(state, request, f"account {name} removed", before, None)


def token_list(state: State, request: Request) -> list[dict[str, Any]]:
    """All tokens, or those of an account, without their secrets."""
    account = request.get("account")
    return [asdict(token) for token in Accounts(state).tokens(None if account is None else str(account))]


def token_create(state: State, request: Request) -> dict[str, Any]:
    """Make a token of an account: note, role, lifetime in seconds. Its text is told this one time."""
    account, lifetime, role = _field(request, "account", str), request.get("lifetime"), request.get("role")
    if lifetime is not None and (not isinstance(lifetime, int | float) or lifetime <= 0):
        raise UsageError("a lifetime is a number of seconds")
    made, text = Accounts(state).add_token(
        account, str(request.get("note") or ""), None if role is None else _role(role), lifetime
    )
    _record(state, request, f"token {made.id} of {account} made", None, asdict(made))
    return {**asdict(made), "token": text}


def token_revoke(state: State, request: Request) -> None:
    """Let a token be worth nothing from now on."""
    number, accounts = _field(request, "id", str), Accounts(state)
    before = asdict(accounts.get_token(number))
    accounts.revoke(number)
    _record(state, request, f"token {number} of {before['account']} revoked", before, None)


DOABLE: Mapping[str, Callable[[State, Request], Any]] = {
    "account list": account_list,
    "account add": account_add,
    "account set": account_set,
    "account remove": account_remove,
    "token list": token_list,
    "token create": token_create,
    "token revoke": token_revoke,
}


async def _in_thread(done: Callable[[State, Request], Any], server: Server, request: Request) -> Any:
    def work() -> Any:
        with contextlib.closing(State(server.options.state)) as state:
            return done(state, request)

    return await asyncio.to_thread(work)


def _command(done: Callable[[State, Request], Any]) -> Command:
    run = partial(_in_thread, done)
    run.__doc__ = done.__doc__
    return Command(run, Role.ADMIN, recorded=True)


ACCOUNT_COMMANDS = {name: _command(done) for name, done in DOABLE.items()}


def _record(state: State, request: Request, what: str, before: object, after: object) -> None:
    audit.record(state, audit.Entry(request["who"], what, before, after))


def _hashed(password: str) -> str:
    weak = passwords.check_password(password)
    if weak:
        raise UsageError(weak)
    return passwords.hashed(password)


def _role(text: object) -> Role:
    if text not in tuple(Role):
        raise UsageError(f"a role is one of {', '.join(Role)}, not {text}")
    return Role(str(text))


def _targets(request: Request) -> list[str] | None:
    found = request.get("targets")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise UsageError("targets are a list of iSCSI names")
    return found


def _field(request: Request, name: str, kind: type[T]) -> T:
    value = request.get(name)
    if not isinstance(value, kind):
        raise UsageError(f"the request has no {name}")
    return value
