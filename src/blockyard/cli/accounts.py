"""`blockyard account` and `token`: who logs in to the API and the console, and what programs prove themselves by.

They work on the state directory, with or without a server that runs, and by --url on that of a server elsewhere. No password or
token stands on the command line: everybody on the machine can read that.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import sys
from functools import partial
from pathlib import Path
from typing import Any

from blockyard.cli import parsers
from blockyard.cli.credentials import CredentialsError, read_secret
from blockyard.cli.output import moment, show
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.account_commands import DOABLE
from blockyard.control.administration import REMOTE, ask
from blockyard.control.errors import UsageError
from blockyard.control.passwords import MIN_PASSWORD
from blockyard.control.roles import Role
from blockyard.control.state import State
from blockyard.pool.instant import parse_length

_EXIT_STATUS = f"""\
exit status:
  0  done
  2  the command line does not make sense, or a password is not good enough
  5  the state directory cannot be used
  6  the account or token does not exist, exists already, or cannot be so
  7  with --url: the server cannot be reached, or is another one

A password has {MIN_PASSWORD} characters at least. It is asked for at the terminal; without one, it is a line of standard input.

examples:
  blockyard account add ann --role admin
  blockyard account add bob --role owner --target iqn.2024-01.com.example:mail
  blockyard token create ann --role viewer --lifetime 90d --note monitoring > monitoring.token
"""
_ROLES = (
    "viewer: sees all but secrets; operator: and does what happens every day; admin: everything; owner: of some targets"
)


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `account` and `token` to the commands."""
    account = family(commands, "account", "accounts: who logs in to the API and the console")
    add = _command(account, "add", _add, "make an account")
    change = _command(account, "set", _set, "change an account; its sessions of the console end")
    for parser in (add, change):
        parser.add_argument("name", metavar="NAME", help="what it is called")
        parser.add_argument("--role", choices=tuple(Role), required=parser is add, help=_ROLES)
        parser.add_argument("--target", metavar="IQN", action="append", help="of an owner; may be repeated")
    add.add_argument("--password-file", metavar="FILE", type=Path, help="the password is the first line of this file")
    change.add_argument("--enable", dest="enabled", action="store_const", const=True, help="let it be used again")
    change.add_argument("--disable", dest="enabled", action="store_const", const=False, help="let it be of no use")
    change.add_argument(
        "--no-totp", action="store_true", help="ask for one-time passwords no more: a telephone was lost"
    )
    password = _command(
        account, "passwd", _password, "give an account another password; its sessions of the console end"
    )
    password.add_argument("name", metavar="NAME", help="the account")
    password.add_argument(
        "--password-file", metavar="FILE", type=Path, help="the password is the first line of this file"
    )
    listing = _command(account, "list", _list, "list all accounts")
    listing.add_argument("--json", action="store_true", help="as JSON")
    remove = _command(account, "remove", _remove, "remove an account, with its tokens")
    remove.add_argument("name", metavar="NAME", help="the account")
    token = family(commands, "token", "tokens: what programs prove themselves by to the API")
    create = _command(token, "create", _create, "make a token, and print it this one time")
    create.add_argument("account", metavar="ACCOUNT", help="whose it is")
    create.add_argument("--role", choices=tuple(Role), help="less than the account's (default: that)")
    create.add_argument(
        "--lifetime", metavar="TIME", help="how long it is good: 90d, 12h (default: until it is revoked)"
    )
    create.add_argument("--note", metavar="TEXT", default="", help="what it is for")
    tokens = _command(token, "list", _tokens, "list tokens, without their secrets")
    tokens.add_argument("account", metavar="ACCOUNT", nargs="?", help="of this account only")
    tokens.add_argument("--json", action="store_true", help="as JSON")
    revoke = _command(token, "revoke", _revoke, "let a token be worth nothing from now on")
    revoke.add_argument("id", metavar="ID", help="its id, as `blockyard token list` shows it")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=_EXIT_STATUS)


def _do(directory: Path, command: str, **arguments: object) -> Any:
    """Have it done: to the state directory here, or by the server elsewhere. Raises ControlError."""
    if REMOTE.get() is not None:
        return ask(directory, command, **arguments)
    with contextlib.closing(State(directory)) as state:
        return DOABLE[command](state, {**arguments, "who": getpass.getuser()})


def _read_password(file: Path | None, name: str) -> str:
    if file is not None:
        try:
            return read_secret(file).decode()
        except (CredentialsError, UnicodeDecodeError) as error:
            raise UsageError(str(error)) from None
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    password = getpass.getpass(f"Password of {name}: ")
    if getpass.getpass("Once more: ") != password:
        raise UsageError("that was not the same")
    return password


def _add(directory: Path, options: argparse.Namespace) -> None:
    password = _read_password(options.password_file, options.name)
    _do(directory, "account add", name=options.name, role=options.role, targets=options.target, password=password)
    print(f"{options.name} is {options.role}")


def _set(directory: Path, options: argparse.Namespace) -> None:
    wanted = {"role": options.role, "targets": options.target, "enabled": options.enabled}
    wanted["totp"] = False if options.no_totp else None
    if all(value is None for value in wanted.values()):
        raise UsageError("there is nothing to change: give --role, --target, --enable, --disable or --no-totp")
    _do(directory, "account set", name=options.name, **wanted)
    print(f"{options.name} is changed")


def _password(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "account set", name=options.name, password=_read_password(options.password_file, options.name))
    print(f"{options.name} has another password")


def _remove(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "account remove", name=options.name)
    print(f"{options.name} is gone")


def _list(directory: Path, options: argparse.Namespace) -> None:
    found = _do(directory, "account list")
    head = ("ACCOUNT", "ROLE", "TARGETS", "ENABLED", "ONE-TIME PASSWORDS", "MADE")
    rows = [
        (each["name"], each["role"], ", ".join(each["targets"]) or "-", _yes(each["enabled"]), _yes(each["totp"]),
         moment(each["created"]))
        for each in found
    ]  # fmt: skip
    show(options, found, head, rows, none="there is no account")


def _create(directory: Path, options: argparse.Namespace) -> None:
    try:
        lifetime = None if options.lifetime is None else parse_length(options.lifetime) / 1e9
    except ValueError as error:
        raise UsageError(str(error)) from None
    made = _do(
        directory, "token create", account=options.account, role=options.role, lifetime=lifetime, note=options.note
    )
    print(made["token"])
    print(f"token {made['id']} of {made['account']}: {made['role']}", file=sys.stderr)


def _tokens(directory: Path, options: argparse.Namespace) -> None:
    found = _do(directory, "token list", account=options.account)
    head = ("TOKEN", "ACCOUNT", "ROLE", "MADE", "GOOD UNTIL", "USED", "NOTE")
    times = partial(_time, "-")
    rows = [
        (each["id"], each["account"], each["role"], moment(each["created"]), _time("revoked", each["expires"]),
         times(each["used"]), each["note"])
        for each in found
    ]  # fmt: skip
    show(options, found, head, rows, none="there is no token")


def _revoke(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "token revoke", id=options.id)
    print(f"token {options.id} is worth nothing any more")


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _time(never: str, seconds: float | None) -> str:
    return never if seconds is None else moment(seconds)
