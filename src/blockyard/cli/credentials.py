"""Who the client's commands log in as: names from arguments, secrets from anywhere but there.

Arguments are seen by every user of the machine and stay in shell histories. A secret comes from a file, an
environment variable, or whoever sits at the terminal.
"""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import sys
from pathlib import Path

from blockyard.initiator import Account, WeakSecret, parse_url
from blockyard.iscsi.chap import ALGORITHMS

SECRET = "BLOCKYARD_SECRET"  # noqa: S105  (the name of a variable)
TARGET_SECRET = "BLOCKYARD_TARGET_SECRET"  # noqa: S105


class CredentialsError(Exception):
    """A secret is not to be had, or cannot serve. The message names the way out, never the secret."""


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("authentication (CHAP)")
    group.add_argument("--user", metavar="NAME", help="log in as this user (the URL can name it too: iscsi://NAME@…)")
    group.add_argument(
        "--secret-file",
        metavar="FILE",
        help=f"where the user's secret is (default: the environment variable {SECRET}; else it is asked for)",
    )
    group.add_argument(
        "--target-user", metavar="NAME", help="have the target prove that it is this user of its own (mutual CHAP)"
    )
    group.add_argument(
        "--target-secret-file",
        metavar="FILE",
        help=f"where the target's secret is (default: the environment variable {TARGET_SECRET}; else it is asked for)",
    )

    group.add_argument(
        "--chap-algorithms",
        metavar="N,…",
        type=_algorithms,
        default=tuple(ALGORITHMS),
        help="which to offer, most wanted first: 8 SHA3-256, 7 SHA-256, 6 SHA-1, 5 MD5 (default: 8,7,6,5; tgtd needs 5)",
    )


def _algorithms(text: str) -> tuple[int, ...]:
    numbers = tuple(int(item) for item in text.split(","))
    if not set(numbers) <= set(ALGORITHMS):
        raise argparse.ArgumentTypeError(f"{text} is not made of {', '.join(map(str, ALGORITHMS))}")
    return numbers


_algorithms.__name__ = "list"  # argparse says "invalid list value"


def account_of(options: argparse.Namespace) -> Account | None:
    """The account that the arguments name; None without any. Raises CredentialsError, InvalidName for a bad URL."""
    in_url = parse_url(options.url).user if "url" in options else ""
    if options.user and in_url and options.user != in_url:
        raise CredentialsError(f"--user is {options.user!r}, but the URL names {in_url!r}")
    user = options.user or in_url
    if not user:
        if options.secret_file or options.target_user:
            raise CredentialsError("whose secret is it? Name the user with --user")
        return None
    try:
        if not options.target_user:
            return Account(user, _secret(user, options.secret_file, SECRET))
        return Account(
            user,
            _secret(user, options.secret_file, SECRET),
            options.target_user,
            _secret(f"the target ({options.target_user})", options.target_secret_file, TARGET_SECRET),
        )
    except (WeakSecret, ValueError) as error:
        raise CredentialsError(str(error)) from None


def _secret(whose: str, path: str | None, variable: str) -> bytes:
    if path is not None:
        return read_secret(Path(path))
    if variable in os.environ:
        return os.environb[variable.encode()]
    if not sys.stdin.isatty():
        raise CredentialsError(f"the secret of {whose} is needed: put it into a file or into {variable}")
    return getpass.getpass(f"secret of {whose}: ").encode()


def read_secret(path: Path) -> bytes:
    """The first line of a file that not everybody can read. Raises CredentialsError."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IRWXO:
                raise CredentialsError(f"{path}: everybody on this machine can reach this secret: chmod 600 {path}")
            return file.readline().rstrip(b"\r\n")
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error
