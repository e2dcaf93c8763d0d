"""`blockyard state`: the state directory in one file, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from blockyard.cli.parsers import Subparsers, command, family
from blockyard.control.backup import back_up, restore

_BACKUP = """\
What is in it: the configuration with its revisions, identities of disks and targets, users (their secrets sealed),
accounts (their passwords hashed), events, the audit log, reservations and saved mode pages. What is not: the data of
disks, pools and tapes; nor, without --with-keys, the key to the sealed secrets and that of the API's certificate. Keep
secrets.key in another place than the backups.

exit status:
  0  done
  1  the file cannot be written
  2  there is such a file already, or the directory is no state directory
  5  the database cannot be read

example:
  blockyard state backup /srv/backup/blockyard-$(date +%F).tar.gz
"""
_RESTORE = """\
No server may run with the state directory meanwhile. What was there is kept in a directory before-restore-… in it.

exit status:
  0  done
  2  the file is no backup, or damaged
  5  somebody serves with the state directory, or there is no key to the secrets in the backup

example:
  blockyard state restore /srv/backup/blockyard-2026-11-26.tar.gz
"""


def add_commands(commands: Subparsers[argparse.ArgumentParser]) -> None:
    """Add `state` to the commands."""
    state = family(commands, "state", "the state directory: backup and restore")
    make = command(
        state,
        "backup",
        _backup,
        "write the state directory into one file, also while it is served",
        epilog=_BACKUP,
        local=True,
    )
    make.add_argument(
        "--with-keys", action="store_true", help="with the keys: whoever has the file has all secrets then"
    )
    back = command(
        state, "restore", _restore, "make the state directory what it was at a backup", epilog=_RESTORE, local=True
    )
    back.add_argument(
        "--without-users",
        action="store_true",
        help="leave out CHAP users and one-time passwords, where the key to their secrets is lost",
    )
    for parser in (make, back):
        parser.add_argument("file", metavar="FILE", type=Path, help="the backup")


def _backup(directory: Path, options: argparse.Namespace) -> None:
    manifest = back_up(directory, options.file, with_keys=options.with_keys)
    keys = ", ".join(manifest["keys"])
    print(
        f"{options.file}: with {keys}: keep it as you would keep these"
        if keys
        else f"{options.file}: without keys: secrets.key is needed for the secrets in it, and belongs elsewhere"
    )


def _restore(directory: Path, options: argparse.Namespace) -> None:
    manifest = restore(directory, options.file, without_users=options.without_users)
    print(f"{directory} is as it was on {manifest['host']} at {manifest['time']}")
