"""`blockyard user` and `blockyard group`: who may log in by CHAP.

Secrets come from a prompt, a file or standard input, never from the command line: everybody on the machine can read that.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from blockyard.cli import parsers
from blockyard.cli.credentials import CredentialsError, read_secret
from blockyard.cli.parsers import Subparsers, family
from blockyard.control import audit
from blockyard.control.errors import UsageError
from blockyard.control.events import EventLog
from blockyard.control.state import State
from blockyard.control.users import Accounts, Users, generate_secret
from blockyard.iscsi.chap import MIN_SECRET, Account

_Action = Callable[[Users, argparse.Namespace], str]  # does it, and says what was changed, for the events

_EXIT_STATUS = """\
exit status:
  0  done
  2  the command line does not make sense
  5  the state directory, or the key to the secrets, cannot be used
  6  the user or group does not exist, exists already, or cannot have that name or secret
"""
_SECRETS = f"""
A secret has {MIN_SECRET} bytes at least; Windows takes 12 to 16. It is asked for at the terminal; where there is none, it is a
line of standard input, and that of --mutual the next line. A running `blockyard serve` knows of the change within a second.
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `user` and `group` to the commands."""
    user = family(commands, "user", "users who log in by CHAP")
    add = _command(user, "add", _add, "make a user", epilog=_SECRETS)
    add.add_argument("name", metavar="NAME", help="what the initiator sends as its CHAP name")
    _secret_options(add)
    change = _command(user, "set", _set, "change a user's secrets, or put it into groups", epilog=_SECRETS)
    change.add_argument("name", metavar="NAME", help="the user")
    change.add_argument("--keep", action="store_true", help="leave the user's own secret as it is")
    _secret_options(change)
    show = _command(user, "list", _list_users, "show all users, without their secrets")
    show.add_argument("--json", action="store_true", help="as JSON")
    remove = _command(user, "remove", _remove, "remove a user, and end its sessions")
    remove.add_argument("name", metavar="NAME", help="the user")
    group = family(commands, "group", "groups of users, which rules of access can name")
    into = _command(group, "add", _group_add, "make a group, or put users into it")
    out = _command(group, "remove", _group_remove, "take users out of a group, or remove it")
    for parser, members in ((into, "users to put into it"), (out, "users to take out; without any, the group goes")):
        parser.add_argument("group", metavar="GROUP", help="the group")
        parser.add_argument("users", metavar="USER", nargs="*", help=members)
    groups = _command(group, "list", _list_groups, "show all groups and who is in them")
    groups.add_argument("--json", action="store_true", help="as JSON")


def _command(
    commands: Subparsers[argparse.ArgumentParser], name: str, action: _Action, what: str, *, epilog: str = ""
) -> argparse.ArgumentParser:
    return parsers.command(
        commands,
        name,
        partial(_change, action),
        what,
        epilog=f"{epilog.lstrip()}\n{_EXIT_STATUS}".lstrip(),
        local=True,
    )


def _secret_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--secret-file", metavar="FILE", type=Path, help="the secret is the first line of this file")
    parser.add_argument("--generate", action="store_true", help="make up the secrets, and print them")
    parser.add_argument(
        "--mutual",
        metavar="NAME",
        help="the target proves itself to this user, under this name and with a secret of its own (mutual CHAP)",
    )
    parser.add_argument("--mutual-secret-file", metavar="FILE", type=Path, help="where that secret stands")
    parser.add_argument(
        "--group", metavar="GROUP", action="append", default=[], help="put it into this group; may be repeated"
    )


def _change(action: _Action, directory: Path, options: argparse.Namespace) -> None:
    with contextlib.closing(State(directory)) as state:
        done = action(Users(state), options)
        if done:
            events = EventLog(state)
            events.record("users-changed", f"{done}, by {getpass.getuser()}", who=getpass.getuser())
            events.flush()
            audit.record(state, audit.Entry(getpass.getuser(), done))


# ---- users


def _add(users: Users, options: argparse.Namespace) -> str:
    secret = _secret(options, options.secret_file, f"Secret of {options.name}")
    users.add(_account(options, secret, None), options.group)
    return f"the user {options.name} was made"


def _set(users: Users, options: argparse.Namespace) -> str:
    old = users.get(options.name)
    if options.keep and options.secret_file:
        raise UsageError("--keep and --secret-file do not go together")
    secret = old.secret if options.keep else _secret(options, options.secret_file, f"New secret of {options.name}")
    users.set(_account(options, secret, old), options.group)
    return f"the user {options.name} was changed"


def _account(options: argparse.Namespace, secret: bytes, old: Account | None) -> Account:
    try:
        account = Account(options.name, secret)
        if options.mutual is not None:
            back = _secret(options, options.mutual_secret_file, f"Secret of the target for {options.name}")
            return replace(account, target_name=options.mutual, target_secret=back)
        if options.mutual_secret_file is not None:
            raise UsageError("--mutual-secret-file needs --mutual")
        if old is not None:
            return replace(account, target_name=old.target_name, target_secret=old.target_secret)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return account


def _secret(options: argparse.Namespace, file: Path | None, prompt: str) -> bytes:
    if options.generate:
        if file is not None:
            raise UsageError("--generate makes the secrets up: it takes no file")
        secret = generate_secret()
        print(f"{prompt}: {secret.decode()}")
        return secret
    if file is not None:
        try:
            return read_secret(file)
        except CredentialsError as error:
            raise UsageError(str(error)) from None
    if sys.stdin.isatty():
        return _of_terminal(prompt)
    return sys.stdin.buffer.readline().rstrip(b"\r\n")


def _of_terminal(prompt: str) -> bytes:
    secret = getpass.getpass(f"{prompt}: ")
    if getpass.getpass("Once more: ") != secret:
        raise UsageError("that was not the same")
    return secret.encode()


def _remove(users: Users, options: argparse.Namespace) -> str:
    users.remove(options.name)
    return f"the user {options.name} was removed"


def _list_users(users: Users, options: argparse.Namespace) -> str:
    accounts = users.load()
    rows = [
        {"name": name, "mutual": user.target_name, "groups": _groups_of(name, accounts)}
        for name, user in accounts.users.items()
    ]
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return ""
    for row in rows:
        mutual = f"  mutual: {row['mutual']}" if row["mutual"] else ""
        groups = f"  groups: {', '.join(row['groups'])}" if row["groups"] else ""
        print(f"{row['name']}{mutual}{groups}")
    return ""


def _groups_of(name: str, accounts: Accounts) -> list[str]:
    return [group for group, members in accounts.groups.items() if name in members]


# ---- groups


def _group_add(users: Users, options: argparse.Namespace) -> str:
    users.add_to_group(options.group, options.users)
    return f"the group {options.group} was given {', '.join(options.users) or 'nobody yet'}"


def _group_remove(users: Users, options: argparse.Namespace) -> str:
    users.remove_from_group(options.group, options.users)
    return (
        f"{', '.join(options.users)} left the group {options.group}"
        if options.users
        else f"the group {options.group} is gone"
    )


def _list_groups(users: Users, options: argparse.Namespace) -> str:
    groups = users.load().groups
    if options.json:
        print(json.dumps(groups, ensure_ascii=False))
        return ""
    for name, members in groups.items():
        print(f"{name}: {', '.join(members) or '(nobody)'}")
    return ""
