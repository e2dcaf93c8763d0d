"""The command `blockyard`."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from blockyard import __version__
from blockyard.cli import (
    accounts,
    admin,
    alua,
    backup,
    bundle,
    cdp,
    checking,
    client,
    completion,
    config,
    doctor,
    events,
    image,
    layers,
    manual,
    mapping,
    nouns,
    optical,
    pools,
    raid,
    rbd,
    schedules,
    serve,
    tape,
    top,
    users,
    volumes,
)
from blockyard.control.administration import REMOTE
from blockyard.control.errors import UsageError
from blockyard.control.remote import Remote


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (`{self.prog} --help` tells more)\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands. Each sets `run`: a function of the parsed options that returns the exit status."""
    parser: argparse.ArgumentParser = _Parser(
        prog="blockyard",
        description="An iSCSI target: turns files and block devices into SCSI disks on the network.",
        epilog="To begin: `blockyard serve` serves a 1 GiB disk. `blockyard COMMAND --help` tells all about a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_road(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve.add_command(commands)
    config.add_commands(commands)
    admin.add_commands(commands)
    checking.add_commands(pools.add_commands(commands))
    volumes.add_commands(commands)
    nouns.add_commands(commands)
    mapping.add_commands(commands)
    schedules.add_commands(commands)
    cdp.add_commands(commands)
    image.add_commands(commands)
    layers.add_commands(commands)
    rbd.add_commands(commands)
    raid.add_commands(commands)
    optical.add_commands(commands)
    alua.add_commands(commands)
    users.add_commands(commands)
    backup.add_commands(commands)
    accounts.add_commands(commands)
    tape.add_commands(commands)
    events.add_commands(commands)
    client.add_commands(commands)
    doctor.add_command(commands)
    top.add_command(commands)
    bundle.add_command(commands)
    completion.add_command(commands, build_parser)
    manual.add_command(commands, build_parser)
    return parser


def _add_road(parser: argparse.ArgumentParser) -> None:
    road = parser.add_argument_group("a server elsewhere, for commands that ask one (docs/api.md)")
    road.add_argument(
        "--url", metavar="URL", dest="elsewhere", help="its API: https://HOST[:PORT] (default: $BLOCKYARD_URL)"
    )
    road.add_argument(
        "--token-file",
        metavar="FILE",
        type=Path,
        help="where the token stands, for nobody else to read (default: $BLOCKYARD_TOKEN_FILE)",
    )
    road.add_argument("--cacert", metavar="FILE", type=Path, help="trust this certificate, or what it has signed (PEM)")
    road.add_argument(
        "--pin", metavar="PIN", help="trust the key that this is of: sha256//…, as `blockyard serve` prints it"
    )


def _take_road(options: argparse.Namespace) -> None:
    """Have commands ask a server elsewhere, if that is wanted. Raises UsageError."""
    asks = getattr(options, "asks", False)
    if options.elsewhere is not None and not asks:
        raise UsageError("that is done on this machine, and not by a server elsewhere: leave out --url, or do it there")
    url = options.elsewhere or os.environ.get("BLOCKYARD_URL")
    token = options.token_file or os.environ.get("BLOCKYARD_TOKEN_FILE")
    remote = Remote(url, None if token is None else Path(token), options.cacert, options.pin) if url and asks else None
    REMOTE.set(remote)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text in any encoding
    options = build_parser().parse_args(arguments)
    try:
        _take_road(options)
        status: int = options.run(options)
        sys.stdout.flush()
    except UsageError as error:
        print(f"blockyard: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        return 130  # 128 + SIGINT, as shells have it
    except BrokenPipeError:  # whoever read the output has seen enough
        sys.stderr.close()
        return 1
    return status
