"""`blockyard user` and `blockyard group`: who may log in by CHAP.

Secrets come from a prompt, a file or standard input, never from the command line: everybody on the machine can read that.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import sys
from pathlib import Path
from typing import Any

from blockyard.cli import parsers
from blockyard.cli.credentials import CredentialsError, read_secret
from blockyard.cli.parsers import Action, Subparsers, family
from blockyard.control.administration import REMOTE, ask
from blockyard.control.errors import UsageError
from blockyard.control.state import State
from blockyard.control.user_commands import DOABLE
from blockyard.control.users import AccountError as NoSuchUser
from blockyard.control.users import generate_secret
from blockyard.iscsi.chap import MIN_SECRET

_EXIT_STATUS = """\
exit status:
  0  done
  2  the command line does not make sense
  5  the state directory, or the key to the secrets, cannot be used
  6  the user or group does not exist, exists already, or cannot have that name or secret
  7  with --url: the server cannot be reached, or is another one
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
    commands: Subparsers[argparse.ArgumentParser], name: str, action: Action, what: str, *, epilog: str = ""
) -> argparse.ArgumentParser:
    return parsers.command(commands, name, action, what, epilog=f"{epilog.lstrip()}\n{_EXIT_STATUS}".lstrip())


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


def _do(directory: Path, command: str, **arguments: object) -> Any:
    """Have it done: to the state directory here, or by the server elsewhere. Raises ControlError."""
    if REMOTE.get() is not None:
        return ask(directory, command, **arguments)
    with contextlib.closing(State(directory)) as state:
        return DOABLE[command](state, {**arguments, "who": getpass.getuser()})


# ---- users


def _add(directory: Path, options: argparse.Namespace) -> None:
    secret = _secret(options, options.secret_file, f"Secret of {options.name}")
    _do(directory, "user add", name=options.name, secret=secret, groups=options.group, **_mutual(options))


def _set(directory: Path, options: argparse.Namespace) -> None:
    if options.keep and options.secret_file:
        raise UsageError("--keep and --secret-file do not go together")
    if options.name not in {user["name"] for user in _do(directory, "user list")}:
        raise NoSuchUser(f"there is no user {options.name}: `blockyard user list` shows all")
    secret = None if options.keep else _secret(options, options.secret_file, f"New secret of {options.name}")
    _do(directory, "user set", name=options.name, secret=secret, groups=options.group, **_mutual(options))


def _mutual(options: argparse.Namespace) -> dict[str, str]:
    """How the target is to prove itself, where that is said. Raises UsageError."""
    if options.mutual is not None:
        back = _secret(options, options.mutual_secret_file, f"Secret of the target for {options.name}")
        return {"mutual": options.mutual, "mutual_secret": back}
    if options.mutual_secret_file is not None:
        raise UsageError("--mutual-secret-file needs --mutual")
    return {}


def _secret(options: argparse.Namespace, file: Path | None, prompt: str) -> str:
    """As text; what is none, as Python has it in names of files."""
    return _given(options, file, prompt).decode("utf-8", "surrogateescape")


def _given(options: argparse.Namespace, file: Path | None, prompt: str) -> bytes:
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


def _remove(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "user remove", name=options.name)


def _list_users(directory: Path, options: argparse.Namespace) -> None:
    rows = _do(directory, "user list")
    if options.json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    for row in rows:
        mutual = f"  mutual: {row['mutual']}" if row["mutual"] else ""
        groups = f"  groups: {', '.join(row['groups'])}" if row["groups"] else ""
        print(f"{row['name']}{mutual}{groups}")


# ---- groups


def _group_add(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "group add", group=options.group, users=options.users)


def _group_remove(directory: Path, options: argparse.Namespace) -> None:
    _do(directory, "group remove", group=options.group, users=options.users)


def _list_groups(directory: Path, options: argparse.Namespace) -> None:
    groups = _do(directory, "group list")
    if options.json:
        print(json.dumps(groups, ensure_ascii=False))
        return
    for name, members in groups.items():
        print(f"{name}: {', '.join(members) or '(nobody)'}")
